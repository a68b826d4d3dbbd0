"""Hub sources: rows with the hub's fields (content invented here), and real loading.

No test contacts the hub. Loading is tested with a small hub on this machine, and with
one that does not answer.
"""

import hashlib
import http.server
import io
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from knife.config.columns import Columns
from knife.config.run import Data
from knife.core.errors import UserError
from knife.data import hub
from knife.data.example import Example, Splits
from knife.data.examples import Examples
from knife.data.hub import _prepared
from knife.data.hub_rows import logical_form_in_words
from knife.data.jsonl import ExampleFile, read_rows
from knife.data.known import KNOWN
from knife.data.source import load_source
from knife.data.tables.table import Table

STRATEGYQA: dict[str, Any] = {
    "qid": "a1b2",
    "term": "Snail",
    "description": "a slow animal with a house",
    "question": "Could a snail win a race with a horse?",
    "answer": False,
    "facts": "Snails creep.  Horses gallop.",
}
OPENBOOKQA: dict[str, Any] = {
    "id": "7-980",
    "question_stem": "A kettle whistles because of",
    "choices": {"text": ["steam", "rain", "sand", "wool"], "label": ["A", "B", "C", "D"]},
    "answerKey": "A",
    "fact1": "steam makes a whistle sound",
    "humanScore": 1.0,
    "clarity": 1.8,
    "turkIdAnonymized": "b356d338b7",
}
COS_E: dict[str, Any] = {
    "id": "9c1d",
    "question": "Where would a spoon sleep, if it slept?",
    "choices": ["drawer", "river", "cloud"],
    "answer": "drawer",
    "abstractive_explanation": "spoons lie in a drawer\nall night",
    "extractive_explanation": "spoon sleep",
}
ECQA: dict[str, Any] = {
    "q_no": "e5f6",
    "q_concept": "bread",
    "q_text": "What turns dough into bread?",
    "q_op1": "an oven",
    "q_op2": "a fridge",
    "q_op3": "a song",
    "q_op4": "a letter",
    "q_op5": "a boat",
    "q_ans": "an oven",
    "taskA_pos": "Ovens bake.",
    "taskA_neg": "A fridge cools.\nA song is heard.",
    "taskB": "Dough has to be baked, and an oven bakes.",
}
QUAREL: dict[str, Any] = {
    "id": "QuaRel_V1_X_0001",
    "answer_index": 1,
    "logical_forms": [
        "(infer (speed higher world1) (heatLoss higher world2) (heatLoss higher world1))"
    ],
    "logical_form_pretty": (
        "qrel(speed, higher, world1) -> qrel(heatLoss, higher, world2) ; "
        "qrel(heatLoss, higher, world1)"
    ),
    "world_literals": {"world1": ["the fast sled"], "world2": ["the slow sled"]},
    "question": "Two sleds race.  Which one cools more? (A) the slow sled (B) the fast sled",
}
COMMONSENSE_QA: dict[str, Any] = {
    "id": "e5f6",
    "question": "What turns  dough into bread?",
    "question_concept": "bread",
    "choices": {
        "label": ["A", "B", "C", "D", "E"],
        "text": ["a song", "an oven", "a boat", "a letter", "a fridge"],
    },
    "answerKey": "B",
}


def read(name: str, *rows: dict[str, Any]) -> Splits:
    """Read rows as the train split of a known source."""
    table = _prepared(name, KNOWN[name], Table([], rows))
    found = read_rows(table, Columns(**KNOWN[name].columns), f"{name} train", 1.0)
    return Splits(found.examples, [], [], found.notes)


def only(name: str, row: dict[str, Any]) -> Example:
    (example,) = read(name, row).train
    return example


