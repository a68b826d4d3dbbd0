"""Every sweep in tune/ can be planned, with small stand-ins for models and data of the hub."""

import json
from pathlib import Path

import pytest
from command_fixtures import Command
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer

from knife.config.run import World
from knife.data.creatures import creatures
from knife.data.jsonl import write_examples
from knife.models.source import EMBEDDED

FOLDER = Path(__file__).parents[2] / "tune"
SWEEPS = sorted(FOLDER.glob("*.yaml"))
# Numbers of trials, students of the search, distinct teachers and refused combinations.
EXPECTED = {
    "smoke": (4, 4, 1, 0),
    "alignment": (24, 24, 1, 0),
    "low-resource": (6, 18, 3, 0),
    "rationale-quality": (9, 27, 4, 1),
    # Two tasks x three pairs of models x five methods x three fractions; teacher_init has no
    # pair of different models.
    "paper": (84, 420, 12, 6),
}


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return stand-in folders for the hub's names in the sweeps."""
    folder = tmp_path_factory.mktemp("hub")
    for seed, name in enumerate(("strategyqa", "openbookqa")):
        splits = creatures(World(train=40, dev=20, test=20, seed=seed))
        (folder / name).mkdir()
        for split in ("train", "dev", "test"):
            write_examples(folder / name / f"{split}.jsonl", getattr(splits, split))
    large = AutoConfig.from_pretrained(EMBEDDED["tiny-t5"])
    large.d_model, large.d_ff = 96, 128
    AutoModelForSeq2SeqLM.from_config(large).save_pretrained(folder / "large")
    AutoTokenizer.from_pretrained(EMBEDDED["tiny-t5"]).save_pretrained(folder / "large")
    return {
        "google-t5/t5-base": "tiny-t5",
        "google-t5/t5-large": str(folder / "large"),
        "[strategyqa, openbookqa]": f"[{folder / 'strategyqa'}, {folder / 'openbookqa'}]",
    }


def test_all_sweeps_are_expected() -> None:
    assert {path.stem for path in SWEEPS} == set(EXPECTED)
    table = (FOLDER / "README.md").read_text()
    for path in SWEEPS:
        assert f"[{path.name}]({path.name})" in table
        head = path.read_text().partition("name:")[0]
        assert head.startswith("# ")
        assert f"knife tune tune/{path.name}" in head


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_ready_sweep_is_planned(
    path: Path, stand_ins: dict[str, str], command: Command, tmp_path: Path
) -> None:
    text = path.read_text()
    for name, folder in stand_ins.items():
        text = text.replace(name, folder)
    (tmp_path / path.name).write_text(text)
    ended = command("tune", tmp_path / path.name, "--dry-run", "--json", f"store={tmp_path / 's'}")
    assert ended.status == 0, ended.err
    found = json.loads(ended.out)
    counts = (found["trials"], found["students"]["search"], found["teachers"])
    assert (*counts, len(found["refused"])) == EXPECTED[path.stem]
    assert found["state"] == "new"
    assert found["seconds"] > 0
    assert not (tmp_path / "s" / "sweeps").exists()
