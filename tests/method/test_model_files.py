"""Model folders as users have them: damaged, of something else, or fine; checked before a start."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_fixtures import Command
from safetensors.torch import load_file, save_file
from small_run import small_config
from transformers import AutoTokenizer

from knife.core.errors import UserError
from knife.models.check import check_model
from knife.models.load import load_backbone
from knife.models.source import EMBEDDED
from knife.plan.plan import plan_run

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123456\n"
INDEX, WEIGHTS = "model.safetensors.index.json", "model.safetensors"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a copy of the package's T5."""
    return shutil.copytree(EMBEDDED["tiny-t5"], tmp_path / "model")


def write(name: str, content: str | bytes) -> Callable[[Path], None]:
    """Return a function that replaces a file of a folder."""
    data = content.encode() if isinstance(content, str) else content

    def change(folder: Path) -> None:
        (folder / name).write_bytes(data)

    return change


def configure(**values: Any) -> Callable[[Path], None]:
    """Return a function that changes config.json; None removes a value."""

    def change(folder: Path) -> None:
        path = folder / "config.json"
        known = json.loads(path.read_text()) | values
        path.write_text(json.dumps({k: v for k, v in known.items() if v is not None}))

    return change


def cut(folder: Path) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def longer(folder: Path) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes() + b"00")


def unhead(folder: Path) -> None:
    path = folder / WEIGHTS
    path.write_bytes((2**40).to_bytes(8, "little") + path.read_bytes()[8:])


