#!/usr/bin/env bash
# Ray 2.60.0, one local session: when its driver is killed with SIGKILL, the raylet, the gcs_server and
# all workers end within seconds, but the two agents that the raylet started (DashboardAgent and
# RuntimeEnvAgent) stay for about a minute.
#
# Expected: agents look for their raylet every few seconds, and end with it.
# Seen: the last of the others after 2.5 s, both agents after 61.3 s. Whoever waits until everything
# below a killed driver is gone, to start again or to count what is left over, waits a minute.
#
# Needs Linux and Python 3.11 or newer. Fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "ray[default]==2.60.0" psutil==7.2.2 2>/dev/null
cat > "$folder/driver.py" <<'PYTHON'
import time

import ray

ray.init(address="local", include_dashboard=False, num_cpus=1, log_to_driver=False)


@ray.remote
def work():
    return 1


assert ray.get(work.remote()) == 1
print("ready", flush=True)
time.sleep(600)
PYTHON
cat > "$folder/program.py" <<'PYTHON'
import subprocess
import sys
import time

import psutil
import ray

print("ray", ray.__version__)
driver = psutil.Popen([sys.executable, sys.argv[1]], stdout=subprocess.PIPE, text=True)
assert driver.stdout.readline() == "ready\n"
below = {process: " ".join(process.cmdline()) for process in driver.children(recursive=True)}
driver.kill()
driver.wait()
killed, ends = time.monotonic(), {}


def is_alive(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


while len(ends) < len(below) and time.monotonic() - killed < 180:
    for process in below:
        if process not in ends and not is_alive(process):
            ends[process] = time.monotonic() - killed
    time.sleep(0.1)
agents = sorted(ends.get(p, 180.0) for p, name in below.items() if "Agent" in name)
others = sorted(ends.get(p, 180.0) for p, name in below.items() if "Agent" not in name)
print(f"others: the last after {others[-1]:.1f} s; agents: {agents}", file=sys.stderr)
print("others end within 15 s:", len(others) >= 3 and others[-1] < 15)
print("agents end after 30 to 120 s:", [30 < seconds < 120 for seconds in agents])
PYTHON
RAY_USAGE_STATS_ENABLED=0 "$folder/venv/bin/python" -W ignore "$folder/program.py" \
  "$folder/driver.py" | tee "$folder/seen"
cat > "$folder/expected" <<'TEXT'
ray 2.60.0
others end within 15 s: True
agents end after 30 to 120 s: [True, True]
TEXT
diff "$folder/expected" "$folder/seen" && echo "as found"
