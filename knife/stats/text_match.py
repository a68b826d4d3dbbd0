"""How well a generated answer matches the right one: exact match and token F1.

As in SQuAD (Rajpurkar et al. 2016, arXiv 1606.05250, section 6.1): case, punctuation, the articles
a, an and the, and spacing are ignored. An answer made only of these, such as the letter A or a
sign, keeps them: otherwise an empty answer would be right.
"""

import re
import string
from collections import Counter

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(text: str, answer: str) -> bool:
    """Whether both have the same words."""
    return _words(text) == _words(answer)


def token_f1(text: str, answer: str) -> float:
    """Return the harmonic mean of the share of `text`'s words that are in `answer` and the share
    of `answer`'s words that are in `text`; 1 if neither has a word."""
    written, wanted = _words(text), _words(answer)
    if not written or not wanted:
        return float(written == wanted)
    common = (Counter(written) & Counter(wanted)).total()
    return 2 * common / (len(written) + len(wanted))


def _words(text: str) -> list[str]:
    bare = text.casefold().translate(_PUNCTUATION)
    return re.sub(r"\b(a|an|the)\b", " ", bare).split() or bare.split() or text.casefold().split()
