"""A store on a bucket of a real S3 server: published atomically, fetched, checked."""

import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.request import Request, urlopen

import pytest
from command_fixtures import Command, free_port
from s3_server import S3
from small_run import silent, small_config

from knife.pipeline.run import run
from knife.plan.plan import plan_run
from knife.store.store import Store, store_errors
from knife.train.follow import Follower

KEY = ("states", "k")


class Kept(NamedTuple):
    kind: str
    key: str


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that switches to another host, with a separate cache."""

    def go(name: str) -> None:
        monkeypatch.setenv("KNIFE_CACHE", str(tmp_path / name))

    go("first")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return go


def published(store: Store) -> Path:
    work = store.work(*KEY)
    (work / "inner").mkdir()
    (work / "a.bin").write_bytes(b"a" * 1000)
    (work / "inner" / "b.json").write_text("{}")
    return store.publish(*KEY, {"depends": 1})


def test_what_is_published_on_one_host_is_read_on_another(
    s3: S3, host: Callable[[str], None]
) -> None:
    store = Store(s3.url)
    folder = published(store)
    assert (folder / "a.bin").read_bytes() == b"a" * 1000
    host("second")
    other = Store(s3.url + "/")
    assert other.root != store.root
    assert other.has(*KEY)
    assert other.have([Kept(*KEY), Kept("states", "other"), Kept("teacher", "k")]) == {KEY}
    assert json.loads(other.read(*KEY, "depends.json")) == {"depends": 1}
    assert not (other.root / "states").exists()
    assert other.damage(*KEY) == []
    names = {p.relative_to(folder) for p in folder.rglob("*") if p.is_file()}
    there = other.path(*KEY)
    assert {p.relative_to(there) for p in there.rglob("*") if p.is_file()} == names
    for name in names - {Path("manifest.json")}:
        assert (there / name).read_bytes() == (folder / name).read_bytes()
    assert list((other.root / "work").iterdir()) == []


def test_without_its_manifest_an_artifact_does_not_count(
    s3: S3, host: Callable[[str], None]
) -> None:
    store = Store(s3.url)
    published(store)
    s3.files.rm_file(f"{s3.url}/states/k/manifest.json")
    host("second")
    other = Store(s3.url)
    assert not other.has(*KEY)
    assert other.damage(*KEY) == ["manifest.json"]
    published(other)
    assert other.damage(*KEY) == []


@pytest.mark.parametrize("content", [b"a" * 999, b"b" * 1000], ids=["cut", "changed"])
def test_a_damaged_object_is_found_and_can_be_made_again(
    s3: S3, host: Callable[[str], None], content: bytes
) -> None:
    published(Store(s3.url))
    (name,) = [name for name in s3.names("states") if name.endswith("a.bin")]
    s3.files.pipe_file(f"{s3.url}/{name}", content)
    host("second")
    store = Store(s3.url)
    with pytest.raises(OSError, match=r"states/k is incomplete or damaged \(a.bin\)"):
        store.path(*KEY)
    assert store.damage(*KEY) == ["a.bin"]
    store.discard(*KEY)
    assert s3.names("states") == []
    assert not store.has(*KEY)
    assert (published(store) / "a.bin").read_bytes() == b"a" * 1000
    assert store.damage(*KEY) == []


def test_who_only_looks_brings_nothing_here(s3: S3, host: Callable[[str], None]) -> None:
    published(Store(s3.url))
    host("second")
    store = Store(s3.url, write=False)
    assert store.has(*KEY)
    assert store.damage(*KEY) == []
    assert not store.root.exists()


def test_two_hosts_that_make_the_same_leave_one_whole_artifact(
    s3: S3, host: Callable[[str], None]
) -> None:
    first = Store(s3.url)
    (first.work(*KEY) / "a.bin").write_bytes(b"one")
    host("second")
    second = Store(s3.url)
    (second.work(*KEY) / "a.bin").write_bytes(b"two")
    second.publish(*KEY, {})
    first.publish(*KEY, {})
    host("third")
    third = Store(s3.url)
    assert (third.path(*KEY) / "a.bin").read_bytes() == b"two"
    assert third.damage(*KEY) == []
    assert len({name.split("/")[2] for name in s3.names("states")}) == 2, "loser's files are left"


def test_a_damaged_copy_on_this_host_comes_again(s3: S3) -> None:
    store = Store(s3.url)
    folder = published(store)
    (folder / "a.bin").write_bytes(b"b" * 1000)
    assert store.damage(*KEY) == []
    assert (folder / "a.bin").read_bytes() == b"a" * 1000


def test_a_run_is_in_the_bucket_alone(
    s3: S3, host: Callable[[str], None], tmp_path: Path, command: Command
) -> None:
    """A new host retrains nothing."""
    config = small_config(s3.url)
    made = run(config, silent)
    assert {stage.kind for stage in made.made} == {"teacher", "states", "student", "evaluate"}
    assert any("track.uri is null" in note for note in made.plan.notes)
    shutil.rmtree(tmp_path / "first")
    host("second")
    again = run(config, silent)
    assert again.made == []
    assert again.verdict == made.verdict
    (member,) = again.plan.members
    host("third")
    path = tmp_path / "run.yaml"
    path.write_text(json.dumps(config.model_dump(mode="json", exclude_defaults=True)))
    there = s3.names("")
    ended = command("run", path, "--dry-run", "--json")
    assert ended.status == 0, ended.err
    found = json.loads(ended.out)
    assert found["store"] == s3.url
    assert {stage["state"] for stage in found["stages"]} <= {"in the store", "not needed"}
    assert s3.names("") == there
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"id": "1", "question": "is it ?", "choices": ["yes", "no"]}')
    ended = command("predict", f"{s3.url}/student/{member.student.key}", questions)
    assert ended.status == 0, ended.err
    assert json.loads(ended.out)["choice"] in ("yes", "no")
    with Follower(s3.url) as follower:
        follower.follow("student", member.student.key)
        follower.poll()
        assert follower.newest()["student", member.student.key]["step"] == 4


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://not-there/x", "this bucket does not exist"),
        ("s3://name:secret@bucket/x", "contains credentials"),
        ("s3://bucket/x?secret=1", "has more than bucket and prefix"),
        ("s3:///x", "names no bucket"),
        ("ftp://host/x", "is not a supported storage"),
    ],
)
@pytest.mark.usefixtures("s3")
def test_errors_of_the_url_are_said_without_its_secrets(url: str, words: str) -> None:
    (error,) = store_errors(url)
    assert error.startswith("store: ")
    assert words in error
    assert "secret" not in error


@pytest.mark.parametrize(("protocol", "package"), [("gs", "gcsfs"), ("abfs", "adlfs")])
def test_a_package_that_is_missing_is_named(protocol: str, package: str) -> None:
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    (error,) = store_errors(f"{protocol}://bucket/x")
    assert f"pip install 'knife[{protocol}]' (or {package})" in error


def test_missing_credentials_are_said_before_anything_starts(
    s3: S3, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3.files.clear_instance_cache()
    (error,) = command("run", "demo", f"store={s3.url}").errors
    assert error.startswith("store: s3://")
    assert "no credentials found" in error


@pytest.mark.faults
def test_a_bucket_that_does_not_answer_is_said(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{free_port()}")
    s3.files.clear_instance_cache()
    (error,) = store_errors(s3.url)
    assert "cannot be reached" in error


def test_access_that_is_denied_is_said(s3: S3) -> None:
    """The server checks credentials from now on, and accepts none."""

    def let_in(requests: bytes) -> None:
        url = f"{os.environ['AWS_ENDPOINT_URL_S3']}/moto-api/reset-auth"
        urlopen(Request(url, requests, {"Content-Type": "text/plain"})).close()

    let_in(b"0")
    try:
        (error,) = store_errors(s3.url)
    finally:
        let_in(b"inf")
    assert "access denied" in error
    assert store_errors(s3.url) == []


def test_a_mounted_folder_can_be_a_bucket(tmp_path: Path, host: Callable[[str], None]) -> None:
    store = Store(f"file://{tmp_path / 'mounted'}")
    published(store)
    host("second")
    assert (Store(store.address).path(*KEY) / "a.bin").is_file()


def test_the_plan_is_that_of_a_folder(s3: S3, tmp_path: Path) -> None:
    keys = [s.key for s in plan_run(small_config(s3.url)).stages]
    assert keys == [s.key for s in plan_run(small_config(tmp_path)).stages]
