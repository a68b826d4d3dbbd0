"""The stages that a forecast with the teacher needs: that of the run, asked about dev, and a
student of finetune."""

from collections.abc import Sequence
from dataclasses import replace

from knife.config.run import RunConfig, Variant
from knife.core.errors import UserError
from knife.data import evidence
from knife.data.example import Example, Splits
from knife.data.examples import explained_count
from knife.plan.plan import Plan, plan_run
from knife.plan.prepared import data_key
from knife.plan.sources import SourceReader
from knife.plan.stage import EvaluateStage, Stage, StudentStage
from knife.plan.stages import StageMaker


def knife_data(plan: Plan) -> Splits:
    """Return the data of a run's first method `knife`.

    Raises:
        UserError: the run has no such method.
    """
    for member in plan.members:
        if member.student.method == "knife":
            return plan.data[member.student.data]
    raise UserError("methods: a forecast is about knife, which the run does not train: add it")


def first_knife(config: RunConfig) -> Variant:
    """Return a run's first method `knife`, of which it has one."""
    return next(each for each in config.variants() if each.method == "knife")


def plan_scored(
    config: RunConfig, reader: SourceReader
) -> tuple[Plan, StudentStage, tuple[EvaluateStage, EvaluateStage]]:
    """Plan the teacher of a run's first method `knife`, its evaluations on those examples of dev
    that have a rationale, with rationales and without, and the first student of `finetune`. Return
    the run with these stages instead of its own, the student, and the evaluations.

    Raises:
        UserError: as `plan_run` does, or no example of dev has a rationale.
    """
    run = plan_run(_with_finetune(config), reader)
    splits = knife_data(run)
    finetune = next(m.student for m in run.members if m.student.method == "finetune")
    if not explained_count(splits.dev):
        raise UserError(
            f"data.source: none of the {len(splits.dev)} dev examples has a rationale, which the "
            "teacher must be asked with: give some of them one, or forecast without --teacher"
        )
    variant = first_knife(config)
    own = config.of(variant)
    sources = reader.read(own, variant)
    teacher = StageMaker(own, variant, sources, own=False).teacher()
    seen = reader.with_splits(own, sources, _dev_alone(splits))
    maker = StageMaker(own, variant, seen, own=False)
    model = replace(teacher, tokens=seen.teacher_tokens)
    with_rationale = maker.evaluate(model, "teacher on dev", rationale=True)
    without = maker.evaluate(model, "teacher on dev without rationales", rationale=False)
    asked = (replace(with_rationale, asked="dev"), replace(without, asked="dev"))
    stages: list[Stage] = [teacher, finetune, *asked]
    data = run.data | {data_key(seen.splits): seen.splits}
    return replace(run, stages=stages, data=data, members=[], ceiling={}), finetune, asked


def _with_finetune(config: RunConfig) -> RunConfig:
    """Return a run with the method `finetune`, which most have."""
    if any(each.method == "finetune" for each in config.variants()):
        return config
    added = Variant(name="finetune", method="finetune")
    return config.model_copy(update={"methods": [*config.variants(), added], "ablate": False})


def _dev_alone(splits: Splits) -> Splits:
    """Return the explained examples of dev as all splits: only `test` is evaluated."""
    dev: Sequence[Example] = evidence.explained(splits).dev
    return Splits(dev, dev, dev)
