import pytest
from mlflow.utils import validation

from knife.track import params, remote
from knife.track.params import to_params, to_tags
from knife.track.secrets import redact, redact_values


def test_a_config_becomes_flat_texts() -> None:
    config = {
        "name": "demo",
        "data": {"fraction": 0.1, "world": {"cue": 0.5}},
        "methods": ["finetune", {"name": "shuffled", "data": {"rationale": "shuffled"}}],
        "seeds": [0, 1],
        "track": {"uri": None},
        "teacher": {"bottleneck": True},
        "empty": {},
    }
    assert to_params(config) == {
        "name": "demo",
        "data.fraction": "0.1",
        "data.world.cue": "0.5",
        "methods": '["finetune", {"name": "shuffled", "data": {"rationale": "shuffled"}}]',
        "seeds": "[0, 1]",
        "track.uri": "null",
        "teacher.bottleneck": "true",
        "empty": "{}",
    }


def test_limits_are_those_of_mlflow() -> None:
    assert params.KEY_LENGTH == validation.MAX_ENTITY_KEY_LENGTH
    assert params.PARAM_LENGTH == validation.MAX_PARAM_VAL_LENGTH
    assert params.TAG_LENGTH == validation.MAX_TAG_VAL_LENGTH
    assert remote.METRICS_A_BATCH == validation.MAX_METRICS_PER_BATCH
    assert remote.PARAMS_A_BATCH == validation.MAX_PARAMS_TAGS_PER_BATCH


def test_long_values_are_cut() -> None:
    value = to_params({"seeds": list(range(10_000))})["seeds"]
    assert len(value) == params.PARAM_LENGTH
    assert value.startswith("[0, 1, 2")
    assert value.endswith("…")
    assert len(to_tags({"note": "x" * 9000})["note"]) == params.TAG_LENGTH


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("http://me:secret@host:5000/x", "http://***@host:5000/x"),
        ("https://secret@host", "https://***@host"),
        ("postgresql+psycopg2://me:se@cr/et@host/db", "postgresql+psycopg2://***@host/db"),
        ("mysql://host/db?user=a&password=secret&x=1", "mysql://host/db?user=a&password=***&x=1"),
        ("both http://a:b@c and http://d:e@f/", "both http://***@c and http://***@f/"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("http://host:5000/a", "http://host:5000/a"),
        ("mail me@host: it works", "mail me@host: it works"),
    ],
)
def test_passwords_are_taken_out(text: str, clean: str) -> None:
    assert redact(text) == clean
    assert redact_values({"a": [text, 1, (text,)]}) == {"a": [clean, 1, [clean]]}
    assert to_params({"uri": text}) == {"uri": clean}
    assert to_tags({"uri": text}) == {"uri": clean}
