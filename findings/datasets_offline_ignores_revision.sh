#!/usr/bin/env bash
# datasets 5.2.0: without the hub, `load_dataset(…, revision=X)` returns whatever revision its cache has.
#
# Expected: an error, since revision X was never downloaded; a commit is given so that results can be
# repeated.
# Seen: the rows of the cached revision, and exit status 0. A log line says that the latest cached
# version is used, not that it is another revision. The only trace is the name of the folder with
# the cached files, which is the commit that they are of.
#
# A server in the program stands for the hub: it has one data set, whose rows name the commit.
# Needs Python 3.11 or newer. Fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet datasets==5.2.0 huggingface_hub==2.4.0 2>/dev/null
cat > "$folder/load.py" <<'PYTHON'
import logging
import sys
from pathlib import Path

import datasets

logging.disable()
table = datasets.load_dataset("owner/quiz", revision=sys.argv[1], split="train")
print("rows of", table[0]["of"], "in the folder", Path(table.cache_files[0]["filename"]).parent.name[:4])
PYTHON
cat > "$folder/program.py" <<'PYTHON'
import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading

FOLDER, ONE, OTHER = sys.argv[1], "a" * 40, "b" * 40


class Hub(http.server.BaseHTTPRequestHandler):
    def answer(self):
        parts = self.path.partition("?")[0].split("/")
        commit = next((part for part in parts if re.fullmatch("[0-9a-f]{40}", part)), ONE)
        data = json.dumps({"of": commit[:4]}).encode() + b"\n"
        name, oid = "train.jsonl", hashlib.sha1(data).hexdigest()
        entry = {"type": "file", "path": name, "size": len(data), "oid": oid}
        if self.command == "POST":
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["paths"]
            content = [entry] if name in asked else []
        elif "resolve" in parts:
            content = data if parts[-1] == name else None
        elif "tree" in parts:
            content = [entry]
        else:
            content = {"id": "owner/quiz", "sha": commit, "siblings": [{"rfilename": name}]}
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(404 if content is None else 200)
        if content is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = answer

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
threading.Thread(target=server.serve_forever, daemon=True).start()
home = {"HF_HOME": f"{FOLDER}/home", "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}
for what, commit, more in (
    ("with the hub, revision aaaa", ONE, {}),
    ("without it, revision bbbb", OTHER, {"HF_HUB_OFFLINE": "1"}),
):
    done = subprocess.run(
        [sys.executable, f"{FOLDER}/load.py", commit],
        env=os.environ | home | more, capture_output=True, text=True,
    )
    print(f"{what}: exit {done.returncode}, {done.stdout.strip()}", flush=True)
PYTHON
"$folder/venv/bin/python" -c 'from importlib.metadata import version as v; print("datasets", v("datasets"))' |
  tee "$folder/seen"
"$folder/venv/bin/python" "$folder/program.py" "$folder" | tee -a "$folder/seen"
cat > "$folder/expected" <<'TEXT'
datasets 5.2.0
with the hub, revision aaaa: exit 0, rows of aaaa in the folder aaaa
without it, revision bbbb: exit 0, rows of aaaa in the folder aaaa
TEXT
diff "$folder/expected" "$folder/seen" && echo "as found"
