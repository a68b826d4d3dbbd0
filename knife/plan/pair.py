"""What teacher and student must have in common, by the method and `align`."""

from knife.config.run import RunConfig
from knife.models.check import CheckedModel
from knife.models.families import family
from knife.plan.prepared import Tokenized

_UNLIKE = "teacher and student split task inputs or choices into different tokens"


def pair_errors(
    config: RunConfig,
    method: str,
    student: tuple[CheckedModel, Tokenized],
    teacher: tuple[CheckedModel, Tokenized],
) -> list[str]:
    """Return errors for settings of `align` by which these two models cannot be compared."""
    if method != "knife":
        return []
    (own, own_tokens), (other, other_tokens) = student, teacher
    unlike = own_tokens.facts.digest != other_tokens.facts.digest
    align, errors = config.align, []
    if unlike and align.input.weight and align.input.tokens in ("all", "content"):
        errors.append(
            f"align.input.tokens: is {align.input.tokens!r}, but {_UNLIKE}, so their states cannot "
            "be compared token by token; set it to words or to mean, or use models with the same "
            "tokenizer (vocabulary sizes may differ, as long as these examples become the same "
            "tokens)"
        )
    if not align.output.weight or align.output.target != "states":
        return errors
    kinds = [model.config.model_type for model in (other, own)]
    if unlike or family(own.config) != family(other.config):
        why = _UNLIKE if unlike else f"{kinds[0]!r} and {kinds[1]!r} are models of two kinds"
        errors.append(
            f"align.output.target: is 'states', but {why}, so their answers have no states in "
            "common; set it to choices, or align.output.weight to 0"
        )
    return errors


def truncation_notes(teacher: Tokenized, limit: int) -> list[str]:
    """Return a note on truncated rationales, which the teacher reads."""
    cut = teacher.facts.truncation
    if not cut.rationales:
        return []
    return [
        f"{cut.rationales} rationales were truncated to fit data.max_tokens={limit} "
        f"({cut.tokens} tokens in all); task inputs are never truncated"
    ]
