"""How the stages of a run are made one after the other."""

import gc
from pathlib import Path

from pair import make
from small_run import small_config

from knife.plan.stage import Stage
from knife.train.context import PlainContext


class Noting(PlainContext):
    """A context that notes, at the end of each epoch, how many objects no collection looks at."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen: list[int] = []

    def evaluated(self, stage: Stage, epoch: int, metrics: dict[str, float]) -> None:
        super().evaluated(stage, epoch, metrics)
        self.frozen.append(gc.get_freeze_count())


def test_what_was_there_before_the_stages_is_collected_after_them_alone(tmp_path: Path) -> None:
    before = gc.get_freeze_count()
    with Noting() as context:
        make(small_config(tmp_path, methods=["finetune"], student={"epochs": 1}), context)
    assert len(context.frozen) == 1
    # Torch alone has more.
    assert min(context.frozen) > before + 100_000
    assert gc.get_freeze_count() == 0
