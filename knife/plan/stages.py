"""Makes stages with their keys, which cover every config key and input that a result depends on."""

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from knife.config.methods import EXPLAINS_AT_TEST, READS_RATIONALES
from knife.config.run import RunConfig, Training, Variant
from knife.data.digest import split_digest
from knife.method.states_parts import StatesPart, parts_read
from knife.plan.prepared import data_key
from knife.plan.sources import Sources
from knife.plan.stage import EvaluateStage, StatesStage, StudentStage, TeacherStage
from knife.store.store import fingerprint

# Incremented when a change of the code changes the numeric result of a stage.
METHOD_VERSION = 4
_LIBRARIES = ("torch", "transformers", "deepspeed")


@dataclass(frozen=True)
class StageMaker:
    """Makes the stages of one variant.

    Attributes:
        config: the variant's own config.
        variant: the variant.
        sources: data and models.
        own: whether its teacher may differ from the run's, so that labels must tell them apart.
    """

    config: RunConfig
    variant: Variant
    sources: Sources
    own: bool

    def teacher(self) -> TeacherStage:
        """Return the stage that finetunes the teacher; its key covers examples and rationales."""
        splits, training, model = self.sources.splits, self.config.teacher, self.sources.teacher
        assert model is not None
        depends = self._common() | {
            "stage": "teacher",
            "train": split_digest(splits, "train", rationales=True),
            "dev": split_digest(splits, "dev", rationales=True),
            "model": model.source.identity,
            "training": _training(training),
        }
        return TeacherStage(
            key=fingerprint(depends),
            depends=depends,
            label=self._label("teacher", own=self.own),
            model=model.source,
            training=training,
            bottleneck=training.bottleneck,
            seed=training.seed,
            tokens=self.sources.teacher_tokens,
            **self._shared(),
        )

    def states(self, teacher: TeacherStage, pairs: list[tuple[int, int]]) -> list[StatesStage]:
        """Return the stages of the teacher's states that students with the layer map `pairs`
        read, one for each part."""
        parts = parts_read(self.config.align, (layer for _, layer in pairs))
        return [self._states(teacher, part) for part in parts]

    def _states(self, teacher: TeacherStage, part: StatesPart) -> StatesStage:
        align = self.config.align
        stored = align.states == "stored"
        # Scores are few, and an online teacher computes in fp32.
        precision = align.states_precision if stored and part != "scores" else "fp32"
        depends = {
            "stage": "states",
            "teacher": teacher.key,
            "train": split_digest(self.sources.splits, "train", rationales=True),
            "part": part,
            "precision": precision,
            "stored": stored,
        }
        own = self.own or bool({"states", "states_precision"} & self.variant.align.keys())
        name = f"layer {part}" if isinstance(part, int) else part
        return StatesStage(
            key=fingerprint(depends),
            depends=depends,
            label=f"{self._label('teacher states', own=own)}, {name}",
            teacher=teacher.key,
            part=part,
            precision=precision,
            stored=stored,
            tokens=self.sources.teacher_tokens,
            **self._shared(),
        )

    def student(
        self,
        seed: int,
        teacher: TeacherStage | None,
        states: list[StatesStage],
        pairs: list[tuple[int, int]],
    ) -> StudentStage:
        """Return the stage that trains a student; its key depends on rationales only through
        `teacher` and `states`, unless the method reads them."""
        splits, training, align = self.sources.splits, self.config.student, self.config.align
        aligned = self.variant.method == "knife"
        depends = self._common() | {
            "stage": "student",
            "method": self.variant.method,
            "seed": seed,
            "train": split_digest(splits, "train", rationales=self._reads_rationales()),
            "dev": split_digest(splits, "dev", rationales=False),
            "model": self.sources.student.source.identity,
            "training": _training(training),
        }
        prompt = None
        if self.variant.method == "prompt":
            prompt = self.config.prompt
            most = self.sources.demonstration_tokens
            depends |= {"prompt": prompt.model_dump(), "training": None, "preamble_tokens": most}
        internalize = self.config.internalize if self.variant.method == "internalize" else None
        if internalize:
            depends["internalize"] = internalize.model_dump()
        if self.variant.method in EXPLAINS_AT_TEST:
            depends["explains_at_test"] = True
        weight = self.config.step_by_step.weight
        if self.variant.method == "step_by_step" and weight != 0.5:
            depends["rationale_weight"] = weight
        if self.variant.method == "retrieve":
            depends["bm25s"] = version("bm25s")
        if self.variant.method == "teacher_init":
            assert teacher is not None
            depends["teacher"] = teacher.key
        if aligned:
            assert teacher is not None
            depends |= self._alignment(teacher, states, pairs)
        return StudentStage(
            key=fingerprint(depends),
            depends=depends,
            label=f"{self.variant.name} seed {seed}",
            method=self.variant.method,
            model=self.sources.student.source,
            training=training,
            seed=seed,
            # With stored states, a student does not need the teacher itself.
            teacher=teacher.key if teacher and not (aligned and align.states == "stored") else None,
            states={stage.part: stage.key for stage in states},
            align=align if aligned else None,
            layers=tuple(pairs),
            prompt=prompt,
            internalize=internalize,
            rationale_weight=weight,
            demonstration_tokens=self.sources.demonstration_tokens,
            tokens=self.sources.tokens,
            teacher_tokens=self.sources.teacher_tokens,
            **self._shared(),
        )

    def evaluate(
        self,
        model: TeacherStage | StudentStage,
        label: str,
        *,
        rationale: bool,
        written: EvaluateStage | None = None,
    ) -> EvaluateStage:
        """Return the stage that predicts the test split, with or without its rationales, or with
        those that a student wrote when it was evaluated."""
        depends = {
            "stage": "evaluate",
            "model": model.key,
            "test": split_digest(self.sources.splits, "test", rationales=rationale),
            "rationale": rationale,
        } | ({"written": written.key} if written else {})
        return EvaluateStage(
            key=fingerprint(depends),
            depends=depends,
            label=label,
            model_kind=model.kind,
            model_key=model.key,
            rationale=rationale,
            written=written.key if written else "",
            tokens=model.tokens,
            **self._shared(),
        )

    def _alignment(
        self, teacher: TeacherStage, states: list[StatesStage], pairs: list[tuple[int, int]]
    ) -> dict[str, Any]:
        """Return what an aligned student depends on besides what every student does; settings of
        a term with weight 0 do not affect the result."""
        align = self.config.align
        depends = {
            "teacher": teacher.key,
            "states": [stage.key for stage in states],
            "stored": align.states == "stored",
            "weights": {"input": align.input.weight, "output": align.output.weight},
        }
        if align.input.weight:
            depends |= {"layers": pairs, "distance": align.input.distance}
            if align.input.tokens != "all":
                depends["tokens"] = align.input.tokens
            if align.input.tokens == "content":
                depends["bm25s"] = version("bm25s")
        if align.output.weight:
            depends["target"] = align.output.target
        return depends

    def _reads_rationales(self) -> bool:
        method = self.variant.method
        return method in READS_RATIONALES or (method == "prompt" and self.config.prompt.rationales)

    def _common(self) -> dict[str, Any]:
        scale = self.config.scale
        # These change rounding, and may change dropout; each is part of the key only if it is set.
        chosen = {
            "attention": scale.attention,
            "gradient_checkpointing": scale.gradient_checkpointing,
            "compile": scale.compile,
        }
        return {name: value for name, value in chosen.items() if value} | {
            "version": METHOD_VERSION,
            "libraries": {name: version(name) for name in _LIBRARIES},
            "max_tokens": self.config.data.max_tokens,
            "precision": scale.precision,
        }

    def _shared(self) -> dict[str, Any]:
        return {
            "data": data_key(self.sources.splits),
            "max_tokens": self.config.data.max_tokens,
        }

    def _label(self, name: str, *, own: bool) -> str:
        return f"{name} of {self.variant.name}" if own else name


def _training(training: Training) -> dict[str, Any]:
    """Return what a training's result depends on: adapters only if it has any, and no gate."""
    if training.lora is None:
        return training.model_dump(exclude={"lora", "gate"})
    return training.model_dump(exclude={"gate"}) | {"peft": version("peft")}
