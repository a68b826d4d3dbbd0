"""Tables of the shapes that real data sets have; all content is invented here."""

from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from knife.config.columns import Columns
from knife.config.run import Data, parse
from knife.core.errors import UserError
from knife.data.example import Example
from knife.data.jsonl import ExampleFile, read_file, read_rows
from knife.data.source import load_source
from knife.data.tables.table import Table, table_of

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
    assert found[0] == (
        f"data.columns.question: {path} has no column 'steam'; did you mean 'stem'?"
    )


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
    assert [e.answer for e in [*splits.dev, *splits.test]] == [1, 2]
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
    assert error.startswith("data.columns.group: the 6 examples left are of one group, or have")


def test_numbers_are_joined_as_texts() -> None:
    row = {"passage": "Long ago", "year": 1999, "stem": "who won ?", "answer": "a", "fact": 2.0}
    found = table(row, columns={"question": ["passage", "year", "stem"], "rationale": ["fact"]})
    assert only(found).question == "Long ago. 1999. who won ?"
    assert only(found).rationale == "2"


@pytest.mark.parametrize("kind", [int, float, str])
def test_numbers_for_answers_that_are_choices_too_are_refused(kind: type) -> None:
    """However they are written: as an index, each names another choice than as a text."""
    rows = [{"question": f"q{n}", "options": [3, 0, 2, 1], "answer": kind(n)} for n in (3, 0, 2, 1)]
    (error,) = errors(table, *rows)
    assert "could be text or index, which mean different choices" in error
    told = table(*rows, columns={"answer_is": "text"})
    assert [e.choices[e.answer] for e in told.examples] == ["3", "0", "2", "1"]


def test_letters_that_are_choices_are_texts_only_if_all_are() -> None:
    rows = [{"question": f"q{n}", "options": ["C", "B", "A"], "answer": "A"} for n in range(19)]
    assert {e.choices[e.answer] for e in table(*rows).examples} == {"A"}
    rows.append({"question": "q", "options": ["red", "green", "blue"], "answer": "B"})
    (error,) = errors(table, *rows)
    assert "could be text or letter" in error


def test_columns_of_choices_are_in_the_order_of_their_names() -> None:
    row = {"option_d": "d", "option_b": "b", "option_a": "a", "option_c": "c"}
    assert only(table(row | {"question": "q", "answer": "A"})).choices == tuple("abcd")
    many = {f"choice{n}": f"c{n}" for n in (10, 9, 1, 2, 3, 4, 5, 6, 7, 8)}
    assert only(table(many | {"question": "q", "answer": "c9"})).choices[-1] == "c10"


def test_a_blank_line_below_the_header_shifts_nothing(tmp_path: Path) -> None:
    path = csv(tmp_path, "question,option_a,option_b,answer\n\nq,x,y,A,\nr,x,y,B,\n")
    (error,) = errors(read_file, path)
    assert error.startswith(f"{path}:2: has 5 fields, but there are 4 columns")


def test_a_quotation_mark_that_takes_in_rows_is_noted(tmp_path: Path) -> None:
    text = 'question\tanswer\tother\n"Hello, he said\ty\tB\nq\ty\tB\n"Bye?\ty\tB\nr\ty\tB\n'
    found = read_file(csv(tmp_path, text, "train.tsv"))
    assert any("row 1 has a field that holds a whole row" in note for note in found.notes)


@pytest.mark.parametrize("name", ["quiz*.csv", "quiz [final].csv"])
def test_a_name_is_no_pattern(tmp_path: Path, name: str) -> None:
    csv(tmp_path, "question,answer\nother,x\n", "quiz-1.csv")
    path = csv(tmp_path, "question,answer\nmine,x\n", name)
    assert only(read_file(path)).question == "mine"


def test_no_group_is_no_group(tmp_path: Path) -> None:
    rows = "".join(f"{'' if n % 2 else f'g{n}'},q{n},x,y,{'AB'[n % 2]}\n" for n in range(40))
    path = csv(tmp_path, f"topic,question,option_a,option_b,answer\n{rows}")
    splits = load_source(Data(source=str(path), columns=Columns(group="topic")))
    assert {e.group for e in splits.everything} == {None, *(f"g{n}" for n in range(0, 40, 2))}
    assert len(splits.test) == 8
    numbers = table({"question": "q", "answer": "a", "page": 7.0}, columns={"group": "page"})
    assert only(numbers).group == "7"