def why(name: str, row: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        read(name, row)
    (error,) = caught.value.errors
    return error


def test_strategyqa() -> None:
    expected = Example(
        "a1b2",
        "Could a snail win a race with a horse?",
        ("yes", "no"),
        1,
        "Snails creep. Horses gallop.",
    )
    assert only("strategyqa", STRATEGYQA) == expected
    facts = ["Snails  creep", "Horses gallop. "]
    assert only("strategyqa", {**STRATEGYQA, "facts": facts}) == expected
    assert only("strategyqa", {**STRATEGYQA, "answer": True}).answer == 0
    for nothing in (None, [None], []):
        assert only("strategyqa", {**STRATEGYQA, "facts": nothing}).rationale is None


def test_openbookqa() -> None:
    assert only("openbookqa", OPENBOOKQA) == Example(
        "7-980",
        "A kettle whistles because of",
        ("steam", "rain", "sand", "wool"),
        0,
        "steam makes a whistle sound",
    )
    assert only("openbookqa", {**OPENBOOKQA, "answerKey": "D "}).answer == 3


def test_cos_e() -> None:
    assert only("cos_e", COS_E) == Example(
        "9c1d",
        "Where would a spoon sleep, if it slept?",
        ("drawer", "river", "cloud"),
        0,
        "spoons lie in a drawer all night",
    )


def test_ecqa() -> None:
    assert only("ecqa", ECQA) == Example(
        "e5f6",
        "What turns dough into bread?",
        ("an oven", "a fridge", "a song", "a letter", "a boat"),
        0,
        "Dough has to be baked, and an oven bakes.",
    )
    assert only("ecqa", {**ECQA, "q_ans": " a  boat"}).answer == 4


def test_quarel() -> None:
    assert only("quarel", QUAREL) == Example(
        "QuaRel_V1_X_0001",
        "Two sleds race. Which one cools more?",
        ("the slow sled", "the fast sled"),
        1,
        "speed is higher for the fast sled, so heat loss is higher for the fast sled.",
    )
    for end in (" or (B) the (old) cart.", ", or (B) the (old) cart?", " (B) the (old) cart"):
        joined = only("quarel", {**QUAREL, "question": f"Which? (A) the sled{end}"})
        assert (joined.question, joined.choices) == ("Which?", ("the sled", "the (old) cart"))
    assert only("quarel", {**QUAREL, "logical_form_pretty": None}).rationale is None


@pytest.mark.parametrize(
    ("form", "answer", "words"),
    [
        (
            "qval(heat, low, world1), qval(heat, high, world2) -> "
            "qrel(speed, lower, world1) ; qrel(speed, lower, world2)",
            0,
            "heat is low for ice and heat is high for world2, so speed is lower for ice.",
        ),
        ("qrel(heat, lower, world1) -> qrel(speed, lower, world1)", 0, None),
        ("qrel(heat, lower, world1)", 0, None),
        ("", 0, None),
        ("qrel(a, lower, world1) -> qrel(b, lower, world1) ; qrel(b, lower, world2)", -1, None),
    ],
)
def test_logical_forms(form: str, answer: int, words: str | None) -> None:
    assert logical_form_in_words(form, {"world1": ["ice"]}, answer) == words


@pytest.mark.parametrize(
    ("name", "row", "expected"),
    [
        (
            "qasc",
            {"id": "q", "question": "What bends light?", "answerKey": "B"}
            | {"choices": {"text": ["wool", "glass"], "label": ["A", "B"]}}
            | {"fact1": "glass is clear", "fact2": "What is clear bends light."},
            Example(
                "q",
                "What bends light?",
                ("wool", "glass"),
                1,
                "glass is clear. What is clear bends light.",
            ),
        ),
        (
            "esnli",
            {"premise": "A cat sleeps", "hypothesis": "A cat rests", "label": 0}
            | {"explanation_1": "Sleep is rest", "explanation_2": "", "explanation_3": ""},
            Example(
                "",
                "premise: A cat sleeps hypothesis: A cat rests",
                ("entailment", "neutral", "contradiction"),
                0,
                "Sleep is rest",
                "A cat sleeps",
            ),
        ),
        (
            "aqua_rat",
            {"question": "12 - 4 ?", "options": ["A)9", "B)8", "C)7"], "correct": "B"}
            | {"rationale": "Take 4 from 12,\nwhich leaves 8.\nCorrect answer - B"},
            Example("", "12 - 4 ?", ("9", "8", "7"), 1, "Take 4 from 12, which leaves 8."),
        ),
        (
            "aqua_rat",
            {"question": "12 - 4 ?", "options": ["A)9", "B)8", "C)7"], "correct": "B"}
            | {"rationale": "Option A is too much, and 8 is left\nAnswer: (B)"},
            Example("", "12 - 4 ?", ("9", "8", "7"), 1, "Option A is too much, and 8 is left."),
        ),
        (
            "gsm8k",
            {"question": "How much?", "answer": "Half is 12/2=<<12/2=6>>6.\n#### 1,006"},
            Example("", "How much?", ("1006",), 0, "Half is 12/2=6."),
        ),
        (
            "medmcqa",
            {"id": "m", "question": "Which?", "opa": "a", "opb": "b b", "opc": "c", "opd": "d"}
            | {"cop": "b", "exp": "Ans. 'b' The b b is it"},
            Example("m", "Which?", ("a", "b b", "c", "d"), 1, "The b b is it"),
        ),
        (
            "arc_easy",
            {"id": "a", "question": "Which?", "answerKey": "2"}
            | {"choices": {"text": ["wool", "iron"], "label": ["1", "2"]}},
            Example("a", "Which?", ("wool", "iron"), 1),
        ),
        (
            "boolq",
            {"question": "is it", "passage": "It is", "answer": True},
            Example("", "It is. is it", ("yes", "no"), 0),
        ),
        (
            "siqa",
            {"context": "Kim fell.", "question": "Why?", "answerA": "x", "answerB": "y"}
            | {"answerC": "z", "label": "3"},
            Example("", "Kim fell. Why?", ("x", "y", "z"), 2),
        ),
        (
            "race",
            {"example_id": "h1.txt", "article": "Long ago.", "question": "When?", "answer": "B"}
            | {"options": ["now", "then"]},
            Example("", "Long ago. When?", ("now", "then"), 1, None, "h1.txt"),
        ),
        (
            "scienceqa",
            {"question": "Which?", "choices": ["x", "y"], "answer": 1, "hint": "Look"}
            | {"solution": "It is so", "lecture": "All of it"},
            Example("", "Look. Which?", ("x", "y"), 1, "It is so"),
        ),
        (
            "quartz",
            {"id": "z", "question": "Which?", "answerKey": "A", "para": "Heat.", "para_id": "p1"}
            | {"choices": {"text": ["more", "less"], "label": ["A", "B"]}},
            Example("z", "Which?", ("more", "less"), 0, "Heat.", "p1"),
        ),
        (
            "pubmedqa",
            {"pubid": 217, "question": "Does tea wake?", "final_decision": "maybe"}
            | {"context": {"contexts": ["Forty drank tea", "Some\nwoke."], "labels": ["A", "B"]}}
            | {"long_answer": "Tea may wake some."},
            Example(
                "217",
                "Forty drank tea. Some woke. Does tea wake?",
                ("yes", "no", "maybe"),
                2,
                "Tea may wake some.",
            ),
        ),
        (
            "pubmedqa",
            {"pubid": 218, "question": "Why?", "context": None, "long_answer": None}
            | {"final_decision": "no"},
            Example("218", "Why?", ("yes", "no", "maybe"), 1),
        ),
    ],
)
def test_rows_of_other_sources(name: str, row: dict[str, Any], expected: Example) -> None:
    found = only(name, row)
    assert found.id == expected.id or not expected.id
    assert replace(found, id="") == replace(expected, id="")


def test_the_right_answer_of_sciq_is_in_any_place() -> None:
    rows = [
        {"question": f"{n}?", "correct_answer": "it", "support": "So."}
        | {f"distractor{k}": f"no {k}" for k in (1, 2, 3)}
        for n in range(30)
    ]
    found = read("sciq", *rows).train
    assert {e.choices[e.answer] for e in found} == {"it"}
    assert {e.answer for e in found} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("strategyqa", {**STRATEGYQA, "answer": None}, "1 with no answer"),
        ("openbookqa", {**OPENBOOKQA, "answerKey": ""}, "1 with no answer"),
        ("openbookqa", {**OPENBOOKQA, "answerKey": None}, "1 with no answer"),
        ("cos_e", {**COS_E, "answer": "spoon"}, "1 with an answer that is not among the choices"),
        ("cos_e", {**COS_E, "answer": None}, "1 with no answer"),
        ("ecqa", {**ECQA, "q_op2": None}, "1 with an empty choice"),
        ("ecqa", {**ECQA, "q_op2": "an oven"}, "1 with two choices that are equal and are the"),
        ("quarel", {**QUAREL, "answer_index": -1}, "1 with no answer"),
        ("quarel", {**QUAREL, "question": "Which?"}, "1 with an empty choice"),
        ("aqua_rat", {"question": "?", "options": None, "correct": "A", "rationale": ""}, "1 with"),
    ],
)
def test_a_row_that_cannot_be_an_example_says_why(name: str, row: Any, message: str) -> None:
    assert f"all 1 rows are faulty: {message}" in why(name, row)


