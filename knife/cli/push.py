"""Upload a student and its card to a hub: one commit, or nothing.

huggingface_hub handles the repository, the token, retries and files that are already there: the
endpoint is HF_ENDPOINT, the token is HF_TOKEN or that of `hf auth login`.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from knife.core.errors import UserError, raise_errors
from knife.core.version import __version__
from knife.inference.file import student_model
from knife.report.cards import NAME, read_card
from knife.store.bucket import artifact_place, is_url
from knife.store.store import Store

# Weights as safetensors, settings, tokenizers and solved examples: nothing executable.
_KINDS = (".safetensors", ".json", ".jsonl", ".txt", ".model", ".jinja")


@dataclass(frozen=True)
class Upload:
    """What is to be uploaded.

    Attributes:
        repository: NAME or OWNER/NAME.
        files: by name in the repository, without the card.
        card: the text of README.md.
    """

    repository: str
    files: dict[str, Path]
    card: str

    def sizes(self) -> dict[str, int]:
        """Return sizes in bytes by name in the repository."""
        found = {name: path.stat().st_size for name, path in self.files.items()}
        return {NAME: len(self.card.encode())} | found

    def examples(self) -> list[str]:
        """Return the files with training examples, which a student of `retrieve` reads."""
        return [name for name in self.files if name.endswith(".jsonl")]

    def lines(self) -> list[str]:
        """Return lines with the files and their sizes, then the card."""
        sizes = self.sizes()
        return [
            f"{self.repository}: {len(sizes)} files, {sum(sizes.values()):,} bytes",
            *(f"{size:>15,}  {name}" for name, size in sizes.items()),
            "",
            self.card.rstrip(),
        ]


def plan_upload(student: str, repository: str) -> Upload:
    """Check a student and return what a push would upload.

    Raises:
        UserError: the student does not exist, is damaged, has no card or contains files that are
            never uploaded; or the repository's name is malformed.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    errors, files, card = [], dict[str, Path](), ""
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        errors.append(f"REPO: must be OWNER/NAME or NAME, but got {repository!r}: {error}")
    try:
        files, card = _student(student)
    except UserError as error:
        errors += error.errors
    raise_errors(errors)
    return Upload(repository, files, card)


def push(upload: Upload, *, private: bool) -> str:
    """Upload to the hub and return the commit's URL. A new repository is public unless `private`.

    Raises:
        UserError: there is no token, the hub refuses the token, the repository or the files, or the
            environment forbids access to the hub.
        ConnectionError: the hub did not answer, or the connection broke.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token, is_offline_mode
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
    host = urlsplit(endpoint).hostname or "the hub"
    if is_offline_mode():
        raise UserError(f"HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set: unset it to reach {host}")
    token = get_token()
    if token is None:
        raise UserError(f"no token for {host}: run `hf auth login`, or set HF_TOKEN")
    if not sys.stderr.isatty():
        disable_progress_bars()
    api = HfApi(endpoint, token, library_name="knife", library_version=__version__)
    try:
        made = api.create_repo(upload.repository, private=private or None, exist_ok=True)
        if private and not api.model_info(made.repo_id).private:
            raise UserError(
                f"--private: {made.repo_id} already exists and is public; make it private on "
                f"{host} first, or give another REPO"
            )
        files: dict[str, Path | bytes] = {NAME: upload.card.encode(), **upload.files}
        commit = api.create_commit(
            made.repo_id,
            [CommitOperationAdd(name, content) for name, content in files.items()],
            commit_message="Upload a student with knife",
        )
    except UserError:
        raise
    except HfHubHTTPError as error:
        raise _refused(error.response.status_code, host, upload.repository) from None
    # The errors in huggingface_hub's HTTP client have other names in other versions; their messages
    # may contain signed URLs, so they are not repeated.
    except Exception as error:
        cause = error.__cause__
        if isinstance(cause, HfHubHTTPError):
            raise _refused(cause.response.status_code, host, upload.repository) from None
        raise ConnectionError(
            f"the upload to {host} broke off ({type(cause or error).__name__}) and may not have "
            "made a commit; run the same command again to send the rest"
        ) from None
    return commit.commit_url


def _student(where: str) -> tuple[dict[str, Path], str]:
    """Return a student's files by name in the repository, and its card."""
    if is_url(where):
        address, kind, key = artifact_place(where)
        store = Store(address)
        folder = student_model(store.path(kind, key)).parent
    else:
        folder = student_model(Path(where)).resolve().parent
        store = Store(folder.parent.parent, write=False)
        kind, key = folder.parent.name, folder.name
    about = store.manifest(kind, key)
    if about is None or about["kind"] != "student":
        raise UserError(
            f"STUDENT: {where} has no manifest of a student, so its files cannot be verified; give "
            "a student in a store: STORE/student/KEY"
        )
    again = "`knife run` of its config makes it"
    damaged = store.damage(kind, key)
    if damaged:
        raise UserError(f"STUDENT: {where} is damaged ({', '.join(damaged)}); {again} again")
    card = read_card(store, key)
    if card is None:
        raise UserError(f"STUDENT: {where} has no {NAME} yet; {again}, with the run's verdict")
    names = [name for name in about["files"] if name.startswith("model/")]
    odd = [name for name in names if not name.endswith(_KINDS)]
    if odd:
        raise UserError(
            f"STUDENT: {where} has {', '.join(odd)}; only safetensors weights are uploaded"
        )
    return {name.removeprefix("model/"): folder / name for name in sorted(names)}, card


def _refused(status: int, host: str, repository: str) -> Exception:
    if status == 401:
        return UserError(
            f"{host} rejects the token (401): it is wrong or has expired; run `hf auth login`, or "
            "set HF_TOKEN"
        )
    if status in (403, 404):
        return UserError(
            f"REPO: {host} does not let this token write to {repository} ({status}); give a token "
            "with write access, or name a repository of your own"
        )
    if status in (400, 409, 413, 422):
        return UserError(f"REPO: {host} refuses the upload to {repository} ({status})")
    return ConnectionError(
        f"{host} answered {status}: no commit was made; run the same command again to send the rest"
    )
