"""Tables of the shapes that real data sets have; all content is invented here."""

from pathlib import Path
from typing import Any

import datasets
import pyarrow  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]
import pytest

from knife.config.columns import Columns
from knife.config.run import Data
from knife.core.errors import UserError
from knife.data.example import Example
from knife.data.jsonl import ExampleFile, read_file, read_rows
from knife.data.source import load_source
from knife.data.tables.table import table_of

WORDS = ["iron", "wool", "glass", "salt"]


def table(*rows: dict[str, Any], features: Any = None, columns: Any = None) -> ExampleFile:
    """Read rows as a table that the library holds."""
    found = datasets.Dataset.from_list(list(rows), features=features)
    given = Columns(**columns) if columns else None
    return read_rows(table_of(found), given, "here")


def only(found: ExampleFile) -> Example:
    (example,) = found.examples
    return example


def errors(call: Any, *arguments: Any, **options: Any) -> list[str]:
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    return caught.value.errors


def csv(folder: Path, text: str, name: str = "quiz.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_choices_with_labels_and_two_facts() -> None:
    row = {
        "id": "q-1",
        "question": "What bends light?",
        "choices": {"text": WORDS, "label": ["A", "B", "C", "D"]},
        "answerKey": "C",
        "fact1": "glass is clear",
        "fact2": "Clear things bend light.",
    }
    found = table(row, columns={"rationale": ["fact1", "fact2"]})
    assert only(found) == Example(
        "q-1",
        "What bends light?",
        tuple(WORDS),
        2,
        "glass is clear. Clear things bend light.",
    )
    assert found.notes[0] == (
        "here: by the names of its columns: id from id; question from question; choices from "
        "choices; answer from answerKey"
    )
    assert found.columns
    assert found.columns.answer_is == "label"


def test_labels_that_are_numbers_are_no_indices() -> None:
    """Some rows of a set have the labels 1 to 4, others A to D."""
    letters = {"text": WORDS, "label": ["A", "B", "C", "D"]}
    numbers = {"text": WORDS, "label": ["1", "2", "3", "4"]}
    rows = [
        {"question": f"q {n}", "choices": choices, "answerKey": key}
        for n, (choices, key) in enumerate([(letters, "B"), (numbers, "1"), (numbers, "2")])
    ]
    assert [e.answer for e in table(*rows).examples] == [1, 0, 1]


def test_the_right_answer_in_a_column_of_its_own_is_shuffled() -> None:
    rows = [
        {
            "question": f"Which is number {n}?",
            "distractor1": f"not {n}",
            "distractor2": f"more than {n}",
            "distractor3": f"less than {n}",
            "correct_answer": f"just {n}",
            "support": "",
        }
        for n in range(40)
    ]
    found = table(*rows, columns={"rationale": "support"})
    for n, example in enumerate(found.examples):
        assert example.choices[example.answer] == f"just {n}"
        assert example.rationale is None
    # Everywhere, and the same each time.
    assert {example.answer for example in found.examples} == {0, 1, 2, 3}
    assert table(*rows, columns={"rationale": "support"}).examples == found.examples


def test_a_column_for_each_choice_and_a_class_as_letter() -> None:
    features = datasets.Features(
        {name: datasets.Value("string") for name in ("id", "question", "opa", "opb", "opc", "opd")}
        | {"cop": datasets.ClassLabel(names=["a", "b", "c", "d"])}
    )
    row = {"id": "m", "question": "q", "cop": 3} | dict(
        zip(("opa", "opb", "opc", "opd"), WORDS, strict=True)
    )
    found = table(row, features=features, columns={"answer": "cop"})
    assert only(found).answer == 3
    assert found.columns
    assert found.columns.answer_is == "letter"


def test_classes_are_the_choices_where_there_are_no_others() -> None:
    features = datasets.Features(
        {name: datasets.Value("string") for name in ("premise", "hypothesis", "explanation_1")}
        | {"label": datasets.ClassLabel(names=["follows", "open", "contradicts"])}
    )
    rows = [
        {
            "premise": "A man sleeps",
            "hypothesis": f"A man {n} rests",
            "explanation_1": "Sleep is rest",
            "label": n,
        }
        for n in range(3)
    ]
    columns = {
        "question": ["premise", "hypothesis"],
        "rationale": "explanation_1",
        "group": "premise",
    }
    found = table(*rows, features=features, columns=columns)
    assert [e.answer for e in found.examples] == [0, 1, 2]
    assert found.examples[0].choices == ("follows", "open", "contradicts")
    assert found.examples[0].question == "A man sleeps. A man 0 rests"
    assert {e.group for e in found.examples} == {"A man sleeps"}


@pytest.mark.parametrize("choices", [["yes", "no"], [True, False], ["no", "yes"]])
def test_truth_values_are_yes_and_no(choices: list[Any]) -> None:
    """YAML reads yes and no without quotation marks as truth values."""
    rows = [{"question": f"q {n}?", "answer": n == 1, "passage": "p"} for n in range(2)]
    found = table(*rows, columns={"choices": choices})
    assert [e.choices[e.answer] for e in found.examples] == ["no", "yes"]


def test_zero_and_one_may_be_indices_or_truth_values() -> None:
    rows = [{"question": f"q {n}?", "answer": n} for n in range(2)]
    (error,) = errors(table, *rows, columns={"choices": ["yes", "no"]})
    assert "could be index or bool, which mean different choices" in error
    found = table(*rows, columns={"choices": ["yes", "no"], "answer_is": "bool"})
    assert [e.choices[e.answer] for e in found.examples] == ["no", "yes"]


@pytest.mark.parametrize(
    ("answers", "form", "indices"),
    [
        (["1", "2", "3"], "index1", [0, 1, 2]),
        ([0, 1, 2], "index", [0, 1, 2]),
        (["c", "A", "(b)"], "letter", [2, 0, 1]),
        (["wool", " iron", "glass"], "text", [1, 0, 2]),
    ],
)
def test_what_answers_are_is_found_out_from_all_rows(
    answers: list[Any], form: str, indices: list[int]
) -> None:
    rows = [
        {"context": "c", "question": f"q {n}", "answerA": "iron", "answerB": "wool",
         "answerC": "glass", "label": answer}
        for n, answer in enumerate(answers)
    ]  # fmt: skip
    found = table(*rows, columns={"question": ["context", "question"]})
    assert [e.answer for e in found.examples] == indices
    assert found.columns
    assert found.columns.answer_is == form


def test_what_could_be_counted_from_0_or_from_1_is_refused() -> None:
    rows = [{"question": f"q {n}", "options": WORDS[:3], "answer": n} for n in (1, 2, 2)]
    (error,) = errors(table, *rows)
    assert error == (
        'here: data.columns.answer=answer: 1 for ["iron", "wool", "glass"] could be index or '
        "index1, which mean different choices: say which (data.columns.answer_is=index)"
    )
    told = table(*rows, columns={"answer_is": "index"})
    assert [e.answer for e in told.examples] == [1, 2, 2]


def test_answers_that_name_no_choice_are_counted() -> None:
    rows = [{"question": f"q {n}", "options": WORDS, "answer": f"x{n}"} for n in range(9)]
    (error,) = errors(table, *rows)
    assert error.startswith("here: data.columns.answer=answer: 9 of 9 answers name no choice, ")
    assert 'among them "x0", "x1", "x2", "x3", "x4"; expected' in error


def test_an_answer_without_choices_is_open() -> None:
    found = table({"question": "How many?", "answer": "48", "solution_steps": "24 and 24"},
                  columns={"rationale": "solution_steps"})  # fmt: skip
    assert only(found).open
    assert only(found).choices == ("48",)
    assert only(found).rationale == "24 and 24"


def test_stops_do_not_tell_a_choice_apart() -> None:
    rows = [
        {"question": "q", "options": ["more heat", "less heat."], "answer": "less heat."},
        {"question": "r", "options": ["Iron rusts.", "Wool burns."], "answer": "Iron rusts."},
    ]
    found = table(*rows)
    assert found.examples[0].choices == ("more heat", "less heat")
    assert found.examples[1].choices == ("Iron rusts.", "Wool burns.")
    assert "removed in 1 row" in found.notes[-1]


def test_a_csv_is_read_as_text(tmp_path: Path) -> None:
    path = csv(
        tmp_path,
        "﻿id;question;option_a;option_b;answer\n"
        '007;"What, or\nwho?";None;NA;B\n'
        "1.0;q;x;;A\n".replace("x;;A", "x;y;A"),
    )
    found = read_file(path)
    assert found.examples == [
        Example("007", "What, or\nwho?", ("None", "NA"), 1),
        Example("1.0", "q", ("x", "y"), 0),
    ]
    assert found.notes[0] == f"{path}: its columns are separated by ';'"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("question,answer\nq,x,more\n", ":2: has 3 fields, but there are 2 columns"),
        ("question,answer\nq,x\nr,x,more\n", "Expected 2 fields in line 3, saw 3"),
        ('question,answer\n"q,x\nr,y\n', "EOF inside string starting at row 1"),
        ("question,answer,answer\nq,x,y\n", ":1: the column 'answer' is there twice"),
        ("\n", ":1: must have the names of the columns"),
        ("question,answer\n", "has no rows below the names"),
        ("question\nq\n", "no column is named like the answer"),
    ],
)
def test_a_broken_csv_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = csv(tmp_path, text)
    (error,) = errors(read_file, path)
    assert error.startswith(str(path))
    assert said in error
    assert "\n" not in error


