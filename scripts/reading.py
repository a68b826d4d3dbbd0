"""The pretraining data of the package's tiny models: fresh facts in every example.

Every example invents facts about creatures, states them in the rationale, and asks for a value, a
name, or yes or no. The creatures' names combine the same syllables as those of the embedded world
(`WORLD_NAMES`) but differ from all of them, and no fact holds for longer than one example: there is
nothing to remember.

A rationale states only the facts that the question asks for, and no question states a fact. So the
model can find the answer in the states of the rationale itself, as a teacher without a bottleneck
continues to do. When questions also stated facts, or rationales stated additional ones, the tiny T5
learned to carry facts to the names in the question, and the bottleneck made no difference.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from knife.data.creatures import (
    ATTRIBUTES,
    FIRST_SYLLABLES,
    SECOND_SYLLABLES,
    WORLD_NAMES,
    Attribute,
)

LOOK_UP = {
    "home": "where does {x} live ?",
    "diet": "what does {x} eat ?",
    "colour": "what is the colour of {x} ?",
}
CHECK = {
    "home": "does {x} live in the {v} ?",
    "diet": "does {x} eat {v} ?",
    "colour": "is {x} {v} ?",
}
RESERVED = set(WORLD_NAMES)
FREE_NAMES = [
    [first + second for second in SECOND_SYLLABLES if first + second not in RESERVED]
    for first in FIRST_SYLLABLES
]
PAD, EOS = 0, 1


def word_pieces(more: Sequence[str] = (), ending: bool = False) -> PreTrainedTokenizerFast:
    """Make a WordPiece tokenizer of whole words, including `more`, and syllables; with `ending`, it
    ends every text with an end-of-sequence token."""
    sentences = ["question: choices: explanation: (a) (b) (c) (d) (e) yes no"]
    sentences += [*LOOK_UP.values(), *CHECK.values()]
    for attribute in ATTRIBUTES:
        sentences += [*attribute.values, *attribute.facts]
        sentences += [attribute.same, attribute.which, attribute.cue]
    words = sorted(set(re.sub(r"\{.\}", " ", " ".join(sentences)).split()))
    pieces = ["<pad>", "</s>", "<unk>", *words, *more, *FIRST_SYLLABLES]
    pieces += ["##" + syllable for syllable in SECOND_SYLLABLES]
    tokenizer = Tokenizer(
        models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="<unk>")
    )
    tokenizer.normalizer = normalizers.Lowercase()
    # "(a)" and "question:" stay whole: shorter sequences, and they never mix with the words.
    whole = Regex(r"\(\w\)|\w+:|\w+|[^\w\s]")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(whole, "removed", invert=True)
    if ending:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", EOS)]
        )
    tokenizer.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=512,
    )


@dataclass(frozen=True)
class Reading:
    """A question about facts that its rationale states; `reversed` is whether it comes after its
    rationale, for models that may read either order."""

    question: str
    choices: list[str]
    answer: str
    rationale: str
    reversed: bool


def reading(rng: random.Random) -> Reading:
    """Return one example, whose facts hold only in it."""
    names = [rng.choice(group) for group in rng.sample(FREE_NAMES, 2)]
    attribute = rng.choice(ATTRIBUTES)
    facts = {name: rng.choice(attribute.values) for name in names}
    question, choices, answer, about = _ask(rng, attribute, names, facts)
    said = [rng.choice(attribute.facts).format(n=name, v=facts[name]) for name in about]
    return Reading(question, choices, answer, " ".join(said), rng.random() < 0.5)


def texts(example: Reading) -> list[str]:
    """Return the question with choices and the rationale, in the example's order."""
    lettered = " ".join(f"({'abcde'[i]}) {choice}" for i, choice in enumerate(example.choices))
    both = [
        f"question: {example.question} choices: {lettered}",
        f"explanation: {example.rationale}",
    ]
    return both[::-1] if example.reversed else both


def _ask(
    rng: random.Random, attribute: Attribute, names: list[str], facts: dict[str, str]
) -> tuple[str, list[str], str, list[str]]:
    """Return a question, its choices, the answer, and the names it is about."""
    x, y = names
    kind = rng.choice(["same", "same", "which", "look up", "check"])
    agree = rng.random() < 0.5
    if kind in ("same", "which"):
        agree = agree and kind == "same"
        others = [v for v in attribute.values if v != facts[x]]
        facts[y] = facts[x] if agree else rng.choice(others)
    said = {name: f"a {name}" for name in names}
    yes_no = (["yes", "no"], "yes" if agree else "no")
    if kind == "same":
        return attribute.same.format(x=said[x], y=said[y]), *yes_no, [x, y]
    if kind == "which":
        right = rng.choice([x, y])
        question = attribute.which.format(v=facts[right], x=said[x], y=said[y])
        return question, [x, y], right, [x, y]
    wrong = [v for v in attribute.values if v != facts[x]]
    if kind == "check":
        value = facts[x] if agree else rng.choice(wrong)
        return CHECK[attribute.name].format(x=said[x], v=value), *yes_no, [x]
    choices = [facts[x], *rng.sample(wrong, rng.randint(1, 3))]
    rng.shuffle(choices)
    return LOOK_UP[attribute.name].format(x=said[x]), choices, facts[x], [x]


def pad(rows: list[list[int]]) -> torch.Tensor:
    """Pad token ids to [rows, longest], at the end."""
    longest = max(map(len, rows))
    return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])
