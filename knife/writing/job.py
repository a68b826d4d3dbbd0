"""What `knife data write` is to do: what is asked, how, and what of it is answered already."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from knife.cluster.address import cluster_address
from knife.cluster.capacity import machine, start_errors, worker_errors
from knife.config.write import Write
from knife.core.errors import UserError, raise_errors
from knife.data.example import Example, Splits
from knife.data.examples import values_of
from knife.data.jsonl import read_examples
from knife.data.subset import lot
from knife.data.written import ANSWERS, FOLDER, read_written
from knife.models.source import ModelSource, find_model
from knife.writing.kept import Kept
from knife.writing.prompt import Prompt, read_prompt
from knife.writing.request import Request, requests


@dataclass(frozen=True)
class Job:
    """What is asked for.

    Attributes:
        settings: how.
        source: the name of the data.
        splits: train, dev and test, with the rationales that are there before.
        out: the folder of the result.
        prompt: what is asked.
        model: the files of a model that runs here; None if a server is asked.
        requests: by split, all requests, answered or not.
        kept: the answers that there are.
        missing: the requests without an answer, each once.
        analysis: whether the test split is written too, for analysis alone.
    """

    settings: Write
    source: str
    splits: Splits
    out: Path
    prompt: Prompt
    model: ModelSource | None
    requests: Mapping[str, Sequence[Request]]
    kept: Kept
    missing: Sequence[Request] = field(repr=False)
    analysis: bool

    @property
    def answers(self) -> Path:
        """The folder of the answers."""
        return self.out / FOLDER / ANSWERS

    @property
    def keys(self) -> set[str]:
        """The keys of all requests."""
        return {each.key for some in self.requests.values() for each in some}


def plan_job(
    settings: Write, source: str, splits: Splits, out: Path, *, gaps: bool, analysis: bool
) -> Job:
    """Check everything and return what is to be asked for.

    With `gaps`, questions that have a rationale keep it; otherwise there must be none. With
    `analysis`, the test split is asked for as well.

    Raises:
        UserError: with everything that is wrong.
    """
    source = _place(source)
    errors = _split_errors(settings, splits, gaps=gaps)
    errors += _place_errors(settings, source, splits, out)
    prompt = model = None
    try:
        prompt = read_prompt(
            settings.prompt, settings.given, _shots(settings, splits), splits.train[0]
        )
    except UserError as error:
        errors += error.errors
    try:
        model = None if settings.url else find_model(settings.model, "write.model")
    except UserError as error:
        errors += error.errors
    raise_errors(errors)
    assert prompt
    name = model.identity if model else settings.model
    asked = [*settings.splits, *(["test"] if analysis else [])]
    wanted = {
        split: list(requests(settings, name, prompt, _unexplained(splits.parts[split])))
        for split in dict.fromkeys(asked)
    }
    place = out.resolve()
    kept = Kept(place / FOLDER / ANSWERS)
    return with_answers(
        Job(settings, source, splits, place, prompt, model, wanted, kept, [], analysis)
    )


def with_answers(job: Job) -> Job:
    """Return a job with the answers that there are by now."""
    job.kept.read_more()
    wanted = (each for some in job.requests.values() for each in some)
    return replace(job, missing=job.kept.missing(wanted, job.settings.longest))


def _unexplained(examples: Sequence[Example]) -> list[Example]:
    return [example for example in examples if example.rationale is None]


def _split_errors(settings: Write, splits: Splits, *, gaps: bool) -> list[str]:
    errors = []
    for name in settings.splits:
        part = splits.parts[name]
        had = len(part) - len(_unexplained(part))
        if had == len(part):
            errors.append(
                f"data.source: all {len(part):,} examples of {name} have a rationale; to have them "
                "written anew, set data.rationale=none"
            )
        elif had and not gaps:
            errors.append(
                f"data.source: {had:,} of {len(part):,} examples of {name} have a rationale; give "
                "--missing to keep these and have the others written, or set data.rationale=none"
            )
    if settings.keep == "best" and splits.train[0].open:
        errors.append("write.keep: best needs choices, but the questions are open; set it to all")
    return errors


def _shots(settings: Write, splits: Splits) -> list[Example]:
    """Draw the solved examples from those of train that have a rationale.

    Raises:
        UserError: there are too few.
    """
    explained = [example for example in splits.train if example.rationale is not None]
    if len(explained) < settings.shots:
        raise UserError(
            f"write.shots: {settings.shots} examples with a rationale are to be shown, but train "
            f"has {len(explained)}; write some by hand and give --missing, or set write.shots=0"
        )
    explained.sort(key=lambda example: lot(0, "shots", example.id))
    return explained[: settings.shots]


def _place(source: str) -> str:
    """Return a source's path as an absolute one; a known name stays."""
    path = Path(source).expanduser()
    return str(path.resolve()) if path.exists() else source


def _are_others(out: Path, splits: Splits) -> bool:
    """Whether the training examples of a folder are of another source than these: a source may have
    been moved."""
    known = {identity for part in splits.parts.values() for identity in values_of(part, "id")}
    path = out / "train.jsonl"
    return path.is_file() and not any(each.id in known for each in read_examples(path))


def _place_errors(settings: Write, source: str, splits: Splits, out: Path) -> list[str]:
    errors = []
    # A path has lost one of the slashes of an address.
    if ":/" in str(out):
        return [f"--out: must be a folder, but got {str(out)!r}; copy it to a bucket afterwards"]
    entries = list(out.iterdir()) if out.is_dir() else None
    if entries is None and out.exists():
        errors.append(f"--out: {out} is no folder")
    elif entries and not (out / FOLDER / ANSWERS).is_dir():
        errors.append(
            f"--out: {out} holds something else than written rationales (it has no "
            f"{FOLDER}/{ANSWERS}); give a new folder"
        )
    before = read_written(str(out))
    if before and before["source"] != source and _are_others(out, splits):
        errors.append(
            f"--out: {out} holds rationales for {before['source']}; give another folder for those "
            f"for {source}, or remove it"
        )
    if Path(source).is_absolute() and out.resolve() == Path(source):
        errors.append(f"--out: {out} is the source itself; give another folder")
    if settings.workers is not None:
        errors += start_errors()
        if not cluster_address():
            cpus = machine()["CPU"]
            errors += worker_errors("write.workers", settings.workers, cpus, "this machine")
    return errors
