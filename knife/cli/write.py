"""Has a language model write the rationales of a source: settings, work and what is printed."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from knife.cli.show import read_data, read_settings, used_splits
from knife.config.recipe_files import find_config, recipes
from knife.config.run import RunConfig, read
from knife.core.errors import UserError
from knife.data.check import check
from knife.data.source import load_source
from knife.terminal.counter import counter
from knife.writing.job import Job, plan_job
from knife.writing.write import write


def planned(source: str, overrides: list[str], out: Path, *, gaps: bool, analysis: bool) -> Job:
    """Return what is to be written for a source, or for the data of a config's file.

    Raises:
        UserError: with everything that is wrong with settings, data and folder.
    """
    config = _settings(source, overrides)
    if config.write is None:
        raise UserError(
            "write: must be set: write.url and write.model for a server, or write.model alone for "
            "a model's folder"
        )
    splits = used_splits(config.data)
    return plan_job(config.write, config.data.source, splits, out, gaps=gaps, analysis=analysis)


def write_and_check(job: Job) -> tuple[dict[str, Any], list[str], list[str]]:
    """Write, and check the result as `knife data check` does; return what came of it as values and
    as lines, and what failed."""
    result, out = write(job), str(job.out)
    # Questions and answers are large: the check reads what it needs from the folder.
    del job
    values: dict[str, Any] = {"written": result.record, "failures": result.failures}
    if result.record is None:
        return values, [], result.failures
    report = check(load_source(read_data(out, [])), counter)
    lines = [*result.lines, "", *report.lines()]
    return values | {"check": asdict(report)}, lines, result.failures


def _settings(source: str, overrides: list[str]) -> RunConfig:
    if source in recipes() or source.endswith((".yaml", ".yml")):
        return read(find_config(source), overrides)
    return read_settings(source, overrides, ["data", "write"])
