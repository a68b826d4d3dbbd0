"""Write docs/families.md: what a tiny random model of each family does in the self-test.

    PYTHONPATH=tests python scripts/families.py

Takes some minutes. The self-test is what `knife run` does before it uses a model; the tiny models
are those of the tests.
"""

import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import transformers
from small import EXAMPLES, save_tiny_llama
from small_seq2seq import KINDS, save_seq2seq
from tiny_families import DECODERS, ENCODERS, RELATIVE, decoder_config, encoder_config, t5_config

from knife.models.families import way
from knife.models.quiet import quiet
from knife.models.self_test import self_test
from knife.models.source import EMBEDDED
from knife.models.tokenizer import load_tokenizer, model_config

PAGE = Path(__file__).resolve().parents[1] / "docs" / "families.md"
LIMIT = 256


def tiny_models(folder: Path) -> Iterator[tuple[str, Any, Any]]:
    """Yield the name, the config and a tokenizer of each family."""
    of = {name: load_tokenizer(EMBEDDED[name], "model") for name in ("tiny-bert", "tiny-t5")}
    # Qwen2's tokenizer is byte-level, whatever it is made of.
    save_tiny_llama(folder / "tiny-llama", EXAMPLES)
    of["tiny-llama"] = load_tokenizer(folder / "tiny-llama", "model")
    for make, kinds, name in (
        (t5_config, RELATIVE, "tiny-t5"),
        (encoder_config, ENCODERS, "tiny-bert"),
        (decoder_config, DECODERS, "tiny-llama"),
    ):
        for kind in kinds:
            yield kind, make(kind, len(of[name]) + 8), of[name]
    for kind in KINDS:
        saved = save_seq2seq(kind, folder / kind, EXAMPLES)
        yield kind, model_config(saved, "model"), load_tokenizer(saved, "model")


def results() -> dict[str, tuple[str, list[str]]]:
    """Return for each family how it reads and what it fails in."""
    with tempfile.TemporaryDirectory() as name:
        return {
            kind: (way(config), self_test(config, tokenizer, LIMIT))
            for kind, config, tokenizer in tiny_models(Path(name))
        }


def page(found: dict[str, tuple[str, list[str]]]) -> str:
    """Return the page as Markdown."""
    passed = sum(not failures for _, failures in found.values())
    head = f"""# Model families

A tiny random model of each family in the self-test, which `knife run` does with every model before
it trains ([backbones](backbones.md#self-test)): {passed} of {len(found)} families pass, with
transformers {transformers.__version__}. A family that is not listed here is tried in the same way.
Nothing here says how well a family learns from rationales. `PYTHONPATH=tests python
scripts/families.py` writes this page.

| family (`model_type`) | how it reads | self-test |
|---|---|---|
"""
    rows = [
        f"| {kind} | {how} | {'passes' if not failures else 'refused: ' + '; '.join(failures)} |\n"
        for kind, (how, failures) in sorted(found.items())
    ]
    return head + "".join(rows)


def main() -> None:
    """Write the page."""
    quiet()
    warnings.simplefilter("ignore")
    PAGE.write_text(page(results()))


if __name__ == "__main__":
    main()