def test_a_parquet_file_cut_short_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    whole = tmp_path / "whole.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"question": ["q"], "answer": ["a"]}), whole)
    assert only(read_file(whole)).question == "q"
    path.write_bytes(whole.read_bytes()[:-9])
    (error,) = errors(read_file, path)
    assert error.startswith(f"{path}: cannot be read as parquet: Parquet magic bytes not found")


def test_columns_that_are_not_there_are_told_at_once(tmp_path: Path) -> None:
    path = csv(tmp_path, "stem,a,b,key\nq,x,y,A\n")
    columns = Columns(question=["steam"], choices=["a", "c"], answer="kez", group="page")
    found = errors(read_file, path, columns)
    assert [error.partition(":")[0] for error in found] == [
        "data.columns.question",
        "data.columns.answer",
        "data.columns.group",
        "data.columns.choices",
    ]
    assert "did you mean 'stem'?" in found[0]
    assert f"({path} has the columns stem, a, b, key)" in found[0]


def test_json_lines_are_a_table_where_a_map_is_given(tmp_path: Path) -> None:
    path = csv(tmp_path, '{"stem": "q", "opts": "[\'x\', \'y\']", "gold": 1}\n', "train.jsonl")
    columns = Columns(question=["stem"], choices=["opts"], answer="gold", answer_is="index")
    assert only(read_file(path, columns)).choices == ("x", "y")


