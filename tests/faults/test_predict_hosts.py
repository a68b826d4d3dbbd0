"""`knife predict` on hosts that die: same answers as one process, nothing made twice."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from command_fixtures import FinishedRun
from host_cluster import Hosts, hosts, needs_hosts  # noqa: F401  (a fixture)
from job import SECONDS
from small_run import wait_for

from knife.config.run import World
from knife.data.creatures import creatures
from knife.data.jsonl import write_examples
from knife.inference.file import parts_folder, predict

pytestmark = [pytest.mark.faults, needs_hosts]

# The head, two working hosts and a spare.
HOSTS = 4
COUNT = 18_000


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("questions") / "questions.jsonl"
    examples = creatures(World(train=1000, dev=10, test=10)).train
    write_examples(
        file, [replace(e, id=f"{n}-{e.id}") for n in range(COUNT // 1000) for e in examples]
    )
    return file


@pytest.fixture(scope="module")
def alone(finished_run: FinishedRun, questions: Path) -> bytes:
    """Return the answers of one process."""
    output = questions.with_name("alone.jsonl")
    predict(finished_run.student("knife"), questions, output, keep_rows=False)
    return output.read_bytes()


class Prediction:
    """`knife predict` on host 1."""

    def __init__(self, hosts: Hosts, student: Path, file: Path, output: Path) -> None:  # noqa: F811
        self.hosts, self.output = hosts, output
        address = f"RAY_ADDRESS={hosts('address', '1')}:6379"
        words = ["env", address, sys.executable, "-m", "knife", "predict", student, file]
        words += ["--output", output, "--workers", "2"]
        self.log = output.with_suffix(".log")
        with self.log.open("w") as log:
            self.process = hosts.popen(1, *map(str, words), stdout=log, stderr=log)

    @property
    def parts(self) -> int:
        """Return the number of finished parts."""
        return len(list(parts_folder(self.output).glob("*/part-*")))

    def working(self) -> list[int]:
        """Return the hosts with a worker."""
        numbers = range(2, HOSTS + 1)
        return [host for host in numbers if self.hosts.processes(host, "MapWorker")]

    def wait_for_parts(self, number: int) -> None:
        def there() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return self.parts >= number

        wait_for(there, SECONDS)
        assert self.parts < COUNT // 1024


@pytest.fixture
def prediction(
    hosts: Hosts,  # noqa: F811
    finished_run: FinishedRun,
    questions: Path,
    tmp_path: Path,
) -> Iterator[Prediction]:
    found = Prediction(hosts, finished_run.student("knife"), questions, tmp_path / "out.jsonl")
    yield found
    if found.process.poll() is None:
        found.process.kill()
        found.process.wait()


def test_a_lost_host_with_a_spare(prediction: Prediction, alone: bytes) -> None:
    prediction.wait_for_parts(3)
    lost, _ = prediction.working()
    prediction.hosts("kill", str(lost))
    assert prediction.process.wait(SECONDS) == 0, prediction.log.read_text()
    assert prediction.output.read_bytes() == alone


def test_a_lost_host_without_a_spare(prediction: Prediction, alone: bytes) -> None:
    # One of the three was lost in the previous test.
    prediction.wait_for_parts(3)
    lost, _ = prediction.working()
    prediction.hosts("kill", str(lost))
    assert prediction.process.wait(SECONDS) == 0, prediction.log.read_text()
    assert prediction.output.read_bytes() == alone


def test_a_host_that_does_not_see_the_files(
    hosts: Hosts,  # noqa: F811
    finished_run: FinishedRun,
    questions: Path,
    tmp_path: Path,
) -> None:
    for host in range(2, HOSTS + 1):
        hosts("kill", str(host))
    hosts("start", "2")
    hosts("start", "3", "--own-folder", str(questions.parent))
    found = Prediction(hosts, finished_run.student("knife"), questions, tmp_path / "out.jsonl")
    assert found.process.wait(SECONDS) == 2, found.log.read_text()
    said = [line for line in found.log.read_text().splitlines() if line.startswith("error")]
    address = hosts("address", "3")
    assert said == [
        f"error: FILE: the cluster's host {address} has no {questions}, or a different one; "
        "models, questions and output must be on storage that every host can access"
    ]
    assert not found.output.exists()