def test_a_passage_of_a_known_source_may_be_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"passage": f"It is {n}" if n else "", "question": f"is it {n}", "answer": n % 2 == 0}
        for n in range(8)
    ]
    tables = {"train": datasets.Dataset.from_list(rows), "validation": datasets.Dataset.from_list(
        [{**row, "question": "was it"} for row in rows])}  # fmt: skip
    monkeypatch.setattr(hub, "_download", lambda *_: tables)
    cut = load_source(Data(source="boolq", too_long="cut:passage"))
    assert cut == load_source(Data(source="boolq"))
    for part in cut.parts.values():
        table = Examples.of(part)
        for example, (start, end) in zip(table, table.parts(range(len(table))), strict=True):
            passage, _, asked = example.question.rpartition(". ")
            assert example.question[start:end] == (f"{passage}." if passage else "")
            assert asked.startswith(("is it", "was it"))
    with pytest.raises(UserError, match="no such column of the question; use cut:passage or cut:q"):
        load_source(Data(source="boolq", too_long="cut:article"))


def test_equal_wrong_choices_become_one_and_are_counted() -> None:
    found = read(
        "ecqa",
        {**ECQA, "q_no": "1", "q_op2": "a boat", "q_ans": "a letter"},
        {**ECQA, "q_no": "2"},
        {**ECQA, "q_no": "3", "q_op2": "an oven"},
    )
    first, second = found.train
    assert first.choices == ("an oven", "a boat", "a song", "a letter")
    assert first.choices[first.answer] == "a letter"
    assert len(second.choices) == 5
    assert found.notes[:2] == [
        "ecqa train: 1 of 3 rows are left out: 1 with two choices that are equal and are the "
        "answer ('3')",
        "ecqa train: equal wrong choices were merged in 1 example",
    ]


