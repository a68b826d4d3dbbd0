"""Content tokens, by hand and with the tokenizer of every family."""

from pathlib import Path

from small import EXAMPLES, batch_of, tokens_of

from knife.compat.bm25s import stop_words
from knife.data.content import content_tokens
from knife.data.demonstrations import put_before
from knife.data.example import Example
from knife.data.forms import training_tokens
from knife.data.tokenizing import tokenize
from knife.models.tokenizer import load_tokenizer


def test_words_of_question_and_choices_that_are_no_stop_words() -> None:
    text = "question: isn't the Sea blue? choices: (a) choices (b) no"
    parts = [(10, 29), (43, 50), (55, 57)]
    spans = [(0, 8), (8, 9), (10, 15), (16, 19), (20, 23), (24, 28), (28, 29), (30, 37), (37, 38)]
    spans += [(39, 42), (43, 47), (47, 50), (51, 54), (54, 57), (0, 0)]
    found = [text[slice(*spans[place])] for place in content_tokens(text, parts, spans)]
    # The template's `choices:` is not content, a choice of that name is; negations are stop words.
    assert found == ["Sea", "blue", "choi", "ces"]
    assert {"the", "isn't", "no"} <= stop_words()


def test_every_tokenizers_content(model_folder: Path) -> None:
    tokenizer = load_tokenizer(model_folder, "model")
    example = Example("x", "which food is it ?", ("blue fruit", "the honey"), 1, "fruit")
    (tokens,), _ = tokenize([example], tokenizer, 256, marks=["content"])
    kept = tokenizer.decode([tokens.input_ids[place] for place in tokens.content])
    assert kept.replace(" ", "").replace("##", "") == "foodbluefruithoney"
    everything, pad = tokens_of(model_folder, EXAMPLES)
    for rationale in (False, True):
        batch = batch_of(everything, pad, rationale=rationale)
        assert not (batch.content_mask_BL & ~batch.input_mask_BL).any()
        assert batch.content_mask_BL.sum(1).tolist() == [len(t.content) for t in everything]
        assert (batch.content_mask_BL.sum(1) < batch.input_mask_BL.sum(1)).all()


def test_content_moves_with_its_task_input(model_folder: Path) -> None:
    tokenizer = load_tokenizer(model_folder, "model")
    tokens, _ = tokens_of(model_folder, EXAMPLES[:3])
    moved, _ = put_before(tokens, [["question: a"]] * 3, tokenizer, 256)
    for before, after in zip(tokens, moved, strict=True):
        assert len(after.input_ids) > len(before.input_ids)
        assert [after.input_ids[p] for p in after.content] == [
            before.input_ids[p] for p in before.content
        ]
    _, second = training_tokens("step_by_step", tokens, tokenizer)
    assert second is not None
    assert all(example.content == [] for example in second)
