"""Teacher states on disk: file size relative to the raw numbers, and memory of random reads.

python bench/states.py [gigabytes]
"""

import random
import sys
import tempfile
import time
from pathlib import Path

from workload import random_tokens

import torch  # isort: skip  (after the threads are set)

from knife.data.batches import Rows, collate
from knife.method.states import SHARD_BYTES, StoredStates, Summary, write_shard

TOKENS, WIDTH, BATCH = 64, 768, 32


def private_megabytes() -> float:
    """Return this process's private memory (RssAnon), without mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith("RssAnon"))
    return int(kilobytes) / 1024


def main() -> None:
    gigabytes = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    row_bytes = TOKENS * WIDTH * 4
    count = int(gigabytes * 1e9 / row_bytes)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Summary(WIDTH, "fp32", 1.0, True).write(folder)
        a_shard = SHARD_BYTES // row_bytes
        for number, start in enumerate(range(0, count, a_shard)):
            rows = range(start, min(start + a_shard, count))
            some = torch.randn(TOKENS, WIDTH)
            states = [some + row for row in rows]
            write_shard(folder / f"shard-{number:05d}.safetensors", rows, states, "fp32")
            del states
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        product = count * row_bytes
        print(f"{count} examples: {size / 1e9:.3f} GB, {size / product:.4f} x the product")
        tokens = random_tokens(BATCH, inputs=TOKENS, rationale=1, choices=2, choice=2)
        batch = collate(tokens, Rows(list(range(BATCH)), [1.0] * BATCH), 0, False)
        before = private_megabytes()
        stored = StoredStates({12: folder})
        order = list(range(count))
        random.Random(0).shuffle(order)
        peak, started = 0.0, time.perf_counter()
        for start in range(0, count - BATCH, BATCH):
            batch.row_B[:] = torch.tensor(order[start : start + BATCH])
            stored.batch(batch)
            peak = max(peak, private_megabytes() - before)
        seconds = time.perf_counter() - started
        print(f"all read in random order: {peak:.0f} MB of private memory, {seconds:.1f} s")


if __name__ == "__main__":
    main()
