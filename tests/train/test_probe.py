"""Students that are disturbed, and asked what matters to them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pair import Made, made
from small_run import small_config

from knife.config.overrides import merge
from knife.config.run import parse
from knife.core.errors import UserError
from knife.data.tokenizing import tokenize
from knife.pipeline.probe import NOISES, probe_run
from knife.stats.probe import NAME
from knife.train.probe import Probed
from knife.train.results import read_predictions

WRITERS = ("explain_then_answer", "answer_then_explain", "step_by_step")


@pytest.fixture(scope="module", params=["encoder-decoder", "decoder"])
def run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path
) -> Made:
    model = "tiny-t5" if request.param == "encoder-decoder" else str(tiny_llama)
    return made(
        small_config(
            tmp_path_factory.mktemp("store"),
            model={"teacher": model, "student": model},
            methods=["finetune", "knife", *WRITERS],
            data={"world": {"train": 40, "dev": 8, "test": 24}},
            student={"epochs": 2},
        )
    )


def student(run: Made, method: str) -> tuple[Probed, list[dict[str, Any]]]:
    (member,) = [m for m in run.plan.members if m.method == method]
    folder = run.store.path("student", member.student.key) / "model"
    return Probed(folder), read_predictions(run.store, member.evaluate.key)


@pytest.mark.parametrize("method", WRITERS)
def test_without_noise_it_answers_as_the_run_recorded(run: Made, method: str) -> None:
    probed, recorded = student(run, method)
    (splits,) = {id(each): each for each in run.plan.data.values()}.values()
    found = probed.answer(splits.test)
    assert [row["rationale"] for row in found] == [row["rationale"] for row in recorded]
    for row, before in zip(found, recorded, strict=True):
        assert row["probabilities"] == pytest.approx(before["probabilities"], abs=1e-5)
    some = probed.answer(splits.test, level=0.5, seed=1)
    again = probed.answer(splits.test, level=0.5, seed=1)
    other = probed.answer(splits.test, level=0.5, seed=2)
    assert some == again
    assert some != other
    assert some != found
    # Nothing is left behind.
    assert probed.answer(splits.test) == found


def test_importance_is_the_gradient_by_the_embeddings_of_the_task_input(run: Made) -> None:
    """Against transformers alone, of the answer of a student that answers first."""
    probed, recorded = student(run, "answer_then_explain")
    (splits,) = {id(each): each for each in run.plan.data.values()}.values()
    examples = splits.test[:3]
    found = probed.importances(examples, recorded[:3])
    tokens, _ = tokenize(examples, probed.tokenizer, 256)
    model = probed.objective.backbone.model
    for each, row, (label, rationale) in zip(tokens, recorded, found, strict=False):
        assert len(label) == len(rationale)
        assert label.shape[0] in (len(each.input_ids), len(each.input_ids) - 1)
        assert not torch.allclose(label, rationale)
        if not model.config.is_encoder_decoder:
            continue
        embedded = model.get_input_embeddings()(torch.tensor([each.input_ids])).detach()
        embedded.requires_grad_()
        answer = torch.tensor([each.choice_ids[row["choice"]]])
        # The loss is the mean of the negative log-probabilities of the answer's tokens.
        loss = model(inputs_embeds=embedded, labels=answer).loss
        (gradient,) = torch.autograd.grad(loss, embedded)
        torch.testing.assert_close(label, gradient[0].abs().sum(-1), rtol=1e-4, atol=1e-7)


def test_a_probe_is_kept_with_the_run_and_trains_nothing(run: Made) -> None:
    stored = {path for path in run.store.root.glob("*/*") if path.parent.name != "runs"}
    told: list[str] = []
    found, folder = probe_run(run.plan.config, told.append)
    assert told == [each.method for each in found] == list(WRITERS)
    kept = json.loads((folder / NAME).read_text())
    assert [each["method"] for each in kept] == told
    for each in found:
        recorded = student(run, each.method)[1]
        assert [level.noise for level in each.levels] == list(NOISES)
        right = sum(row["right"] for row in recorded) / len(recorded)
        assert each.levels[0].accuracy == pytest.approx(right)
        wrote = sum(bool(row["rationale"]) for row in recorded)
        # A control needs another one that is equally long.
        assert each.agreement is not None or wrote < 12
    assert stored == {p for p in run.store.root.glob("*/*") if p.parent.name != "runs"}


def test_what_cannot_be_probed_is_said_at_once(tmp_path: Path) -> None:
    base = small_config(tmp_path, methods=["finetune"]).model_dump()
    with pytest.raises(UserError) as error:
        probe_run(parse(base), print)
    told = "\n".join(error.value.errors)
    assert "none of them writes rationales" in told
    assert "add finetune and knife" in told
    assert "the run is not finished" in told
    assert "finetune seed 0" in told
    with pytest.raises(UserError, match="missing; knife run makes them"):
        probe_run(parse(merge(base, {"methods": ["finetune", "knife", *WRITERS]})), print)