def test_rows_left_out_are_counted_by_the_real_reason() -> None:
    columns = Columns(**KNOWN["ecqa"].columns)
    rows = [{**ECQA, "q_no": "a"}, {**ECQA, "q_no": "b"}]

    def test_split(*rows: dict[str, Any]) -> ExampleFile:
        table = _prepared("ecqa", KNOWN["ecqa"], Table([], rows))
        return read_rows(table, columns, "ecqa test", 1.0, taken={"a": "train", "b": "train"})

    with pytest.raises(UserError) as caught:
        test_split(*rows)
    assert caught.value.errors == [
        "ecqa test: all 2 rows are faulty: 2 with an id that is also in train ('a', 'b')"
    ]
    found = test_split(*rows, {**ECQA, "q_no": "c"}, {**ECQA, "q_no": "d", "q_ans": None})
    assert [e.id for e in found.examples] == ["c"]
    assert found.notes[0] == (
        "ecqa test: 3 of 4 rows are left out: 2 with an id that is also in train, 1 with no answer "
        "('a', 'b', 'd')"
    )


@pytest.mark.parametrize(
    ("name", "row", "missing"),
    [
        ("openbookqa", OPENBOOKQA, "fact1"),
        ("ecqa", ECQA, "q_op4"),
        ("cos_e", COS_E, "answer"),
        ("quarel", QUAREL, "world_literals"),
        ("pubmedqa", {"context": {"labels": ["A"]}}, "contexts"),
    ],
)
def test_a_column_that_is_gone_is_named(name: str, row: dict[str, Any], missing: str) -> None:
    rest = {key: value for key, value in row.items() if key != missing}
    error = why(name, rest)
    assert "has changed on the hub: " in error
    assert f"no column {missing!r}" in error


def repository(configs: dict[str, dict[str, list[dict[str, Any]]]]) -> dict[str, bytes]:
    """Return files of a data set by path: a card that lists the splits' files, and Parquet."""
    files = {}
    card = ["---", "configs:"]
    for config, splits in configs.items():
        card += [f"- config_name: {config}", "  data_files:"]
        for split, rows in splits.items():
            card += [f"  - split: {split}", f"    path: {config}-{split}.parquet"]
            buffer = io.BytesIO()
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
            files[f"{config}-{split}.parquet"] = buffer.getvalue()
    return {**files, "README.md": "\n".join([*card, "---", ""]).encode()}


