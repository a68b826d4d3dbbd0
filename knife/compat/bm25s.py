"""Private parts of bm25s, as of version 0.3. Importing this module does not import bm25s."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from runpy import run_path

_LIST = "STOPWORDS_EN_PLUS"


@cache
def stop_words() -> frozenset[str]:
    """Return the English stop words of bm25s, which are NLTK's: 179, including negations."""
    package = find_spec("bm25s")
    assert package
    assert package.origin
    # The package itself imports scipy, which takes a second; this file only has lists.
    return frozenset(run_path(str(Path(package.origin).with_name("stopwords.py")))[_LIST])
