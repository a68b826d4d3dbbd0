"""Models whose outputs are not finite: every use of them fails, and nothing is kept."""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from command_fixtures import Command
from pair import Pair, in_pair, make, run_stages
from small import EXAMPLES, batch_of, publish_examples, tokens_of
from small_run import small_config

from knife.config.run import Align
from knife.config.scale import Scale
from knife.core.errors import NotFiniteError, UserError
from knife.inference.file import predict
from knife.method.states import Moments
from knife.method.states_parts import StatesPart
from knife.models.load import load_backbone
from knife.models.source import EMBEDDED, ModelSource
from knife.models.tokenizer import load_tokenizer
from knife.plan.stage import EvaluateStage, StatesStage, StudentStage
from knife.store.store import Store
from knife.train.context import PlainContext
from knife.train.engine import gathered_state
from knife.train.evaluate import Answer, measures
from knife.train.model_settings import ModelSettings
from knife.train.training import refuse_equal_states

TINY = EMBEDDED["tiny-t5"]
# The weight itself is finite, as required of a model that can be loaded.
LARGE = 3e38
# A word that some examples contain.
WORD = "forest"
HAVE = [e.id for e in EXAMPLES if WORD in f"{e.question} {e.choices} {e.rationale}"]


@pytest.fixture(scope="module")
def context() -> Iterator[PlainContext]:
    with PlainContext() as context:
        yield context


def publish(
    store: Store, model: Path, *, rationale: bool, word: str = "", opened: bool = False
) -> str:
    """Publish data and a teacher whose outputs overflow, for all examples or those with a word."""
    publish_examples(store, model, EXAMPLES)
    backbone: Any = load_backbone(model, seed=3)
    tokenizer: Any = load_tokenizer(model, "model")
    with torch.no_grad():
        if word:
            (token,) = tokenizer(word, add_special_tokens=False).input_ids
            backbone.encoder.get_input_embeddings().weight[token] = LARGE
        else:
            backbone.model.decoder.final_layer_norm.weight.fill_(LARGE)
    folder = store.work("teacher", "t") / "model"
    backbone.save(folder, gathered_state(backbone))
    tokenizer.save_pretrained(folder)
    ModelSettings(rationale, bottleneck=True, max_tokens=256, open=opened, answer_tokens=4).write(
        folder
    )
    store.publish("teacher", "t", {})
    return str(store.path("teacher", "t"))


def states_stage(part: StatesPart = 2, *, stored: bool = True) -> StatesStage:
    return StatesStage(
        key=f"s-{part}", depends={}, label=f"states, {part}", data="d", tokens="k", max_tokens=256,
        teacher="t", part=part, precision="fp32", stored=stored,
    )  # fmt: skip


@pytest.mark.parametrize("stored", [True, False])
def test_teacher_states_that_are_not_finite_name_their_examples(
    tiny_bert: Path, context: PlainContext, tmp_path: Path, stored: bool
) -> None:
    store = Store(tmp_path)
    publish(store, tiny_bert, rationale=True, word=WORD)
    with pytest.raises(NotFiniteError) as error:
        run_stages([states_stage(stored=stored)], tmp_path, Scale(), context)
    assert 0 < len(HAVE) <= 10
    assert str(error.value) == (
        f"states, 2: the teacher's states are not finite for {len(HAVE)} of {len(EXAMPLES)} "
        f"examples: {', '.join(HAVE)}; lower teacher.learning_rate"
    )
    assert not (tmp_path / "states").exists()


def test_the_part_that_is_not_finite_is_named(context: PlainContext, tmp_path: Path) -> None:
    """The decoder overflows, the encoder does not; nothing of the pass is published."""
    publish(Store(tmp_path), TINY, rationale=True)
    with pytest.raises(NotFiniteError, match=r"^states, scores: .* for 26 of 26 examples"):
        run_stages([states_stage(3), states_stage("scores")], tmp_path, Scale(), context)
    assert not (tmp_path / "states").exists()


def states_in_pair(context: Pair, folder: Path) -> None:
    with pytest.raises(NotFiniteError) as error:
        run_stages([states_stage()], folder, Scale(), context)
    (folder / f"said-{context.rank}").write_text(str(error.value))


def test_two_workers_find_states_that_are_not_finite_together(
    tiny_bert: Path, tmp_path: Path
) -> None:
    publish(Store(tmp_path), tiny_bert, rationale=True, word=WORD)
    in_pair(states_in_pair, tmp_path)()
    said = [(tmp_path / f"said-{rank}").read_text() for rank in range(2)]
    assert said[0] == said[1]
    assert all(name in said[0] for name in HAVE)


