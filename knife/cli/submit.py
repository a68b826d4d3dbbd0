"""A run or a sweep as a Ray job: checked locally, sent with the working directory, followed."""

import sys
import uuid
from pathlib import Path
from typing import Any

from knife.cli.submit_check import check
from knife.core.errors import raise_errors
from knife.core.exits import Terminated, say
from knife.core.words import command_line, size
from knife.launch.jobs import JobEnd, JobLog, Jobs
from knife.launch.working_dir import existing, look_at
from knife.track.secrets import redact

_STOPPED = 130


def submit(
    words: list[str], values: dict[str, Any], address: str, folder: Path, *, wait: bool
) -> int:
    """Submit `knife WORDS…` as a job and follow it to its end; return the exit status.

    Args:
        words: the command as it was given.
        values: its arguments and options by name, as `knife` would read them here.
        address: the address of a Ray dashboard.
        folder: the working directory.
        wait: whether to follow the job.

    Raises:
        UserError: words, config, folder or address are wrong; raised before anything is sent.
    """
    folder = existing(folder)
    checked = check(words, values, folder)
    raise_errors(checked.errors)
    parcel = look_at(folder, checked.stays(folder))
    raise_errors(checked.missing(parcel))
    jobs = Jobs(address)
    say(*(f"note: {note}" for note in checked.notes))
    say(f"sending {folder}: {len(parcel.files):,} files, {size(parcel.size)}")
    job = f"{checked.name}-{uuid.uuid4().hex[:12]}"
    try:
        jobs.submit(job, ["python", "-m", "knife", *words], parcel, checked.environment)
    except (KeyboardInterrupt, OSError):
        say("", f"job {job} may be on the cluster:", *_later(job, jobs))
        raise
    say(f"job: {job}", f"dashboard: {jobs.address}/#/jobs/{job}", f"MLflow: {checked.mlflow}")
    if not wait:
        say(*_later(job, jobs))
        return 0
    return _ended(job, _follow(job, jobs))


def _later(job: str, jobs: Jobs) -> list[str]:
    return [
        "follow it: "
        + command_line("ray", "job", "logs", "--address", jobs.address, "--follow", job),
        "stop it: " + command_line("ray", "job", "stop", "--address", jobs.address, job),
    ]


def _follow(job: str, jobs: Jobs) -> JobEnd:
    """Show the log until the job has ended; Ctrl-C asks whether to stop the job."""
    log = JobLog(lambda text: print(redact(text), end="", flush=True))
    stopping, answered = False, ""
    try:
        while True:
            # The answer is handled inside this `try`, so that the next Ctrl-C asks again.
            try:
                if answered:
                    say(answered)
                    answered = ""
                if stopping:
                    jobs.stop(job)
                return jobs.follow(job, log)
            except Terminated:
                raise
            except KeyboardInterrupt:
                if stopping or not (sys.stdin.isatty() and sys.stderr.isatty()):
                    raise
                stopping = _asked()
                answered = (
                    "stopping the job …" if stopping else "the job continues, and so does its log"
                )
    except (KeyboardInterrupt, ConnectionError) as error:
        say("", "the job continues" if isinstance(error, KeyboardInterrupt) and not stopping
            else "the job may still be running", *_later(job, jobs))  # fmt: skip
        raise


def _asked() -> bool:
    """Ask whether to stop the job.

    Raises:
        KeyboardInterrupt: the answer is Ctrl-C or the end of the input.
    """
    question = "\nstop the job? [y/N] (Ctrl-C again leaves it running) "
    print(question, end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer:
        raise KeyboardInterrupt
    return answer.strip().lower() in ("y", "yes")


def _ended(job: str, end: JobEnd) -> int:
    """Say how the job ended, and return the exit status for that."""
    say(f"job {job} {end.state}", *redact(end.message).splitlines()[-20:])
    if end.state == "succeeded":
        return 0
    if end.state == "stopped":
        return _STOPPED
    status = end.status or 1
    # If it was ended by a signal, use the status that a shell would report.
    return status if status > 0 else 128 - status
