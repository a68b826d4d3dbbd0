"""Publishes written rationales: a folder of data, what was not used, and where all is from."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from knife.core import strict_json
from knife.core.atomic import replacing, write_json
from knife.core.errors import UserError
from knife.core.version import __version__
from knife.data.example import Example
from knife.data.jsonl import write_examples
from knife.data.written import FOLDER, LICENCE, RECORD, REJECTED, file_digest, read_written
from knife.writing.filters import Judged, reasons
from knife.writing.job import Job


def publish(job: Job, judged: Mapping[str, Sequence[Judged]]) -> dict[str, Any]:
    """Write the files of a job's folder, each of them whole, and return the record, which is last.

    The test split gets no rationales: those for analysis are in a file of their own.

    Raises:
        UserError: the disk is full or not writable.
    """
    inner = job.out / FOLDER
    files = {}
    try:
        for split, examples in job.splits.parts.items():
            own = judged.get(split, []) if split != "test" else []
            path = job.out / f"{split}.jsonl"
            _write(path, _explained(examples, own))
            files[path.name] = file_digest(path)
        (inner / "test.jsonl").unlink(missing_ok=True)
        if job.analysis:
            _write(inner / "test.jsonl", _explained(job.splits.test, judged["test"]))
        with replacing(inner / REJECTED) as unfinished:
            unfinished.write_text("".join(_rejected(judged)), encoding="utf-8")
        record = _record(job, judged, files)
        write_json(inner / RECORD, record)
    except OSError as error:
        raise UserError(f"--out: {job.out} cannot be written: {error.strerror}") from error
    return record


def _write(path: Path, examples: Sequence[Example]) -> None:
    with replacing(path) as unfinished:
        write_examples(unfinished, examples)


def _explained(examples: Sequence[Example], judged: Sequence[Judged]) -> list[Example]:
    """Return a split with the texts that are used."""
    texts: dict[str, list[str]] = {}
    # The ones that help most are first.
    for each in sorted(judged, key=lambda one: -(one.gain or 0)):
        if not each.reason:
            texts.setdefault(each.request.example.id, []).append(each.text)
    return [
        replace(example, rationale=own[0], more_rationales=tuple(own[1:]))
        if (own := texts.get(example.id))
        else example
        for example in examples
    ]


def _rejected(judged: Mapping[str, Sequence[Judged]]) -> list[str]:
    """Return a line of JSON for each text that is not used."""
    rows = (
        {
            "split": split,
            "id": each.request.example.id,
            "sample": each.request.sample,
            "reason": each.reason,
            "gain": each.gain,
            "text": each.answer.text,
        }
        for split, some in judged.items()
        for each in some
        if each.reason
    )
    return [f"{strict_json.dumps(row, ensure_ascii=False)}\n" for row in rows]


def _record(
    job: Job,
    judged: Mapping[str, Sequence[Judged]],
    files: Mapping[str, str | None],
) -> dict[str, Any]:
    settings, kept = job.settings, job.kept
    answers = [kept.answers[key] for key in job.keys & kept.answers.keys()]
    counts = {split: _counts(job, split, judged[split]) for split in judged}
    times = [answer.time for answer in answers] or [0.0]
    return {
        "version": 1,
        "knife": __version__,
        "source": job.source,
        "model": settings.model,
        "served": sorted({answer.model for answer in answers}),
        "address": settings.host,
        "files_of_model": job.model.identity if job.model else None,
        "prompt": {
            "name": Path(job.prompt.name).name,
            "digest": job.prompt.digest,
            "text": job.prompt.text,
            "shots": [asdict(shot) for shot in job.prompt.shots],
        },
        "given": settings.given,
        "settings": settings.model_dump(mode="json", exclude={"url", "key", "prompt", "workers"}),
        "splits": {split: of for split, of in counts.items() if split in job.settings.splits},
        "analysis": counts["test"] if job.analysis else None,
        "tokens": {
            "read": kept.read,
            "written": kept.written,
            "counted": all(answer.counted for answer in kept.answers.values()),
        },
        "cost": settings.cost(kept.read, kept.written) if settings.price else None,
        "first": _time(min(times)),
        "last": _time(max(times)),
        "files": dict(files),
        "licence": LICENCE,
        # Who wrote the rationales that were there before, if that is known.
        "before": read_written(job.source),
    }


def _counts(job: Job, split: str, judged: Sequence[Judged]) -> dict[str, Any]:
    """Count what became of a split's questions."""
    examples = job.splits.parts[split]
    questions = {request.example.id for request in job.requests[split]}
    answered = {each.request.example.id for each in judged}
    used = [each.request.example.id for each in judged if not each.reason]
    return {
        "examples": len(examples),
        "had": len(examples) - len(questions),
        "written": len(set(used)),
        "texts": len(used),
        "dropped": reasons(judged),
        "unanswered": len(questions - answered),
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
