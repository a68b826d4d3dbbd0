"""Rows of hub data sets that a map of columns alone does not turn into examples."""

import re
from collections.abc import Mapping
from typing import Any

from knife.data.tables.table import Row


def tidy(value: Any) -> Any:
    """Collapse whitespace in all texts of a value: some rows have line breaks and double spaces."""
    if isinstance(value, str):
        return " ".join(value.split())
    if isinstance(value, list):
        return [tidy(one) for one in value]
    return {key: tidy(one) for key, one in value.items()} if isinstance(value, dict) else value


def quarel(row: Row) -> Row:
    """Split `question`, which ends in "(A) … (B) …", and put `logical_form_pretty` into words.

    Source: Tafjord et al. 2018, QuaRel.
    """
    parts = re.fullmatch(r"(.*?)\(A\)(.*?)\(B\)(.*)", row["question"] or "", flags=re.DOTALL)
    question, *choices = parts.groups() if parts else (row["question"], "", "")
    words = logical_form_in_words(
        row["logical_form_pretty"] or "", row["world_literals"] or {}, row["answer_index"]
    )
    return {**row, "question": question, "rationale": words, "choices": [*map(_bare, choices)]}


def _bare(choice: str) -> str:
    """Remove what a sentence leaves around a choice: ", or" after it, and the last stop."""
    return re.sub(r"[\s.,;?!]*(\b(or|and))?[\s.,;?!]*$", "", choice.strip())


def logical_form_in_words(form: str, worlds: Mapping[str, list[str]], answer: int) -> str | None:
    """Turn a logical form of QuaRel into a sentence: its premise and the answer's conclusion.

    `qrel(speed, higher, world1) -> qrel(heat, higher, world2) ; qrel(heat, higher, world1)` with
    world1 "ice" and answer 1 gives "speed is higher for ice, so heat is higher for ice." A form of
    another shape gives None.
    """

    def say(part: str) -> str:
        facts = re.findall(r"\w+\((\w+), (\w+), (\w+)\)", part)
        return " and ".join(
            f"{_spaced(what)} is {how} for {' '.join(worlds.get(world) or [world])}"
            for what, how, world in facts
        )

    premise, _, conclusions = form.partition("->")
    branches = [say(branch) for branch in conclusions.split(";")]
    if not say(premise) or len(branches) != 2 or not all(branches) or answer not in (0, 1):
        return None
    return f"{say(premise)}, so {branches[answer]}."


def _spaced(name: str) -> str:
    """Turn `exerciseIntensity` into "exercise intensity"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


def esnli(row: Row) -> Row:
    """Join `premise` and `hypothesis`, and name the class in `label`.

    Source: Camburu et al. 2018, e-SNLI.
    """
    names = ["entailment", "neutral", "contradiction"]
    label = row["label"]
    return {
        **row,
        "question": f"premise: {row['premise']} hypothesis: {row['hypothesis']}",
        "choices": names,
        "answer": names[label] if isinstance(label, int) and 0 <= label < 3 else label,
    }


def aqua_rat(row: Row) -> Row:
    """Remove "A)" from `options`, and the letter that ends `rationale`: the task input has letters
    of its own.

    Source: Ling et al. 2017, Program Induction by Rationale Generation.
    """
    options = [re.sub(r"^\s*[A-E]\s*\)\s*", "", option) for option in row["options"] or []]
    ends = r"[\s.,;]*(?i:\(?(?:so|hence|thus|therefore)?,?\s*(?:the\s+)?(?:correct\s+)?"
    ends += r"(?:answer|ans|option|choice)(?:\s+(?:is|option|choice))*)\W*\(?[A-E]\)?\W*$"
    return {**row, "options": options, "rationale": re.sub(ends, ".", row["rationale"] or "")}


def gsm8k(row: Row) -> Row:
    """Split `answer` at `####` into the solution, without its marks `<<…>>`, and the number.

    Source: Cobbe et al. 2021, Training Verifiers to Solve Math Word Problems.
    """
    solution, _, number = (row["answer"] or "").rpartition("####")
    return {
        **row,
        "rationale": re.sub(r"<<.*?>>", "", solution),
        "answer": number.strip().replace(",", ""),
    }


def medmcqa(row: Row) -> Row:
    """Remove the letter that begins `exp`, such as "Ans. b.".

    Source: Pal et al. 2022, MedMCQA.
    """
    begins = r"^\W*(?i:ans(?:wer)?)\b\W*(?i:is\b)?\W*['\"(]?[A-Da-d]['\")]?\W+"
    return {**row, "exp": re.sub(begins, "", row["exp"] or "")}


def pubmedqa(row: Row) -> Row:
    """Take the passages out of `context`, which also has their headings and subjects.

    Source: Jin et al. 2019, PubMedQA.
    """
    context = row["context"]
    return {**row, "contexts": context["contexts"] if context else None}
