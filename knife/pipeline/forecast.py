"""A forecast of a run: from its data alone, or with its teacher and a finetuned student, which are
made if they are missing."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from knife.config.run import RunConfig
from knife.core.atomic import write_json
from knife.core.errors import WorkFailedError
from knife.data.example import Splits
from knife.forecast.features import Features, features
from knife.forecast.forecast import NAME, Forecast, Scores, forecast
from knife.pipeline.gate import pass_gates
from knife.pipeline.run import Before, Display
from knife.plan.forecast import first_knife, knife_data, plan_scored
from knife.plan.plan import Plan, plan_run
from knife.plan.sources import SourceReader
from knife.store.disk import disk_errors
from knife.store.store import Store
from knife.train.results import accuracy, read_trained

# More training examples take seconds.
_MANY = 20_000


@dataclass(frozen=True)
class ForecastResult:
    """A run's forecast.

    Attributes:
        forecast: what to expect.
        folder: the run's folder, where it is stored.
        made: labels of the stages that were made for it.
        notes: what a user should know, one sentence each.
    """

    forecast: Forecast
    folder: Path
    made: list[str]
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return asdict(self) | {"folder": str(self.folder)}


def quick_forecast(plan: Plan) -> Forecast | None:
    """Return the forecast of a run from its data alone, and keep nothing; None if the run does not
    train knife, or if that would take long and was not done before."""
    if not any(member.student.method == "knife" for member in plan.members):
        return None
    splits = knife_data(plan)
    kept = _kept(plan, splits)
    if kept is None and len(splits.train) > _MANY:
        return None
    return forecast(kept or features(splits))


def _kept(plan: Plan, splits: Splits) -> Features | None:
    assert plan.prepared
    kept = plan.prepared.forecast(splits)
    return None if kept is None else Features.from_dict(kept)


def forecast_run(config: RunConfig, display: Display, *, teacher: bool) -> ForecastResult:
    """Forecast a run and store that with it; its report is updated if there is one.

    With `teacher`, the teacher of the run's first method `knife` is trained, if the store lacks it,
    until it passes its gate, and asked about dev; and so is a student of `finetune`. The run itself
    then finds them there.

    Raises:
        UserError: as `plan_run` does; or the run does not train knife; or no example of dev has a
            rationale for the teacher; or memory, disk or cluster do not suffice.
        WorkFailedError: one of them could not be made.
    """
    from knife.report.run_page import run_report, write_or_warn

    reader = SourceReader()
    run = plan_run(config, reader)
    splits = knife_data(run)
    of = _kept(run, splits)
    if of is None:
        of = features(splits)
        assert run.prepared
        run.prepared.keep_forecast(splits, asdict(of))
    before = Before(config.store, display)
    scores = _scores(config, reader, before) if teacher else None
    found = forecast(of, scores)
    store = Store(config.store)
    with disk_errors(store.root):
        folder = run.folder
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / NAME, asdict(found))
        if (folder / "verdict.json").is_file():
            write_or_warn(folder, store, lambda: run_report(folder, store))
        store.keep(folder)
    made = [stage.label for stage in before.made]
    return ForecastResult(found, folder, made, run.notes + before.notes)


def _scores(config: RunConfig, reader: SourceReader, before: Before) -> Scores:
    """Return the accuracies of the teacher that students would learn from, and of finetune.

    Raises:
        WorkFailedError: one of them could not be made.
    """
    # What cannot be asked is refused before any training.
    wanted = plan_scored(config, reader)
    passed, _ = pass_gates(config, reader, before, {first_knife(config).name})
    if passed is not config:
        wanted = plan_scored(passed, reader)
    plan, finetune, asked = wanted
    store = before(plan)
    if missing := [stage for stage in plan.stages if not store.has(stage.kind, stage.key)]:
        raise WorkFailedError(*(before.notes or [f"{stage.label}: missing" for stage in missing]))
    explained, bare = (accuracy(store, stage.key) for stage in asked)
    return Scores(explained, bare, read_trained(store, "student", finetune.key)["dev_accuracy"])
