"""Checks that the files of a model folder are intact, without building the model."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

# The import takes seconds.
if TYPE_CHECKING:
    from torch import Tensor

# Weights as safetensors, configs and tokenizers: nothing executable.
FILES = ("*.json", "*.safetensors", "*.model", "*.txt")
ANSWER_HEAD = "answer_head.safetensors"
SETTINGS = "knife.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_ADAPTER = "adapter_config.json"
# What transformers reads besides the tokenizer's own file, which reports its own errors.
_JSON = ("config.json", "generation_config.json", "tokenizer_config.json", INDEX, SETTINGS)
_POINTER = b"version https://git-lfs.github.com/spec/"
AGAIN = "copy or download it again"


@dataclass(frozen=True, slots=True)
class Header:
    """A tensor's entry in a safetensors file: the file, its name there, type (`F32`, …), shape."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]


def damage(folder: Path) -> list[str]:
    """Return what is wrong with the files from which a model or a tokenizer is read."""
    if not os.access(folder, os.R_OK | os.X_OK):
        return [f"{folder} is not readable for this user"]
    files = sorted({path for pattern in FILES for path in folder.glob(pattern)})
    return [error for path in files if (error := _damage(path))]


def _damage(path: Path) -> str | None:
    if path.is_symlink() and not path.exists():
        return f"{path} is a link to a missing file ({path.readlink()}); {AGAIN}"
    if not path.is_file():
        return None
    if not os.access(path, os.R_OK):
        return f"{path} is not readable for this user"
    with path.open("rb") as file:
        start = file.read(len(_POINTER))
    if start == _POINTER:
        return (
            f"{path} is a git LFS pointer instead of the file; "
            f"run `git lfs pull` in its repository, or {AGAIN}"
        )
    if not start and path.suffix != ".txt":
        return f"{path} is empty; {AGAIN}"
    if path.name in _JSON:
        try:
            values = json.loads(path.read_bytes())
        except ValueError as error:
            return f"{path} is not JSON: {error}; {AGAIN}"
        if not isinstance(values, dict):
            return f"{path} must be a JSON object, but is a {type(values).__name__}; {AGAIN}"
    return None


def adapter_errors(folder: Path) -> list[str]:
    """Return an error if a folder has an adapter, whose weights peft would apply to the model."""
    if not (folder / _ADAPTER).is_file():
        return []
    return [
        f"{folder} has an adapter ({_ADAPTER}), which is not a complete model; merge it into its "
        "base model (peft's merge_and_unload) and save the result in another folder"
    ]


def weight_headers(folder: Path) -> tuple[dict[str, Header], list[str]]:
    """Return the tensors of a model's weight files by name, and what is wrong with these files.

    No weights are read.
    """
    if (folder / WEIGHTS).is_file():
        return tensor_headers([folder / WEIGHTS])
    if (folder / INDEX).is_file():
        return _sharded(folder)
    others = sorted(
        path.name
        for pattern in ("*.safetensors", "*.bin", "*.pt", "*.ckpt", "*.h5", "*.msgpack", "*.gguf")
        for path in folder.glob(pattern)
        if path.name != ANSWER_HEAD
    )
    there = f" (it has {', '.join(others[:3])})" if others else ""
    return {}, [
        f"{folder} has no weights as {WEIGHTS} or {INDEX}, the only ones that are read{there}; "
        "load the model and save it with save_pretrained"
    ]


def _sharded(folder: Path) -> tuple[dict[str, Header], list[str]]:
    """Return the tensors of an index and its shards, and what is wrong with these files."""
    where: Any = json.loads((folder / INDEX).read_bytes()).get("weight_map")
    if not isinstance(where, dict) or not where:
        return {}, [f"{folder / INDEX} has no weight_map, which names the shards; {AGAIN}"]
    shards = sorted({str(shard) for shard in where.values()})
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        return {}, [
            f"{folder / INDEX} names {len(shards)} shards, of which {len(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing: {some(missing)}; "
            "copy or download what is missing"
        ]
    headers, errors = tensor_headers(folder / shard for shard in shards)
    held = {(name, header.file.name) for name, header in headers.items()}
    lost = [name for name, shard in where.items() if (name, Path(shard).name) not in held]
    if lost and not errors:
        errors.append(
            f"{folder / INDEX} names {len(lost)} tensors that are not in their shard: "
            f"{some(lost)}; index and shards belong to different models: {AGAIN}"
        )
    return headers, errors


def tensor_headers(paths: Iterable[Path]) -> tuple[dict[str, Header], list[str]]:
    """Return the tensors of safetensors files by name, and what is wrong with these files."""
    headers: dict[str, Header] = {}
    errors = []
    for path in paths:
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118  (no dict)
                    tensor = file.get_slice(name)
                    shape = tuple(tensor.get_shape())
                    headers[name] = Header(path, name, str(tensor.get_dtype()), shape)
        except (SafetensorError, OSError) as error:
            errors.append(
                f"{path} is not a complete safetensors file ({path.stat().st_size:,} bytes: "
                f"{error}); {AGAIN}"
            )
    return headers, errors


def read_tensor(headers: Mapping[str, Header], name: str) -> Tensor:
    """Read the values of a tensor."""
    with safe_open(headers[name].file, framework="pt") as file:
        tensor: Tensor = file.get_tensor(headers[name].name)
    return tensor


def some(names: Iterable[str], most: int = 3) -> str:
    """Format the first few names, and the number of further ones."""
    names = sorted(names)
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
