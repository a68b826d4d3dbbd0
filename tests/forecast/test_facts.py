"""What a rationale states: the content words of each sentence that relates any."""

from knife.data.example import Example
from knife.forecast.facts import content_words, facts, stated


def test_each_sentence_is_a_fact_without_stop_words() -> None:
    text = "A Brabik lives in the forest. The food of a glofol is fish!\nIs it far?"
    assert facts(text) == [("brabik", "lives", "forest"), ("food", "glofol", "fish")]


def test_points_inside_of_words_end_no_sentence() -> None:
    assert facts("pi is 3.14 in e.g.Euclid") == [("pi", "3", "14", "e", "g", "euclid")]


def test_what_only_says_the_answer_is_no_fact() -> None:
    assert facts("so the answer is yes . therefore , choice brabik is correct .") == []
    # The same word twice relates nothing.
    assert facts("fish are fish .") == []
    assert content_words("so the answer is brabik") == ("brabik",)


def test_facts_of_several_rationales_are_those_of_their_example() -> None:
    examples = [
        Example("1", "?", ("a", "b"), 0, "cows eat grass .", None, ("cows give milk .",)),
        Example("2", "?", ("a", "b"), 0),
        Example("3", "?", ("a", "b"), 0, "bees make honey . bees fly far ."),
    ]
    owners: list[int] = []
    found = list(stated(examples, owners))
    assert found == [
        ("cows", "eat", "grass"),
        ("cows", "give", "milk"),
        ("bees", "make", "honey"),
        ("bees", "fly", "far"),
    ]
    assert owners == [0, 0, 2, 2]
