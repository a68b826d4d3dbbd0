"""The part of a run config on where and how wide it executes."""

from typing import Literal

from pydantic import Field, field_validator

from knife.config.section import ConfigSection


class Scale(ConfigSection):
    """Where and how wide a run executes. `launcher: process` runs all stages in this one process.

    Up to `parallel` stages are made at a time (auto: as many as CPUs, GPUs and memory allow), each
    by `workers` of its own with equal parts of the CPUs. With `gpus_per_worker: 0.25`, four workers
    share a GPU. `placement` fills one host after another (pack) or uses as many hosts as possible
    (spread). With `min_workers` a stage continues with fewer workers while hosts are lost, and
    grows back to `workers`. A worker that finishes no batch in `hang_seconds` is considered hung,
    and is replaced. Training uses `attention` (null: the default of transformers),
    `gradient_checkpointing` (less memory, more time) and `compile` (torch.compile).
    """

    launcher: Literal["ray", "process"] = "ray"
    parallel: int | Literal["auto"] = "auto"
    workers: int = Field(1, ge=1)
    min_workers: int | None = Field(None, ge=1)
    placement: Literal["pack", "spread"] = "pack"
    gpus_per_worker: float = Field(0, ge=0, le=1)
    zero_stage: int = Field(0, ge=0, le=3)
    precision: Literal["fp32", "bf16"] = "fp32"
    attention: Literal["eager", "sdpa", "flash_attention_2", "flex_attention"] | None = None
    gradient_checkpointing: bool = False
    compile: bool = False
    checkpoint_steps: int = Field(500, ge=1)
    hang_seconds: float = Field(600, gt=0)

    @field_validator("parallel", mode="before")
    @classmethod
    def _auto_or_a_number(cls, value: object) -> object:
        if value == "auto" or (isinstance(value, int) and value is not True and value >= 1):
            return value
        raise ValueError(f"must be auto or a number from 1 up, but got {value!r}")

    @field_validator("precision", mode="before")
    @classmethod
    def _no_fp16(cls, value: object) -> object:
        if value == "fp16":
            raise ValueError(
                "must be bf16 or fp32, but got fp16: T5's activations overflow in it and training "
                "turns to NaN; bf16 takes the same memory and has the range of fp32"
            )
        return value
