"""Size of a half-real world, whose facts are real."""

from typing import Literal

from pydantic import Field

from knife.config.section import ConfigSection


class Facts(ConfigSection):
    """Size of a half-real world (`data.source: stars`, …), drawn by `seed`: training questions are
    about `names` names.

    With `split: pairs`, test asks about other pairs of the same names, whose facts the training
    rationales state; with `split: names` it asks about as many other names, or all that are left,
    whose facts nothing states, and train and dev are the same.
    """

    names: int = Field(48, ge=4)
    train: int = Field(600, ge=1)
    dev: int = Field(150, ge=1)
    test: int = Field(300, ge=1)
    split: Literal["pairs", "names"] = "pairs"
    seed: int = 0
