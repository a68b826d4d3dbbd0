"""Make models/assets/tiny_llama: a Llama of 0.2 M parameters that can read but knows no creature.

It is pretrained on the same generic reading as the tiny T5 (reading.py), with the rationale before
or after the question, and the answer after `answer:`. It learns to generate the whole text: trained
on only the answer, it had not learned to read after 2,500 steps.

    OMP_NUM_THREADS=1 python scripts/pretrain_tiny_llama.py [--steps 2500] [--out FOLDER]
"""

import torch
from pretraining import options, pretrain
from reading import EOS, PAD, Reading, pad, texts, word_pieces
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM


def make_model(vocabulary: int) -> LlamaForCausalLM:
    """Make the untrained model."""
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
    """Pretrain, print the answers' loss and accuracy, and write the folder."""
    args = options(__doc__, "tiny_llama", steps=2500, learning_rate=3e-3)
    torch.manual_seed(args.seed)
    tokenizer = word_pieces(["answer:"])
    model = make_model(len(tokenizer))
    print(f"{model.num_parameters()} parameters, {len(tokenizer)} tokens")

    def step(batch: list[Reading]) -> tuple[Tensor, Tensor, Tensor]:
        written = [" ".join([*texts(example), "answer:"]) for example in batch]
        rows = tokenizer(written)["input_ids"]
        said = tokenizer([example.answer for example in batch])["input_ids"]
        answers = [[*ids, EOS] for ids in said]
        inputs = pad([a + b for a, b in zip(rows, answers, strict=True)])
        labels = pad([[PAD] * len(a) + b for a, b in zip(rows, answers, strict=True)])[:, 1:]
        logits = model(input_ids=inputs).logits[:, :-1]
        labels[labels == PAD] = -100
        following = inputs[:, 1:].masked_fill(inputs[:, 1:] == PAD, -100)
        answer_loss = cross_entropy(logits.transpose(1, 2), labels)
        loss = answer_loss + cross_entropy(logits.transpose(1, 2), following)
        hit = (logits.argmax(-1) == labels) | (labels == -100)
        return loss, answer_loss, hit.all(-1)

    pretrain(args, model.parameters(), step)
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    (args.out / "generation_config.json").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
