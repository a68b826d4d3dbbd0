"""`knife push`: a student and its card on a local hub, in one commit or not at all."""

import json
import shutil
from pathlib import Path

import pytest
from command_fixtures import Command, FinishedRun
from hub_server import SIGNATURE, TOKEN, Hub, hub  # noqa: F401  (fixture)

from knife.inference.file import predict
from knife.store.store import Store

REPO = "owner/kebik"


@pytest.fixture
def student(finished_run: FinishedRun, tmp_path: Path) -> Path:
    """Return a student in a separate store, which a test may damage."""
    folder = finished_run.student("knife")
    return Path(shutil.copytree(folder, tmp_path / "store" / "student" / folder.name))


def test_the_hub_has_student_and_card_in_one_commit(
    command: Command,
    finished_run: FinishedRun,
    hub: Hub,  # noqa: F811
    tmp_path: Path,
) -> None:
    student = finished_run.student("knife")
    ended = command("push", student, REPO)
    assert (ended.status, ended.out) == (0, f"{hub.url}/{REPO}/commit/1\n"), ended.err
    assert TOKEN not in ended.out + ended.err
    repository = hub.repositories[REPO]
    assert not repository.private
    assert repository.files["README.md"] == (student / "README.md").read_bytes()
    model = {path.name for path in (student / "model").iterdir()}
    assert set(repository.files) == model | {"README.md"}
    copy = tmp_path / "copy"
    copy.mkdir()
    for name, content in repository.files.items():
        (copy / name).write_bytes(content)
    questions = finished_run.test_file
    assert predict(copy, questions) == predict(student, questions)
    # The second time, nothing is sent.
    assert command("push", student, REPO).status == 0
    assert (repository.commits, hub.uploads) == (1, 1)