FAULTY = "question,option_a,option_b,answer\nq1,x,y,A\n,x,y,A\n" + "".join(
    f"q{n},x,y,B\n" for n in range(2, 30)
)


def test_faulty_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    path = csv(tmp_path, FAULTY)
    assert errors(read_file, path) == [f"{path}: row 2: question: is empty"]
    found = read_file(path, faulty=0.05)
    assert len(found.examples) == 29
    assert f"{path}: 1 of 30 rows are left out: 1 with no question ('row 2')" in found.notes
    assert errors(read_file, path, faulty=0.01)[0] == (
        f"{path}: 1 of 30 rows are faulty (3.3%), more than may be left out (1.0%; "
        "data.faulty=skip:SHARE raises that)"
    )


def test_faulty_lines_of_examples_are_left_out_too(tmp_path: Path) -> None:
    lines = [f'{{"id": {n}, "question": "q", "answer": "{n}"}}\n' for n in range(3)]
    path = csv(tmp_path, "".join([*lines, "{broken\n", lines[0]]), "train.jsonl")
    found = read_file(path, faulty=0.5)
    assert [e.id for e in found.examples] == ["0", "1", "2"]
    (note,) = found.notes
    assert "2 of 5 lines are left out: 1 with broken JSON, 1 with a repeated id" in note


def test_a_folder_is_read_by_what_train_shows(tmp_path: Path) -> None:
    """In dev alone, nobody could tell whether answers are counted from 0 or from 1."""
    rows = "".join(f"q{n},x,y,z,{n % 3}\n" for n in range(9))
    csv(tmp_path, f"question,option_a,option_b,option_c,answer\n{rows}", "train.csv")
    csv(tmp_path, "question,option_a,option_b,option_c,answer\nq1,x,y,z,1\n", "dev.csv")
    pyarrow.parquet.write_table(
        pyarrow.table(
            {
                "question": ["t"],
                "option_a": ["x"],
                "option_b": ["y"],
                "option_c": ["z"],
                "answer": ["2"],
            }
        ),
        tmp_path / "test.parquet",
    )
    splits = load_source(Data(source=str(tmp_path)))
    assert [e.answer for e in splits.dev + splits.test] == [1, 2]
    assert splits.dev[0].id.startswith("dev-")
    assert "1 of the 1 questions of dev are also in train" in splits.notes


def test_rows_of_one_group_stay_on_one_side(tmp_path: Path) -> None:
    rows = "".join(f"p{n // 4},q{n},x,y,{'AB'[n % 2]}\n" for n in range(200))
    path = csv(tmp_path, f"page,question,option_a,option_b,answer\n{rows}")
    data = Data(source=str(path), columns=Columns(group="page"))
    splits = load_source(data)
    groups = [{e.group for e in part} for part in splits.parts.values()]
    assert all(groups)
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]
    assert 30 <= len(splits.test) <= 40
    one = csv(tmp_path, "page,question,option_a,option_b,answer\n" + "p,q,x,y,A\np,r,x,y,B\n" * 3)
    (error,) = errors(load_source, data)
    assert one == path
    assert error.startswith("data.columns.group: joins all examples into one group")
