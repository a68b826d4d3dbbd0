"""Data for people: read with a run's settings, checked, and shown as the model sees them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from knife.config.overrides import merge, read_overrides
from knife.config.run import Data, RunConfig, parse
from knife.core.errors import UserError
from knife.data import treatment
from knife.data.example import Example, Splits
from knife.data.examples import Examples
from knife.data.line_errors import show
from knife.data.source import load_source


def read_data(source: str, overrides: list[str]) -> Data:
    """Return the data settings of `source` with `data.KEY=VALUE` overrides.

    Raises:
        UserError: with every error in the overrides.
    """
    return read_settings(source, overrides, ["data"]).data


def read_settings(source: str, overrides: list[str], sections: Sequence[str]) -> RunConfig:
    """Return a run config for `source` with overrides of some of its sections.

    Raises:
        UserError: with every error in the overrides.
    """
    changes = read_overrides(overrides)
    others = [key for key in changes if key not in sections]
    if others:
        known = " and ".join(f"{section}.KEY=VALUE" for section in sections)
        raise UserError(*(f"{key}: only {known} can be set here" for key in others))
    # A complete run config, so that keys and messages are those of `knife run`.
    values = {"name": "data", "model": {"teacher": "tiny-t5", "student": "tiny-t5"}}
    return parse(merge(values | {"data": {"source": source}}, changes))


def used_splits(data: Data, model: str | None = None) -> Splits:
    """Return the splits as a run uses them, but train in the source's order; if a model is
    given, without what is too long for it or with that cut, as `data.too_long` says.

    Raises:
        UserError: with every error in the source; or the model has no tokenizer.
    """
    whole = load_source(data)
    if model and data.too_long != "refuse":
        from knife.data.fitting import fitted

        whole = fitted(whole, [_tokenizer(model)], data)
    used = treatment.used_splits(whole, data)
    index = {identity: row for row, identity in enumerate(Examples.of(whole.train).values("id"))}
    train = Examples.of(used.train)
    return replace(used, train=train.take(np.argsort([index[one] for one in train.values("id")])))


def shown(examples: Sequence[Example], data: Data, model: str | None) -> list[str]:
    """Return lines with examples as the teacher reads them; with a model's name, as its tokens.

    Raises:
        UserError: the model has no tokenizer, or a task input is too long for `data.max_tokens`.
    """
    from knife.data.tokens import rationale_text, task_input_text

    tokens = _tokens(examples, data, model) if model else [[] for _ in examples]
    lines: list[str] = []
    for example, parts in zip(examples, tokens, strict=True):
        answer = example.choices[example.answer]
        lines += [f"id:         {example.id}", f"task input: {task_input_text(example)[0]}"]
        if example.rationale is not None:
            lines.append(f"rationale:  {rationale_text(example.rationale)}")
        lines += [f"answer:     {answer}", *parts, ""]
    return lines


def _tokens(examples: Sequence[Example], data: Data, model: str) -> list[list[str]]:
    """Return lines for each example: tokens of its task input and rationale, and those cut off."""
    from knife.data.same_tokens import first_alike
    from knife.data.tokenizing import tokenize
    from knife.data.tokens import UNBOUNDED

    tokenizer = _tokenizer(model)
    kept, _ = tokenize(examples, tokenizer, data.max_tokens)
    whole, _ = tokenize(examples, tokenizer, UNBOUNDED)
    rows = []
    for example, short, full in zip(examples, kept, whole, strict=True):
        # The closing token moves to where the rationale was cut.
        room = len(short.rationale_ids)
        cut = full.rationale_ids[max(room - 1, 0) : -1] if room < len(full.rationale_ids) else []
        parts = {"task input": short.input_ids, "rationale": short.rationale_ids, "cut": cut}
        rows.append(
            [
                f"  {len(ids):>4} tokens, {name}: {' '.join(tokenizer.convert_ids_to_tokens(ids))}"
                for name, ids in parts.items()
                if ids
            ]
            + [
                f"  the same tokens: {show(example.choices[first])} and {show(choice)}"
                for choice, index, first in zip(
                    example.choices, range(len(example.choices)), first_alike(short), strict=False
                )
                if first != index
            ]
        )
    return rows


def _tokenizer(model: str) -> Any:
    from knife.models.source import find_model
    from knife.models.tokenizer import load_tokenizer

    return load_tokenizer(find_model(model, "--model").folder, "--model")
