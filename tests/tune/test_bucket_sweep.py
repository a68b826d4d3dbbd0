"""A sweep on a bucket: a new host finds it done."""

import json
from pathlib import Path

import pytest
from s3_server import S3
from small_sweep import trainings, tune, write_sweep

pytestmark = pytest.mark.faults


def test_a_sweep_is_in_the_bucket(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_sweep(tmp_path, budget={"trials": 2}, seeds={"more": []}, final=None)
    monkeypatch.setenv("KNIFE_CACHE", str(tmp_path / "first"))
    done = tune(path, f"store={s3.url}", "--json")
    assert done.status == 0, done.err
    result = json.loads(done.out)
    assert result["states"] == {"finished": 2}
    assert not (tmp_path / "store").exists()
    names = s3.names("sweeps/small")
    assert {"sweeps/small/result.json", "sweeps/small/best.yaml"} <= set(names)
    assert len({name.split("/")[1] for name in s3.names("student")}) == 2
    assert s3.names("work") == []
    trained = trainings(tmp_path)
    monkeypatch.setenv("KNIFE_CACHE", str(tmp_path / "second"))
    again = tune(path, f"store={s3.url}", "--json")
    assert again.status == 0, again.err
    assert "the sweep is done" in again.err
    assert json.loads(again.out) == result
    assert trainings(tmp_path) == trained
