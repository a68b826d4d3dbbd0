"""A worker's memory and what it sends in a step: measured engines relative to the formula.

python bench/memory.py
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

from workload import random_tokens

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from measured import measure
from pair import in_pair
from transformers import BertConfig, BertModel, T5Config, T5ForConditionalGeneration

import torch  # isort: skip  (after the threads are set)

from knife.config.run import Training
from knife.config.scale import Scale
from knife.data.batches import Rows, collate
from knife.models.quiet import quiet
from knife.models.tokenizer import model_config
from knife.plan.memory import Lengths, training_need
from knife.plan.model_size import model_size
from knife.train.context import Context, PlainContext

ROWS, INPUT, CHOICES, CHOICE = 8, 96, 2, 3
LENGTHS = Lengths(INPUT, INPUT, CHOICES, CHOICE, 0, 0, 0, 0)


def models(folder: Path) -> None:
    torch.manual_seed(0)
    small: dict[str, Any] = {
        "vocab_size": 8000,
        "d_model": 256,
        "d_ff": 1024,
        "num_heads": 8,
        "d_kv": 32,
    }
    gated = small | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    for name, values in {"t5": small, "t5-gated": gated}.items():
        config = T5Config(num_layers=6, decoder_start_token_id=0, **values)
        T5ForConditionalGeneration(config).save_pretrained(folder / name)
    bert = BertConfig(
        vocab_size=8000, hidden_size=256, num_hidden_layers=6, num_attention_heads=8,
        intermediate_size=1024,
    )  # fmt: skip
    BertModel(bert).save_pretrained(folder / "bert")


def work(context: Context, folder: Path) -> None:
    quiet()
    tokens = random_tokens(ROWS, inputs=INPUT, rationale=1, choices=CHOICES, choice=CHOICE)
    batch = collate(tokens, Rows(list(range(ROWS)), [1.0] * ROWS), 0, False)
    for model in sorted(path for path in folder.iterdir() if path.is_dir()):
        size = model_size(model_config(model, "model"), model)
        assert size is not None
        for precision, accumulate in (("fp32", 1), ("bf16", 1), ("bf16", 2)):
            for stage in range(4):
                values = {"workers": context.world_size, "zero_stage": stage}
                scale = Scale.model_validate(values | {"precision": precision})
                found = measure(model, scale, batch, context, accumulate=accumulate)
                rows = ROWS * context.world_size * accumulate
                training = Training(batch_size=rows, accumulate=accumulate)
                need = training_need(size, training, scale, LENGTHS, rationale=False)
                rest = need.weights + need.optimizer
                # Stage 3 keeps its gradients and its bucket, stage 1 summed gradients.
                rest += need.gradients + need.buffers if stage == 3 else 0
                rest += need.gradients if stage == 1 and accumulate > 1 else 0
                if context.rank == 0:
                    sent = f"{found.sent / need.communication:.3f}" if need.communication else "-"
                    print(
                        f"{model.name:8} {context.world_size} workers {precision} ZeRO {stage}, "
                        f"batches of {accumulate}: "
                        f"at rest {_ratio(found.rest, rest)}, "
                        f"peak {_ratio(found.peak, need.peak)}, "
                        f"activations {found.kept / need.activations:.3f}, sent {sent}",
                        flush=True,
                    )


def _ratio(found: int, expected: int) -> str:
    return f"{found / 1e6:.1f} MB = {found / expected:.3f} x formula"


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models(folder)
        with PlainContext() as context:
            work(context, folder)
        in_pair(work, folder)()


if __name__ == "__main__":
    main()
