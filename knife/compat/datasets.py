"""Private parts of datasets, as of version 5.2. Importing this module does not import datasets."""

from contextlib import AbstractContextManager

from knife.compat.replaced import replaced


def offline() -> AbstractContextManager[None]:
    """Make `load_dataset` use only its cache; the environment variable is read only on import."""
    import datasets

    return replaced(datasets.config, "HF_HUB_OFFLINE", True)
