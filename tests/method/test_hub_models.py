"""Models of the hub, by name and revision; the hub is a small one on this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hub_server import TOKEN, Hub, hub  # noqa: F401  (fixture)

from knife.models.source import EMBEDDED

PROGRAM = """
import json, sys
from knife.core.errors import UserError
from knife.models.source import find_model
found = []
for name in sys.argv[1:]:
    try:
        model = find_model(name, "model.student")
        kept = sorted(path.name for path in model.local().iterdir())
        found.append([model.repository, model.revision, model.identity, kept])
    except UserError as error:
        found.append(error.errors)
print(json.dumps(found))
"""


def find(endpoint: str, home: Path, *names: str) -> list[Any]:
    """Return what a fresh process finds: the hub's library reads its settings on import."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_TOKEN": TOKEN}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *names],
        env=plain | settings | {"NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_XET": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout)
    return found


def test_a_revision_of_a_model_may_be_named(hub: Hub, tmp_path: Path) -> None:  # noqa: F811
    """As of mT5, whose safetensors are in a pull request only."""
    folder = EMBEDDED["tiny-t5"]
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    main = {n: c for n, c in files.items() if not n.endswith(".safetensors")}
    hub.publish("you/mt5", "main", main | {"pytorch_model.bin": b"x"})
    commit = hub.publish("you/mt5", "refs/pr/5", files)
    other = hub.publish("you/mt5", "v1", files | {"config.json": b"{}"})
    names = ("you/mt5", "you/mt5@refs/pr/5", f"you/mt5@{commit}", "you/mt5@v1", "you/mt5@v2")
    bare, pull, exact, tag, missing = find(
        hub.url,
        tmp_path,
        *names,
    )
    assert bare == [
        "model.student: 'you/mt5' has no safetensors weights, the only ones that are read; if a "
        "pull request on the hub adds them, name it: model.student=you/mt5@refs/pr/NUMBER"
    ]
    # The identity is that of the files, however they are named.
    assert pull == exact == ["you/mt5", commit, f"you/mt5@{commit}", sorted(files)]
    assert tag[:3] == ["you/mt5", other, f"you/mt5@{other}"]
    assert missing == [
        "model.student: 'you/mt5' has no revision 'v2' on the hub; give a branch, a tag, a whole "
        "commit or refs/pr/NUMBER"
    ]
    # From the cache, when the hub is away.
    hub.fails, hub.status = "/", 503
    assert find(hub.url, tmp_path, "you/mt5@refs/pr/5") == [pull]
    hub.status = None
    (away,) = find(hub.url, tmp_path, "you/mt5@v3")
    assert "'you/mt5@v3' is not in the local hub cache and the hub cannot be reached" in away[0]


def test_what_is_no_hub_id(hub: Hub, tmp_path: Path) -> None:  # noqa: F811
    names = ("mt5", "you/mt5/x", "you/mt5@", "./you/mt5@v1", "@v1")
    for name, (error,) in zip(names, find(hub.url, tmp_path, *names), strict=True):
        assert error.startswith(
            f"model.student: {name!r} is neither an existing folder nor a hub id (OWNER/NAME or "
        )
