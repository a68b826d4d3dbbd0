"""How fast, safe and small `knife data write` is, against a server that answers at once or late.

    python bench/writing.py [speed] [kills] [memory]

speed: requests a second with two workers on a server of 200 ms, by what so many in flight allow,
and of one process on a server that answers at once. kills: how many requests are sent twice if the
command is killed 20 times in 2,000 requests, by those in flight. memory: the driver's peak with
100,000 questions, in one process and with two workers.
"""

import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
from written import KNIFE, facts_server

from knife.config.run import World
from knife.data.creatures import creatures

IN_FLIGHT, LATENCY = 32, 0.2
KILLS = 20
MANY = 100_000


def questions(folder: Path, count: int) -> Path:
    """Write a folder of so many different questions."""
    some = creatures(World(train=2000, dev=4, test=4))
    for name, part in some.parts.items():
        rows = [
            {"id": f"{name}-{number}", "question": f"no {number} : {each.question}"}
            | {"choices": each.choices, "answer": each.answer}
            for number in range(count if name == "train" else len(part))
            for each in [part[number % len(part)]]
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def command(source: Path, out: Path, url: str, *words: str) -> list[str]:
    settings = [f"write.url={url}", "write.model=facts", *words]
    return [*KNIFE, "data", "write", str(source), "--out", str(out), *settings]


def rate(out: Path) -> float:
    """Return the answers a second between the first and the last; the driver's own is left out."""
    files = [path.read_text().splitlines() for path in out.glob("written/answers/*.jsonl")]
    times = sorted(json.loads(line)["time"] for lines in files for line in lines)[1:]
    seconds: float = times[-1] - times[0]
    return (len(times) - 1) / seconds


def speed(folder: Path) -> None:
    source = questions(folder, 6000)
    with facts_server("--latency", str(LATENCY)) as url:
        words = ["write.workers=2", f"write.in_flight={IN_FLIGHT}"]
        subprocess.run(
            command(source, folder / "late", url, *words), check=True, capture_output=True
        )
    ideal = 2 * IN_FLIGHT / LATENCY
    found = rate(folder / "late")
    print(
        f"2 workers, {LATENCY} s: {found:.0f} requests/s of {ideal:.0f}, ratio {found / ideal:.2f}"
    )
    with facts_server() as url:
        subprocess.run(command(source, folder / "at-once", url), check=True, capture_output=True)
    print(f"one process, a server that answers at once: {rate(folder / 'at-once'):.0f} requests/s")


def kills(folder: Path) -> None:
    source, draw = questions(folder, 2000), random.Random(0)
    with facts_server("--latency", "0.05") as url:
        words = command(source, folder / "killed", url, "write.in_flight=8")
        for number in range(KILLS):
            until = number * 2000 // KILLS + draw.randrange(80)
            with subprocess.Popen(words, stderr=subprocess.DEVNULL) as process:
                while process.poll() is None and lines(folder / "killed") < until:
                    time.sleep(0.002)
                process.kill()
        subprocess.run(words, check=True, capture_output=True)
        with urllib.request.urlopen(url.replace("/v1", "/counts")) as response:
            counts = json.loads(response.read())
    print(
        f"killed {KILLS} times: {counts['again']} of 2,000 asked twice, {KILLS * 8} were in flight"
    )


def lines(out: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in out.glob("written/answers/*.jsonl"))


def memory(folder: Path) -> None:
    source = questions(folder, MANY)
    with facts_server() as url:
        for workers in ("null", "2"):
            out = folder / f"workers-{workers}"
            words = command(source, out, url, f"write.workers={workers}", "write.in_flight=64")
            began, most = time.monotonic(), 0
            with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
                driver = psutil.Process(process.pid)
                while process.poll() is None:
                    most = max(most, driver.memory_info().rss)
                    time.sleep(0.1)
            seconds = time.monotonic() - began
            print(
                f"{MANY:,} questions, workers {workers}: {most / 1e9:.2f} GB in the driver, "
                f"{seconds:.0f} s, status {process.returncode}"
            )


def main() -> None:
    parts: dict[str, Callable[[Path], None]] = {"speed": speed, "kills": kills, "memory": memory}
    for name in sys.argv[1:] or parts:
        folder = Path(tempfile.mkdtemp(prefix="knife-writing-"))
        try:
            parts[name](folder)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
