"""From words to subwords and back: which tokens make up a word, and the vector of a word."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from tokenizers.pre_tokenizers import BertPreTokenizer
from transformers import PreTrainedTokenizerBase

from utils.core.errors import InputError, look_up
from utils.models.layers import hidden_states_at


# Which tokens represent a word, by the name of `--word_pooling`: masks from [tokens] booleans, whether a token is the first
# of its word and whether it is the last. With `token` every token is a word.
WORD_POOLINGS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "avg": lambda first, last: np.ones_like(first),
    "start": lambda first, last: first,
    "end": lambda first, last: last,
    "token": lambda first, last: np.ones_like(first),
}
Sentences = Sequence[Sequence[str]]  # lists of words
Batch = Mapping[str, torch.Tensor]  # of `AlignmentCollator`
_PUNCTUATION = BertPreTokenizer()


# Scripts without spaces between words: Thai and Lao, Burmese, Khmer, kana, Han.
UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\ua9e0-\ua9ff\uaa60-\uaa7f\U00020000-\U0003ffff]"
)
# Codes of languages in these scripts.
UNSPACED_LANGUAGES = ("zh", "cmn", "yue", "wuu", "lzh", "ja", "th", "lo", "km", "my")


def split_on_spaces(sentence: str) -> list[str]:
    """The words of tokenized text (Moses, fast_align, Pharaoh format); no-break spaces are characters of words there."""
    return re.findall("[^ \t]+", sentence)


def split_on_punctuation(sentence: str) -> list[str]:
    """The words of ordinary text: split on white space, with every punctuation mark as a word (BERT's rule)."""
    return [word for word, _ in _PUNCTUATION.pre_tokenize_str(sentence)]


def split_by_icu(sentence: str) -> list[str]:
    """`split_on_punctuation`, and words of scripts without spaces between them by the dictionaries of ICU."""
    try:
        from icu4py.breakers import WordBreaker
    except ImportError as error:
        raise InputError(
            f"Text without spaces between words needs icu4py ({error}); run pip install icu4py, or separate the words and "
            "use --word_splitting space."
        ) from None
    words: list[str] = []
    for word in split_on_punctuation(sentence.replace("\u200b", " ")):
        words += WordBreaker(word, "en") if UNSPACED.search(word) else [word]
    return words


def word_splitter(splitting: str, tokenizer: PreTrainedTokenizerBase | None) -> Callable[[str], list[str]]:
    """The function that splits sentences into words: on `space`, by `punctuation`, by `icu`, or into the tokenizer's `subword`s."""
    if splitting == "subword":
        assert tokenizer is not None
        return tokenizer.tokenize
    return {"space": split_on_spaces, "punctuation": split_on_punctuation, "icu": split_by_icu}[splitting]


class WordTokenizer:
    """Tokenizes sentences that are split into words, and says which word every token belongs to.

    Words are joined by single spaces and tokens are mapped back by their character offsets, which works for
    WordPiece, Unigram and BPE (`word_ids()` does not: it is 0 for every token with Gemma's tokenizer, and
    byte-level BPE splits pre-split words as if no space stood before them).

    Args:
        tokenizer: a fast tokenizer (one that gives offsets).
        word_pooling: a name in `WORD_POOLINGS`; with `token` the words given are the tokenizer's own tokens.
        max_length: tokens of the encoder's longest input, special ones included. A sentence is cut after the last
            word that fits whole.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, word_pooling: str = "avg", max_length: int = 512) -> None:
        if not tokenizer.is_fast:
            raise InputError(
                f"The tokenizer {type(tokenizer).__name__} gives no character offsets; use a model with a fast "
                "tokenizer (a tokenizer.json beside its weights)."
            )
        look_up(WORD_POOLINGS, word_pooling, "--word_pooling")
        self.tokenizer = tokenizer
        self.word_pooling = word_pooling
        self.prefix, self.suffix = special_tokens_around(tokenizer)
        self.max_length = max_length
        if max_length <= len(self.prefix) + len(self.suffix):
            raise InputError(f"A maximum length of {max_length} tokens leaves no room for words; raise it.")

    def __call__(self, sentences: Sentences) -> dict[str, list[list[int]]]:
        """Tokenize sentences given as lists of words.

        Returns:
            Three lists, one entry per sentence:
            `input_ids`: the ids of its tokens, special ones included;
            `word_ids`: for every token the position among `words` that it helps to represent, -1 for none;
            `words`: the positions of the words that have a vector, in ascending order. The special tokens around a
            sentence of n words count as words, numbered …, -2, -1 before it and n, n + 1, … after it. Words without
            tokens, or beyond `max_length`, are missing.
        """
        tokens, positions = self.tokens(sentences)
        room = self.max_length - len(self.prefix) - len(self.suffix)
        batch: dict[str, list[list[int]]] = {"input_ids": [], "word_ids": [], "words": []}
        for sentence, ids, word_of_token in zip(sentences, tokens, positions):
            if len(ids) > room:  # half a word has no meaningful vector: the word at the cut is dropped
                kept = int(np.searchsorted(word_of_token, word_of_token[room]))
                ids, word_of_token = ids[:kept], word_of_token[:kept]
            before = np.arange(-len(self.prefix), 0)
            after = len(sentence) + np.arange(len(self.suffix))
            word_of_token = np.concatenate([before, word_of_token, after])
            words, word_ids = self._representatives(word_of_token)
            batch["input_ids"].append([*self.prefix, *ids, *self.suffix])
            batch["word_ids"].append(word_ids.tolist())
            batch["words"].append(words.tolist())
        return batch

    def _representatives(self, word_of_token: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Number the words of one sentence in the order of their tokens; -1 for tokens that represent none."""
        # A word's tokens stand together, so a new word begins wherever the number changes.
        first = np.diff(word_of_token, prepend=word_of_token[:1] - 1) != 0
        represents = WORD_POOLINGS[self.word_pooling](first, np.append(first[1:], True))
        return word_of_token[first], np.where(represents, np.cumsum(first) - 1, -1)

    def tokens(self, sentences: Sentences) -> tuple[list[list[int]], list[np.ndarray]]:
        """The token ids of each whole sentence, without special tokens, and the position of each token's word in it."""
        if self.word_pooling == "token":
            look_up: Callable[[list[str]], Any] = self.tokenizer.convert_tokens_to_ids
            return [look_up(list(words)) for words in sentences], [np.arange(len(words)) for words in sentences]
        if not sentences:  # (the tokenizers of transformers take no empty batch)
            return [], []
        texts = [" ".join(words) for words in sentences]
        encoded = self.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        positions = []
        for words, offsets in zip(sentences, encoded["offset_mapping"]):
            # A space belongs to the word after it: tokens like "▁word" or "Ġword" begin there.
            lengths = np.fromiter((len(word) + (i > 0) for i, word in enumerate(words)), np.int64, len(words))
            word_of_character = np.repeat(np.arange(len(words)), lengths)
            first_character = np.fromiter((begin for begin, _ in offsets), np.int64, len(offsets))
            positions.append(word_of_character[np.minimum(first_character, len(word_of_character) - 1)])
        return encoded["input_ids"], positions


def special_tokens_around(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer puts before and after a single sentence, whatever they are called."""
    encoded = tokenizer("a", return_special_tokens_mask=True)
    ids, special = encoded["input_ids"], encoded["special_tokens_mask"]
    if 0 not in special:
        raise InputError("The tokenizer makes no token of the letter 'a'; it does not fit the model.")
    begin = special.index(0)
    end = len(special) - special[::-1].index(0)
    return ids[:begin], ids[end:]


def pool_words(hidden_states: torch.Tensor, word_ids: torch.Tensor, word_lengths: torch.Tensor) -> torch.Tensor:
    """The vectors [words, dimensions] of the words of a batch: the means of the tokens that represent them.

    They are in fp32 (sums over half-precision states lose digits).

    Args:
        hidden_states: [batch, length, dimensions], any floating type.
        word_ids: [batch, length], for every token the word of the batch that it represents, -1 for none.
        word_lengths: [words], how many tokens represent each word.
    """
    # Tokens of no word are added to an extra row: selecting the others would wait for the device to count them.
    n_words = len(word_lengths)
    rows = torch.where(word_ids < 0, n_words, word_ids).flatten()
    states = hidden_states.flatten(0, 1).float()
    sums = states.new_zeros(n_words + 1, states.shape[-1]).index_add(0, rows, states)
    return sums[:n_words] / word_lengths.unsqueeze(1)


def word_vectors(model: Callable, batch: Batch, side: str, layers: Sequence[int]) -> list[torch.Tensor]:
    """The vectors [words, dimensions], fp32, of one side's words at each of the layers."""
    states = hidden_states_at(model, batch[f"{side}_input_ids"], batch[f"{side}_attention_mask"], layers)
    word_ids, word_lengths = batch[f"{side}_word_ids"], batch[f"{side}_word_lengths"]
    return [pool_words(state, word_ids, word_lengths) for state in states]
