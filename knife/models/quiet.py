"""Silences progress bars and messages of libraries that are of no use to users, except errors."""

import logging
import os


def quiet() -> None:
    """Silence transformers, tokenizers and torch in this process, except for errors."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("torch.distributed").setLevel(logging.ERROR)