def test_an_evaluation_that_is_not_finite_keeps_nothing(
    tiny_bert: Path, context: PlainContext, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    publish(store, tiny_bert, rationale=True, word=WORD)
    stage = EvaluateStage(
        key="e", depends={}, label="test teacher", data="d", tokens="k", max_tokens=256,
        model_kind="teacher", model_key="t", rationale=True,
    )  # fmt: skip
    with pytest.raises(NotFiniteError) as error:
        run_stages([stage], tmp_path, Scale(), context)
    words = f"test teacher: the outputs are not finite for {len(HAVE)} of {len(EXAMPLES)} examples"
    assert str(error.value) == f"{words}: {', '.join(HAVE)}"
    assert not store.has("evaluate", "e")
    assert not list(tmp_path.rglob("predictions.jsonl"))


def test_a_prompted_model_that_is_not_finite_is_no_student(
    context: PlainContext, tmp_path: Path
) -> None:
    """It is not trained: only its outputs on dev show it."""
    model = Path(publish(Store(tmp_path / "models"), TINY, rationale=False)) / "model"
    config = small_config(
        tmp_path / "store", methods=["prompt"], model={"teacher": "tiny-t5", "student": str(model)}
    )
    with pytest.raises(NotFiniteError, match=r"^prompt seed 0: the outputs are not finite for 20 "):
        make(config, context)
    assert not list((tmp_path / "store").glob("student/*"))


@pytest.mark.parametrize("opened", [False, True], ids=["choices", "open"])
def test_predict_refuses_a_student_that_is_not_finite(
    command: Command, tmp_path: Path, opened: bool
) -> None:
    student = publish(Store(tmp_path / "store"), TINY, rationale=False, opened=opened)
    file, output = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    questions = [asdict(e) | {"answer": None} for e in EXAMPLES[:12]]
    if opened:
        # Only generated text is scored.
        questions = [{"id": q["id"], "question": q["question"]} for q in questions]
    file.write_text("\n".join(map(json.dumps, questions)))
    for words in (["--json"], [], ["-o", str(output)]):
        ended = command("predict", student, str(file), *words)
        assert (ended.status, ended.out) == (2, "")
        (line,) = [line for line in ended.err.splitlines() if "error" in line]
        assert line.startswith(f"error: STUDENT: {student}/model: the outputs are not finite for ")
        assert f"{EXAMPLES[9].id} and 2 more; this model is unusable" in line
    assert not output.exists()
    with pytest.raises(UserError, match="not finite"):
        predict(Path(student), file)


def test_what_cannot_be_written_is_none(tiny_llama: Path) -> None:
    for folder in (TINY, tiny_llama):
        tokens, pad = tokens_of(folder, EXAMPLES[:3])
        backbone: Any = load_backbone(folder).eval()
        batch = batch_of(tokens, pad, rationale=False)
        assert None not in backbone.generate(batch, 4)
        with torch.no_grad():
            next(backbone.parameters()).fill_(math.inf)
        assert backbone.generate(batch, 4) == [None] * 3


def test_a_loss_is_exact_however_unlikely_the_answer_is() -> None:
    tokens, _ = tokens_of(TINY, EXAMPLES[:1])
    wrong = [0.0 if place == tokens[0].answer else 1000.0 for place in range(2)]
    assert measures([Answer(wrong)], tokens)["loss"] == 1000.0
    likely = [math.log(0.3), math.log(0.7)]
    expected = -likely[tokens[0].answer]
    assert measures([Answer(likely)], tokens)["loss"] == pytest.approx(expected, rel=1e-14)


def test_states_that_are_all_equal_have_no_variance_to_divide_by() -> None:
    states = {1: torch.full((50, 7), 0.1), 2: torch.arange(350.0).view(50, 7)}
    variance = {layer: Moments.of(of_layer).variance() for layer, of_layer in states.items()}
    assert variance[1] == 0.0
    assert variance[2] == pytest.approx(float(torch.arange(350.0).var(correction=0)))
    values: dict[str, Any] = {
        "key": "k", "depends": {}, "label": "knife seed 0", "data": "d", "tokens": "k",
        "max_tokens": 256,
        "model": ModelSource("tiny-t5", TINY, None, "t"), "method": "knife", "seed": 0,
        "training": None,
    }  # fmt: skip
    refuse_equal_states(StudentStage(**values, align=Align(), layers=((1, 2),)), variance)
    with pytest.raises(UserError, match=r"^align\.input\.distance: .* layer 1 are all equal"):
        refuse_equal_states(StudentStage(**values, align=Align(), layers=((2, 1),)), variance)
