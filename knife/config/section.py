"""What all parts of a config have in common."""

from pydantic import BaseModel, ConfigDict


class ConfigSection(BaseModel):
    """A part of a config: immutable; unknown keys, NaN and infinite numbers are rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
