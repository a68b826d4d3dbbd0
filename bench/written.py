"""What rationales are worth that a language model wrote, by how often their facts are wrong.

    python bench/written.py [SEEDS]

For each error rate a server of the embedded world's facts (examples/facts_server.py) writes the
rationales of train and dev. One run compares finetune and knife on the world's own rationales with
knife on `all` that were written, on those whose text came to the `right` answer, on the first such
of four texts (`right-4`), and on all such of four (`several`). Prints accuracy and gain of each,
and how much of what wrong facts cost each restores.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from knife.config.recipe_files import recipes

RATES = (0.0, 0.2, 0.5)
KEEPS = {
    "all": [],
    "right": ["write.keep=right"],
    "right-4": ["write.keep=right", "write.samples=4"],
    "several": ["write.keep=right", "write.samples=4", "write.rationales=4"],
}
KNIFE = [sys.executable, "-m", "knife"]
SERVER = Path(__file__).parents[1] / "examples" / "facts_server.py"


@contextmanager
def facts_server(*options: str) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(SERVER), "--port", str(port), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert "serving" in process.stdout.readline()
            while socket.socket().connect_ex(("127.0.0.1", port)):
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    folder = Path(tempfile.mkdtemp(prefix="knife-written-"))
    os.chdir(folder)
    methods: list[object] = ["finetune", "knife"]
    kept = {}
    for rate in RATES:
        with facts_server("--creatures", "48", "--wrong", str(rate)) as url:
            before = None
            for keep, words in KEEPS.items() if rate else [("all", KEEPS["all"])]:
                out = folder / f"{keep}-{rate:g}"
                if before:
                    # Most of the answers are there already.
                    shutil.copytree(before, out)
                before = out
                command = [*KNIFE, "data", "write", "written", "--out", str(out), *words]
                command += ["data.rationale=none", f"write.url={url}"]
                subprocess.run(command, check=True, capture_output=True)
                record = json.loads((out / "written" / "record.json").read_text())
                kept[out.name] = record["splits"]["train"]["written"]
                methods.append({"name": out.name, "method": "knife", "data": {"source": str(out)}})
    config = yaml.safe_load(recipes()["written"].read_text())
    config |= {"methods": methods, "seeds": list(range(seeds)), "track": None}
    Path("written.yaml").write_text(yaml.safe_dump(config))
    done = subprocess.run(
        [*KNIFE, "run", "./written.yaml", "--json"], check=True, stdout=subprocess.PIPE
    )
    result = json.loads(done.stdout)
    print(json.dumps(result["verdict"]["ceiling"]))
    gains = {}
    for method in result["verdict"]["methods"]:
        name, difference = method["method"], method["difference"]
        line = f"{name:12} {100 * method['accuracy']:5.1f}"
        if difference:
            gains[name] = difference["points"]
            line += f" {difference['points']:+5.1f}"
            if difference["p"] is not None:
                line += f" ({difference['low']:+.1f} to {difference['high']:+.1f})"
                line += f", p {difference['p_adjusted']:.2g}"
        if name in kept:
            line += f", {kept[name]} rationales"
        print(line)
    for rate in RATES[1:]:
        lost = gains["all-0"] - gains[f"all-{rate:g}"]
        for keep in list(KEEPS)[1:]:
            back = gains[f"{keep}-{rate:g}"] - gains[f"all-{rate:g}"]
            share = f"{back:.1f} of them ({back / lost:.0%}) restored by {keep}"
            print(f"q = {rate:g}: {lost:.1f} points lost, {share}")
    print(f"report: {next((folder / 'knife-store' / 'runs').glob('*/report.html'))}")


if __name__ == "__main__":
    main()