def test_groups_in_two_given_splits_are_noted(tmp_path: Path) -> None:
    header = "page,question,option_a,option_b,answer\n"
    for split, page in (("train", "p"), ("dev", "p"), ("test", "o")):
        csv(tmp_path, f"{header}{page},q {split},x,y,A\n{page},r {split},x,y,B\n", f"{split}.csv")
    splits = load_source(Data(source=str(tmp_path), columns=Columns(group="page")))
    assert "1 of the 1 groups of dev are also in train" in splits.notes


@pytest.mark.parametrize("answer", [["x"], ["x", "y"], {"text": "x"}])
def test_answers_of_other_types(answer: Any) -> None:
    rows = [{"question": f"q{n}", "options": ["x", "y"], "answer": answer} for n in range(3)]
    if answer == ["x"]:
        assert [e.answer for e in table(*rows).examples] == [0] * 3
    else:
        (error,) = errors(table, *rows)
        assert "3 of 3 answers name no choice" in error


def test_minus_one_is_an_answer_where_it_is_a_choice() -> None:
    rows = [{"question": f"q{n}", "options": ["1", "-1", "0"], "answer": "-1"} for n in range(3)]
    assert [e.answer for e in table(*rows, columns={"answer_is": "text"}).examples] == [1] * 3
    assert only(table({"question": "2 - 3 ?", "answer": "-1"})).choices == ("-1",)
    row: dict[str, Any] = {"question": "q", "options": WORDS, "answer": -1}
    (error,) = errors(table, row, columns={"answer_is": "index"})
    assert error.startswith("here: row 1: answer: must be")


def test_labels_that_some_choices_lack_are_refused() -> None:
    choices = [{"text": "red"}, {"label": "B", "text": "blue"}, {"label": "C", "text": "green"}]
    rows: Any = ({"question": "q", "choices": choices, "answer": "B"},)
    (error,) = errors(read_rows, Table(["question", "choices", "answer"], rows), None, "here")
    assert error.startswith("here: choices: must be a list of texts, but got [{")


def test_a_column_that_is_no_list_of_choices_says_so() -> None:
    rows = [{"question": "q", "choices": "red|blue", "answer": "red"}]
    assert errors(table, *rows) == ['here: choices: must be a list of texts, but got "red|blue"']


def test_shards_are_one_table(tmp_path: Path) -> None:
    """Neither alone shows that answers are counted from 1, and a question is in both."""
    header = "question,option_a,option_b,option_c,answer\n"
    csv(tmp_path, f"{header}p,x,y,z,1\nq,x,y,z,2\n", "train-00000-of-00002.csv")
    csv(tmp_path, f"{header}q,x,y,z,2\nr,x,y,z,3\n", "train-00001-of-00002.csv")
    csv(tmp_path, f"{header}s,x,y,z,1\n", "dev.csv")
    csv(tmp_path, f"{header}t,x,y,z,1\n", "test.csv")
    splits = load_source(Data(source=str(tmp_path)))
    assert [e.answer for e in splits.train] == [0, 1, 1, 2]
    assert [e.answer for e in splits.dev] == [0]
    csv(tmp_path, "question,answer\n", "train-00001-of-00002.csv")
    assert any("must have the columns of" in e or "has no rows" in e
               for e in errors(load_source, Data(source=str(tmp_path))))  # fmt: skip


def test_no_choices_means_none_for_classes_too() -> None:
    features = datasets.Features(
        {"question": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
    )
    row: dict[str, Any] = {"question": "q", "label": 1}
    assert only(table(row, features=features, columns={"choices": []})).choices == ("pos",)
    found = table(row, features=features)
    assert only(found).choices == ("neg", "pos")
    assert "here: each row has the choices 'neg', 'pos'" in found.notes


def test_broken_lines_are_left_out_of_a_mapped_file_too(tmp_path: Path) -> None:
    lines = "".join(f'{{"stem": "q{n}", "answer": "a"}}\n' for n in range(9))
    path = csv(tmp_path, f"{lines}{{broken\n", "train.jsonl")
    assert errors(read_file, path, Columns(question=["stem"]))[0].startswith(
        f"{path}: row 10: broken JSON"
    )
    assert len(read_file(path, Columns(question=["stem"]), 0.5).examples) == 9


def test_an_unknown_key_of_the_map_names_those_that_there_are() -> None:
    base = {"name": "x", "model": {"teacher": "tiny-t5", "student": "tiny-t5"}}
    (error,) = errors(parse, base | {"data": {"source": "a.csv", "columns": {"qestion": "stem"}}})
    assert error == "data.columns.qestion: unknown key; did you mean 'question'?"
