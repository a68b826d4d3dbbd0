"""The protocol against a server that others wrote: `transformers serve` with the tiny Llama."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_fixtures import Command
from facts import free_port, listens, questions
from small_run import wait_for
from transformers import AutoTokenizer

from knife.models.source import find_model

# The tiny Llama has no template for chats of its own.
TEMPLATE = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Serve the tiny Llama; yield address and model."""
    folder = tmp_path_factory.mktemp("served") / "tiny"
    source = find_model("tiny-llama", "model").folder
    folder.mkdir()
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    port, program = free_port(), Path(sys.executable).with_name("transformers")
    words = ["serve", str(folder), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with subprocess.Popen(
        [program, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            wait_for(lambda: process.poll() is not None or listens(port))
            yield f"http://127.0.0.1:{port}/v1", folder
        finally:
            process.terminate()


def test_a_real_model_writes(served: tuple[str, Path], command: Command, tmp_path: Path) -> None:
    url, model = served
    out = tmp_path / "out"
    words = ["data", "write", questions(tmp_path / "questions", 6), "--out", out]
    words += [f"write.url={url}", f"write.model={model}", "write.max_tokens=24"]
    # Few of its texts are of use, or none: that is the status.
    ended = command(*words, "write.in_flight=2")
    counts = json.loads((out / "written" / "record.json").read_text())["splits"]["train"]
    assert counts["written"] + sum(counts["dropped"].values()) == 6
    assert ended.status == (0 if counts["written"] else 1)
    (file,) = (out / "written" / "answers").iterdir()
    answers = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(answers) == 6
    for answer in answers:
        assert answer["text"]
        assert answer["finish"] in ("stop", "length")
        assert 0 < answer["written"] <= 24
        assert 40 < answer["read"] < 200
        assert answer["counted"]


def test_a_real_server_says_that_a_model_is_wrong(
    served: tuple[str, Path], command: Command, tmp_path: Path
) -> None:
    words = ["data", "write", questions(tmp_path / "questions", 6), "--out", tmp_path / "out"]
    ended = command(*words, f"write.url={served[0]}", "write.model=another")
    assert ended.status == 1
    assert "6 requests: status 400: Server is pinned to" in ended.err
    assert not (tmp_path / "out" / "train.jsonl").exists()
