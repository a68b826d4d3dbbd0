"""The known sources of the Hugging Face hub: where each is, and a map of its columns.

Columns, their types and the numbers of examples are those of the data sets' cards and files. Where
the revision is known, it is pinned.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from knife.data.hub_rows import aqua_rat, esnli, gsm8k, medmcqa, pubmedqa, quarel
from knife.data.tables.table import Row


@dataclass(frozen=True, slots=True)
class Known:
    """A source of the hub.

    Attributes:
        repository, config, revision: where it is; config and revision are None if there is only
            one, or if the newest is read.
        columns: the map of its columns, as in `data.columns`.
        prepare: makes the mapped columns where the set has them in another form.
        note: what a user should know about it, or "".
        rationales_of: the data set whose rationales it takes, by id, into the column
            `JOINED`; the map of that one needs only these two columns.
    """

    repository: str
    columns: dict[str, Any]
    config: str | None = None
    revision: str | None = None
    prepare: Callable[[Row], Row] | None = None
    note: str = ""
    rationales_of: "Known | None" = None

    @property
    def places(self) -> "list[Known]":
        """Itself and, if it takes the rationales of another, that one."""
        return [self, *(self.rationales_of.places if self.rationales_of else [])]


# The column of rationales that come from another data set.
JOINED = "rationale"
# What the sources start with that are any data set of the hub.
PREFIX = "hub:"
_ADDRESS = re.compile(r"hub:(?P<name>[^/:@]+/[^/:@]+)(@(?P<revision>[^:]+))?(:(?P<config>.+))?")
_LABELLED = {"id": "id", "question": "question", "choices": "choices", "answer": "answerKey"}
_LABELLED |= {"answer_is": "label"}
_NO_RATIONALES = "has no rationales"
_COMMONSENSE_QA = Known(
    "tau/commonsense_qa",
    _LABELLED | {"rationale": []},
    revision="94630fe30dad47192a8546eb75f094926d47e155",
    note=_NO_RATIONALES,
)

KNOWN: dict[str, Known] = {
    "strategyqa": Known(
        "ChilleD/StrategyQA",
        {"id": "qid", "question": "question", "choices": ["yes", "no"], "answer": "answer"}
        | {"answer_is": "bool", "rationale": "facts"},
    ),
    "openbookqa": Known(
        "allenai/openbookqa",
        _LABELLED | {"question": "question_stem", "rationale": "fact1"},
        config="additional",
        revision="388097ea7776314e93a529163e0fea805b8a6454",
    ),
    "cos_e": Known(
        "Salesforce/cos_e",
        {"id": "id", "question": "question", "choices": "choices", "answer": "answer"}
        | {"answer_is": "text", "rationale": "abstractive_explanation"},
        config="v1.0",
    ),
    "ecqa": Known(
        "tasksource/ecqa",
        {"id": "q_no", "question": "q_text", "choices": [f"q_op{n}" for n in range(1, 6)]}
        | {"answer": "q_ans", "answer_is": "text", "rationale": "taskB"},
    ),
    "quarel": Known(
        "community-datasets/quarel",
        {"id": "id", "question": "question", "choices": "choices", "answer": "answer_index"}
        | {"answer_is": "index", "rationale": "rationale"},
        revision="52be7f062d2c13d401a9e53b6963d8fbcc4abeb4",
        prepare=quarel,
        note="has no free-text rationales: its logical forms, put into words, are used instead",
    ),
    "qasc": Known(
        "allenai/qasc",
        _LABELLED | {"rationale": ["fact1", "fact2"]},
        revision="a34ba204eb9a33b919c10cc08f4f1c8dae5ec070",
    ),
    "esnli": Known(
        "pwei07/esnli",
        {"question": "question", "choices": "choices", "answer": "answer", "answer_is": "text"}
        | {"rationale": "explanation_1", "group": "premise"},
        prepare=esnli,
    ),
    "aqua_rat": Known(
        "deepmind/aqua_rat",
        {"question": "question", "choices": "options", "answer": "correct"}
        | {"answer_is": "letter", "rationale": "rationale"},
        config="raw",
        revision="33301c6a050c96af81f63cad5562cb5363e88971",
        prepare=aqua_rat,
    ),
    "gsm8k": Known(
        "openai/gsm8k",
        {"question": "question", "choices": [], "answer": "answer", "rationale": "rationale"},
        config="main",
        prepare=gsm8k,
    ),
    "sciq": Known(
        "allenai/sciq",
        {
            "question": "question",
            "choices": ["correct_answer", "distractor1", "distractor2", "distractor3"],
            "answer": "correct_answer",
            "rationale": "support",
        },
        revision="2c94ad3e1aafab77146f384e23536f97a4849815",
    ),
    "medmcqa": Known(
        "openlifescienceai/medmcqa",
        {"id": "id", "question": "question", "choices": ["opa", "opb", "opc", "opd"]}
        | {"answer": "cop", "answer_is": "letter", "rationale": "exp"},
        revision="91c6572",
        prepare=medmcqa,
    ),
    **{
        f"arc_{name.lower()}": Known(
            "allenai/ai2_arc",
            _LABELLED | {"rationale": []},
            config=f"ARC-{name}",
            revision="210d026faf9955653af8916fad021475a3f00453",
            note=_NO_RATIONALES,
        )
        for name in ("Challenge", "Easy")
    },
    "scienceqa": Known(
        "tasksource/ScienceQA_text_only",
        {"question": ["hint", "question"], "choices": "choices", "answer": "answer"}
        | {"answer_is": "index", "rationale": "solution"},
    ),
    "commonsense_qa": _COMMONSENSE_QA,
    **{
        f"commonsense_qa_{name}": replace(
            _COMMONSENSE_QA,
            columns=_LABELLED | {"rationale": JOINED},
            note="",
            rationales_of=other,
        )
        for name, other in {
            "cos_e": Known(
                "Salesforce/cos_e",
                {"id": "id", "rationale": "abstractive_explanation"},
                config="v1.11",
            ),
            "ecqa": Known("tasksource/ecqa", {"id": "q_no", "rationale": "taskB"}),
        }.items()
    },
    "quartz": Known(
        "allenai/quartz",
        _LABELLED | {"rationale": "para", "group": "para_id"},
        revision="28c1dbb56caf81799296cb17892fa73402e23464",
        note="has paragraphs on the subject in place of rationales; they never state the answer",
    ),
    "boolq": Known(
        "google/boolq",
        {"question": ["passage", "question"], "choices": ["yes", "no"], "answer": "answer"}
        | {"answer_is": "bool", "rationale": []},
        note=_NO_RATIONALES,
    ),
    "siqa": Known(
        "lighteval/siqa",
        {"question": ["context", "question"], "choices": ["answerA", "answerB", "answerC"]}
        | {"answer": "label", "answer_is": "index1", "rationale": []},
        note=_NO_RATIONALES,
    ),
    "race": Known(
        "ehovy/race",
        {"question": ["article", "question"], "choices": "options", "answer": "answer"}
        | {"answer_is": "letter", "rationale": [], "group": "example_id"},
        config="all",
        revision="2fec9fd81f1dc971569a9b729c43f2f0e6436637",
        note=_NO_RATIONALES,
    ),
    "pubmedqa": Known(
        "qiaojin/PubMedQA",
        {"id": "pubid", "question": ["contexts", "question"], "choices": ["yes", "no", "maybe"]}
        | {"answer": "final_decision", "answer_is": "text", "rationale": "long_answer"},
        config="pqa_labeled",
        prepare=pubmedqa,
    ),
}


def place_of(source: str) -> Known | None:
    """Return where a source of the hub is; None if it is none."""
    if parts := _ADDRESS.fullmatch(source):
        return Known(str(parts["name"]), {}, parts["config"], parts["revision"])
    return KNOWN.get(source)
