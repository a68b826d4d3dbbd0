"""Words and the tokens of each: by hand, against plain loops, and with tokenizers of all kinds."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import EXAMPLES, batch_of, tokens_of
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from knife.data.demonstrations import put_before
from knife.data.example import Example, Splits
from knife.data.forms import training_tokens
from knife.data.tokenizing import tokenize
from knife.data.tokens import task_input_text
from knife.data.words import look_for_words, text_words, token_words
from knife.models.tokenizer import load_tokenizer

Span = tuple[int, int]


def words(text: str) -> list[str]:
    return [text[slice(*span)] for span in text_words(text)]


def found(texts: list[str], offsets: list[list[Span]]) -> list[list[Span]]:
    """Return the words of the tokens of each text."""
    flat, lengths = token_words(texts, offsets)
    pairs, taken = [(int(a), int(b)) for a, b in flat.reshape(-1, 2)], []
    for length in lengths // 2:
        taken.append(pairs[:length])
        pairs = pairs[length:]
    assert not pairs
    return taken


def by_loop(text: str, offsets: list[Span]) -> list[Span]:
    """Return the words that each token has a character of."""
    pairs = []
    for start, end in offsets:
        spans = enumerate(text_words(text))
        own = [n for n, (first, last) in spans if max(first, start) < min(last, end)]
        pairs.append((own[0], own[-1] + 1) if own else (0, 0))
    return pairs


def test_words_by_hand() -> None:
    assert words("choices: (a) don't\n x_1, 3.5") == [
        "choices", ":", "(", "a", ")", "don", "'", "t", "x_1", ",", "3", ".", "5",
    ]  # fmt: skip
    # Marks stay with their letters, and what is no letter is a word alone.
    assert words("हिन्दी e\u0301te\u0301 \u0301 ½ 😀😀 中文。") == [
        "हिन्दी", "e\u0301te\u0301", "\u0301", "½", "😀", "😀", "中文", "。",
    ]  # fmt: skip
    assert words(" \u00a0\n") == []


def test_the_words_of_tokens_by_hand() -> None:
    text = "a frog's (legs)."
    # Words: a frog ' s ( legs ) .
    offsets = [(0, 0), (0, 1), (1, 6), (6, 8), (8, 10), (10, 14), (14, 16), (0, 0)]
    assert found([text], [offsets]) == [
        [(0, 0), (0, 1), (1, 2), (2, 4), (4, 5), (5, 6), (6, 8), (0, 0)]
    ]


@given(st.data())
def test_the_words_of_tokens_are_those_of_a_plain_loop(data: st.DataObject) -> None:
    texts = data.draw(st.lists(st.text("ab .'é\u0301", min_size=1, max_size=9), max_size=4))
    offsets: list[list[Span]] = []
    for text in texts:
        place = st.integers(0, len(text))
        some = data.draw(st.lists(st.tuples(place, place).map(lambda p: (min(p), max(p)))))
        # One more, so that no character is left out.
        offsets.append([*some, (0, len(text))])
    expected = [by_loop(*each) for each in zip(texts, offsets, strict=True)]
    assert found(texts, offsets) == expected


def test_places_that_cannot_be_trusted_give_no_words() -> None:
    text = "two words"
    right = [(0, 3), (3, 9)]
    for wrong in ([(0, 3), (3, 8)], [(0, 3), (4, 10)], [(0, 3), (9, 4), (3, 9)], [(0, 0)], []):
        assert found([text, text, text], [right, wrong, right]) == [
            [(0, 1), (1, 2)], [], [(0, 1), (1, 2)],
        ]  # fmt: skip
    # White space, marks and control characters may be left out.
    text = "e\u0301t \u200b x"
    assert found([text], [[(0, 1), (2, 3), (6, 7)]]) == [[(0, 1), (0, 1), (2, 3)]]


def test_every_tokenizers_words(model_folder: Path) -> None:
    tokenizer = load_tokenizer(model_folder, "model")
    everything, pad = tokens_of(model_folder, EXAMPLES)
    for example, tokens in zip(EXAMPLES, everything, strict=True):
        text, _ = task_input_text(example)
        for number, (start, last) in enumerate(text_words(text)):
            own = [n for n, (first, end) in enumerate(tokens.words) if first <= number < end]
            said = tokenizer.decode([tokens.input_ids[n] for n in own])
            said = said.replace(" ", "").replace("##", "")
            # A token may have more than the word, such as the colon behind it, but no other word.
            around = text[:last].split()[-1] + text[last:].split(" ")[0]
            assert text[start:last] in said
            assert said in around
    for rationale in (False, True):
        batch = batch_of(everything, pad, rationale=rationale)
        other = batch.words_BL2[~batch.input_mask_BL.bool()]
        assert not other.any()
        for row, tokens in enumerate(everything):
            pairs = batch.words_BL2[row, : len(tokens.input_ids)].tolist()
            assert pairs == [list(pair) for pair in tokens.words]


def test_tokens_are_marked_with_words_only_if_asked(model_folder: Path) -> None:
    tokens, _ = tokenize(EXAMPLES, load_tokenizer(model_folder, "model"), 256)
    assert not any(each.words or each.content for each in tokens)
    assert len(tokens.without_words()) == len(EXAMPLES)


def test_words_move_with_their_task_input(model_folder: Path) -> None:
    tokenizer = load_tokenizer(model_folder, "model")
    tokens, _ = tokens_of(model_folder, EXAMPLES[:3])
    moved, _ = put_before(tokens, [["question: a"]] * 3, tokenizer, 256)

    def own(example: Any) -> list[tuple[int, Span]]:
        pairs = zip(example.input_ids, example.words, strict=True)
        return [(token, pair) for token, pair in pairs if pair != (0, 0)]

    for before, after in zip(tokens, moved, strict=True):
        assert len(after.words) > len(before.words)
        assert own(after) == own(before)
    _, second = training_tokens("step_by_step", tokens, tokenizer)
    assert second is not None
    assert all(example.words == [] for example in second)


TEXT = "Das ½ Café ﬁne 😀 e\u0301t don't ('x')."


def byte_level(normalizer: Any = None) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=270, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["das ist don't fine"], trainer)
    tokenizer.normalizer = normalizer or normalizers.Sequence([])
    return tokenizer


def pieces(*, letters: str, spaces: str, **settings: Any) -> Tokenizer:
    """Return a tokenizer of single letters and bytes, with spaces as in sentencepiece's models."""
    vocabulary = ["<unk>", "▁", *letters, *(f"<0x{byte:02X}>" for byte in range(256))]
    numbers = {piece: number for number, piece in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.BPE(numbers, [], **settings))
    if spaces == "before":
        steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        tokenizer.normalizer = normalizers.Sequence(steps)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


