#!/usr/bin/env bash
# mlflow 3.17.2: of two values of a metric at the same step and timestamp, a run shows the larger
# one, not the one that was logged last.
#
# Expected: that a result that is logged again (a mean over more seeds, say) replaces what the run
# shows, since it was logged later.
# Seen: with equal step and timestamp 0.8 and then 0.7 leave `run.data.metrics` at 0.8, in a SQLite
# database; both are in the history. A timestamp of a millisecond later makes the run show 0.7. So
# whoever gives results their own time, as when a past run is recorded, has to give a changed
# result a later one.
#
# Needs Python 3.11 or newer. Fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet mlflow==3.17.2 2>/dev/null
cat > "$folder/program.py" <<'PYTHON'
import sys

import mlflow
from mlflow import MlflowClient

print("mlflow", mlflow.__version__)
client = MlflowClient(f"sqlite:///{sys.argv[1]}/mlflow.db")
experiment = client.create_experiment("results", artifact_location=f"file://{sys.argv[1]}")
for first, second, later in ((0.7, 0.8, 0), (0.8, 0.7, 0), (0.8, 0.7, 1)):
    run = client.create_run(experiment).info.run_id
    client.log_metric(run, "score", first, timestamp=1000, step=0)
    client.log_metric(run, "score", second, timestamp=1000 + later, step=0)
    shown = client.get_run(run).data.metrics["score"]
    history = [metric.value for metric in client.get_metric_history(run, "score")]
    print(f"{first}, then {second} {later} ms later: shown {shown}, history {sorted(history)}")
PYTHON
MLFLOW_DISABLE_TELEMETRY=true "$folder/venv/bin/python" -W ignore "$folder/program.py" "$folder" \
  2>/dev/null | tee "$folder/seen"
cat > "$folder/expected" <<'TEXT'
mlflow 3.17.2
0.7, then 0.8 0 ms later: shown 0.8, history [0.7, 0.8]
0.8, then 0.7 0 ms later: shown 0.8, history [0.7, 0.8]
0.8, then 0.7 1 ms later: shown 0.7, history [0.7, 0.8]
TEXT
diff "$folder/expected" "$folder/seen" && echo "as found"
