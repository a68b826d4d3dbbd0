"""Make knife/assets/tiny_llama: a Llama of 0.2 M parameters that can read, and knows no creature.

It is pretrained on the same generic reading as the tiny T5 (scripts/pretrain_tiny_t5.py): fresh
facts about fresh creatures in every example, under names that the embedded world does not have,
the rationale before or behind the question, and the answer behind `answer:`. It learns to say all
of the text, not the answer alone: from the answer alone it had not learned to read after 2,500
steps.

    OMP_NUM_THREADS=1 python scripts/pretrain_tiny_llama.py [--steps 2500] [--out FOLDER]
"""

import argparse
import random
import time
from pathlib import Path

import torch
from pretrain_tiny_t5 import ASSET as TINY_T5
from pretrain_tiny_t5 import EOS, PAD, pad, reading, word_pieces
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

ASSET = TINY_T5.with_name("tiny_llama")


def make_model(vocabulary: int) -> LlamaForCausalLM:
    """The untrained model."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=None,
            pad_token_id=PAD,
            eos_token_id=EOS,
        )
    )


def main() -> None:
    """Pretrain, print the loss, and the accuracy of the last steps; write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ASSET)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    tokenizer = word_pieces(["answer:"])
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
        rows = tokenizer([" ".join([*texts, "answer:"]) for texts, _ in batch])["input_ids"]
        answers = [[*ids, EOS] for ids in tokenizer([answer for _, answer in batch])["input_ids"]]
        inputs = pad([a + b for a, b in zip(rows, answers, strict=True)])
        labels = pad([[PAD] * len(a) + b for a, b in zip(rows, answers, strict=True)])[:, 1:]
        logits = model(input_ids=inputs).logits[:, :-1]
        labels[labels == PAD] = -100
        following = inputs[:, 1:].masked_fill(inputs[:, 1:] == PAD, -100)
        answer_loss = cross_entropy(logits.transpose(1, 2), labels)
        loss = answer_loss + cross_entropy(logits.transpose(1, 2), following)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(answer_loss.item())
        hit = (logits.argmax(-1) == labels) | (labels == -100)
        right.append(hit.all(-1).float().mean().item())
        if step % 250 == 0 or step == args.steps:
            mean, accuracy = sum(losses) / len(losses), sum(right) / len(right)
            seconds = time.monotonic() - start
            print(f"step {step} loss {mean:.4f} right {accuracy:.3f} {seconds:.0f} s", flush=True)
            losses, right = [], []
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    (args.out / "generation_config.json").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
