"""Whether a run's teachers are good enough to learn from: `teacher.gate`."""

import logging
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace

from knife.config.methods import TEACHES
from knife.config.run import Gate, RunConfig, Variant
from knife.core.errors import UserError
from knife.core.words import counted
from knife.data.examples import explained_count
from knife.plan.plan import Plan, plan_run
from knife.plan.sources import SourceReader
from knife.plan.stage import Stage, TeacherStage
from knife.store.store import Store
from knife.train.results import read_trained

log = logging.getLogger(__name__)

# Makes what the store lacks of a plan, as far as it can, and returns the store.
Make = Callable[[Plan], Store]
# A teacher below its gate is trained with so many times its epochs.
_TIMES = (1, 2, 4)


@dataclass(frozen=True)
class Gated:
    """How a teacher did at its gate.

    Attributes:
        teacher: its label.
        right: the share of dev examples with a rationale that it had to answer right with it.
        tries: the epochs of each training, and the share that it answered right.
        kept: the epochs of the one that students learn from.
    """

    teacher: str
    right: float
    tries: tuple[tuple[int, float], ...]
    kept: int

    @property
    def passed(self) -> bool:
        """Whether the teacher that is kept is good enough."""
        return _enough(dict(self.tries)[self.kept], self.right)

    def sentence(self) -> str:
        """Say what a reader should know; empty if the first training was good enough."""
        if self.passed and len(self.tries) == 1:
            return ""
        said = ", ".join(
            f"{100 * share:.1f} %{' of the dev examples right, with rationales,' * (not number)} "
            f"after {counted(epochs, 'epoch')}"
            for number, (epochs, share) in enumerate(self.tries)
        )
        said = f"The {self.teacher} answers {said}"
        wanted = f"teacher.gate.right = {100 * self.right:g} %"
        if self.passed:
            return f"{said}; students learn from the last one ({wanted})."
        last = f"; students learn from that of {counted(self.kept, 'epoch')}"
        return f"{said}, below {wanted}{last * (len(self.tries) > 1)}: its states may teach little."


def pass_gates(
    config: RunConfig, reader: SourceReader, make: Make, methods: Container[str] | None = None
) -> tuple[RunConfig, list[Gated]]:
    """Train the teachers that have a gate, and those below anew if it says so; return the config
    with the epochs of those that are kept, and how each did. `methods` are the names of those whose
    teachers are meant; by default all.

    A teacher that could not be made is not among them.

    Raises:
        UserError: as `plan_run` does, or there is no dev example with a rationale.
    """
    variants = [variant for variant in config.variants() if variant.method in TEACHES]
    settings = {variant.name: config.of(variant).teacher for variant in variants}
    gates = {
        name: teacher.gate
        for name, teacher in settings.items()
        if teacher.gate and (methods is None or name in methods)
    }
    tries: dict[str, dict[int, float]] = {name: {} for name in gates}
    labels: dict[str, str] = {}
    waiting = list(gates)
    for times in _TIMES:
        if not waiting:
            break
        epochs = {name: times * settings[name].epochs for name in waiting}
        plan = plan_run(with_epochs(config, epochs), reader)
        teachers = _teachers(plan)
        _refuse_unexplained(plan, [teachers[name] for name in waiting])
        wanted: dict[str, Stage] = {}
        for name in waiting:
            again = f" ({counted(epochs[name], 'epoch')})" if times > 1 else ""
            stage = teachers[name]
            wanted[stage.key] = replace(stage, label=f"{stage.label}{again}")
        store = make(replace(plan, stages=list(wanted.values())))
        for name in waiting:
            labels.setdefault(name, teachers[name].label)
            if store.has("teacher", key := teachers[name].key):
                trained = read_trained(store, "teacher", key)
                tries[name][epochs[name]] = trained["dev_accuracy"]
        waiting = [name for name in waiting if _wants_more(gates[name], tries[name])]
    kept = {name: max(found, key=found.__getitem__) for name, found in tries.items() if found}
    gated = [
        Gated(labels[name], gates[name].right, tuple(tries[name].items()), epochs)
        for name, epochs in kept.items()
    ]
    for each in dict.fromkeys(gated):
        if not each.passed:
            log.warning("%s", each.sentence())
    return with_epochs(config, kept), list(dict.fromkeys(gated))


def with_epochs(config: RunConfig, epochs: Mapping[str, int]) -> RunConfig:
    """Return a config in which the teachers of some methods, by name, have other epochs."""
    variants = [variant for variant in config.variants() if variant.method in TEACHES]
    before = {variant.name: config.of(variant).teacher.epochs for variant in variants}
    after = {**before, **epochs}
    if after == before:
        return config
    # The run's own teacher is that of all methods without changes to it.
    shared = [v.name for v in variants if not (v.data or v.model or v.teacher)]
    whole = after[shared[0]] if shared else config.teacher.epochs

    def changed(variant: Variant) -> Variant:
        own = after.get(variant.name, whole)
        if variant.name in shared or own == variant.teacher.get("epochs", whole):
            return variant
        return variant.model_copy(update={"teacher": variant.teacher | {"epochs": own}})

    return config.model_copy(
        update={
            "teacher": config.teacher.model_copy(update={"epochs": whole}),
            "methods": [changed(variant) for variant in config.variants()],
            "ablate": False,
        }
    )


def _wants_more(gate: Gate, tries: Mapping[int, float]) -> bool:
    """Whether a teacher is to be trained anew; not if it could not be made."""
    below = bool(tries) and not _enough(max(tries.values()), gate.right)
    return below and gate.below == "train"


def _enough(share: float, wanted: float) -> bool:
    # 18 of 20 are 0.9, whatever a sum of shares was rounded to.
    return share > wanted - 1e-9


def _teachers(plan: Plan) -> dict[str, TeacherStage]:
    """Return the teacher of each method that has one, by the method's name."""
    known = {stage.key: stage for stage in plan.stages if isinstance(stage, TeacherStage)}
    reads = {member.method: member.student.depends.get("teacher") for member in plan.members}
    return {method: known[key] for method, key in reads.items() if key}


def _refuse_unexplained(plan: Plan, teachers: list[TeacherStage]) -> None:
    """Refuse a gate that has nothing to look at.

    Raises:
        UserError: no dev example has a rationale.
    """
    for teacher in teachers:
        if not explained_count(plan.data[teacher.data].dev):
            raise UserError(
                "teacher.gate: none of the dev examples has a rationale with which the teacher "
                "could answer; give some of them one, or set teacher.gate=null"
            )