HUB = {
    "ChilleD/StrategyQA": repository(
        {
            "default": {
                "train": [STRATEGYQA, {**STRATEGYQA, "qid": "c3", "answer": True}],
                "test": [{**STRATEGYQA, "qid": "d4"}],
            }
        }
    ),
    "allenai/openbookqa": repository(
        {
            # The config that must not be read.
            "main": {"train": [{"id": "1", "question_stem": "no fact"}]},
            "additional": {
                "train": [OPENBOOKQA],
                "validation": [{**OPENBOOKQA, "id": "8"}],
                "test": [{**OPENBOOKQA, "id": "9", "answerKey": ""}],
            },
        }
    ),
    "Salesforce/cos_e": repository(
        {
            "v1.0": {
                "train": [COS_E, {**COS_E, "id": "x", "answer": "spoon"}, COS_E],
                "validation": [{**COS_E, "id": "y"}],
            },
            "v1.11": {
                "train": [{**COS_E, "id": "other"}, {**COS_E, "id": "e5f6"}],
                "validation": [{**COS_E, "id": "z"}],
            },
        }
    ),
    "tasksource/ecqa": repository({"default": {"train": [ECQA], "test": [{**ECQA, "q_no": "z"}]}}),
    "community-datasets/quarel": repository({"default": {"train": [QUAREL]}}),
    "tau/commonsense_qa": repository(
        {
            "default": {
                "train": [COMMONSENSE_QA, {**COMMONSENSE_QA, "id": "none", "answerKey": "E"}],
                "validation": [{**COMMONSENSE_QA, "id": "z"}],
                "test": [{**COMMONSENSE_QA, "id": "t", "answerKey": ""}],
            }
        }
    ),
}
QUIZ = {"stem": "Which floats?", "opts": ["cork", "lead"], "gold": 1, "why": "Cork is light"}
HUB["you/quiz"] = repository(
    {
        "easy": {"train": [QUIZ]},
        "hard": {
            "train": [QUIZ | {"stem": f"{n}?", "gold": n % 2} for n in range(4)],
            "validation": [QUIZ],
            "test": [QUIZ | {"gold": -1}],
            "extra": [QUIZ],
        },
    }
)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """The part of the hub's interface that loading a data set needs."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, body: bytes = b"") -> None:
        parts = self.path.partition("?")[0].removeprefix("/api").split("/")
        files = HUB.get("/".join(parts[2:4]), {})
        rest = parts[4:]
        # A commit that is asked for is what the answer is of.
        commit = next((part for part in rest if re.fullmatch("[0-9a-f]{40}", part)), COMMIT)
        content: object = None
        if rest[:1] == ["resolve"]:
            content = files.get("/".join(rest[2:]))
        elif files and (not rest or rest[0] == "revision"):
            siblings = [{"rfilename": path} for path in files]
            content = {"id": "/".join(parts[2:4]), "sha": commit, "siblings": siblings}
        elif files and rest[0] == "tree":
            content = [entry(path, files) for path in files]
        elif files and rest[0] == "paths-info":
            asked = json.loads(body)["paths"]
            content = [entry(path, files) for path in asked if path in files]
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(404 if content is None else 200)
        if content is None:
            self.send_header("X-Error-Code", "EntryNotFound" if files else "RepoNotFound")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def entry(path: str, files: dict[str, bytes]) -> dict[str, Any]:
    oid = hashlib.sha1(files[path]).hexdigest()
    return {"type": "file", "path": path, "size": len(files[path]), "oid": oid}


@contextmanager
def serve() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# The sources that the small hub has.
FIVE = {name: KNOWN[name] for name in ("strategyqa", "openbookqa", "cos_e", "ecqa", "quarel")}
MAPPED = """
import dataclasses, json, sys
from knife.config.run import Data
from knife.core.errors import UserError
from knife.data.source import load_whole
found = {}
columns = {"question": "stem", "choices": "opts", "answer": "gold", "rationale": "why"}
for source in sys.argv[1:]:
    try:
        splits = load_whole(Data(source=source, columns=columns))
        parts = {name: list(map(dataclasses.asdict, part)) for name, part in splits.parts.items()}
        found[source] = parts | {"notes": splits.notes}
    except UserError as error:
        found[source] = error.errors
