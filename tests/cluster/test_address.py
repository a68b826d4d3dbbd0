"""RAY_ADDRESS in all of its forms, and addresses where no cluster answers."""

import os
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from command_fixtures import Command, FinishedRun, free_port
from small_run import small_config
from small_sweep import write_sweep

from knife.cluster import address as address_module
from knife.cluster.address import address_errors, cluster_address, one_meaning, refuse_dead_cluster
from knife.cluster.capacity import place_errors
from knife.core.errors import UserError


@pytest.mark.parametrize("value", [None, "", "  ", "local", "LOCAL", " local\n"])
def test_what_names_no_cluster(
    value: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if value is None:
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
    else:
        monkeypatch.setenv("RAY_ADDRESS", value)
    assert cluster_address() is None
    refuse_dead_cluster()
    # This machine is checked then, and no child process sees the variable.
    config = small_config(tmp_path, scale={"launcher": "ray", "workers": 1000})
    assert any("this machine has" in error for error in place_errors(config))
    with one_meaning():
        assert "RAY_ADDRESS" not in os.environ
    assert os.environ.get("RAY_ADDRESS") == value


@pytest.mark.parametrize(
    ("value", "found"), [(" 10.0.0.1:6379 ", "10.0.0.1:6379"), ("AUTO", "auto"), ("h:1", "h:1")]
)
def test_what_names_a_cluster(value: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", value)
    assert cluster_address() == found
    assert address_errors() == []
    with one_meaning():
        assert os.environ["RAY_ADDRESS"] == found
    assert os.environ["RAY_ADDRESS"] == value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("ray://h:10001", "ray://h:10001 is an address for Ray Client, which cannot run this"),
        ("http://h:8265", "http://h:8265 is the address of a dashboard; use `knife submit"),
        ("https://me:5ecret@h", "***@h is the address of a dashboard; use `knife submit"),
        ("me:5ecret@h:6379", "must be HOST:PORT"),
        ("10.0.0.1:\u0661", "must be HOST:PORT"),
        ("10.0.0.1", "must be HOST:PORT of a cluster's head"),
        ("10.0.0.1:", "must be HOST:PORT"),
        ("10.0.0.1:0", "must be HOST:PORT"),
        ("10.0.0.1:65536", "must be HOST:PORT"),
        ("fd00::1:6379", "must be HOST:PORT"),
        ("a b:6379", "must be HOST:PORT"),
        ("redis://h:1", "must be HOST:PORT"),
    ],
)
def test_other_forms_are_refused(
    value: str, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", value)
    (message,) = address_errors()
    assert message.startswith(f"RAY_ADDRESS: {words}")
    assert "5ecret" not in message
    assert place_errors(small_config(tmp_path, scale={"launcher": "ray"})) == [message]
    assert place_errors(small_config(tmp_path)) == []
    with pytest.raises(UserError) as error:
        refuse_dead_cluster()
    assert error.value.errors == [message]


def test_ipv6_in_brackets_is_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "[fd00::1]:6379")
    assert address_errors() == []


class _Stranger(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(params=["nobody", "no-such-host", "a stranger", "no way"])
def dead(request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield addresses where no cluster answers."""
    if request.param != "a stranger":
        port = free_port()
        yield {"nobody": f"127.0.0.1:{port}", "no way": "10.255.255.1:6379"}.get(
            request.param, "no-such-host.invalid:6379"
        )
        return
    with HTTPServer(("127.0.0.1", 0), _Stranger) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_dead_address_is_refused(dead: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address_module, "_ANSWER_SECONDS", 2)
    monkeypatch.setenv("RAY_ADDRESS", dead)
    with pytest.raises(UserError) as error:
        refuse_dead_cluster()
    (message,) = error.value.errors
    assert message.startswith("RAY_ADDRESS: ")
    assert dead in message
    assert message.endswith("or unset it to work on this machine alone")


def test_auto_where_no_ray_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """This machine may have sessions of other tests, which Ray is prevented from finding."""
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", set)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(UserError, match=r"^RAY_ADDRESS: auto finds no Ray cluster on this host; g"):
        refuse_dead_cluster()


def test_commands_say_one_line_before_they_start(
    command: Command, finished_run: FinishedRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    address = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(address_module, "_ANSWER_SECONDS", 1)
    store = tmp_path / "store"
    run = ("run", finished_run.config, "scale.launcher=ray", f"store={store}")
    tune = ("tune", write_sweep(tmp_path))
    output = ("--output", tmp_path / "out.jsonl")
    predict = ("predict", finished_run.student("knife"), finished_run.test_file, *output)
    for words in (run, tune, (*predict, "--workers", "1")):
        (error,) = command(*words).errors
        assert error.startswith(f"RAY_ADDRESS: no Ray cluster answers at {address} within 1 s; ")
    # Nothing was started: MLflow has no run.
    assert not (store / "mlflow.db").exists()
