"""Libraries' bars and notes of no use to a user of this package; errors stay."""

import logging
import os


def quiet() -> None:
    """Silence transformers, tokenizers and torch but for their errors, in this process."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("torch.distributed").setLevel(logging.ERROR)
