"""How much of a stage each worker did: shows whether all workers and hosts had work to do."""

import socket
from pathlib import Path

from knife.core.atomic import write_json
from knife.train.context import Context, gather

SHARES = "workers.json"


def write_shares(work: Path, context: Context, examples: int) -> None:
    """Write every rank's host and its number of examples since the workers were last started.

    All ranks must call it, each with its own count; an example counts again in every epoch.
    """
    own = {"rank": context.rank, "host": socket.gethostname(), "examples": examples}
    everybody = gather(own)
    if context.rank == 0:
        write_json(work / SHARES, everybody)
