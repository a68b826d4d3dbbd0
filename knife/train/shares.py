"""Who did how much of a stage: shows whether all workers and hosts had something to do."""

import socket
from pathlib import Path

from knife.core.atomic import write_json
from knife.train.context import Context, gather

SHARES = "workers.json"


def write_shares(work: Path, context: Context, examples: int) -> None:
    """Write every rank's host and the examples that it took since the workers were started last.

    All ranks call it, each with its own count; one that came again in a later epoch counts again.
    """
    own = {"rank": context.rank, "host": socket.gethostname(), "examples": examples}
    everybody = gather(own)
    if context.rank == 0:
        write_json(work / SHARES, everybody)
