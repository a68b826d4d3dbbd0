"""KNIFE in one file of plain torch and transformers: a teacher, its states, a student.

    python examples/minimal.py MODEL FOLDER

MODEL is a T5 (a folder or a hub id); FOLDER holds train.jsonl, dev.jsonl and test.jsonl with lines
such as this one, all with the same number of choices:

    {"question": "…", "choices": ["…", "…"], "answer": 0, "rationale": "…"}

After Chan et al. 2022 (arXiv 2212.09721), with input alignment alone:

1. The teacher reads the task input I followed by the rationale R. Its decoder sees only the states
   of I (the bottleneck), so what helps it to answer must move from R into the states of I.
2. Its states of I, in the encoder's last layer, are computed once for all training examples.
3. The student reads only I. Its loss is that of its answers plus the distance of its states of I
   to the teacher's.

The toolkit trains in the same way (a test requires equal losses) and adds everything around it:
other models and layers, more data formats, seeds and statistics, sharding, and resuming.
Shapes: B examples, L tokens of I or [I ; R], C choices, T tokens per choice, H width.
"""

import json
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

# The batches of each epoch, as lists of rows of the training examples.
Batches = Callable[[int], list[list[int]]]


@dataclass(frozen=True)
class Settings:
    """How a model is trained; `weight` is that of the alignment."""

    epochs: int = 16
    batch_size: int = 32
    learning_rate: float = 5e-3
    warmup: float = 0.05
    weight_decay: float = 0.01
    clip: float = 1.0
    weight: float = 30.0


@dataclass(frozen=True)
class Example:
    """Token ids of task input, rationale and each choice, and the index of the right choice."""

    input: list[int]
    rationale: list[int]
    choices: list[list[int]]
    answer: int


@dataclass(frozen=True)
class Epoch:
    """Means over an epoch's training examples and over dev; `accuracy` is from 0 to 1."""

    loss: float
    alignment: float
    dev_loss: float
    accuracy: float


def read(path: Path, tokenizer: Any) -> list[Example]:
    """Read a file. I and R are tokenised separately, so that I is the same for both models.

    Every text ends with the tokenizer's closing token.
    """
    examples = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        listed = [f" ({chr(97 + c)}) {choice}" for c, choice in enumerate(row["choices"])]
        question = f"question: {row['question']} choices:{''.join(listed)}"
        examples.append(
            Example(
                input=tokenizer(question)["input_ids"],
                rationale=tokenizer(f"explanation: {row['rationale']}")["input_ids"],
                choices=tokenizer(row["choices"])["input_ids"],
                answer=row["answer"],
            )
        )
    return examples


