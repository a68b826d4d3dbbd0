"""Near-duplicates are found despite small changes, and distinguished from repeated questions."""

import random

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer

import knife.data.near
from knife.data.example import Example
from knife.data.near import THRESHOLD, NearDuplicates, _Grams

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def near_duplicates(
    train: list[Example], others: list[Example], threshold: float = THRESHOLD
) -> NearDuplicates:
    found = knife.data.near.near_duplicates(train, {"dev": others, "test": []}, threshold)
    assert found["test"].count == 0
    return found["dev"]


def texts(count: int, seed: int) -> list[Example]:
    """Return questions of twelve made-up words."""
    draw = random.Random(seed)
    made = [" ".join("".join(draw.choices(LETTERS, k=8)) for _ in range(12)) for _ in range(count)]
    return [Example(f"{seed}-{n}", text, ("yes", "no"), 0) for n, text in enumerate(made)]


def changed(example: Example, old: int, word: str) -> Example:
    words = example.question.split()
    words[old] = word
    return Example(f"near {example.id}", " ".join(words), example.choices, example.answer)


def test_a_changed_word_is_found_in_every_block() -> None:
    train = texts(700, seed=0)
    near = [changed(example, 3, "zebra") for example in train]
    found = near_duplicates(train, [*texts(100, seed=1), *near], threshold=0.75)
    assert found.count == len(near)
    mine, other = found.ids
    assert mine == f"near {other}"
    assert found.questions[1] == next(e.question for e in train if e.id == other)
    assert 0.75 <= found.similarity < 1


def test_what_stands_in_train_in_the_same_words_is_not_near() -> None:
    train = texts(20, seed=0)
    again = Example("again", train[0].question.upper() + " !", ("No", "yes"), 1)
    found = near_duplicates(train, [again, *texts(5, seed=1)])
    assert (found.count, found.ids, found.threshold) == (0, (), THRESHOLD)


def test_choices_count_and_open_answers_do_not() -> None:
    question = "which one is it ?"
    train = [Example("1", question, ("a tall green forest", "a wide salty ocean"), 0)]
    other = [Example("2", question, ("seven hundred", "eleven"), 0)]
    assert near_duplicates(train, other).count == 0
    open_train = [Example("1", "where does a kebik sleep at night ?", ("in a tree",), 0)]
    open_other = [Example("2", "where does a kebik sleep by night ?", ("in the sea",), 0)]
    assert near_duplicates(open_train, open_other, threshold=0.7).count == 1


def test_nothing_to_compare() -> None:
    empty = [Example("1", "?", ("!",), 0)]
    for train, others in (([], texts(1, 0)), (texts(1, 0), []), (empty, texts(1, 0))):
        assert near_duplicates(train, others).count == 0


def test_questions_without_words_are_near_nothing() -> None:
    asked = [Example(f"{n}", n * "?", ("a",), 0) for n in (1, 2)]
    assert near_duplicates(texts(3, 0), asked).count == 0


def test_4_grams_by_word_are_those_of_whole_texts() -> None:
    train = ["a dog is a dog", "no", "", "zebras run", "l é à ü", "cat cat cats"]
    asked = ["a dog runs", "zebra", "é", ""]
    grams = _Grams(train)
    whole = CountVectorizer(analyzer="char_wb", ngram_range=(4, 4), dtype=np.float32)
    for found, expected in (
        (grams.of_train, whole.fit_transform(train)),
        (grams.count(asked), whole.transform(asked)),
    ):
        assert (found.toarray() == expected.toarray()).all()
