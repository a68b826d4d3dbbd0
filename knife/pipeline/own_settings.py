"""Each method's own settings: the values of the searched keys whose trials are best on dev."""

from dataclasses import dataclass
from statistics import fmean

from knife.config.overrides import describe
from knife.config.run import RunConfig
from knife.config.search import Setting
from knife.pipeline.gate import Make
from knife.plan.sources import SourceReader
from knife.plan.trials import Tried, plan_trials, with_values
from knife.store.store import Store
from knife.train.results import read_trained


@dataclass(frozen=True)
class SettingResult:
    """What the trials of a setting found.

    Attributes:
        values: the setting, by dotted key.
        accuracies: the best accuracy on dev of each trial; None for one that could not be made.
        accuracy, loss: the means of accuracy and loss on dev; None if a trial is missing.
    """

    values: Setting
    accuracies: list[float | None]
    accuracy: float | None
    loss: float | None


@dataclass(frozen=True)
class Choice:
    """The trials of a method, and what they chose.

    Attributes:
        method: its name in the run.
        seeds: the seeds of the trials of each setting.
        results: one for each setting, in the order of the config.
        chosen: the values of the best; None if no setting has all of its trials.
    """

    method: str
    seeds: list[int]
    results: list[SettingResult]
    chosen: Setting | None

    def words(self) -> str:
        """Say what was chosen, and by which trials."""
        trials = [accuracy for result in self.results for accuracy in result.accuracies]
        seeds = f"seed{'s'[: len(self.seeds) != 1]} {', '.join(map(str, self.seeds))}"
        said = f"{len(trials)} trials: {len(self.results)} settings, {seeds}"
        if failed := trials.count(None):
            said += f"; {failed} could not be made"
        if self.chosen is None:
            first = describe(self.results[0].values)
            return f"{self.method} {first}, as no setting has all of its trials ({said})"
        return f"{self.method} {describe(self.chosen)} ({said})"


def choose_settings(
    config: RunConfig, reader: SourceReader, make: Make
) -> tuple[RunConfig, list[Choice]]:
    """Make the trials of the methods whose settings are searched, and return the config in which
    each has its best setting on dev, and the choices.

    Raises:
        UserError: as `plan_run` does, for any setting.
    """
    found = plan_trials(config, reader)
    if found is None:
        return config, []
    store = make(found.plan)
    choices = [_choice(method, tried, store) for method, tried in found.tried.items()]
    chosen = {each.method: each.chosen or each.results[0].values for each in choices}
    methods = [with_values(each, chosen.get(each.name, {})) for each in config.variants()]
    return config.model_copy(update={"methods": methods, "ablate": False}), choices


def _choice(method: str, tried: list[Tried], store: Store) -> Choice:
    results = [_result(each, store) for each in tried]
    best: SettingResult | None = None
    for result in results:
        if result.accuracy is not None and (best is None or _place(result) > _place(best)):
            best = result
    seeds = [trial.seed for trial in tried[0].trials]
    return Choice(method, seeds, results, best.values if best else None)


def _place(result: SettingResult) -> tuple[float, float]:
    """Return what settings are compared by: accuracy, but for its rounding, then loss."""
    assert result.accuracy is not None
    assert result.loss is not None
    return round(result.accuracy, 9), -result.loss


def _result(tried: Tried, store: Store) -> SettingResult:
    keys = [trial.student.key for trial in tried.trials]
    trained = [
        read_trained(store, "student", key) if store.has("student", key) else None for key in keys
    ]
    made = [each for each in trained if each]
    whole = len(made) == len(keys)
    return SettingResult(
        tried.values,
        [each["dev_accuracy"] if each else None for each in trained],
        fmean(each["dev_accuracy"] for each in made) if whole else None,
        fmean(each["dev_loss"] for each in made) if whole else None,
    )
