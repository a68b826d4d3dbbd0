"""A training step of a T5, a BERT and a Llama, compared with another build.

python bench/step_times.py OTHER [ROUNDS]   # OTHER: a checkout of the build to compare with
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from transformers import BertConfig, BertModel
from workload import llama_folder, model_folder

from knife.models.source import EMBEDDED
from knife.models.tokenizer import load_tokenizer

HERE = Path(__file__).resolve().parents[1]
# Prints the seconds of processor time of a student's and a teacher's step, and their first losses.
PROGRAM = """
import random, statistics, sys, time
from pathlib import Path
import torch
from knife.data.batches import Rows, collate
from knife.data.tokens import Tokens
from knife.method.objective import Objective
try:
    from knife.models.load import load_backbone
except ImportError:
    # A build from before these were packages.
    from knife.method.backbone import load_backbone

def ids(length):
    return [generator.randrange(3, 130) for _ in range(length - 1)] + [1]

generator = random.Random(0)
tokens = [
    Tokens(ids(48), ids(24), [ids(4) for _ in range(3)], [(i, i + 1) for i in range(3)], 0)
    for _ in range(8)
]
rows = Rows(list(range(8)), [1.0] * 8)
torch.manual_seed(0)
objective = Objective(load_backbone(Path(sys.argv[1]))).train()
optimizer = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=1e-4)
for rationale in (False, True):
    seconds, losses = [], []
    for _ in range(10):
        began = time.process_time()
        optimizer.zero_grad()
        loss = objective(collate(tokens, rows, 0, rationale)).loss
        loss.backward()
        optimizer.step()
        seconds.append(time.process_time() - began)
        losses.append(float(loss.detach()))
    print(statistics.median(seconds[2:]), losses[0])
"""


def save_bert(folder: Path) -> Path:
    """Save a random BERT of 20 M parameters, without dropout."""
    config = BertConfig(
        vocab_size=30_000, hidden_size=384, num_hidden_layers=5, num_attention_heads=6,
        intermediate_size=1_536, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    load_tokenizer(EMBEDDED["tiny-bert"], "model").save_pretrained(folder)
    return folder


def measured(build: Path, model: Path) -> list[list[float]]:
    """Return seconds and first loss of a student's and of a teacher's steps by a build."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(model)],
        cwd=build,
        env=os.environ | {"PYTHONPATH": str(build), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    return [[float(word) for word in line.split()] for line in done.stdout.splitlines()[-2:]]


def main() -> None:
    """Print the ratio of the builds for each model."""
    parser = argparse.ArgumentParser()
    parser.add_argument("other", type=Path)
    parser.add_argument("rounds", type=int, nargs="?", default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        parent = Path(name)
        models = {
            "T5": model_folder("20M", parent),
            "BERT": save_bert(parent / "bert"),
            "Llama": llama_folder("20M", parent),
        }
        for model, folder in models.items():
            ratios: list[list[float]] = [[], []]
            for _ in range(given.rounds):
                before, now = (measured(build, folder) for build in (given.other.resolve(), HERE))
                for each, (old, old_loss), (new, new_loss) in zip(ratios, before, now, strict=True):
                    assert abs(old_loss - new_loss) < 1e-4 * old_loss, (old_loss, new_loss)
                    each.append(new / old)
            student, teacher = map(statistics.median, ratios)
            print(f"{model}: step time to the other build's, student {student:.3f}, "
                  f"teacher {teacher:.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
