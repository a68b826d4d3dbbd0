"""Shared by all tests: one thread per process, and a tiny model of each family."""

import os

# Set before torch is imported, here or in a process that a test starts: more threads than cores
# only slow down small models, and one order of summation gives the same digits everywhere.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Tests import MLflow before any run does.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import signal
from pathlib import Path

import hypothesis
import pytest
from command_fixtures import command, finished_run  # noqa: F401  (fixtures for all tests)
from mlflow_store import mlflow_tables, store, tracker  # noqa: F401
from ray_cluster import cluster  # noqa: F401
from s3_server import s3, s3_server  # noqa: F401
from small import EXAMPLES, save_tiny_bert, save_tiny_gpt2, save_tiny_llama
from small_sweep import ray_session, swept, tune_here  # noqa: F401

from knife.models.source import EMBEDDED

# The same examples in every run; time limits of hypothesis are of an idle machine.
hypothesis.settings.register_profile("knife", deadline=None, derandomize=True)
hypothesis.settings.load_profile("knife")

# Tests interrupt processes, but a shell makes its background processes ignore SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny random BERT with its tokenizer."""
    folder = tmp_path_factory.mktemp("tiny-bert")
    save_tiny_bert(folder, EXAMPLES)
    return folder


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny random Llama (rotary, grouped queries) with its tokenizer."""
    folder = tmp_path_factory.mktemp("tiny-llama")
    save_tiny_llama(folder, EXAMPLES)
    return folder


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny random GPT-2 (a table of positions) with its tokenizer."""
    folder = tmp_path_factory.mktemp("tiny-gpt2")
    save_tiny_gpt2(folder, EXAMPLES)
    return folder


@pytest.fixture(
    scope="session", params=["encoder-decoder", "encoder-only", "decoder-rotary", "decoder-table"]
)
def model_folder(
    request: pytest.FixtureRequest, tiny_bert: Path, tiny_llama: Path, tiny_gpt2: Path
) -> Path:
    """Return the folder of a tiny model: tests that use it run once for each family."""
    folders = {
        "encoder-decoder": EMBEDDED["tiny-t5"],
        "encoder-only": tiny_bert,
        "decoder-rotary": tiny_llama,
        "decoder-table": tiny_gpt2,
    }
    return folders[request.param]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first, so that no process is left with a long one at the end."""
    longest = (
        "tests/tune/test_sweep.py",
        "tests/cluster/test_submit.py",
        "tests/trust/test_known_answers.py",
        "tests/faults/test_several_hosts.py",
        "tests/tune/test_sweep_faults.py",
        "tests/faults",
        "tests/test_readme.py",
        "tests/commands",
        "tests/pipeline",
        "tests/train",
    )

    def place(item: pytest.Item) -> int:
        return next((n for n, file in enumerate(longest) if item.nodeid.startswith(file)), 99)

    items.sort(key=place)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what the tests of injected failures have measured."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "recovery":
                terminalreporter.write_line(f"{report.nodeid}: {value}")
