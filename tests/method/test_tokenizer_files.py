"""Folders whose tokenizer is a sentencepiece model alone: read, or refused with a reason."""

import json
import shutil
from pathlib import Path

import pytest
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from tiny_families import decoder_config, save

from knife.core.errors import UserError
from knife.models.check import check_model
from knife.models.source import EMBEDDED
from knife.models.tokenizer import load_tokenizer

TEXTS = ["the frog lays eggs in water", "a toad is green", "question choices explanation"]
# A config of each kind of model, as of the package's own models.
CONFIGS = {"t5": "tiny-t5", "umt5": "tiny-t5", "llama": "tiny-llama", "xlm-roberta": "tiny-bert"}


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return a sentencepiece model of some words."""
    folder = tmp_path_factory.mktemp("pieces")
    (folder / "texts.txt").write_text("\n".join(TEXTS * 50))
    SentencePieceTrainer.train(
        input=str(folder / "texts.txt"), model_prefix=str(folder / "m"), vocab_size=30,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    return (folder / "m.model").read_bytes()


def folder_of(kind: str, name: str, content: bytes, folder: Path) -> Path:
    """Write a model's config and a sentencepiece model into a folder."""
    config = json.loads((EMBEDDED[CONFIGS[kind]] / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": kind}))
    (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("t5", "spiece.model"),
        ("xlm-roberta", "sentencepiece.bpe.model"),
    ],
)
def test_a_sentencepiece_model_is_enough_under_the_name_that_its_kind_has(
    kind: str, name: str, pieces: bytes, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(folder_of(kind, name, pieces, tmp_path), "model.student")
    expected = SentencePieceProcessor(model_proto=pieces).encode(TEXTS[0], out_type=str)
    assert tokenizer.tokenize(TEXTS[0]) == expected


def test_a_tokenizer_model_needs_the_name_of_its_class(pieces: bytes, tmp_path: Path) -> None:
    """Without it, transformers would leave out the mark of a space before the first word."""
    folder = folder_of("llama", "tokenizer.model", pieces, tmp_path)
    with pytest.raises(UserError, match=r"has tokenizer.model but no tokenizer_config.json"):
        load_tokenizer(folder, "model.student")
    config = {"tokenizer_class": "LlamaTokenizer", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    expected = SentencePieceProcessor(model_proto=pieces).encode(TEXTS[0], out_type=str)
    assert load_tokenizer(folder, "model.student").tokenize(TEXTS[0]) == expected


@pytest.mark.parametrize(
    ("kind", "name", "reads"),
    [
        ("xlm-roberta", "spiece.model", "XLMRobertaTokenizer from sentencepiece.bpe.model or"),
        ("t5", "sentencepiece.bpe.model", "T5Tokenizer from spiece.model or tokenizer.json"),
    ],
)
def test_a_file_of_another_name_is_not_taken_for_an_empty_vocabulary(
    kind: str, name: str, reads: str, pieces: bytes, tmp_path: Path
) -> None:
    """transformers would make a tokenizer to which every word is unknown."""
    with pytest.raises(UserError, match=f"has no vocabulary: .* {reads}.* but there is {name}; "):
        load_tokenizer(folder_of(kind, name, pieces, tmp_path), "model.student")


def test_a_tokenizer_that_cannot_be_built_says_the_whole_reason(
    pieces: bytes, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as found:
        load_tokenizer(folder_of("umt5", "spiece.model", pieces, tmp_path), "model.student")
    (line,) = found.value.errors
    assert "cannot be read: Couldn't instantiate the backend tokenizer from one of: (1) a" in line
    assert "to convert a slow tokenizer to a fast one.; it has spiece.model; save the" in line


def test_a_tokenizer_that_closes_no_text_is_refused(tiny_gpt2: Path, tmp_path: Path) -> None:
    folder = folder_of(
        "t5", "tokenizer.json", (tiny_gpt2 / "tokenizer.json").read_bytes(), tmp_path
    )
    shutil.copy(tiny_gpt2 / "tokenizer_config.json", folder)
    with pytest.raises(UserError, match="ends no text with a special token, by which this model"):
        load_tokenizer(folder, "model.student")


def test_a_tokenizer_that_is_read_in_another_way_is_refused(
    tiny_llama: Path, tmp_path: Path
) -> None:
    """transformers reads every tokenizer.json beside a Qwen2 as a byte-level one."""
    assert check_model(tiny_llama, "model.student")
    word_pieces = load_tokenizer(EMBEDDED["tiny-llama"], "model")
    save(decoder_config("qwen2", len(word_pieces) + 8), word_pieces, tmp_path)
    with pytest.raises(UserError) as caught:
        check_model(tmp_path, "model.student")
    assert caught.value.errors == [
        f"model.student: {tmp_path}: since its config.json says 'qwen2', transformers reads its "
        "tokenizer.json as a Qwen2Tokenizer, which makes other tokens of a text than the file "
        "does; give a model whose tokenizer was made for models of this type"
    ]
    byte_level = load_tokenizer(tiny_llama, "model")
    save(decoder_config("qwen2", len(byte_level) + 8), byte_level, tmp_path / "other")
    assert check_model(tmp_path / "other", "model.student")
