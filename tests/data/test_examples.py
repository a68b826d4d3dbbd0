"""Examples as an Arrow table are the same examples, in any order, in memory and in a file."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knife.data import examples as module
from knife.data.example import Example
from knife.data.examples import Examples, Ids, explained_count

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
any_examples = st.lists(
    st.builds(
        Example,
        id=texts,
        question=texts,
        choices=st.lists(texts, max_size=4).map(tuple),
        answer=st.integers(-1, 3),
        rationale=st.none() | texts,
        group=st.none() | texts,
    ),
    max_size=12,
)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few examples are several batches."""
    monkeypatch.setattr(module, "BATCH", 3)


@given(any_examples)
def test_a_table_has_the_same_examples(examples: list[Example]) -> None:
    table = Examples.of(examples)
    assert len(table) == len(examples)
    assert table == examples
    assert [table[row] for row in range(-len(table), len(table))] == [*examples, *examples]
    assert table[1:] == examples[1:]
    assert table[::-2] == examples[::-2]
    assert list(Ids(table)) == list(table.values("id")) == [example.id for example in examples]
    assert explained_count(table) == explained_count(examples)


@given(any_examples, any_examples, st.data())
def test_parts_are_taken_and_joined(
    one: list[Example], other: list[Example], data: st.DataObject
) -> None:
    whole = Examples.joined([Examples.of(one), Examples.of(other)])
    assert whole == [*one, *other]
    rows = data.draw(st.lists(st.sampled_from(range(len(whole))))) if whole else []
    some = whole.take(rows)
    assert some == [whole[row] for row in rows]
    assert some[::2].take(range(len(some[::2]))) == list(some)[::2]
    new = [data.draw(st.none() | texts) for _ in some]
    assert some.with_rationales(new) == [
        replace(example, rationale=text) for example, text in zip(some, new, strict=True)
    ]


@pytest.mark.parametrize("rows", [[], [4, 0, 4, 2]])
def test_a_file_has_the_same_examples(tmp_path: Path, rows: list[int]) -> None:
    examples = [Example(f"é{n}", "q", ("a", "b")[: n % 3], 0, n * "r" or None) for n in range(7)]
    table = Examples.of(examples).take(rows)
    path = tmp_path / "some.arrow"
    table.write(path)
    assert Examples.open(path) == Examples.parse(path.read_bytes()) == [examples[n] for n in rows]


def test_an_index_outside_is_an_error() -> None:
    with pytest.raises(IndexError):
        Examples.of([])[0]
