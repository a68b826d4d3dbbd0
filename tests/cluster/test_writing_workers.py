"""A model of a folder writes on several Ray workers, and so does a server's."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from command_fixtures import Command
from facts import KEY, facts_server, questions

from knife.cluster.local import ray_folder
from knife.data.jsonl import read_examples


def ray_files() -> Iterator[bytes]:
    """Yield what is in the files of Ray's sessions; others may come and go meanwhile."""
    for path in ray_folder().rglob("*"):
        with suppress(OSError):
            if path.is_file():
                yield path.read_bytes()


def test_two_workers_keep_to_one_budget(command: Command, tmp_path: Path) -> None:
    """A request takes far less than it may: so the budget is used up in several rounds."""
    out = tmp_path / "out"
    words: list[str | Path] = ["write.workers=2", "write.in_flight=4", "write.budget.tokens=9000"]
    with facts_server() as facts:
        source = questions(tmp_path / "questions", 120)
        ended = command("data", "write", source, "--out", out, *words, *facts.words)
    assert ended.status == 1
    assert "are not answered: the budget allows no further request" in ended.err
    used = json.loads((out / "written" / "record.json").read_text())["tokens"]
    assert 8500 < used["read"] + used["written"] <= 9000


@pytest.mark.parametrize("local", [False, True])
def test_two_workers_write(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: bool
) -> None:
    """Each does a part, and no file of Ray's has the server's key."""
    monkeypatch.setenv("KNIFE_WRITE_KEY", KEY)
    out = tmp_path / "out"
    words: list[str | Path] = ["write.workers=2", "write.in_flight=4", "write.max_tokens=30"]
    words = ["data", "write", questions(tmp_path / "questions", 120), "--out", out, *words]
    if local:
        ended = command(*words, "write.model=tiny-llama", "write.drop.repeated=false")
    else:
        with facts_server("--latency", "0.05", "--key", KEY) as facts:
            ended = command(*words, *facts.words)
            assert facts.counts() == {"requests": 120, "answered": 120, "again": 0}
    assert ended.status == 0
    files = [path.read_text().splitlines() for path in out.glob("written/answers/*.jsonl")]
    keys = [json.loads(line)["key"] for lines in files for line in lines]
    assert len(set(keys)) == len(keys) == 120
    # The driver asks a server for the first one.
    assert len(files) == (2 if local else 3)
    examples = read_examples(out / "train.jsonl")
    assert [each.id for each in examples] == [
        each.id for each in read_examples(tmp_path / "questions" / "train.jsonl")
    ]
    assert sum(each.rationale is not None for each in examples) > 60
    logs = list(ray_files())
    assert len(logs) > 10
    assert not any(KEY.encode() in log for log in logs)