LETTERS = "abcdefghijklmnopqrstuvwxyzDC'."
STRIPPED = [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]


@pytest.mark.parametrize(
    "tokenizer",
    [
        byte_level(),
        byte_level(normalizers.NFKC()),
        byte_level(normalizers.Sequence(STRIPPED)),
        pieces(letters=LETTERS, spaces="own", byte_fallback=True),
        pieces(letters=LETTERS, spaces="before", byte_fallback=True, unk_token="<unk>"),
        pieces(letters=LETTERS, spaces="before", unk_token="<unk>", fuse_unk=True),
    ],
    ids=["bytes", "compatible", "stripped", "pieces", "llama", "unknown"],
)
def test_characters_of_many_bytes_and_normalised_ones(tokenizer: Tokenizer) -> None:
    """Each word has the tokens of its letters, however many there are of one character."""
    encoded = tokenizer.encode(TEXT)
    (pairs,) = found([TEXT], [encoded.offsets])
    assert pairs == by_loop(TEXT, encoded.offsets)
    of = {
        word: "".join(t for t, (a, b) in zip(encoded.tokens, pairs, strict=True) if a <= n < b)
        for n, word in enumerate(words(TEXT))
    }
    assert len(of) == 13
    assert all(of.values())
    # Words of plain letters are whole, whatever is before them in the text.
    assert of["x"] == "x"
    assert of["don"].lstrip("Ġ▁") == "don"
    assert of["Das"].lstrip("▁").lower() == "das"


def test_a_tokenizer_that_drops_characters_gives_no_words() -> None:
    """Without a token for the unknown, what comes behind a dropped character is misplaced."""
    drops = pieces(letters=LETTERS, spaces="own")
    texts = ["don't.", "(don't).", "don't"]
    assert [len(drops.encode(text).tokens) for text in texts] == [7, 7, 6]
    offsets = [drops.encode(text).offsets for text in texts]
    # The place that it gives for the `d` behind the bracket is that of the bracket.
    assert offsets[1][1] == (0, 1)
    assert [bool(pairs) for pairs in found(texts, offsets)] == [True, False, True]


def test_examples_without_words_are_counted_or_refused() -> None:
    drops = pieces(letters=LETTERS.replace("z", "") + ":()?", spaces="own")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=drops, eos_token="<unk>")

    def looked(*questions: str) -> tuple[list[str], list[str]]:
        examples = [Example(q, f"a {q}?", ("yes", "no"), 0, "a dog") for q in questions]
        # Without a rationale there is nothing to align.
        examples.append(Example("last", "zoo?", ("yes", "no"), 0, None))
        table, _ = tokenize(examples, tokenizer, 99, marks=["words"])
        return look_for_words(Splits(examples, [], []), {"train": table}, "T")

    assert looked("dog", "frog") == ([], [])
    assert looked("dog", "zebra", "frog") == (
        [],
        [
            "1 of 3 train examples with a rationale have no input alignment, since some of their "
            "characters are in no token (T), so that the places of the other tokens cannot be "
            "trusted: 'zebra'"
        ],
    )
    assert looked("zoo", "zebra") == (
        [
            "align.input.tokens: no train example with a rationale can be aligned by words, since "
            "some of their characters are in no token (T), so that the places of the other tokens "
            "cannot be trusted; set it to mean, or give a model with another tokenizer"
        ],
        [],
    )
