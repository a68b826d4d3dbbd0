"""Students of `prompt` and `retrieve`: few-shot demonstrations, and for `prompt` no training."""

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from knife.core.atomic import write_json
from knife.data.demonstrations import Demonstrations, draw_shots
from knife.data.example import Example
from knife.method.objective import Objective
from knife.plan.stage import StudentStage
from knife.train.context import barrier
from knife.train.engine import gathered_state
from knife.train.evaluate import GenerationSpec, answer_split, measures
from knife.train.journal import Journal
from knife.train.results import TRAINED
from knife.train.stage_context import Split, StageContext


def student_demonstrations(
    stage: StudentStage, training: Sequence[Example]
) -> Demonstrations | None:
    """Return the few-shot demonstrations for task inputs of `prompt` and `retrieve`, or None."""
    if stage.method == "prompt":
        assert stage.prompt is not None
        count, rationales = stage.prompt.shots, stage.prompt.rationales
        return Demonstrations(draw_shots(training, count, stage.seed, rationales=rationales))
    if stage.method == "retrieve":
        return Demonstrations([], training)
    return None


def keep_untrained(
    objective: Objective,
    dev: Split,
    asking: GenerationSpec,
    save: Callable[[Path, dict[str, Tensor]], None],
    stage_context: StageContext,
) -> None:
    """Save a model that is only prompted as a student like the others, with its metrics on dev.

    Raises:
        NotFiniteError: its outputs on dev are NaN or infinite.
    """
    context = stage_context.context
    objective.to(context.device).eval()
    answers = answer_split(objective, dev.tokens, dev.ids, dev.pad_id, context, asking)
    found = measures(answers, dev.tokens)
    if context.rank == 0:
        save(stage_context.work / "model", gathered_state(objective.backbone))
        journal = Journal(stage_context.work)
        journal.add(0, 0, {f"dev_{name}": value for name, value in found.items()})
        journal.close()
        zeros = {"steps": 0, "epochs": 0, "best_step": 0, "seconds": 0.0}
        best = {"dev_accuracy": found["accuracy"], "dev_loss": found["loss"]}
        write_json(stage_context.work / TRAINED, zeros | best)
    barrier()
