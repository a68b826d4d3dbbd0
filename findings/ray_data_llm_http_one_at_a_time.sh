#!/usr/bin/env bash
# ray 2.60.0: the HTTP processor of `ray.data.llm` sends the requests of a batch one after another,
# and hands out the body of an error response as if it were an answer.
#
# Expected: that the requests of a batch are under way together, since the stage prepares all of them
# before it reads the first response, so that 20 requests to a server of 0.2 s take little more than
# that; and that a response of status 401 is an error.
# Seen: the server never has more than one request at a time, so the batch takes 4 s: a request of
# aiohttp is sent when it is awaited, and each is awaited in turn. Of 20 rows one has the body of the
# 401, and nothing says so: only the statuses 408, 429, 502, 503 and 504 are looked at. (500 is not
# one of them.) A rate of requests (`qps`) only waits before that.
#
# Needs Python 3.11 or newer. Fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'ray[data]==2.60.0' aiohttp==3.14.5 pydantic==2.13.4 2>/dev/null
cat > "$folder/program.py" <<'PYTHON'
import asyncio
import threading
from importlib.metadata import version

import ray
from aiohttp import web

LATENCY, COUNT = 0.2, 20
under_way = most = port = 0
ready = threading.Event()


async def answer(request):
    global under_way, most
    under_way += 1
    most = max(most, under_way)
    await asyncio.sleep(LATENCY)
    under_way -= 1
    asked = await request.json()
    if asked["number"] == 3:
        return web.json_response({"said": "this key is wrong"}, status=401)
    return web.json_response({"said": "fine"})


async def serve():
    global port
    application = web.Application()
    application.router.add_post("/", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    ready.set()
    await asyncio.Event().wait()


threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
ready.wait()
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
from ray.data.llm import HttpRequestProcessorConfig, build_processor  # noqa: E402

config = HttpRequestProcessorConfig(
    url=f"http://127.0.0.1:{port}/", batch_size=COUNT, concurrency=1
)
ask = build_processor(
    config,
    preprocess=lambda row: {"payload": {"number": row["id"]}},
    postprocess=lambda row: {"said": row["http_response"]["said"]},
)
said = [row["said"] for row in ask(ray.data.range(COUNT).repartition(1)).take_all()]
print(f"ray {version('ray')}")
print(f"requests under way at most: {most} of {COUNT}")
print(f"rows: {said.count('fine')} fine, {said.count('this key is wrong')} with the body of a 401")
PYTHON
"$folder/venv/bin/python" "$folder/program.py" 2>/dev/null | tee "$folder/seen"
cat > "$folder/expected" <<'TEXT'
ray 2.60.0
requests under way at most: 1 of 20
rows: 19 fine, 1 with the body of a 401
TEXT
diff "$folder/expected" "$folder/seen" && echo "as found"