def test_dry_run_lists_files_and_card_and_sends_nothing(
    command: Command,
    finished_run: FinishedRun,
    hub: Hub,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    student = finished_run.student("finetune")
    lines = command("push", student / "model", REPO, "--dry-run").out.splitlines()
    size = (student / "model" / "model.safetensors").stat().st_size
    assert f"{size:>15,}  model.safetensors" in lines
    assert "\n".join(lines).endswith((student / "README.md").read_text().rstrip())
    assert not hub.repositories


def test_a_hub_that_goes_away_in_the_middle(
    command: Command,
    student: Path,
    hub: Hub,  # noqa: F811
) -> None:
    hub.fails = "/commit/"
    ended = command("push", student, REPO)
    assert (ended.status, ended.out) == (1, "")
    assert "the upload to 127.0.0.1 broke off" in ended.err
    assert "may not have made a commit; run the same command again" in ended.err
    assert not hub.repositories[REPO].files
    hub.fails, uploads = "", hub.uploads
    assert command("push", student, REPO).status == 0
    # The hub already had the weights.
    assert (hub.uploads, hub.repositories[REPO].commits) == (uploads, 1)


@pytest.mark.parametrize(
    ("place", "status", "words"),
    [
        ("/create", 401, "127.0.0.1 rejects the token (401)"),
        ("/commit/", 403, f"REPO: 127.0.0.1 does not let this token write to {REPO} (403)"),
        ("/lfs/", 403, f"REPO: 127.0.0.1 does not let this token write to {REPO} (403)"),
        ("/validate-yaml", 400, f"REPO: 127.0.0.1 refuses the upload to {REPO} (400)"),
    ],
)
def test_a_hub_that_refuses(
    command: Command,
    student: Path,
    hub: Hub,  # noqa: F811
    place: str,
    status: int,
    words: str,
) -> None:
    hub.fails, hub.status = place, status
    (error,) = command("push", student, REPO).errors
    assert error.startswith(words)
    assert TOKEN not in error
    assert SIGNATURE not in error
    assert not any(repository.files for repository in hub.repositories.values())


def test_a_hub_in_trouble(command: Command, student: Path, hub: Hub) -> None:  # noqa: F811
    hub.fails, hub.status = "/create", 500
    ended = command("push", student, REPO)
    assert ended.status == 1
    assert "127.0.0.1 answered 500: no commit was made; run the same command again" in ended.err


def test_tokens(
    command: Command,
    student: Path,
    hub: Hub,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    (error,) = command("push", student, REPO).errors
    assert error.startswith("127.0.0.1 rejects the token (401)")
    assert "hf_another" not in error
    monkeypatch.delenv("HF_TOKEN")
    (error,) = command("push", student, REPO).errors
    assert error == "no token for 127.0.0.1: run `hf auth login`, or set HF_TOKEN"
    assert not hub.repositories


def test_a_slash_behind_the_endpoint(
    command: Command,
    finished_run: FinishedRun,
    hub: Hub,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.url}/")
    ended = command("push", finished_run.student("knife"), REPO)
    assert (ended.status, ended.out) == (0, f"{hub.url}/{REPO}/commit/1\n"), ended.err


def test_offline(
    command: Command,
    finished_run: FinishedRun,
    hub: Hub,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Read only once, when huggingface_hub is imported.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (error,) = command("push", finished_run.student("knife"), REPO).errors
    assert error.startswith("HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set: unset it to reach")
    assert not hub.repositories


def test_private_is_never_public(command: Command, student: Path, hub: Hub) -> None:  # noqa: F811
    assert command("push", student, "owner/mine", "--private").status == 0
    assert hub.repositories["owner/mine"].private
    assert command("push", student, "owner/open", "--dry-run").status == 0
    assert command("push", student, "owner/open").status == 0
    (student / "README.md").write_text((student / "README.md").read_text() + "More.\n")
    (error,) = command("push", student, "owner/open", "--private").errors
    assert error.startswith("--private: owner/open already exists and is public")
    assert hub.repositories["owner/open"].commits == 1


def test_all_errors_of_the_input_at_once(command: Command, student: Path, tmp_path: Path) -> None:
    repo, place = command("push", tmp_path, "a/b/c").errors
    assert repo.startswith("REPO: must be OWNER/NAME or NAME, but got 'a/b/c'")
    assert place.startswith(f"STUDENT: {tmp_path} is not the folder of a student")
    for url in ("s3://kebik", "s3://kebik/0123"):
        (error,) = command("push", url, REPO).errors
        assert error.startswith(f"STUDENT: {url} is not the url of a student")
    (student / "README.md").unlink()
    (error,) = command("push", student, REPO).errors
    assert error.startswith(f"STUDENT: {student} has no README.md yet; `knife run` of its config")
    weights = student / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    (error,) = command("push", student, REPO).errors
    assert error.startswith(f"STUDENT: {student} is damaged (model/model.safetensors); `knife run`")
    (student / "manifest.json").unlink()
    (error,) = command("push", student, REPO).errors
    assert error.startswith(f"STUDENT: {student} has no manifest of a student")


def add_file(student: Path, name: str) -> None:
    """Add a one-letter file to the student's model, as if it had been published with it."""
    (student / "model" / name).write_bytes(b"x")
    manifest = json.loads((student / "manifest.json").read_text())
    of = {"bytes": 1, "sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}
    manifest["files"][f"model/{name}"] = of
    (student / "manifest.json").write_text(json.dumps(manifest))
    assert Store(student.parents[1], write=False).damage("student", student.name) == []


def test_training_examples_that_go_with_it_are_said(command: Command, student: Path) -> None:
    add_file(student, "retrieve.jsonl")
    ended = command("push", student, REPO, "--dry-run")
    assert ended.status == 0
    assert ended.err == "retrieve.jsonl: training examples, which are uploaded too\n"


def test_weights_that_could_run_code_are_refused(command: Command, student: Path) -> None:
    add_file(student, "pytorch_model.bin")
    (error,) = command("push", student, REPO).errors
    assert error.startswith(f"STUDENT: {student} has model/pytorch_model.bin; only")
