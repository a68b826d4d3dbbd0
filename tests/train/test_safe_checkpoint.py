"""A checkpoint is read as weights, never executed."""

import pickle
from pathlib import Path

import pytest
import torch
from attack import Attack

from knife.compat.deepspeed import SafeCheckpointEngine


def test_a_checkpoint_with_code_in_it_is_refused_and_the_code_is_not_run(tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / "states.pt"
    torch.save({"optimizer": Attack(mark)}, path)
    torch.load(path, weights_only=False)
    assert mark.is_file(), "the attack works on a careless reader"
    mark.unlink()
    with pytest.raises(pickle.UnpicklingError, match="weights_only"):
        SafeCheckpointEngine().load(str(path))
    assert not mark.exists()


def test_tensors_and_plain_values_are_read(tmp_path: Path) -> None:
    path = tmp_path / "states.pt"
    torch.save({"weight": torch.arange(3), "step": 7}, path)
    loaded = SafeCheckpointEngine().load(str(path))
    assert loaded["step"] == 7
    assert torch.equal(loaded["weight"], torch.arange(3))
