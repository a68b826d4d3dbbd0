"""The training with which loop, checkpoints and tracking are measured."""

import workload  # noqa: F401  (first: it sets the threads)

from knife.config.run import Training
from knife.config.scale import Scale
from knife.data.tokens import Tokens
from knife.train.loop import Job

BATCH = 8


def finetune_job(tokens: list[Tokens], **scale: int) -> Job:
    """One epoch of a finetuned student over some examples; models are not written."""
    return Job(
        train=tokens,
        ids=[str(row) for row in range(len(tokens))],
        dev=tokens[:1],
        dev_ids=["0"],
        pad_id=0,
        rationale=False,
        teacher=None,
        save=lambda path, _: path.mkdir(),
        training=Training(epochs=1, batch_size=BATCH, learning_rate=1e-4),
        scale=Scale(**scale),
        seed=0,
    )
