"""Turns rows of hub data sets into records of the kind that files contain: one function each."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from knife.data.record import Record

Row = Mapping[str, Any]


def strategyqa(row: Row) -> Record:
    """Read fields `qid`, `question`, `answer` (bool), `facts` (a text, or a list of texts).

    Source: Geva et al. 2021, Did Aristotle Use a Laptop?
    """
    facts = row["facts"] or ""
    answer = {True: "yes", False: "no"}.get(row["answer"])
    rationale = facts if isinstance(facts, str) else " ".join(facts)
    return _record(row["qid"], row["question"], ["yes", "no"], answer, rationale)


def openbookqa(row: Row) -> Record:
    """Read fields `id`, `question_stem`, `choices` (lists `text`, `label`), `answerKey`, `fact1`.

    Source: Mihaylov et al. 2018, Can a Suit of Armor Conduct Electricity?
    """
    choices = dict(zip(row["choices"]["label"], row["choices"]["text"], strict=True))
    answer = choices.get((row["answerKey"] or "").strip())
    return _record(row["id"], row["question_stem"], choices.values(), answer, row["fact1"])


def cos_e(row: Row) -> Record:
    """Read fields `id`, `question`, `choices`, `answer` (a choice), `abstractive_explanation`.

    Source: Rajani et al. 2019, Explain Yourself! Version 1.0, with three choices per question.
    """
    rationale = row["abstractive_explanation"]
    return _record(row["id"], row["question"], row["choices"], row["answer"], rationale)


def ecqa(row: Row) -> Record:
    """Read fields `q_no`, `q_text`, `q_op1` to `q_op5`, `q_ans` (a choice), `taskB`.

    Source: Aggarwal et al. 2021, Explanations for CommonsenseQA.
    """
    choices = [row[f"q_op{number}"] for number in range(1, 6)]
    return _record(row["q_no"], row["q_text"], choices, row["q_ans"], row["taskB"])


def quarel(row: Row) -> Record:
    """Read fields `id`, `question` (ends in "(A) … (B) …"), `answer_index`, `logical_form_pretty`,
    `world_literals` (`world1` and `world2`, each a list of one text).

    Source: Tafjord et al. 2018, QuaRel.
    """
    parts = re.fullmatch(r"(.*?)\(A\)(.*?)\(B\)(.*)", row["question"] or "", flags=re.DOTALL)
    question, first, second = parts.groups() if parts else (row["question"], "", "")
    choices = [_clean(first).removesuffix(" or"), second]
    answer = row["answer_index"]
    rationale = logical_form_in_words(row["logical_form_pretty"], row["world_literals"], answer)
    return _record(row["id"], question, choices, answer, rationale)


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


def _record(
    identity: str,
    question: str,
    choices: Iterable[str],
    answer: str | int | None,
    rationale: str | None,
) -> Record:
    return {
        "id": identity,
        "question": _clean(question),
        "choices": [_clean(choice) for choice in choices],
        "answer": _clean(answer) if isinstance(answer, str) else answer,
        "rationale": _clean(rationale),
    }


def _clean(text: Any) -> Any:
    """Collapse whitespace, since some rows have line breaks and double spaces. A value that is
    neither text nor None is kept, and is rejected later, as it is in a file."""
    return " ".join((text or "").split()) if isinstance(text, str | None) else text


def _spaced(name: str) -> str:
    """Turn `exerciseIntensity` into "exercise intensity"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
