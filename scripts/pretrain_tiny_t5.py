"""Make knife/assets/tiny_t5: a T5 of 0.2 M parameters that can read, and knows no creature.

It is pretrained on generic reading: every example invents fresh facts about fresh creatures, says
them in the rationale, before or behind the question, and asks for a value, a name, or yes or no.
The creatures' names are other combinations of the syllables than the embedded world's
(`WORLD_NAMES`), and no fact holds for longer than one example: there is nothing to remember.

A rationale says what the question asks for and nothing else, and no question says a fact itself.
So the model can find the answer in the rationale's own states, and a teacher without bottleneck
goes on doing so. Where questions said facts too, or where the rationale said others beside, it had
learned to carry them to the names in the question, and the bottleneck made no difference.

In its last 250 steps the shipped model gave 86 % of the answers word by word right. It finds and
compares values without fault; of the names ("which one") it gets 28 % right.

    OMP_NUM_THREADS=1 python scripts/pretrain_tiny_t5.py [--steps 3000] [--out FOLDER]
"""

import argparse
import itertools
import random
import re
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from knife.data.creatures import (
    ATTRIBUTES,
    FIRST_SYLLABLES,
    SECOND_SYLLABLES,
    WORLD_NAMES,
    Attribute,
)

ASSET = Path(__file__).resolve().parents[1] / "knife" / "assets" / "tiny_t5"
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
    """Whole words, and `more` of them, and syllables as WordPiece; with `ending`, an
    end-of-sequence token behind every text."""
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


def make_model(vocabulary: int) -> T5ForConditionalGeneration:
    """The untrained model."""
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=vocabulary,
            d_model=64,
            d_kv=16,
            num_heads=4,
            d_ff=128,
            num_layers=3,
            num_decoder_layers=2,
            dropout_rate=0.0,
            pad_token_id=PAD,
            eos_token_id=EOS,
            decoder_start_token_id=PAD,
        )
    )


def reading(rng: random.Random) -> tuple[list[str], str]:
    """One example: the texts that the encoder reads, one behind the other, and the answer."""
    names = [rng.choice(group) for group in rng.sample(FREE_NAMES, 2)]
    attribute = rng.choice(ATTRIBUTES)
    facts = {name: rng.choice(attribute.values) for name in names}
    question, choices, answer, about = _ask(rng, attribute, names, facts)
    said = [rng.choice(attribute.facts).format(n=name, v=facts[name]) for name in about]
    texts = [
        f"question: {question} choices: " + _letter(choices),
        "explanation: " + " ".join(said),
    ]
    if rng.random() < 0.5:
        texts.reverse()
    return texts, answer


def _ask(
    rng: random.Random, attribute: Attribute, names: list[str], facts: dict[str, str]
) -> tuple[str, list[str], str, list[str]]:
    """A question, its choices, the answer, and the names it is about."""
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


def _letter(choices: list[str]) -> str:
    return " ".join(f"({'abcde'[i]}) {choice}" for i, choice in enumerate(choices))


def pad(rows: list[list[int]]) -> torch.Tensor:
    """Token ids as [rows, longest], padded behind."""
    longest = max(map(len, rows))
    return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])


def main() -> None:
    """Pretrain, print the loss, and the accuracy of the last steps; write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ASSET)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    tokenizer = word_pieces(ending=True)
    model = make_model(len(tokenizer))
    print(f"{model.num_parameters()} parameters, {len(tokenizer)} tokens")
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, weight_decay=0.01)
    warmup = 200
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warmup, (args.steps - step) / max(args.steps - warmup, 1)),
    )
    start, losses, right = time.monotonic(), [], []
    for step in range(1, args.steps + 1):
        batch = [reading(rng) for _ in range(args.batch_size)]
        # The parts apart and each with its end, as the toolkit feeds them.
        parts = [tokenizer(texts)["input_ids"] for texts, _ in batch]
        inputs = pad([list(itertools.chain(*rows)) for rows in parts])
        labels = pad(tokenizer([answer for _, answer in batch])["input_ids"])
        labels[labels == PAD] = -100
        output = model(input_ids=inputs, attention_mask=(inputs != PAD).long(), labels=labels)
        optimizer.zero_grad()
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(output.loss.item())
        hit = (output.logits.argmax(-1) == labels) | (labels == -100)
        right.append(hit.all(-1).float().mean().item())
        if step % 250 == 0 or step == args.steps:
            loss, accuracy = sum(losses) / len(losses), sum(right) / len(right)
            seconds = time.monotonic() - start
            print(f"step {step} loss {loss:.4f} right {accuracy:.3f} {seconds:.0f} s", flush=True)
            losses, right = [], []
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    (args.out / "generation_config.json").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