print(json.dumps(found))
"""
PROGRAM = """
import dataclasses, json, sys
from knife.data.hub import load_hub
from knife.core.errors import UserError
found = {}
for name in sys.argv[1:]:
    try:
        splits = load_hub(name)
        parts = {split: list(map(dataclasses.asdict, part)) for split, part in splits.parts.items()}
        found[name] = parts | {"notes": splits.notes}
    except UserError as error:
        found[name] = error.errors
print(json.dumps(found))
"""


def load(
    endpoint: str, home: Path, *names: str, program: str = PROGRAM
) -> tuple[dict[str, Any], str]:
    """Return what a fresh process gets from the hub at `endpoint`, and its stderr. (The hub's
    libraries read their settings on import.)"""
    plain = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-c", program, *names],
        env=plain | settings,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def ids(splits: dict[str, Any]) -> dict[str, list[str]]:
    return {name: [e["id"] for e in splits[name]] for name in ("train", "dev", "test")}


def test_loading_every_source_and_then_from_the_cache(tmp_path: Path) -> None:
    with serve() as endpoint:
        loaded, _ = load(endpoint, tmp_path, *FIVE)
    assert {name: ids(splits) for name, splits in loaded.items()} == {
        "strategyqa": {"train": ["a1b2", "c3"], "dev": [], "test": ["d4"]},
        "openbookqa": {"train": ["7-980"], "dev": ["8"], "test": []},
        "cos_e": {"train": ["9c1d"], "dev": ["y"], "test": []},
        "ecqa": {"train": ["e5f6"], "dev": [], "test": ["z"]},
        "quarel": {"train": ["QuaRel_V1_X_0001"], "dev": [], "test": []},
    }
    assert loaded["openbookqa"]["train"][0]["rationale"] == "steam makes a whistle sound"
    assert loaded["quarel"]["train"][0]["rationale"].startswith("speed is higher")
    assert {name: splits["notes"] for name, splits in loaded.items()} == {
        "strategyqa": [],
        "openbookqa": ["openbookqa test is not used: its answers are hidden"],
        "cos_e": [
            "cos_e train: 2 of 3 rows are left out: 1 with an answer that is not among the "
            "choices, 1 with a repeated id ('x', '9c1d')"
        ],
        "ecqa": [],
        "quarel": [f"quarel {KNOWN['quarel'].note}"],
    }
    # The hub is gone now, but the cache is still there.
    again, said = load(endpoint, tmp_path, *FIVE)
    assert again == loaded
    assert "Retrying" not in said


JOINED = {
    "commonsense_qa_cos_e": ("Salesforce/cos_e", "spoons lie in a drawer all night"),
    "commonsense_qa_ecqa": ("tasksource/ecqa", "Dough has to be baked, and an oven bakes."),
}


def test_rationales_of_another_data_set_are_joined_by_id(tmp_path: Path) -> None:
    with serve() as endpoint:
        loaded, _ = load(endpoint, tmp_path, *JOINED)
    for name, (repository_id, rationale) in JOINED.items():
        splits = loaded[name]
        assert ids(splits) == {"train": ["e5f6", "none"], "dev": ["z"], "test": []}
        # That of dev is in the other's validation, or in its test.
        found = [e["rationale"] for e in (*splits["train"], *splits["dev"])]
        assert found == [rationale, None, rationale]
        assert splits["train"][0]["question"] == "What turns dough into bread?"
        assert [e["answer"] for e in splits["train"]] == [1, 4]
        assert splits["notes"] == [
            f"{name} train: 1 of 2 examples have a rationale, taken from {repository_id} by id",
            f"{name} test is not used: its answers are hidden",
        ]


def test_of_several_rationales_of_one_id_the_first_that_says_anything_is_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [None, " ", "Ovens bake", "So it is"]
    rows = [{**ECQA, "taskB": text} for text in said]
    files = repository({"default": {"train": rows[:3], "test": rows[3:]}})
    monkeypatch.setitem(HUB, "tasksource/ecqa", files)
    with serve() as endpoint:
        loaded, _ = load(endpoint, tmp_path, "commonsense_qa_ecqa")
    assert loaded["commonsense_qa_ecqa"]["train"][0]["rationale"] == "Ovens bake"


@pytest.mark.parametrize(
    ("changed", "row", "missing"),
    [("tasksource/ecqa", ECQA, "taskB"), ("tau/commonsense_qa", COMMONSENSE_QA, "id")],
)
def test_the_data_set_of_a_join_whose_column_is_gone_is_named(
    changed: str,
    row: dict[str, Any],
    missing: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rest = {key: value for key, value in row.items() if key != missing}
    monkeypatch.setitem(HUB, changed, repository({"default": {"train": [rest]}}))
    with serve() as endpoint:
        loaded, _ = load(endpoint, tmp_path, "commonsense_qa_ecqa")
    (error,) = loaded["commonsense_qa_ecqa"]
    assert f"'commonsense_qa_ecqa': {changed} has changed on the hub: " in error
    assert f"no column {missing!r}" in error


def test_the_map_of_a_joined_source(tmp_path: Path) -> None:
    program = """
