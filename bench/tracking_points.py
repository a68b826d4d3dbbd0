"""A run of 100,000 points in MLflow: the time to send it, and until its page shows the charts.

python bench/tracking_points.py [points] [CHROMIUM]

A tracker sends ten metrics to SQLite. Then `knife ui` serves the store, and a headless Chromium
opens the run's page of charts: the time is from the request until the page shows a chart for every
metric (axes and lines drawn), the second time with a warm server.
"""

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import aiohttp
from tracking import free_port

from knife.store.store import Store
from knife.track.node import RunNode
from knife.track.tracker import Tracker

METRICS = 10
# The number of charts on the page that have lines.
DRAWN = "document.querySelectorAll('.js-plotly-plot .scatterlayer .trace').length"


def send(folder: Path, points: int) -> tuple[str, float]:
    """Send the points; return the path of the run's page, and the seconds until MLflow has all."""
    store = Store(folder)
    journal = folder / "student" / "points" / "journal.jsonl"
    journal.parent.mkdir(parents=True)
    with journal.open("w") as file:
        for number in range(METRICS):
            for step in range(points // METRICS):
                metrics = {f"metric_{number}": step**0.5}
                row = {"step": step, "time": 1e9 + step, "metrics": metrics}
                file.write(json.dumps(row) + "\n")
    root = RunNode(
        key="points",
        name="points",
        began=1e9,
        status="RUNNING",
        params={},
        tags={},
        summary={},
        texts={},
    )
    own = folder / "runs" / "points"
    own.mkdir(parents=True)
    with Tracker(None, store, "bench", {}) as tracker:
        tracker.show(own, lambda: root)
        assert tracker.flush()
        started = time.monotonic()
        root = replace(root, journals=(("student", "points"),))
        assert tracker.flush()
        seconds = time.monotonic() - started
        root = replace(root, status="FINISHED", ended=2e9)
        return f"#/experiments/{tracker.experiment_id}/runs/{tracker.run_id}/model-metrics", seconds


async def charts(port: int, url: str) -> float:
    """Return the seconds until the page at `url` shows all charts, in the browser on `port`."""
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}/json") as answer:
            tabs = [tab for tab in await answer.json() if tab["type"] == "page"]
        async with session.ws_connect(tabs[0]["webSocketDebuggerUrl"], max_msg_size=0) as tab:
            started = time.monotonic()
            await tab.send_json({"id": 1, "method": "Page.navigate", "params": {"url": url}})
            ask = {"method": "Runtime.evaluate", "params": {"expression": DRAWN}}
            for number in range(2, 10_000):
                await tab.send_json(ask | {"id": number})
                while (found := await tab.receive_json()).get("id") != number:
                    pass
                drawn = found.get("result", {}).get("result", {}).get("value", 0)
                if drawn and drawn >= METRICS:
                    return time.monotonic() - started
                await asyncio.sleep(0.1)
    raise TimeoutError(url)


def wait_for(url: str) -> None:
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)


def main() -> None:
    points = int(sys.argv[1]) if sys.argv[1:] else 100_000
    chromium = sys.argv[2] if sys.argv[2:] else shutil.which("chromium")
    with tempfile.TemporaryDirectory() as name:
        page, seconds = send(Path(name) / "store", points)
        print(f"{points} points sent in {seconds:.1f} s", flush=True)
        if chromium is None:
            print("no Chromium: the page is not looked at")
            return
        port, debug = free_port(), free_port()
        ui = [sys.executable, "-m", "knife", "ui", "--store", f"{name}/store", "--port", str(port)]
        browse = [chromium, "--headless", "--no-sandbox", f"--remote-debugging-port={debug}"]
        browse += [f"--user-data-dir={name}/chromium", "--window-size=1280,6000", "about:blank"]
        with (
            subprocess.Popen(ui, stderr=subprocess.DEVNULL) as server,
            subprocess.Popen(browse, stderr=subprocess.DEVNULL) as browser,
        ):
            try:
                wait_for(f"http://127.0.0.1:{port}/health")
                wait_for(f"http://127.0.0.1:{debug}/json")
                for words in ("first", "again"):
                    url = f"http://127.0.0.1:{port}/?{words}{page}"
                    print(f"page, {words}: {asyncio.run(charts(debug, url)):.1f} s", flush=True)
            finally:
                browser.terminate()
                server.terminate()


if __name__ == "__main__":
    main()
