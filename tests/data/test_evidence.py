"""The inputs of the models that evaluate rationales."""

from dataclasses import replace

from knife.data.evidence import (
    NO_QUESTION,
    explained,
    rationale_alone,
    vacuous_alone,
    vacuous_and_rationale,
)
from knife.data.example import Example, Splits

OWL = Example("1", "where do owls sleep ?", ("in a tree", "at sea"), 0, "owls nest in wood .")
BAT = Example("2", "where do bats sleep ?", ("at sea", "in a cave"), 1, None)


def test_only_explained_examples_stay_and_a_split_without_any_stays_whole() -> None:
    found = explained(Splits([OWL, BAT], [BAT], [BAT, OWL]))
    assert (found.train, found.dev, found.test) == ([OWL], [BAT], [OWL])


def test_of_several_rationales_the_first_alone_is_read() -> None:
    """A model of the vacuous rationale must read no other."""
    several = replace(OWL, more_rationales=("they nest in trunks .",))
    for given in (rationale_alone, vacuous_alone, vacuous_and_rationale):
        assert given(Splits([several], [BAT], [OWL])) == given(Splits([OWL], [BAT], [OWL]))


def test_the_question_is_seen_in_the_vacuous_rationale_alone() -> None:
    splits = Splits([OWL], [BAT], [OWL])
    vacuous = "where do owls sleep ? in a tree"
    for given, rationale, of_bat in (
        (rationale_alone, OWL.rationale, None),
        (vacuous_alone, vacuous, "where do bats sleep ? in a cave"),
        (
            vacuous_and_rationale,
            f"{vacuous} {OWL.rationale}",
            "where do bats sleep ? in a cave",
        ),
    ):
        found = given(splits)
        assert found.train == found.test
        assert found.train[0].question == NO_QUESTION
        assert found.train[0].rationale == rationale
        assert found.dev[0].rationale == of_bat
        assert (found.train[0].id, found.train[0].choices, found.train[0].answer) == (
            OWL.id,
            OWL.choices,
            OWL.answer,
        )
