"""Make models/assets/tiny_bert: a BERT of 0.2 M parameters that can read but knows no creature.

It is pretrained on the same generic reading as the tiny T5 (reading.py), with input as the toolkit
gives it to an encoder: `[I ; R]`, all of which the answer head reads (no bottleneck).

    OMP_NUM_THREADS=1 python scripts/pretrain_tiny_bert.py [--steps 3000] [--out FOLDER]
"""

import tempfile
from pathlib import Path

import torch
from pretraining import options, pretrain
from reading import PAD, Reading, word_pieces
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertModel

from knife.data.batches import Rows, collate
from knife.data.example import Example
from knife.data.tokenizing import tokenize
from knife.data.tokens import UNBOUNDED
from knife.models.load import load_backbone


def make_model(vocabulary: int) -> BertModel:
    """Make the untrained encoder."""
    return BertModel(
        BertConfig(
            vocab_size=vocabulary,
            hidden_size=64,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=128,
            max_position_embeddings=512,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            pad_token_id=PAD,
        ),
        add_pooling_layer=False,
    )


def main() -> None:
    """Pretrain, print the loss and the accuracy, and write the folder."""
    args = options(__doc__, "tiny_bert", steps=3000, learning_rate=1e-3)
    torch.manual_seed(args.seed)
    tokenizer = word_pieces(ending=True)
    with tempfile.TemporaryDirectory() as folder:
        make_model(len(tokenizer)).save_pretrained(folder)
        backbone = load_backbone(Path(folder), bottleneck=False, seed=args.seed)
    parameters = sum(p.numel() for p in backbone.parameters())
    print(f"{parameters} parameters, {len(tokenizer)} tokens")

    def step(batch: list[Reading]) -> tuple[Tensor, Tensor, Tensor]:
        examples = [
            Example(str(row), e.question, tuple(e.choices), e.choices.index(e.answer), e.rationale)
            for row, e in enumerate(batch)
        ]
        tokens, _ = tokenize(examples, tokenizer, UNBOUNDED)
        rows = Rows(list(range(len(tokens))), [1.0] * len(tokens))
        fed = collate(tokens, rows, PAD, rationale=True)
        scores_BC = backbone(fed).scores_BC
        loss = cross_entropy(scores_BC, fed.answer_B)
        return loss, loss, scores_BC.argmax(-1) == fed.answer_B

    pretrain(args, backbone.parameters(), step)
    backbone.save(args.out, backbone.state_dict())
    tokenizer.save_pretrained(args.out)


if __name__ == "__main__":
    main()
