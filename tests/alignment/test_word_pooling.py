"""Words, their tokens and their vectors, against the plainest possible loop."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.tiny import ARCHITECTURES, TEXT, TOKENIZERS, model, tokenizer
from utils.alignment.pairs import AlignmentCollator
from utils.alignment.words import WordTokenizer, pool_words, split_on_punctuation
from utils.core.errors import InputError
from utils.models.tokenizers import encoder_max_length


VOCABULARY = sorted({word for text in TEXT for word in split_on_punctuation(text)})
# Real words, unseen ones, words that become nothing, words of several scripts, without spaces inside.
WORDS = st.one_of(
    st.sampled_from(VOCABULARY),
    st.text(st.characters(blacklist_categories=("Cs", "Zs", "Zl", "Zp", "Cc")), min_size=1, max_size=6),
    st.sampled_from(["\u200b", "\u00ad", "▁", "[SEP]", "##s", "Ġ", "क्\u200dष"]),
)
SENTENCES = st.lists(st.lists(WORDS, max_size=8), min_size=1, max_size=4)
MADE = {kind: tokenizer(kind) for kind in TOKENIZERS}


def naive_tokens(kind: str, words: list[str]) -> tuple[list[int], list[list[int]]]:
    """Token ids of a sentence without special tokens, and for every word the positions of its tokens."""
    encoded = MADE[kind](" ".join(words), add_special_tokens=False, return_offsets_mapping=True)
    of_word: list[list[int]] = [[] for _ in words]
    text = " ".join(words)
    for position, (begin, end) in enumerate(encoded["offset_mapping"]):
        while begin < end and text[begin] == " " and begin + 1 < len(text):  # the space before a word is the word's
            begin += 1
        end_of_word = -1
        for number, word in enumerate(words):
            end_of_word += len(word) + 1
            if begin < end_of_word:
                of_word[number].append(position)
                break
    return encoded["input_ids"], of_word


def naive_vectors(hidden: torch.Tensor, of_word: list[list[int]], mode: str) -> list[torch.Tensor]:
    chosen = {"avg": slice(None), "start": slice(0, 1), "end": slice(-1, None)}[mode]
    return [torch.stack([hidden[t] for t in tokens[chosen]]).mean(0) for tokens in of_word if tokens]


@given(SENTENCES, st.sampled_from(TOKENIZERS), st.sampled_from(["avg", "start", "end"]))
def test_pooled_vectors_equal_a_naive_loop(sentences, kind, mode):
    rows = WordTokenizer(MADE[kind], mode, max_length=200)(sentences)
    pairs = [
        {f"{side}_{column}": rows[column][k] for side in ("source", "english") for column in ("input_ids", "word_ids")}
        | {"links": [], "source_spelling": [], "english_spelling": []}
        for k in range(len(sentences))
    ]
    batch = AlignmentCollator(pad_token_id=0)(pairs)
    hidden = torch.randn(*batch["source_input_ids"].shape, 5)
    pooled = pool_words(hidden, batch["source_word_ids"], batch["source_word_lengths"])
    expected, words = [], []
    for row, sentence in enumerate(sentences):
        ids, of_word = naive_tokens(kind, sentence)
        assert rows["input_ids"][row] == [2, *ids, 3]
        inside = naive_vectors(hidden[row, 1:], of_word, mode)
        expected += [hidden[row, 0], *inside, hidden[row, len(ids) + 1]]
        words.append([-1, *(number for number, tokens in enumerate(of_word) if tokens), len(sentence)])
    assert rows["words"] == words
    torch.testing.assert_close(pooled, torch.stack(expected), rtol=1e-5, atol=1e-5)


@given(st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=10))
def test_wordpiece_agrees_with_word_ids(words):
    encoded = MADE["wordpiece"](words, is_split_into_words=True)
    word_ids = WordTokenizer(MADE["wordpiece"])([words])["word_ids"][0]
    assert word_ids[1:-1] == [word + 1 for word in encoded.word_ids()[1:-1]]


def test_words_that_become_nothing_have_no_vector():
    rows = WordTokenizer(MADE["wordpiece"])([["old", "\u200b", "bridge"]])
    assert rows["words"] == [[-1, 0, 2, 3]]


@pytest.mark.parametrize(("begin", "end"), [(None, None), ("[CLS]", None), (None, "[SEP]"), ("[MASK]", "[UNK]")])
def test_any_special_tokens_around(begin, end):
    rows = WordTokenizer(tokenizer("wordpiece", begin, end))([["old"]])
    assert rows["words"] == [[*([-1] if begin else []), 0, *([1] if end else [])]]
    assert sorted(set(rows["word_ids"][0])) == list(range(len(rows["words"][0])))


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("max_length", range(4, 14))
def test_truncation_drops_whole_words_and_shifts_nothing(kind, max_length):
    words = ["The", "river", "was", "quiet,", "newspapers", "television"]
    whole, cut = (WordTokenizer(MADE[kind], max_length=length)([words]) for length in (200, max_length))
    kept = len(cut["words"][0]) - 2
    assert len(cut["input_ids"][0]) <= max_length
    assert cut["words"][0] == [-1, *range(kept), len(words)]
    tokens = sum(word <= kept for word in whole["word_ids"][0])
    assert cut["input_ids"][0] == whole["input_ids"][0][:tokens] + [3]
    if kept < len(words):  # and not a word fewer than necessary
        assert sum(word <= kept + 1 for word in whole["word_ids"][0]) + 1 > max_length


def test_subwords_as_words():
    tokens = MADE["unigram"].tokenize("The quiet river")
    rows = WordTokenizer(MADE["unigram"], "token")([tokens])
    assert rows["input_ids"][0] == MADE["unigram"]("The quiet river")["input_ids"]
    assert rows["words"] == [[-1, *range(len(tokens)), len(tokens)]]


def test_half_precision_is_summed_in_fp32():
    hidden = torch.full((1, 4096, 1), 0.1, dtype=torch.bfloat16)
    words = torch.zeros(1, 4096, dtype=torch.long)
    pooled = pool_words(hidden, words, torch.tensor([4096.0]))
    assert pooled.dtype == torch.float32
    assert pooled.item() == pytest.approx(hidden[0, 0].item(), rel=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_longest_input_really_fits(architecture):
    encoder = model(architecture, head="")
    limitless = tokenizer()
    limitless.model_max_length = 10**30
    assert encoder_max_length(tokenizer(), encoder) <= 64
    longest = encoder_max_length(limitless, encoder)
    assert longest == 65 if architecture == "XLMRoberta" else longest == 64
    encoder(input_ids=torch.full((1, longest), 7), attention_mask=torch.ones(1, longest, dtype=torch.long))


def test_bad_settings():
    with pytest.raises(InputError, match="leaves no room for words"):
        WordTokenizer(MADE["wordpiece"], max_length=2)
    with pytest.raises(InputError, match="--word_pooling max is unknown; choose one of avg"):
        WordTokenizer(MADE["wordpiece"], "max")


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("pooling", ["avg", "start", "end", "token"])
def test_no_sentences_have_no_tokens(kind, pooling):
    """A batch of pairs none of which can be used."""
    words = WordTokenizer(MADE[kind], pooling, max_length=20)
    assert words([]) == {"input_ids": [], "word_ids": [], "words": []}
    assert words.tokens([]) == ([], [])
    assert words([[]])["words"] == [[-1, 0]]
