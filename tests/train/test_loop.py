"""The training loop on one process: DeepSpeed's engine over gloo."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pair import run_stages
from small import EXAMPLES, tokens_of
from small_run import small_config
from student import TRAINING, KilledError, Student, rows, same_weights, weights

from knife.config.run import Align, Training
from knife.config.scale import Scale
from knife.core.errors import TrainingDivergedError
from knife.data.batches import Batch, Rows, collate
from knife.method.objective import Alignment, Objective, TeacherBatch
from knife.models.load import load_backbone
from knife.models.source import EMBEDDED
from knife.pipeline.run import publish_data
from knife.plan.plan import plan_run
from knife.store.store import Store
from knife.train import loop
from knife.train.context import PlainContext
from knife.train.engine import schedule, start_engine
from knife.train.evaluate import GenerationSpec, answer_split, measures
from knife.train.loop import dropout_seed, train


@pytest.fixture(autouse=True)
def context() -> Iterator[PlainContext]:
    with PlainContext() as context:
        yield context


# The embedded world and the tiny T5, step by step. Change these numbers only if one of the two, or
# METHOD_VERSION, changes.
# Loss, task loss and input alignment of each step.
PINNED = {
    "teacher": [
        [0.851730, 0.851730, 0],
        [0.356613, 0.356613, 0],
        [0.465044, 0.465044, 0],
        [0.458133, 0.458133, 0],
    ],
    "finetune": [
        [0.378977, 0.378977, 0],
        [1.08810, 1.08810, 0],
        [0.845714, 0.845714, 0],
        [0.501596, 0.501596, 0],
    ],
    "knife": [
        [2.57121, 0.378977, 0.0730743],
        [6.95527, 0.971251, 0.199467],
        [5.38977, 0.613961, 0.159194],
        [4.27506, 0.935065, 0.111333],
    ],
}


@pytest.fixture(scope="module")
def journals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """Return the journals of a small run's trainings, with a row per step."""
    folder = tmp_path_factory.mktemp("pinned")
    config = small_config(folder, methods=["finetune", "knife"])
    plan = plan_run(config)
    store = Store(folder)
    publish_data(store, plan)
    with pytest.MonkeyPatch.context() as patch, PlainContext() as context:
        patch.setattr(loop, "LOG_STEPS", 1)
        run_stages(plan.stages, folder, config.scale, context)
    assert plan.teacher is not None
    stages = {"teacher": plan.teacher} | {m.method: m.student for m in plan.members}
    return {name: rows(store.path(s.kind, s.key)) for name, s in stages.items()}


@pytest.mark.parametrize("name", PINNED)
def test_the_first_losses_are_pinned(journals: dict[str, list[dict[str, Any]]], name: str) -> None:
    metrics = [row["metrics"] for row in journals[name] if "loss" in row["metrics"]]
    found = [[m["loss"], m["task_loss"], m.get("input_alignment", 0.0)] for m in metrics]
    assert len(found) == 4
    assert torch.tensor(found).flatten().tolist() == pytest.approx(
        torch.tensor(PINNED[name]).flatten().tolist(), rel=1e-4
    ), found


