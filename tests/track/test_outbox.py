"""The outbox's file alone: what a process leaves, however it ends, and who may take it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from knife.core.errors import UserError
from knife.track.outbox import Head, Outbox, left

HEAD = Head("http://***@host:5000", "track.uri", "exp", "demo", "k1")
PLACE = ("k1",)


def whats(outbox: Outbox) -> list[tuple[str, dict[str, object]]]:
    return [(told.what, told.values) for told in outbox.waiting]


def test_what_is_told_waits_until_it_is_sent(tmp_path: Path) -> None:
    outbox = Outbox.open(tmp_path, HEAD)
    opened = outbox.tell(PLACE, "open", {"name": "demo", "time": 1.0})
    tags = outbox.tell(PLACE, "tags", {"tags": {"a": "ä\n\r1"}})
    row = {"step": 1, "time": 2.0, "metrics": {"loss": 0.5}}
    outbox.tell(("k1", "k2"), "rows", {"rows": [row]})
    outbox.sent(opened)
    outbox.close()
    again = Outbox.open(tmp_path, HEAD)
    assert left(tmp_path) == [outbox.path]
    assert whats(again) == [
        ("known", {"name": "demo", "time": 1.0, "ended": False}),
        ("tags", tags.values),
        ("rows", {"rows": [row]}),
    ]
    # Line numbers go on where they ended.
    again.sent(again.waiting[1])
    later = again.tell(PLACE, "tags", {"tags": {"b": "2"}})
    assert later.number == 6
    again.close()
    third = Outbox.open(tmp_path, HEAD)
    assert [told.number for told in third.waiting] == [None, 3, 6]
    third.close(done=True)
    assert left(tmp_path) == []


@pytest.mark.parametrize("cut", ["{", '{"run": ["k1"], "what": "ta', '{"sent": 1'])
def test_a_line_that_a_kill_has_cut_is_taken_away(cut: str, tmp_path: Path) -> None:
    outbox = Outbox.open(tmp_path, HEAD)
    outbox.tell(PLACE, "tags", {"tags": {"a": "1"}})
    outbox.close()
    with outbox.path.open("a") as file:
        file.write(cut)
    again = Outbox.open(tmp_path, HEAD)
    assert [told.number for told in again.waiting] == [1]
    again.sent(again.tell(PLACE, "tags", {"tags": {"b": "2"}}))
    again.close()
    lines = [json.loads(line) for line in outbox.path.read_text().splitlines()]
    assert lines[1:] == [
        {"run": ["k1"], "what": "tags", "tags": {"a": "1"}},
        {"run": ["k1"], "what": "tags", "tags": {"b": "2"}},
        {"sent": 2},
    ]


def test_a_damaged_line_in_the_middle_costs_itself_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = Outbox.open(tmp_path, HEAD)
    for number in range(3):
        outbox.tell(PLACE, "tags", {"tags": {"a": str(number)}})
    outbox.close()
    lines = outbox.path.read_bytes().splitlines()
    lines[2] = b"\x00" * len(lines[2])
    outbox.path.write_bytes(b"\n".join(lines) + b"\n")
    again = Outbox.open(tmp_path, HEAD)
    assert [told.number for told in again.waiting] == [1, 3]
    assert f"{outbox.path}:3 is damaged" in caplog.text


def test_one_process_holds_it_and_lets_go_when_it_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from knife.track.outbox import Head, Outbox\n"
        f"outbox = Outbox.open(Path(sys.argv[1]), {HEAD!r})\n"
        "outbox.tell(('k1',), 'tags', {'tags': {}})\nprint('held', flush=True)\ntime.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        (path,) = left(tmp_path)
        assert Outbox.take(path) is None
        mine = Outbox.open(tmp_path, HEAD)
        assert mine.path != path
        mine.close(done=True)
        holder.kill()
    taken = Outbox.take(path)
    assert taken
    assert whats(taken) == [("tags", {"tags": {}})]


def test_another_address_or_experiment_is_another_outbox(tmp_path: Path) -> None:
    outbox = Outbox.open(tmp_path, HEAD)
    outbox.close()
    for other in (("http://elsewhere", "exp"), (HEAD.uri, "other")):
        head = Head(other[0], HEAD.where, other[1], HEAD.name, HEAD.key)
        new = Outbox.open(tmp_path, head)
        assert new.path != outbox.path
        new.close()
    assert len(left(tmp_path)) == 3


def test_what_is_no_outbox_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "outbox").mkdir()
    for text in ("", "[]\n", '{"version": 0}\n', "no json\n"):
        path = tmp_path / "outbox" / "k1-1.jsonl"
        path.write_text(text)
        with pytest.raises(UserError, match="is no outbox that can be read"):
            Outbox.take(path)
        Outbox.open(tmp_path, HEAD).close(done=True)
        assert path.read_text() == text


def test_a_disk_that_takes_nothing_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    # The system's own full disk: every write to it fails.
    full = Outbox(Path("/dev/full"), os.open("/dev/full", os.O_RDWR), HEAD)
    assert full.tell(PLACE, "tags", {"tags": {}}).number is None
    assert not full.whole
    assert "/dev/full cannot be written: " in caplog.text
