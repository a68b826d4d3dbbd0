import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pair import run_stages
from small_run import small_config, wait_for

from knife.core.errors import UserError
from knife.pipeline.run import publish_data
from knife.plan.plan import plan_run
from knife.store.disk import disk_errors
from knife.store.store import Store, fingerprint
from knife.train.context import PlainContext


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def publish(store: Store, key: str = "k", text: str = "some text") -> Path:
    work = store.work("states", key)
    (work / "folder").mkdir(exist_ok=True)
    (work / "one.txt").write_text(text)
    (work / "folder" / "two.bin").write_bytes(b"\0" * 1000)
    return store.publish("states", key, {"a": 1})


def test_fingerprints_are_the_same_in_every_process() -> None:
    depends = {"b": [1, 2.5, None, True], "a": {"ü": "x", "c": "y"}, "rate": 3e-4}
    code = (
        "from knife.store.store import fingerprint;"
        "print(fingerprint({'rate': 0.0003, 'a': {'c': 'y', 'ü': 'x'}, 'b': [1, 2.5, None, True]}))"
    )
    environment = os.environ | {"PYTHONHASHSEED": "12", "PYTHONUTF8": "1"}
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert other.stdout.strip() == fingerprint(depends)
    assert fingerprint(depends) == "69597901b3bcac4a"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@settings(deadline=None)
@given(one=VALUES, other=VALUES)
def test_fingerprints_differ_where_what_they_are_of_differs(one: object, other: object) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (fingerprint(one) == fingerprint(other)) == same


def test_an_artifact_is_there_whole_or_not_at_all(store: Store) -> None:
    assert not store.has("states", "k")
    assert not store.path("states", "k").exists()
    folder = publish(store)
    assert folder == store.path("states", "k")
    assert store.has("states", "k")
    assert (folder / "one.txt").read_text() == "some text"
    assert json.loads((folder / "depends.json").read_text()) == {"a": 1}
    assert store.damage("states", "k") == []
    assert list((store.root / "work").iterdir()) == []


def test_who_publishes_second_leaves_the_first_result(store: Store) -> None:
    publish(store, text="first")
    folder = publish(store, text="second")
    assert (folder / "one.txt").read_text() == "first"
    assert list((store.root / "work").iterdir()) == []


def test_every_kind_of_damage_is_found(store: Store) -> None:
    folder = publish(store)
    whole = (folder / "folder" / "two.bin").read_bytes()
    for broken in (whole[:-1] + b"\1", whole[:-1], whole + b"\0"):
        (folder / "folder" / "two.bin").write_bytes(broken)
        assert store.damage("states", "k") == ["folder/two.bin"]
    (folder / "folder" / "two.bin").unlink()
    (folder / "one.txt").write_text("other txt")
    assert store.damage("states", "k") == ["folder/two.bin", "one.txt"]
    (folder / "manifest.json").write_text('{"files": ')
    assert store.damage("states", "k") == ["manifest.json"]


def test_what_has_lost_its_manifest_is_replaced(store: Store) -> None:
    folder = publish(store, text="first")
    (folder / "manifest.json").unlink()
    assert not store.has("states", "k")
    publish(store, text="second")
    assert store.has("states", "k")
    assert (folder / "one.txt").read_text() == "second"


def test_discarded_artifacts_are_gone_and_can_be_made_again(store: Store) -> None:
    publish(store)
    store.discard("states", "k")
    assert not store.has("states", "k")
    assert list((store.root / "work").iterdir()) == []
    # Two runs found the same damage: the second one has nothing left to do.
    store.discard("states", "k")
    publish(store)
    assert store.damage("states", "k") == []


WRITE = """
import itertools, sys
from knife.store.store import Store
store = Store(sys.argv[1])
for number in itertools.count():
    key = f"{sys.argv[2]}-{number}"
    with store.lock("states", key):
        work = store.work("states", key)
        for part in range(10):
            (work / f"{part}.bin").write_bytes(bytes(200_000))
        store.publish("states", key, {})
"""


def test_sigkill_in_the_middle_of_writing_leaves_the_store_valid(store: Store) -> None:
    """Kill at several moments of writing, checksums and rename."""
    states = store.root / "states"
    for number in range(4):
        writer = subprocess.Popen([sys.executable, "-c", WRITE, str(store.root), f"try{number}"])
        wait_for(lambda n=number: len(list(states.glob(f"try{n}-*"))) >= 2)  # type: ignore[misc]
        time.sleep(0.004 * number)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        for path in states.iterdir():
            assert store.has("states", path.name)
            assert store.damage("states", path.name) == []
        # The dead process holds no lock, and what it began can be resumed.
        for path in (store.root / "work").iterdir():
            key = path.name.removeprefix("states-")
            with store.lock("states", key).acquire(timeout=0):
                publish(store, key)
            assert store.damage("states", key) == []


def test_a_file_that_a_kill_left_half_written_is_not_published(store: Store) -> None:
    left = store.work("states", "k") / ".manifest.json.tmp"
    left.write_text('{"files": {')
    folder = publish(store)
    assert store.damage("states", "k") == []
    assert not (folder / left.name).exists()


WORK_ONCE = """
import sys, time
from knife.store.store import Store
store = Store(sys.argv[1])
with store.lock("states", "k"):
    if not store.has("states", "k"):
        with open(sys.argv[2], "a") as file:
            file.write("done\\n")
        (store.work("states", "k") / "a").write_text("x")
        time.sleep(0.3)
        store.publish("states", "k", {})
assert store.has("states", "k")
"""


def test_two_processes_do_the_work_once(store: Store, tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", WORK_ONCE, str(store.root), str(log)]
    both = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert log.read_text() == "done\n"


def test_a_store_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "store"):
        with pytest.raises(UserError) as caught:
            Store(place)
        assert caught.value.errors == [
            f"store: {place}: a part of its path is a file; give another store"
        ]
    (tmp_path / "locks").write_text("x")
    with pytest.raises(UserError, match="there is a file of that name; give another store"):
        Store(tmp_path)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a small, separate file system."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here (needs root)")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_read_only_store_is_refused(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(UserError, match="it is on a read-only file system; give another store"):
        Store(disk / "store")


# Space for nothing, part of a checkpoint, a checkpoint and part of a model, or two of each.
@pytest.mark.parametrize("room", [4, 1000, 3000, 5500])
def test_a_full_disk_is_the_users_to_mend(disk: Path, room: int) -> None:
    """In the middle of a training; once there is space, the work resumes and completes."""
    config = small_config(disk, scale={"checkpoint_steps": 1})
    plan = plan_run(config)
    store = Store(disk)
    publish_data(store, plan)
    filler = disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(disk).free - room * 1024))
    with PlainContext() as context:
        with pytest.raises(UserError) as caught:
            run_stages(plan.stages, disk, config.scale, context)
        assert caught.value.errors == [
            f"store: {disk}: the disk is full; free space or give another store"
        ]
        published = [p for kind in ("teacher", "student", "states") for p in disk.glob(kind)]
        assert published == []
        filler.unlink()
        run_stages(plan.stages, disk, config.scale, context)
    for stage in plan.stages:
        assert store.damage(stage.kind, stage.key) == []


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Input/output"), disk_errors(tmp_path):
        raise OSError(errno.EIO, "Input/output error")
    with pytest.raises(RuntimeError, match="shapes"), disk_errors(tmp_path):
        raise RuntimeError("shapes do not fit")
    with pytest.raises(UserError, match=r"^mine$"), disk_errors(tmp_path):
        raise UserError("mine")