def test_the_schedule_warms_up_and_decays_to_zero() -> None:
    share = schedule(4, 10)
    assert [round(share(step), 4) for step in range(12)] == [
        *(0.25, 0.5, 0.75, 1.0),
        *(1.0, 0.8333, 0.6667, 0.5, 0.3333, 0.1667),
        *(0.0, 0.0),
    ]
    assert [schedule(0, 4)(step) for step in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert [schedule(3, 3)(step) for step in range(3)] == pytest.approx([1 / 3, 2 / 3, 1])


def test_the_engine_follows_the_schedule(tiny_bert: Path) -> None:
    training = Training(learning_rate=0.01, batch_size=8, warmup=0.5)
    engine = start_engine(Objective(load_backbone(tiny_bert)), training, Scale(), 1, 4)
    tokens, pad = tokens_of(tiny_bert, EXAMPLES)
    used = []
    for _ in range(4):
        used.append(engine.optimizer.param_groups[0]["lr"])
        engine.backward(engine(collate(tokens, Rows(list(range(8)), [1.0] * 8), pad, False)).loss)
        engine.step()
    assert used == pytest.approx([0.005, 0.01, 0.01, 0.005])
    engine.destroy()


@pytest.mark.parametrize("zero_stage", [0, 2, 3])
def test_stop_and_resume_is_an_uninterrupted_training(
    model_folder: Path, context: PlainContext, tmp_path: Path, zero_stage: int
) -> None:
    """Interrupted twice, in the middle of epochs; BERT has dropout, T5 has none."""
    student = Student(model_folder, checkpoint_steps=3, zero_stage=zero_stage)
    whole = student.train(tmp_path / "whole", context)
    for fail_at, kept in ((6, [3]), (5, [3, 6])):
        with pytest.raises(KilledError):
            student.train(tmp_path / "cut", context, fail_at)
        checkpoints = tmp_path / "cut" / "checkpoints"
        steps = sorted(path.name for path in checkpoints.glob("step-*"))
        assert steps == [f"step-{step:08d}" for step in kept]
    assert student.train(tmp_path / "cut", context) == whole
    assert student.steps == 12 - 6
    assert same_weights(tmp_path / "cut", tmp_path / "whole")
    names = {path.name for path in (tmp_path / "whole").iterdir()}
    assert names == {"model", "journal.jsonl", "trained.json", "workers.json"}
    assert {path.name for path in (tmp_path / "cut").iterdir()} == names
    # Another start finds the training finished.
    assert student.train(tmp_path / "cut", context) == whole
    assert student.steps == 0


def test_without_a_checkpoint_a_training_begins_again(
    tiny_bert: Path, context: PlainContext, tmp_path: Path
) -> None:
    student = Student(tiny_bert)
    whole = student.train(tmp_path / "whole", context)
    with pytest.raises(KilledError):
        student.train(tmp_path / "cut", context, fail_at=11)
    assert student.train(tmp_path / "cut", context) == whole
    assert student.steps == 12
    assert same_weights(tmp_path / "cut", tmp_path / "whole")


def test_a_half_written_checkpoint_is_left_alone(
    tiny_bert: Path, context: PlainContext, tmp_path: Path
) -> None:
    student = Student(tiny_bert, checkpoint_steps=3)
    whole = student.train(tmp_path / "whole", context)
    work = tmp_path / "cut"
    with pytest.raises(KilledError):
        student.train(work, context, fail_at=9)
    # A newer, incomplete one, without place.json.
    newer = work / "checkpoints" / "step-00000009"
    newer.mkdir()
    (newer / "mp_rank_00_model_states.pt").write_bytes(b"half")
    with pytest.raises(KilledError):
        student.train(work, context, fail_at=2)
    assert student.steps == 2
    assert student.train(work, context) == whole
    assert same_weights(work, tmp_path / "whole")


def test_speed_counts_every_example_and_its_input_tokens_once(
    tiny_bert: Path, context: PlainContext, tmp_path: Path
) -> None:
    """The last batch of an epoch is filled with examples that do not count."""
    training = TRAINING.model_copy(update={"epochs": 1})
    student = Student(tiny_bert, training)
    student.train(tmp_path, context)
    lines = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    (rates,) = (row["metrics"] for row in lines if "loss" in row["metrics"])
    train = student.job.train
    assert len(train) % training.batch_size
    tokens = sum(len(t.input_ids) for t in train)
    ratio = rates["tokens_per_second"] / rates["examples_per_second"]
    assert ratio == pytest.approx(tokens / len(train))


def test_accumulated_steps_are_steps(context: PlainContext, tmp_path: Path) -> None:
    """Halves of each batch give the same losses and weights (T5 has no dropout)."""
    found = []
    for accumulate in (1, 2, 4):
        training = TRAINING.model_copy(
            update={"accumulate": accumulate, "epochs": 1, "learning_rate": 5e-4}
        )
        student = Student(EMBEDDED["tiny-t5"], training)
        work = tmp_path / str(accumulate)
        found.append([row["metrics"] for row in student.train(work, context)])
        assert student.steps == 4 * accumulate
        for name, tensor in weights(work).items():
            whole = weights(tmp_path / "1")[name]
            assert float((tensor - whole).norm() / whole.norm()) < 1e-4
    for other in found[1:]:
        for one, same in zip(found[0], other, strict=True):
            assert same == pytest.approx(one, rel=1e-4)


def test_micro_steps_drop_other_units(tiny_bert: Path, context: PlainContext) -> None:
    """Dropout differs between the micro-steps of a step, but is the same in every try."""
    student = Student(tiny_bert, TRAINING.model_copy(update={"accumulate": 2, "epochs": 1}))
    seeds: list[list[int]] = []
    for _ in range(2):
        seeds.append([])
        states = student.job.teacher
        assert states is not None

        def noting(rows: Rows, batch: Batch, states: Any = states) -> TeacherBatch:
            seeds[-1].append(torch.initial_seed())
            result: TeacherBatch = states(rows, batch)
            return result

        backbone = load_backbone(tiny_bert)
        alignment = Alignment(Align(), ((2, 2),), 32, 32, {2: 1.0})
        job = replace(student.job, teacher=noting, save=lambda folder, _: folder.mkdir())
        work = tiny_bert.parent / f"seeds-{len(seeds)}"
        work.mkdir()
        train(Objective(backbone, alignment), job, work, context)
    assert len(set(seeds[0])) == len(seeds[0]) == 8
    assert seeds[0] == seeds[1]


def test_the_seeds_of_dropout_are_pinned() -> None:
    """They are numpy's, whose algorithm is specified; so dropout is the same with any Python."""
    assert dropout_seed(0, 0, 0, 0) == 2968811710
    assert dropout_seed(1, 20, 3, 2) == 1634786348
    assert dropout_seed(-1, 0, 0, 0) == 3670632837
    places = [(seed, step, rank, part) for seed in (0, 1, 100) for step in range(50)
              for rank in range(4) for part in range(4)]  # fmt: skip
    assert len({dropout_seed(*place) for place in places}) == len(places)


def test_patience_ends_a_training(tiny_bert: Path, context: PlainContext, tmp_path: Path) -> None:
    training = Training(epochs=30, learning_rate=0.05, batch_size=13, patience=2)
    found = Student(tiny_bert, training).train(tmp_path, context)
    scores = dev_scores(found)
    best = [max(scores[: end + 1]) for end in range(len(scores))]
    assert len(scores) < 30
    # The first time that the last two are no better than the best before them.
    ends = [end for end in range(2, len(scores)) if best[end] == best[end - 2]]
    assert ends == [len(scores) - 1]


def test_evaluations_come_every_few_epochs_and_at_the_end(
    tiny_bert: Path, context: PlainContext, tmp_path: Path
) -> None:
    training = TRAINING.model_copy(update={"epochs": 5, "evaluate_epochs": 2})
    found = Student(tiny_bert, training).train(tmp_path, context)
    assert [row["epoch"] for row in found if "dev_loss" in row["metrics"]] == [2, 4, 5]


def test_the_model_is_that_of_the_best_epoch(
    model_folder: Path, context: PlainContext, tmp_path: Path
) -> None:
    training = Training(epochs=6, learning_rate=0.02, batch_size=13)
    student = Student(model_folder, training)
    found = student.train(tmp_path, context)
    scores = dev_scores(found)
    best = scores.index(max(scores))
    trained = json.loads((tmp_path / "trained.json").read_text())
    steps = [row["step"] for row in found if "dev_loss" in row["metrics"]]
    assert trained["best_step"] == steps[best]
    assert (trained["dev_accuracy"], -trained["dev_loss"]) == scores[best]
    assert trained["epochs"] == 6
    assert trained["steps"] == 12
    assert trained["seconds"] > 0
    objective = Objective(load_backbone(tmp_path / "model")).eval()
    dev = student.job.dev
    ids = student.job.dev_ids
    answers = answer_split(objective, dev, ids, student.job.pad_id, context, GenerationSpec())
    found_again = measures(answers, dev)
    assert found_again["accuracy"] == trained["dev_accuracy"]
    assert found_again["loss"] == pytest.approx(trained["dev_loss"], rel=1e-5)


def test_a_loss_that_is_no_number_ends_a_training(
    tiny_bert: Path, context: PlainContext, tmp_path: Path
) -> None:
    student = Student(tiny_bert, Training(epochs=3, learning_rate=1e30, batch_size=8))
    with pytest.raises(TrainingDivergedError, match="is not finite at step"):
        student.train(tmp_path, context)
    assert not (tmp_path / "trained.json").exists()


def dev_scores(found: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """Return accuracy and negative loss on dev, in order: the criterion for the best epoch."""
    metrics = [row["metrics"] for row in found if "dev_loss" in row["metrics"]]
    scores = [(m["dev_accuracy"], -m["dev_loss"]) for m in metrics]
    assert all(math.isfinite(loss) for _, loss in scores)
    return scores
