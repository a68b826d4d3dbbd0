"""Settings of low-rank adapters."""

from pydantic import Field, field_validator

from knife.config.section import ConfigSection


class Lora(ConfigSection):
    """Low-rank adapters in place of whole finetuning (Hu et al. 2021, arXiv 2106.09685).

    `rank` is the width of the adapters, whose output is multiplied by `alpha / rank`; `dropout` is
    applied to what enters them. `targets` are the ends of the names of the linear layers that have
    one, such as q_proj; null is all of them but the output head.
    """

    rank: int = Field(8, ge=1)
    alpha: float = Field(16.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: tuple[str, ...] | None = Field(None, min_length=1)

    @field_validator("targets")
    @classmethod
    def _names(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for name in value or ():
            if not name.strip(".") or (value or ()).count(name) > 1:
                raise ValueError(f"must be different names of layers, but got {name!r}")
        return value
