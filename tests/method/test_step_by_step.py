"""The weights of the two tasks of `step_by_step`."""

import pytest
import torch
from small import EXAMPLES, tokens_of

from knife.config.run import parse
from knife.core.errors import UserError
from knife.data.batches import Rows, collate
from knife.data.forms import training_tokens
from knife.method.objective import Objective
from knife.models.load import load_backbone
from knife.models.source import EMBEDDED
from knife.models.tokenizer import load_tokenizer
from knife.plan.plan import plan_run

TINY = EMBEDDED["tiny-t5"]


@pytest.mark.parametrize("weight", [0.5, 0.2, 0.9])
def test_the_second_task_has_its_weight_and_the_first_the_rest(weight: float) -> None:
    tokens, pad = tokens_of(TINY, EXAMPLES)
    first, second = training_tokens("step_by_step", tokens, load_tokenizer(TINY, "model"))
    assert second is not None
    backbone = load_backbone(TINY).eval()
    for row in (0, 4):
        rows = Rows([row], [1.0])
        batches = [collate(task, rows, pad, False) for task in (first, second)]
        with torch.no_grad():
            found = Objective(backbone, rationale_weight=weight).eval()(
                batches[0], None, batches[1]
            )
            task = float(Objective(backbone).eval()(batches[0]).loss)
            written = -float(backbone(batches[1]).scores_BC[0, 0])
        explained = EXAMPLES[row].rationale is not None
        expected = (1 - weight) * task + weight * written if explained else task
        assert float(found.loss) == pytest.approx(expected, rel=1e-5)
    assert [EXAMPLES[row].rationale is not None for row in (0, 4)] == [True, False]


def plan_key(**values: object) -> str:
    base = {
        "name": "x",
        "data": {"source": "creatures", "world": {"train": 24, "dev": 8, "test": 8}},
        "model": {"teacher": "tiny-t5", "student": "tiny-t5"},
        "methods": ["step_by_step"],
        "seeds": [0],
        "track": None,
    }
    (member,) = plan_run(parse(base | values)).members
    return member.student.key


def test_a_weight_of_its_own_is_another_student() -> None:
    assert plan_key() == plan_key(step_by_step={"weight": 0.5})
    assert plan_key() != plan_key(step_by_step={"weight": 0.3})
    assert plan_key() == plan_key(internalize={"tokens_each_epoch": 3})


@pytest.mark.parametrize("weight", [0, 1])
def test_both_tasks_are_trained(weight: float) -> None:
    with pytest.raises(UserError, match=r"step_by_step\.weight"):
        plan_key(step_by_step={"weight": weight})
