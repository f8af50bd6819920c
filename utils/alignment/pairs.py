"""Linked sentence pairs as batches: tokenized rows, and the collator that pads them."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset, Features, List, Value

from utils.alignment.words import WordTokenizer


# The spelling of the special tokens around a sentence; words have a checksum, which is not negative.
SPECIAL_TOKEN = -1
_NUMBERS = List(Value("int64"))
_COLUMNS = [f"{side}_{column}" for side in ("source", "english") for column in ("input_ids", "word_ids", "spelling")]
# What `PairEncoder` makes: all that `AlignmentCollator` needs, and the lengths that batches can be grouped by.
ROW_FEATURES = Features({**dict.fromkeys([*_COLUMNS, "length"], _NUMBERS), "links": List(_NUMBERS)})


@dataclass
class PairEncoder:
    """Tokenizes linked pairs for `AlignmentCollator`."""

    word_tokenizer: WordTokenizer
    include_special_tokens: bool = True  # link the k-th one of a side with the k-th one of the other: [CLS]-[CLS], …

    def __call__(self, batch: Mapping[str, list]) -> dict[str, list]:
        """Encode a batch with the columns `source` and `english` (words), and `links` (`[i, j]`: source, English word).

        Returns the columns of `ROW_FEATURES`: `…_input_ids` and `…_word_ids` (see `WordTokenizer`), `links` (indices into
        the words that have a vector), `…_spelling` (a checksum per link; -1 for special tokens) and `length` (tokens of
        source and English). A link of a word without vector, cut off or tokenized to nothing, is dropped.
        """
        sides = {side: self.word_tokenizer(batch[side]) for side in ("source", "english")}
        encoded: dict[str, list] = {"links": [], "source_spelling": [], "english_spelling": [], "length": []}
        for side, tokens in sides.items():
            encoded |= {f"{side}_{column}": tokens[column] for column in ("input_ids", "word_ids")}
        n_before, n_after = len(self.word_tokenizer.prefix), len(self.word_tokenizer.suffix)
        for row, (source, english, links) in enumerate(zip(batch["source"], batch["english"], batch["links"])):
            source_vectors = {word: k for k, word in enumerate(sides["source"]["words"][row])}
            english_vectors = {word: k for k, word in enumerate(sides["english"]["words"][row])}
            kept = [(i, j) for i, j in links if i in source_vectors and j in english_vectors]
            spellings = [(zlib.crc32(source[i].encode()), zlib.crc32(english[j].encode())) for i, j in kept]
            if self.include_special_tokens:
                special = [(-1 - k, -1 - k) for k in range(n_before)]
                special += [(len(source) + k, len(english) + k) for k in range(n_after)]
                kept += special
                spellings += [(SPECIAL_TOKEN, SPECIAL_TOKEN)] * len(special)
            encoded["links"].append([[source_vectors[i], english_vectors[j]] for i, j in kept])
            encoded["source_spelling"].append([s for s, _ in spellings])
            encoded["english_spelling"].append([e for _, e in spellings])
            encoded["length"].append([len(sides[side]["input_ids"][row]) for side in sides])
        return encoded


def encode_pairs(pairs: Dataset, word_tokenizer: WordTokenizer, include_special_tokens: bool = True) -> Dataset:
    """The rows that `PairEncoder` makes of linked pairs."""
    encoder, others = PairEncoder(word_tokenizer, include_special_tokens), pairs.column_names
    return pairs.map(
        encoder, batched=True, remove_columns=others, features=ROW_FEATURES, load_from_cache_file=False,
        desc="Tokenizing the pairs",
    )  # fmt: skip


@dataclass
class AlignmentCollator:
    """Pads encoded pairs into one batch, in which words and links are numbered from 0 to the last of the batch.

    Given rows of `encode_pairs`, a batch of B pairs with W_s source words, W_e English words and N links holds:

    - `source_input_ids`, `source_attention_mask` [B, L_s], and the same for `english` [B, L_e];
    - `source_word_ids` [B, L_s]: the word of the batch, 0 … W_s - 1, that a token represents, -1 for none;
      `source_word_lengths` [W_s]: how many tokens represent it; the same for `english`;
    - `links` [N, 2]: linked words, as numbers within the batch, source first;
    - `source_spelling`, `english_spelling` [N]: checksums of the linked words (-1: special tokens);
    - `source_sentence`, `english_sentence` [B]: checksums of the sentences' tokens;
    - of rows with a column `row`, this column [B];
    - with several languages, `pair_languages` [B] and `link_languages` [N]: the language of each sentence pair and of each
      link, as its place in `languages`.
    """

    pad_token_id: int
    pad_to_multiple_of: int | None = None  # of the lengths; 8 suits half-precision matrix units
    languages: Sequence[str] = ()  # if there are several: what the rows' column `language` can hold

    def __call__(self, pairs: Sequence[Mapping[str, list]]) -> dict[str, torch.Tensor]:
        batch: dict[str, torch.Tensor] = {}
        first_word = np.stack([self._pad(batch, side, pairs) for side in ("source", "english")], axis=1)
        links = [np.asarray(pair["links"], np.int64).reshape(-1, 2) for pair in pairs]
        batch["links"] = torch.from_numpy(np.concatenate(links) + np.repeat(first_word, list(map(len, links)), axis=0))
        for spelling in ("source_spelling", "english_spelling"):
            batch[spelling] = torch.from_numpy(np.concatenate([np.asarray(p[spelling], np.int64) for p in pairs]))
        if "row" in pairs[0]:
            batch["row"] = torch.tensor([pair["row"] for pair in pairs])
        if len(self.languages) > 1:
            batch["pair_languages"] = torch.tensor([self.languages.index(pair["language"]) for pair in pairs])
            batch["link_languages"] = batch["pair_languages"].repeat_interleave(torch.tensor(list(map(len, links))))
        return batch

    def _pad(self, batch: dict[str, torch.Tensor], side: str, pairs: Sequence[Mapping[str, list]]) -> np.ndarray:
        """Add one side's tensors to the batch; returns the number of the first word of each of its sentences."""
        lengths = np.array([len(pair[f"{side}_input_ids"]) for pair in pairs])
        multiple = self.pad_to_multiple_of or 1
        width = -(-int(lengths.max()) // multiple) * multiple
        real = np.arange(width) < lengths[:, None]
        ids = np.full(real.shape, self.pad_token_id, np.int64)
        ids[real] = np.concatenate([pair[f"{side}_input_ids"] for pair in pairs])
        words = np.full(real.shape, -1, np.int64)
        words[real] = np.concatenate([pair[f"{side}_word_ids"] for pair in pairs])
        words_in_sentence = words.max(axis=1) + 1
        first_word = np.cumsum(words_in_sentence) - words_in_sentence
        words = np.where(words < 0, -1, words + first_word[:, None])
        batch[f"{side}_input_ids"] = torch.from_numpy(ids)
        checksums = [zlib.crc32(row[length].tobytes()) for row, length in zip(ids, real)]
        batch[f"{side}_sentence"] = torch.tensor(checksums)
        batch[f"{side}_attention_mask"] = torch.from_numpy(real.astype(np.int64))
        batch[f"{side}_word_ids"] = torch.from_numpy(words)
        batch[f"{side}_word_lengths"] = torch.from_numpy(
            np.bincount(words[words >= 0], minlength=int(words_in_sentence.sum())).astype(np.float32)
        )
        return first_word


def first_pairs(batch: Mapping[str, torch.Tensor], n_pairs: int) -> dict[str, torch.Tensor]:
    """The first pairs of a batch of `AlignmentCollator`, with their words and links.

    Of a batch without any, the ids and masks of one pair stay, so that an encoder can pass over it. No loss counts it.
    """
    n_words = {}
    for side in ("source", "english"):
        words = batch[f"{side}_word_ids"][:n_pairs]
        n_words[side] = int(words.max()) + 1 if words.numel() else 0
    n_links = int((batch["links"][:, 0] < n_words["source"]).sum())
    n_rows = {"links": n_links, "link_languages": n_links}
    for side in ("source", "english"):
        n_rows |= {f"{side}_spelling": n_links, f"{side}_word_lengths": n_words[side]}
        n_rows |= {f"{side}_{name}": max(n_pairs, 1) for name in ("input_ids", "attention_mask", "word_ids")}
    first = {name: tensor[: n_rows.get(name, n_pairs)] for name, tensor in batch.items()}
    if not n_pairs:
        first |= {f"{side}_word_ids": torch.full_like(first[f"{side}_word_ids"], -1) for side in ("source", "english")}
    return first
