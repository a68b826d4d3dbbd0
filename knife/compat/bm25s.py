"""What is not public in bm25s, as seen in 0.3. Importing this module imports none of it."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from runpy import run_path

_LIST = "STOPWORDS_EN_PLUS"


@cache
def stop_words() -> frozenset[str]:
    """The English stop words of bm25s, which are NLTK's: 179, negations among them."""
    package = find_spec("bm25s")
    assert package
    assert package.origin
    # The package itself imports scipy, which takes a second; this is a file of lists.
    return frozenset(run_path(str(Path(package.origin).with_name("stopwords.py")))[_LIST])
