"""The model card: metadata that the hub reads, results with intervals, limits, and no secrets."""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from small_run import SMALL

from knife.config.methods import Method
from knife.config.overrides import merge
from knife.config.run import parse
from knife.data.creatures import creatures
from knife.data.example import Example, Splits
from knife.data.leaks import RationaleOnly
from knife.models.source import EMBEDDED, ModelSource
from knife.models.weights import Weights
from knife.report.card import Facts, card
from knife.stats.verdict import Ceiling, verdict

TINY = ModelSource("tiny-t5", EMBEDDED["tiny-t5"], None, "x")
HUB = ModelSource("google-t5/t5-small", Path("/cache"), "df1b051c49625cf57a3d0d8d3863ed4d", "x")


def facts(method: Method = "knife", **changes: Any) -> Facts:
    values = merge(SMALL, {"methods": [method], "seeds": [0, 1]} | changes.pop("config", {}))
    config = parse(values)
    splits = creatures(config.data.world)
    own = {example.id: number % 4 > 0 for number, example in enumerate(splits.test)}
    right = {0: own, 1: own}
    wrong = {seed: dict.fromkeys(own, False) for seed in right}
    known = Facts(
        run="mine",
        run_key="0123456789abcdef",
        method=method,
        seed=1,
        key="fedcba9876543210",
        config=config,
        student=TINY,
        teacher=TINY,
        weights={},
        family="encoder-decoder",
        plain=True,
        data_key="00112233",
        splits=splits,
        written=None,
        leaks=RationaleOnly(0.61, 0.5, 40),
        accuracy=0.75,
        verdict=verdict({"other": wrong, method: right}, "other", Ceiling(1.0, 0.6)),
    )
    made = replace(known, **changes)
    return replace(made, weights=made.weights or {made.base.name: Weights(1000, 1000)})


def metadata(text: str) -> dict[str, Any]:
    """Return what the hub reads."""
    values: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return values


def limits(of: Facts) -> str:
    return card(of).split("## Limits")[1].split("## How to load")[0]


def test_metadata_and_results() -> None:
    text = card(facts())
    values = metadata(text)
    assert values["library_name"] == "transformers"
    assert values["license"] == "apache-2.0"
    assert values["pipeline_tag"] == "multiple-choice"
    assert values["metrics"] == ["accuracy"]
    assert "base_model" not in values
    assert "datasets" not in values
    (entry,) = values["model-index"]
    (result,) = entry["results"]
    assert result["metrics"] == [{"type": "accuracy", "value": 0.75}]
    (row,) = [line for line in text.splitlines() if line.startswith("| **knife**")]
    # Two seeds that agree: the interval is over 20 examples.
    assert row.startswith("| **knife**, 2 seeds | 75.0 (")
    assert "+75.0 (" in row
    assert "arxiv.org/abs/2212.09721" in text


def test_the_share_of_weights_from_files_is_said() -> None:
    assert "| weights from its files | 100 % of 1,000 parameters |" in card(facts())
    started = {TINY.name: Weights(1000, 970, {"the answer head": 30})}
    said = "| weights from its files | 97 % of 1,000 parameters; new: the answer head (30) |"
    assert said in card(facts(weights=started))


def test_what_the_hub_knows_is_named_as_the_hub_does() -> None:
    text = card(facts(student=HUB, config={"data": {"source": "cos_e"}}))
    values = metadata(text)
    assert values["base_model"] == "google-t5/t5-small"
    assert values["datasets"] == ["Salesforce/cos_e"]
    # Its rationales are of another data set than its questions.
    joined = card(facts(config={"data": {"source": "commonsense_qa_ecqa"}}))
    assert metadata(joined)["datasets"] == ["tau/commonsense_qa", "tasksource/ecqa"]
    assert "(hub: `tau/commonsense_qa`, `tasksource/ecqa`)" in joined
    assert "license" not in values
    assert "Licence: depends on base model and data" in text
    assert "`google-t5/t5-small` (hub, revision `df1b051c4962`)" in text
    # It starts from the teacher's weights, so that is the base model.
    values = metadata(card(facts("teacher_init", student=TINY, teacher=HUB)))
    assert values["base_model"] == "google-t5/t5-small"


def test_limits() -> None:
    said = limits(facts())
    assert (
        "With 20 test examples, one student's accuracy has an uncertainty of about ± 21.9 points"
        in said
    )
    assert "The test split is small." in said
    assert "Guessing gives 50.0 %" in said
    assert "predicts 61.0 % of the answers from the rationale alone (chance 50.0 %, 40 " in said
    assert "answers 100.0 % of the test split correctly with rationales, and 60.0 % without" in said
    assert "rationale" not in limits(facts("finetune"))
    assert "`retrieve.jsonl` contains its training examples" in limits(facts("retrieve"))


def test_leakage_of_choices_of_their_own() -> None:
    train = [
        Example("1", "where ?", ("sea", "land"), 0, "it swims in the sea ."),
        Example("2", "what ?", ("fish", "hay"), 1, "it grazes ."),
    ]
    found = facts(leaks=None, splits=Splits(train, train, train))
    found = replace(found, verdict=verdict({"knife": {0: {"1": True, "2": False}}}))
    assert "50.0 % of the training rationales contain the answer." in limits(found)


@pytest.mark.parametrize("method", get_args(Method))
@pytest.mark.parametrize("family", ["encoder-decoder", "encoder", "decoder"])
def test_every_method_and_family_has_a_card(method: Method, family: Any) -> None:
    text = card(facts(method, family=family, plain=family == "encoder-decoder"))
    assert metadata(text)["model-index"][0]["name"] == f"mine-{method}-seed-1"
    plain = text.split("## How to load")[1]
    assert ("AutoModelForSeq2SeqLM" in plain) == (family == "encoder-decoder")
    assert ("answer_head.safetensors" in plain) == (family == "encoder")
    assert "{{" not in text
    assert "None" not in text


def test_scores_that_transformers_computes_in_another_way_are_left_to_knife() -> None:
    """As in BART, whose tokenizer begins a choice with a token that is not scored."""
    assert "def score(" in card(facts(plain=True))
    text = card(facts(plain=False))
    assert "def score(" not in text
    assert "`AutoModelForSeq2SeqLM.from_pretrained` of plain transformers loads the weights" in text


def test_open_students() -> None:
    test = [Example("1", "where ?", ("in the sea",), 0, None)]
    found = facts("finetune", splits=Splits(test, test, test), leaks=None)
    text = card(replace(found, verdict=verdict({"finetune": {0: {"1": True}}})))
    values = metadata(text)
    assert (values["metrics"], values["pipeline_tag"]) == (["exact_match"], "question-answering")
    assert "Guessing" not in text
    assert '"choices"' not in text


def test_names_of_a_users_folders_stay_here() -> None:
    private = "/home/somebody/secret/my | data`\n---"
    model = ModelSource("/home/somebody/model", Path("/home/somebody/model"), None, "x")
    text = card(facts(student=model, config={"data": {"source": private}}))
    assert "somebody" not in text
    assert "| source | `my / data' ---` |" in text
    assert "`model` (a local folder)" in text
    assert "license" not in metadata(text)