def pad(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Pad rows of token ids to one tensor, and return it with a mask that is 1 at tokens."""
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return ids, mask


def run(model: Any, examples: list[Example], rationale: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return the choices' scores (B, C), the encoder's last states (B, L, H), I's mask (B, L).

    A choice's score is the mean log-probability of its tokens.
    """
    ids_BL, mask_BL = pad([e.input + (e.rationale if rationale else []) for e in examples])
    # The bottleneck: the decoder attends only to I.
    input_mask_BL = torch.zeros_like(mask_BL)
    for b, example in enumerate(examples):
        input_mask_BL[b, : len(example.input)] = 1
    states_BLH = model.get_encoder()(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state
    # Every choice is a separate row, N = B x C; all examples have the same number of choices.
    count = len(examples[0].choices)
    ids_NT, mask_NT = pad([choice for example in examples for choice in example.choices])
    logits_NTV = model(
        encoder_outputs=(states_BLH.repeat_interleave(count, 0),),
        attention_mask=input_mask_BL.repeat_interleave(count, 0),
        labels=ids_NT,
    ).logits
    losses_NT = cross_entropy(logits_NTV.transpose(1, 2), ids_NT, reduction="none")
    scores_N = -(losses_NT * mask_NT).sum(1) / mask_NT.sum(1)
    return scores_N.view(-1, count), states_BLH, input_mask_BL


def evaluate(model: Any, examples: list[Example], rationale: bool) -> tuple[float, float]:
    """Return mean loss and accuracy."""
    model.eval()
    with torch.no_grad():
        scores = [
            run(model, examples[i : i + 64], rationale)[0] for i in range(0, len(examples), 64)
        ]
    answers_N, scores_NC = torch.tensor([e.answer for e in examples]), torch.cat(scores)
    right = (scores_NC.argmax(1) == answers_N).double().mean()
    return cross_entropy(scores_NC, answers_N).item(), right.item()


def teacher_states(teacher: Any, examples: list[Example]) -> tuple[list[Tensor], float]:
    """Return the states of each example's I, read with its R, and the variance of all elements."""
    teacher.eval()
    found = []
    with torch.no_grad():
        for example in examples:
            _, states_BLH, _ = run(teacher, [example], rationale=True)
            found.append(states_BLH[0, : len(example.input)])
    return found, torch.cat(found).double().var(correction=0).item()


def distance(states_BLH: Tensor, targets: list[Tensor], variance: float) -> Tensor:
    """Return the mean squared distance to the teacher's states over each example's I, then over
    examples, in units of their variance."""
    pairs = zip(states_BLH, targets, strict=True)
    each = [(states_LH[: len(target)] - target).square().mean() for states_LH, target in pairs]
    return torch.stack(each).mean() / variance


def train(
    model: Any,
    data: dict[str, list[Example]],
    settings: Settings,
    batches: Batches,
    rationale: bool,
    teacher: tuple[list[Tensor], float] | None = None,
) -> list[Epoch]:
    """Train a model, and load the weights of its best epoch on dev at the end."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    steps = settings.epochs * len(batches(0))
    warmup = round(settings.warmup * steps)

    def share(step: int) -> float:
        """Return the learning rate's factor: linear warm-up, then linear decay."""
        return (step + 1) / warmup if step < warmup else (steps - step) / max(1, steps - warmup)

    schedule = LambdaLR(optimizer, share)
    history: list[Epoch] = []
    best, best_weights = (-1.0, 0.0), {}
    for epoch in range(settings.epochs):
        model.train()
        sums = torch.zeros(2, dtype=torch.float64)
        order = batches(epoch)
        for rows in order:
            examples = [data["train"][row] for row in rows]
            scores_BC, states_BLH, _ = run(model, examples, rationale)
            loss = cross_entropy(scores_BC, torch.tensor([e.answer for e in examples]))
            alignment = torch.zeros(())
            if teacher:
                states, variance = teacher
                alignment = distance(states_BLH, [states[row] for row in rows], variance)
                loss = loss + settings.weight * alignment
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
            optimizer.step()
            schedule.step()
            sums += torch.tensor([loss.item(), alignment.item()])
        dev_loss, accuracy = evaluate(model, data["dev"], rationale)
        mean, aligned = (sums / len(order)).tolist()
        history.append(Epoch(mean, aligned, dev_loss, accuracy))
        if (accuracy, -dev_loss) > best:
            best = (accuracy, -dev_loss)
            best_weights = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(best_weights)
    return history


def shuffled(count: int, size: int) -> Batches:
    """Return every example once per epoch, in a different order each time."""

    def batches(epoch: int) -> list[list[int]]:
        rows = list(range(count))
        random.Random(epoch).shuffle(rows)
        return [rows[i : i + size] for i in range(0, count, size)]

    return batches


def main() -> None:
    """Compare finetuning with KNIFE, with one seed each."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    tokenizer = AutoTokenizer.from_pretrained(name)
    data = {split: read(folder / f"{split}.jsonl", tokenizer) for split in ("train", "dev", "test")}
    of_teacher, of_student = Settings(epochs=3, learning_rate=5e-4), Settings()
    batches = shuffled(len(data["train"]), of_student.batch_size)

    teacher = AutoModelForSeq2SeqLM.from_pretrained(name)
    train(teacher, data, of_teacher, batches, rationale=True)
    print(f"teacher with rationales: {evaluate(teacher, data['test'], True)[1]:.1%} right on test")
    states = teacher_states(teacher, data["train"])
    for method, known in (("finetune", None), ("knife", states)):
        torch.manual_seed(0)
        student = AutoModelForSeq2SeqLM.from_pretrained(name)
        train(student, data, of_student, batches, rationale=False, teacher=known)
        print(f"{method}: {evaluate(student, data['test'], False)[1]:.1%} right on test")


if __name__ == "__main__":
    main()
