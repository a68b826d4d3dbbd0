"""Students of `prompt` and `retrieve`: few-shot demonstrations, and for `prompt` no training."""

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from knife.core.atomic import write_json
from knife.data.example import Example
from knife.data.preamble import Preamble, draw_shots
from knife.method.objective import Objective
from knife.plan.stage import StudentStage
from knife.train.context import barrier
from knife.train.engine import gathered_state
from knife.train.evaluate import GenerationSpec, answer_split, measures
from knife.train.journal import Journal
from knife.train.place import Split, StageContext
from knife.train.results import TRAINED


def student_preamble(stage: StudentStage, training: Sequence[Example]) -> Preamble | None:
    """Return the few-shot demonstrations for task inputs of `prompt` and `retrieve`, or None."""
    if stage.method == "prompt":
        assert stage.prompt is not None
        count, rationales = stage.prompt.shots, stage.prompt.rationales
        return Preamble(draw_shots(training, count, stage.seed, rationales=rationales))
    if stage.method == "retrieve":
        return Preamble([], training)
    return None


def keep_untrained(
    objective: Objective,
    dev: Split,
    asking: GenerationSpec,
    save: Callable[[Path, dict[str, Tensor]], None],
    place: StageContext,
) -> None:
    """Save a model that is only prompted as a student like the others, with its metrics on dev.

    Raises:
        NotFiniteError: its outputs on dev are NaN or infinite.
    """
    context = place.context
    objective.to(context.device).eval()
    answers = answer_split(objective, dev.tokens, dev.ids, dev.pad_id, context, asking)
    found = measures(answers, dev.tokens)
    if context.rank == 0:
        save(place.work / "model", gathered_state(objective.backbone))
        journal = Journal(place.work)
        journal.add(0, 0, {f"dev_{name}": value for name, value in found.items()})
        journal.close()
        zeros = {"steps": 0, "epochs": 0, "best_step": 0, "seconds": 0.0}
        best = {"dev_accuracy": found["accuracy"], "dev_loss": found["loss"]}
        write_json(place.work / TRAINED, zeros | best)
    barrier()
