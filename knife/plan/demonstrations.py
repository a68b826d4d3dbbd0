"""Checks that few-shot demonstrations fit before the task inputs of `prompt` and `retrieve`."""

from collections.abc import Sequence
from typing import Any

from knife.config.run import RunConfig
from knife.core.errors import UserError
from knife.data.demonstrations import Demonstrations, draw_shots, put_before
from knife.data.example import Splits
from knife.data.tokens import UNBOUNDED, Tokens

# If more than this share of questions lose demonstrations, the prompt is not the requested one.
REFUSED_SHARE = 0.1


def demonstration_limit(
    config: RunConfig, method: str, positions: int | None, tokenizer: Any, answer: int
) -> int:
    """Return the most tokens of demonstrations and task input; 0 for methods without any.

    `retrieve` trains, so its limit is `data.max_tokens`; `prompt` may use all of the model's
    `positions` except for the `answer` tokens at the end.
    """
    if method == "retrieve":
        return config.data.max_tokens
    if method != "prompt":
        return 0
    return min(positions or UNBOUNDED, int(tokenizer.model_max_length)) - answer


def with_demonstrations(
    config: RunConfig,
    method: str,
    splits: Splits,
    tokens: Sequence[Tokens],
    tokenizer: Any,
    most: int,
) -> tuple[list[Tokens], list[str]]:
    """Return the task inputs of all splits after their demonstrations, and notes for the user.

    Raises:
        UserError: the shots of `prompt` do not fit for too many questions, or there are fewer
            training examples than shots.
    """
    if method not in ("prompt", "retrieve"):
        return list(tokens), []
    if method == "retrieve":
        texts = Demonstrations([], splits.train).texts(splits.everything)
        placed, lacking = put_before(tokens, texts, tokenizer, most)
        if not lacking:
            return placed, []
        return placed, [
            f"retrieve: {lacking} of {len(tokens)} questions have no room for the most "
            f"similar training example in data.max_tokens={most}; they get no demonstration"
        ]
    shots, rationales = config.prompt.shots, config.prompt.rationales
    notes: list[str] = []
    for seed in config.seeds:
        drawn = draw_shots(splits.train, shots, seed, rationales=rationales)
        if len(drawn) < shots:
            those = "training examples with a rationale" if rationales else "training examples"
            raise UserError(
                f"prompt.shots: must be at most {len(drawn)}, the {those}, but got {shots}"
            )
        placed, lacking = put_before(tokens, [drawn for _ in tokens], tokenizer, most)
        share = lacking / len(tokens)
        said = (
            f"{lacking} of {len(tokens)} questions ({100 * share:.1f} %) have no room "
            f"for {shots} demonstrations in the {most} tokens that model.student reads"
        )
        if share > REFUSED_SHARE:
            without = " or prompt.rationales=false" if rationales else ""
            raise UserError(f"prompt.shots: {said}; set fewer{without}")
        if lacking:
            notes.append(f"prompt: {said}; these get fewer")
    return placed, notes
