"""JSON that any parser reads: written in one place, and NaN and Infinity are refused."""

import ast
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from command_fixtures import FinishedRun
from small_run import SMALL
from small_sweep import RATE, Swept, errors

from knife.config.overrides import merge, read_overrides
from knife.config.run import parse
from knife.core import strict_json
from knife.core.errors import UserError
from knife.data.jsonl import read_examples
from knife.inference.file import predict_examples

HOUSE = Path(__file__).parents[1] / "knife"
# Values in messages for users, which may show the invalid value.
MESSAGES = {("data/line_errors.py", "show"), ("config/section_errors.py", "_line")}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_never_written(value: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinite"):
        strict_json.dumps({"a": [value]}, indent=1)
    assert strict_json.dumps({"a": [1e308, None]}) == '{"a": [1e+308, null]}'


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400"])
def test_what_is_no_number_is_never_read(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a JSON value|too large"):
        strict_json.loads(f'{{"a": [{text}]}}')
    assert strict_json.loads('{"a": [1e308, 2, null]}') == {"a": [1e308, 2, None]}


def test_all_json_is_written_in_one_place() -> None:
    found = {
        (path.relative_to(HOUSE).as_posix(), function.name)
        for path in HOUSE.rglob("*.py")
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and (node.value.id, node.attr) in {("json", "dump"), ("json", "dumps")}
    }
    assert found == {("core/strict_json.py", "dumps"), *MESSAGES}


def test_a_line_with_a_value_that_is_no_json_is_a_error_with_its_place(tmp_path: Path) -> None:
    good = {"id": "a", "question": "?", "choices": ["yes", "no"], "answer": 0}
    lines = [json.dumps(good | {"id": str(n)}) for n in range(5)]
    for number, text in ((1, "NaN"), (2, "Infinity"), (3, "1e400")):
        lines[number] = lines[number][:-1] + f', "rationale": {text}}}'
    path = tmp_path / "some.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(UserError) as error:
        read_examples(path)
    assert error.value.errors == [
        f"{path}:2: broken JSON: NaN is not a JSON value: write null where a value is missing",
        f"{path}:3: broken JSON: Infinity is not a JSON value: write null where a value is missing",
        f"{path}:4: broken JSON: the number 1e400 is too large",
    ]


def test_an_example_in_memory_with_a_number_that_is_none_is_a_error(tmp_path: Path) -> None:
    question = {"id": "a", "question": "?", "choices": ["yes", "no"]}
    with pytest.raises(UserError, match=r"^examples:2: a number in it is NaN or infinite"):
        predict_examples(tmp_path, [question, question | {"rationale": math.nan}])


@pytest.mark.parametrize("text", [".nan", ".inf", "-.inf", "1e400"])
@pytest.mark.parametrize(
    "key", ["student.learning_rate", "align.input.weight", "data.fraction", "scale.hang_seconds"]
)
def test_a_config_takes_finite_numbers_alone(tmp_path: Path, key: str, text: str) -> None:
    with pytest.raises(UserError) as error:
        parse(merge(SMALL, read_overrides([f"{key}={text}", f"store={tmp_path}"])))
    assert len(error.value.errors) == 1
    assert re.match(rf"{key}: input should be .+, but got ", error.value.errors[0])


@pytest.mark.parametrize(
    "domain",
    [{"uniform": [0, math.inf]}, {"loguniform": [math.nan, 1]}, {"choice": [1e-3, math.nan]}],
)
def test_a_sweep_takes_finite_numbers_alone(tmp_path: Path, domain: dict[str, Any]) -> None:
    found = errors(tmp_path, space={RATE: domain})
    assert found
    assert all("finite number" in error for error in found), found


def strictly(folder: Path) -> int:
    """Parse every JSON file in a folder strictly, and return their number."""
    files = [p for pattern in ("*.json", "*.jsonl") for p in folder.rglob(pattern)]
    # Ray's own file, which is not JSON despite its name.
    files = [path for path in files if not path.name.startswith("search_gen_state")]
    for path in files:
        text = path.read_text(encoding="utf-8")
        for part in text.splitlines() if path.suffix == ".jsonl" else [text]:
            strict_json.loads(part)
    return len(files)


def test_all_that_a_run_leaves_is_strict(finished_run: FinishedRun) -> None:
    assert strictly(finished_run.store) > 20
    strict_json.loads(finished_run.stdout)


def test_all_that_a_sweep_leaves_is_strict(swept: Swept) -> None:
    assert strictly(swept.folder) > 5


@pytest.mark.parametrize("changes", [{"learning_rate": 1e38}, {"weight_decay": 1e300}])
def test_a_learning_rate_beyond_single_precision_is_refused(changes: dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"^student: learning_rate and weight_decay must be"):
        parse(merge(SMALL, {"student": {"learning_rate": 1e-3} | changes}))
