"""Batches of the sentences that the paper's own code was run on."""

import pytest
from datasets import Dataset
from transformers import AutoTokenizer

from helpers.paths import REFERENCE
from utils.alignment.pairs import AlignmentCollator, encode_pairs
from utils.alignment.words import WordTokenizer, split_on_spaces
from utils.core.columns import list_lengths
from utils.parallel.aligners.pharaoh import read_links
from utils.parallel.choosing import choose_pairs
from utils.parallel.formats import read_bitext


@pytest.fixture
def corpus() -> Dataset:
    """The reference sentences with all their links."""
    pairs = read_bitext([str(REFERENCE / "sentences.txt")], "xx", split_on_spaces, "space")
    links = read_links(REFERENCE / "links.pharaoh", list_lengths(pairs, "source"), list_lengths(pairs, "english"))
    return pairs.add_column("links", [[list(link) for link in row] for row in links])


def batch_of(pairs: Dataset, word_pooling: str, include_special_tokens: bool, first: int, size: int) -> dict:
    tokenizer = AutoTokenizer.from_pretrained(REFERENCE / "model")
    rows = encode_pairs(pairs, WordTokenizer(tokenizer, word_pooling), include_special_tokens)
    return AlignmentCollator(tokenizer.pad_token_id)([rows[k] for k in range(first, first + size)])


@pytest.fixture
def kept(corpus) -> Dataset:
    return choose_pairs(corpus)
