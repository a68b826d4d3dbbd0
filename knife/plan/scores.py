"""The stages that scores of a run's rationales need: some of the run's, and three more models."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from knife.config.methods import EXPLAINS, TEACHES
from knife.config.run import RunConfig
from knife.core.errors import raise_errors
from knife.data import evidence
from knife.data.example import Splits
from knife.plan.needs import stage_needs
from knife.plan.plan import Member, Plan, plan_run
from knife.plan.prepared import data_key
from knife.plan.sources import SourceReader
from knife.plan.stage import EvaluateStage, Stage, TeacherStage
from knife.plan.stages import StageMaker

# Names of the models, and functions that make their inputs.
_MODELS: dict[str, Callable[[Splits], Splits]] = {
    "rationale alone": evidence.rationale_alone,
    "vacuous rationale": evidence.vacuous_alone,
    "vacuous rationale and rationale": evidence.vacuous_and_rationale,
}


@dataclass(frozen=True)
class Written:
    """What scores the rationales that a student wrote.

    Attributes:
        member: the student.
        explained: I + R -> O with its rationales, by the run's teacher.
        alone: R -> O with its rationales.
    """

    member: Member
    explained: EvaluateStage
    alone: EvaluateStage

    @property
    def stages(self) -> list[Stage]:
        """The student, and what is made of its rationales."""
        member = self.member
        return [member.student, member.evaluate, self.explained, self.alone]


@dataclass(frozen=True)
class ScorePlan:
    """The scores of a run's rationales as stages.

    Attributes:
        plan: the run, with the stages that the scores need instead of its own.
        finetune: the run's I -> O by seed.
        knife: the run's `knife` students, which are not trained just for the scores.
        teacher: I + R -> O on the test split.
        rationale, vacuous, both: R -> O, B -> O and B + R -> O on the test split.
        written: of the run's students that write rationales, which are not trained for this either.
        ids: ids of the test examples that have a rationale.
    """

    plan: Plan
    finetune: list[Member]
    knife: list[Member]
    teacher: EvaluateStage
    rationale: EvaluateStage
    vacuous: EvaluateStage
    both: EvaluateStage
    written: list[Written]
    ids: list[str]


def plan_scores(config: RunConfig, reader: SourceReader | None = None) -> ScorePlan:
    """Plan the run, and the models that score its rationales. A `reader` that other plans have used
    reads nothing again.

    Raises:
        UserError: as `plan_run` does, and if the run trains no teacher or no `finetune`, or its
            test split has no rationales.
    """
    reader = reader or SourceReader()
    plan = plan_run(config, reader)
    finetune = [member for member in plan.members if member.method == "finetune"]
    errors = []
    if not finetune or plan.teacher is None:
        errors.append(
            "methods: scores compare finetune with the run's teacher, so both must be trained; "
            "give methods=[finetune,knife]"
        )
    elif "with" not in plan.ceiling:
        test = next(iter(plan.data.values())).test
        errors.append(
            f"data.source: none of the {len(test)} test examples has a rationale, so there is "
            "nothing to score; give some of them a rationale"
        )
    raise_errors(errors)
    variant = next(
        v for v in config.variants() if v.method in TEACHES and not (v.data or v.model or v.teacher)
    )
    sources = reader.read(config.of(variant), variant)
    # These models must read the rationale directly, not through a bottleneck.
    open_teacher = config.teacher.model_copy(update={"bottleneck": False})
    open_config = config.model_copy(update={"teacher": open_teacher})
    splits = evidence.explained(sources.splits)
    teacher = plan.ceiling["with"]
    stages: list[Stage] = [teacher, *(m.student for m in finetune), *(m.evaluate for m in finetune)]
    if plan.teacher:
        stages.insert(0, plan.teacher)
    data = {stage.data: plan.data[stage.data] for stage in stages}
    needs = dict(plan.needs)
    evaluations, models = [], []
    for name, given in _MODELS.items():
        seen = reader.with_splits(open_config, sources, given(splits))
        maker = StageMaker(open_config, variant, seen, own=False)
        model = replace(maker.teacher(), label=f"model of {name}")
        evaluation = maker.evaluate(model, f"test model of {name}", rationale=True)
        stages += [model, evaluation]
        evaluations.append(evaluation)
        models.append((maker, model))
        data[data_key(seen.splits)] = seen.splits
        needs |= stage_needs(open_config, seen, [model])
    written = _written(plan, StageMaker(config, variant, sources, own=False), *models[0])
    data |= {w.member.evaluate.data: plan.data[w.member.evaluate.data] for w in written}
    notes = list(plan.notes)
    if config.model.teacher != config.model.student:
        notes.append(
            "teacher and student start from different models: RQ and LAS measure what the larger "
            "model knows, not only what rationales add"
        )
    rationale, vacuous, both = evaluations
    return ScorePlan(
        plan=replace(plan, stages=stages, data=data, needs=needs, notes=notes),
        finetune=finetune,
        knife=[member for member in plan.members if member.method == "knife"],
        teacher=teacher,
        rationale=rationale,
        vacuous=vacuous,
        both=both,
        written=written,
        ids=[example.id for example in splits.test],
    )


def _written(
    plan: Plan, maker: StageMaker, alone_maker: StageMaker, alone: TeacherStage
) -> list[Written]:
    """Return what scores the rationales of each student of the run that writes some."""
    found = []
    for member in plan.members:
        if member.student.method not in EXPLAINS:
            continue
        said, own = member.student.label, member.evaluate
        assert plan.teacher
        label = f"test teacher with rationales of {said}"
        explained = maker.evaluate(plan.teacher, label, rationale=True, written=own)
        label = f"test model of rationale alone with those of {said}"
        follows = alone_maker.evaluate(alone, label, rationale=True, written=own)
        found.append(Written(member, explained, follows))
    return found