def unlink(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to("../../blobs/0123")


def binary(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')


def adapter_alone(folder: Path) -> None:
    adapter(folder)
    (folder / "config.json").unlink()
    (folder / WEIGHTS).rename(folder / "adapter_model.safetensors")


def shards(folder: Path) -> dict[str, Any]:
    """Split a model's weights into two shards, and return their index."""
    state = load_file(folder / WEIGHTS)
    names = sorted(state)
    index: dict[str, Any] = {"metadata": {}, "weight_map": {}}
    for number, part in enumerate((names[::2], names[1::2])):
        shard = f"model-0000{number + 1}-of-00002.safetensors"
        save_file({name: state[name] for name in part}, folder / shard, {"format": "pt"})
        index["weight_map"] |= dict.fromkeys(part, shard)
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_text(json.dumps(index))
    return index


def missing_shard(folder: Path) -> None:
    shards(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def cut_shard(folder: Path) -> None:
    shards(folder)
    write("model-00002-of-00002.safetensors", b"\x08\0\0\0\0\0\0\0{}")(folder)


def other_shard(folder: Path) -> None:
    index = shards(folder)
    index["weight_map"]["a.weight"] = "model-00001-of-00002.safetensors"
    (folder / INDEX).write_text(json.dumps(index))


def swapped_shards(folder: Path) -> None:
    index = shards(folder)
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    where = index["weight_map"]
    index["weight_map"] = {name: names[shard == names[0]] for name, shard in where.items()}
    (folder / INDEX).write_text(json.dumps(index))


def broken_index(folder: Path) -> None:
    shards(folder)
    (folder / INDEX).write_text("{broken")


def empty_index(folder: Path) -> None:
    shards(folder)
    (folder / INDEX).write_text("{}")


def more_tokens(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["zyx", "zyw"])
    tokenizer.save_pretrained(folder)


def other_tokenizer(folder: Path) -> None:
    """Use the tokenizer of a model that has more tokens than this one has embeddings."""
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text())
    vocabulary = values["model"]["vocab"]
    last = len(vocabulary)
    vocabulary |= {f"x{number}": last + number for number in range(5)}
    path.write_text(json.dumps(values))


WRONG: list[tuple[Callable[[Path], None], str]] = [
    (write(WEIGHTS, POINTER), "model.safetensors is a git LFS pointer"),
    (write("tokenizer.json", POINTER), "tokenizer.json is a git LFS pointer"),
    (write("config.json", POINTER), "config.json is a git LFS pointer"),
    (write(WEIGHTS, ""), "model.safetensors is empty"),
    (write("config.json", ""), "config.json is empty"),
    (write("tokenizer.json", ""), "tokenizer.json is empty"),
    (write("config.json", "{broken"), "config.json is not JSON"),
    (write("config.json", "[1]"), "config.json must be a JSON object, but is a list"),
    (write("config.json", b"\xff\xfe{"), "config.json is not JSON"),
    (write("tokenizer.json", "{broken"), "the tokenizer in"),
    (write("tokenizer.json", "{}"), "the tokenizer in"),
    (write("tokenizer_config.json", "{broken"), "tokenizer_config.json is not JSON"),
    (write("generation_config.json", "{broken"), "generation_config.json is not JSON"),
    (cut, "model.safetensors is not a complete safetensors file"),
    (longer, "model.safetensors is not a complete safetensors file"),
    (unhead, "model.safetensors is not a complete safetensors file"),
    (write(WEIGHTS, b"PK\x03\x04 a zip"), "model.safetensors is not a complete safetensors file"),
    (unlink, "model.safetensors is a link to a missing file"),
    (binary, "has no weights as model.safetensors"),
    (adapter, "has an adapter"),
    (adapter_alone, "has an adapter"),
    (missing_shard, "of which 1 is missing: model-00002-of-00002.safetensors"),
    (cut_shard, "model-00002-of-00002.safetensors is not a complete safetensors file"),
    (other_shard, "names 1 tensors that are not in their shard: a.weight"),
    (swapped_shards, "tensors that are not in their shard"),
    (broken_index, "model.safetensors.index.json is not JSON"),
    (empty_index, "has no weight_map"),
    (more_tokens, "2 tokens of its tokenizer (zyw, zyx) are beyond"),
    (other_tokenizer, "5 tokens of its tokenizer (x0, x1, x2 and 2 more) are beyond"),
    (configure(eos_token_id=5), "eos_token_id is 5 in config.json but 1 in the tokenizer"),
    (configure(decoder_start_token_id=None), "config.json has no decoder_start_token_id"),
    (configure(model_type="mine"), "config.json is not a known model"),
    (configure(model_type="mine", auto_map={"AutoConfig": "code.C"}), "config.json is not a known"),
    (configure(model_type=None), "config.json is not a known model"),
    (configure(num_heads="four"), "config.json"),
    (configure(d_model=63), "of another shape"),
]


@pytest.mark.parametrize(("spoil", "said"), WRONG, ids=[said[:60] for _, said in WRONG])
def test_a_model_folder_with_a_error_is_refused(
    spoil: Callable[[Path], None], said: str, model: Path, tmp_path: Path
) -> None:
    spoil(model)
    config = small_config(
        tmp_path, model={"student": str(model), "teacher": str(model)}, methods=["finetune"]
    )
    with pytest.raises(UserError) as found:
        plan_run(config)
    (error,) = found.value.errors
    assert error.startswith("model.student: ")
    assert said in error
    assert "\n" not in error
    assert str(model) in error


@pytest.mark.parametrize("words", [[], ["--dry-run"]], ids=["run", "dry-run"])
def test_the_command_says_so_in_one_line(
    words: list[str], model: Path, command: Command, tmp_path: Path
) -> None:
    write(WEIGHTS, POINTER)(model)
    store = tmp_path / "store"
    ended = command(
        "run", "demo", "methods=[finetune]", f"model.student={model}", f"store={store}", *words
    )
    (error,) = ended.errors
    assert error.startswith(f"model.student: {model}/model.safetensors is a git LFS pointer")
    assert not (store / "runs").exists()


def test_a_file_is_no_model_folder(model: Path, tmp_path: Path) -> None:
    config = small_config(tmp_path, model={"student": str(model / WEIGHTS)}, methods=["finetune"])
    with pytest.raises(UserError, match=r"model.safetensors' is a file; give the model's folder"):
        plan_run(config)


def test_what_a_folder_may_be_like_too(model: Path, tmp_path: Path) -> None:
    """Shards, more embeddings than tokens, additional files, links to existing files."""
    state = load_backbone(model).state_dict()
    shards(model)
    (model / "README.txt").write_text("")
    (model / "trainer_state.json").write_text("{broken")
    (model / "training_args.bin").write_bytes(b"x")
    assert check_model(model, "model.student").weights.share == 1.0
    assert all(torch.equal(t, state[n]) for n, t in load_backbone(model).state_dict().items())

    linked = tmp_path / "linked"
    linked.mkdir()
    for path in model.iterdir():
        (linked / path.name).symlink_to(path)
    assert check_model(linked, "model.student").weights.share == 1.0

    padded = shutil.copytree(EMBEDDED["tiny-t5"], tmp_path / "padded")
    weights = load_file(padded / WEIGHTS)
    table = weights["shared.weight"]
    weights["shared.weight"] = torch.cat([table, table[:7]])
    save_file(weights, padded / WEIGHTS, {"format": "pt"})
    configure(vocab_size=len(table) + 7)(padded)
    assert check_model(padded, "model.student").weights.share == 1.0
