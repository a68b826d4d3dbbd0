"""A forecast as the command makes it: progress on stderr, nothing on stdout."""

from knife.config.overrides import Overrides
from knife.config.recipe_files import find_config
from knife.config.run import read
from knife.pipeline.command import stdout_to_stderr
from knife.pipeline.forecast import ForecastResult, forecast_run
from knife.terminal.display import display


def forecast_with_display(
    config: str, overrides: Overrides | None, *, teacher: bool
) -> ForecastResult:
    """Forecast the run of a recipe or a YAML file and show its progress.

    Raises:
        UserError: as `knife.pipeline.forecast.forecast_run` does.
    """
    settings = read(find_config(config), overrides)
    with stdout_to_stderr():
        return forecast_run(settings, display, teacher=teacher)


def last_words(found: ForecastResult) -> list[str]:
    """Return lines on where it is, and what a user should know."""
    return [*(f"note: {note}" for note in found.notes), f"kept with the run: {found.folder}"]
