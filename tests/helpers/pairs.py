"""Linked pairs on the fly, and the tiny tokenizer they are made with."""

from collections.abc import Sequence

from datasets import Dataset

from helpers import tiny
from utils.alignment.pairs import AlignmentCollator, encode_pairs
from utils.alignment.words import WordTokenizer, split_on_punctuation


TOKENIZER = tiny.tokenizer()
WORD_TOKENIZER = WordTokenizer(TOKENIZER, max_length=64)
COLLATOR = AlignmentCollator(TOKENIZER.pad_token_id)
SENTENCES = [split_on_punctuation(text) for text in tiny.TEXT]


def some_pairs(n: int = 6) -> Dataset:
    """Pairs of the tiny text with a few arbitrary links each."""
    pairs = [(SENTENCES[k % 6], SENTENCES[(k + k // 6 + 1) % 6]) for k in range(n)]
    links = [[[i, (i * 2 + k) % 8] for i in range(2 + k % 4)] for k in range(n)]
    return Dataset.from_dict({"source": [s for s, _ in pairs], "english": [e for _, e in pairs], "links": links})


def some_rows(n: int = 6, languages: Sequence[str] = ()) -> Dataset:
    """`some_pairs`, encoded; with a language each, if there are several."""
    rows = encode_pairs(some_pairs(n), WORD_TOKENIZER)
    return rows.add_column("language", list(languages)) if languages else rows
