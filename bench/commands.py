"""How long commands take, as a person waits for them.

python bench/commands.py           # knife --help, a dry run, a second run of the demo
Run `knife run demo` in the same folder first, so that the second run finds everything.
"""

import statistics
import subprocess
import sys
import time

KNIFE = [sys.executable, "-m", "knife"]
COMMANDS = (["--help"], ["run", "demo", "--dry-run"], ["run", "demo"])


def main() -> None:
    for words in COMMANDS:
        seconds = []
        for _ in range(4):
            started = time.perf_counter()
            subprocess.run([*KNIFE, *words], capture_output=True, check=True)
            seconds.append(time.perf_counter() - started)
        # The first start reads the files from disk.
        median = statistics.median(seconds[1:])
        print(f"knife {' '.join(words):20} {median:6.2f} s (first {seconds[0]:.2f} s)")


if __name__ == "__main__":
    main()