import json, sys
from knife.cli.tables import map_of
from knife.config.run import Data
print(json.dumps({name: map_of(Data(source=name)) for name in sys.argv[1:]}))
"""
    with serve() as endpoint:
        printed, _ = load(endpoint, tmp_path, *JOINED, program=program)
    assert all("rationale: rationale\n" in printed[name] for name in JOINED)


def test_any_data_set_of_the_hub_by_a_map(tmp_path: Path) -> None:
    hard, none, wrong = f"hub:you/quiz@{COMMIT}:hard", "hub:you/other", "hub:quiz"
    with serve() as endpoint:
        loaded, _ = load(endpoint, tmp_path, hard, none, wrong, program=MAPPED)
    splits = loaded[hard]
    assert {name: len(splits[name]) for name in ("train", "dev", "test")} == {
        "train": 4,
        "dev": 1,
        "test": 0,
    }
    assert [e["answer"] for e in splits["train"]] == [0, 1, 0, 1]
    assert splits["dev"][0]["rationale"] == "Cork is light"
    assert splits["dev"][0]["id"].startswith("dev-")
    assert splits["notes"] == [
        f"{hard} train: each answer is a choice's index, counted from 0",
        f"{hard} test is not used: its answers are hidden",
        f"{hard}: splits that are not read: extra",
    ]
    assert loaded[none][0].startswith(f"data.source: {none!r} could not be loaded from the hub (")
    assert loaded[wrong][0].startswith("data.source: must be hub:OWNER/NAME, with @REVISION")


def test_another_revision_in_the_cache_is_not_the_one_that_was_asked_for(tmp_path: Path) -> None:
    """Without the hub, the library returns whatever its cache has."""
    cached, other = f"hub:you/quiz@{COMMIT}:hard", f"hub:you/quiz@{COMMIT[::-1]}:hard"
    with serve() as endpoint:
        loaded, _ = load(endpoint, tmp_path, cached, program=MAPPED)
    again, _ = load(endpoint, tmp_path, cached, other, program=MAPPED)
    assert again[cached] == loaded[cached]
    (error,) = again[other]
    assert f"the library returns revision {COMMIT} of you/quiz from its cache" in error


def test_a_folder_is_not_taken_for_the_hubs_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "you" / "quiz").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="there is a folder you/quiz here"):
        hub.load_hub("hub:you/quiz")


def test_a_hub_out_of_reach_is_one_message_at_once(tmp_path: Path) -> None:
    with serve() as endpoint:
        pass
    loaded, said = load(endpoint, tmp_path, *FIVE)
    for name, source in FIVE.items():
        (error,) = loaded[name]
        start = f"data.source: {name!r} could not be loaded from the hub ({source.repository}): "
        assert error.startswith(start)
        assert "data.source=/path/to/folder (a folder with train.jsonl" in error
        assert "\n" not in error
    assert "Retrying" not in said


def test_a_data_set_that_is_gone_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(HUB, "tasksource/ecqa")
    with serve() as endpoint:
        loaded, _ = load(endpoint, tmp_path, "ecqa")
    (error,) = loaded["ecqa"]
    assert "data.source: 'ecqa' could not be loaded from the hub (tasksource/ecqa): " in error
    assert "DatasetNotFoundError" in error
