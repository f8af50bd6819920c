"""The adjustment itself: batches of linked words, the two losses, the two objectives.

Method: Efimov et al., ECIR 2023, section 3, after Cao et al., ICLR 2020, section 2.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import nn
from torch.utils.data import Sampler

from utils.tables import code_of
from utils.word_pooling import WordTokenizer, pool_words


OBJECTIVES = ("mse", "contrastive")

# The spelling recorded for the special tokens around a sentence; real words have a checksum, which is not negative.
SPECIAL_TOKEN = -1

# What `encode_pairs` makes: all that `AlignmentCollator` needs, and the lengths that batches can be grouped by.
COLUMNS = (
    "source_input_ids",
    "source_word_ids",
    "english_input_ids",
    "english_word_ids",
    "links",
    "source_spelling",
    "english_spelling",
    "length",
)
# What `utils.reference_vectors` adds, in one precision or the other: the frozen model's vectors, as bytes.
REFERENCE_COLUMNS = {"reference_float32": np.float32, "reference_float16": np.float16}


def encode_pairs(
    pairs: Dataset, word_tokenizer: WordTokenizer, include_special_tokens: bool = True, num_proc: int | None = None
) -> Dataset:
    """Tokenise linked pairs for `AlignmentCollator`.

    Args:
        pairs: columns `source` and `english` (lists of words) and `links` (lists of `[i, j]`: source word i and
            English word j).
        word_tokenizer: tokenises both sides.
        include_special_tokens: link the k-th special token of one side with the k-th of the other
            (`[CLS]`-`[CLS]`, `[SEP]`-`[SEP]`).
        num_proc: processes that share the work.

    Returns:
        Columns `source_input_ids`, `source_word_ids`, `english_input_ids`, `english_word_ids` (see
        `WordTokenizer`), `links` (indices into the words that have a vector), `source_spelling`,
        `english_spelling` (one checksum per link; -1 for special tokens) and `length` (tokens of source and English).
        A link of a word without vector, cut off or tokenised to nothing, is dropped.
    """
    return pairs.map(
        _encode_batch,
        batched=True,
        remove_columns=pairs.column_names,
        num_proc=num_proc,
        fn_kwargs={
            "word_tokenizer": word_tokenizer,
            "include_special_tokens": include_special_tokens,
            "code": code_of(_encode_batch, WordTokenizer),
        },
        desc="Tokenising the pairs",
    )


def _encode_batch(
    batch: Mapping[str, list],
    word_tokenizer: WordTokenizer,
    include_special_tokens: bool,
    code: str,  # (rows are cached under it)
) -> dict:
    sides = {side: word_tokenizer(batch[side]) for side in ("source", "english")}
    encoded: dict[str, list] = {"links": [], "source_spelling": [], "english_spelling": [], "length": []}
    for side, tokens in sides.items():
        encoded[f"{side}_input_ids"] = tokens["input_ids"]
        encoded[f"{side}_word_ids"] = tokens["word_ids"]
    n_before, n_after = len(word_tokenizer.prefix), len(word_tokenizer.suffix)
    for row, (source, english, links) in enumerate(zip(batch["source"], batch["english"], batch["links"])):
        source_vectors = {word: k for k, word in enumerate(sides["source"]["words"][row])}
        english_vectors = {word: k for k, word in enumerate(sides["english"]["words"][row])}
        kept = [(i, j) for i, j in links if i in source_vectors and j in english_vectors]
        spellings = [(zlib.crc32(source[i].encode()), zlib.crc32(english[j].encode())) for i, j in kept]
        if include_special_tokens:
            special = [(-1 - k, -1 - k) for k in range(n_before)]
            special += [(len(source) + k, len(english) + k) for k in range(n_after)]
            kept += special
            spellings += [(SPECIAL_TOKEN, SPECIAL_TOKEN)] * len(special)
        encoded["links"].append([[source_vectors[i], english_vectors[j]] for i, j in kept])
        encoded["source_spelling"].append([s for s, _ in spellings])
        encoded["english_spelling"].append([e for _, e in spellings])
        encoded["length"].append([len(sides[side]["input_ids"][row]) for side in sides])
    return encoded


@dataclass
class AlignmentCollator:
    """Pads encoded pairs into one batch in which words and links are numbered through.

    Given rows of `encode_pairs`, a batch of B pairs with W_s source words, W_e English words and N links holds:

    - `source_input_ids`, `source_attention_mask` [B, L_s], and the same for `english` [B, L_e];
    - `source_word_ids` [B, L_s]: the word of the batch, 0 … W_s - 1, that a token represents, -1 for none;
      `source_word_lengths` [W_s]: how many tokens represent it; the same for `english`;
    - `links` [N, 2]: linked words, as numbers within the batch, source first;
    - `source_spelling`, `english_spelling` [N]: checksums of the linked words (-1: special tokens);
    - `english_before` [W_e, dimensions], if the rows have it: the frozen model's vectors of the English words.

    Args:
        pad_token_id: the id that fills up `input_ids`.
        pad_to_multiple_of: round lengths up (8 suits half-precision matrix units).
    """

    pad_token_id: int
    pad_to_multiple_of: int | None = None

    def __call__(self, pairs: Sequence[Mapping[str, list]]) -> dict[str, torch.Tensor]:
        batch: dict[str, torch.Tensor] = {}
        first_words = {}
        for side in ("source", "english"):
            first_words[side] = self._pad(batch, side, pairs)
        links = [np.asarray(pair["links"], np.int64).reshape(-1, 2) for pair in pairs]
        first_word = np.stack([first_words["source"], first_words["english"]], axis=1)
        batch["links"] = torch.from_numpy(
            np.concatenate(links) + np.repeat(first_word, [len(rows) for rows in links], axis=0)
        )
        for spelling in ("source_spelling", "english_spelling"):
            batch[spelling] = torch.from_numpy(np.concatenate([np.asarray(p[spelling], np.int64) for p in pairs]))
        for column, dtype in REFERENCE_COLUMNS.items():
            if column in pairs[0]:
                stored = bytearray().join(pair[column] for pair in pairs)
                vectors = np.frombuffer(stored, dtype).reshape(len(batch["english_word_lengths"]), -1)
                batch["english_before"] = torch.from_numpy(vectors)
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
        batch[f"{side}_attention_mask"] = torch.from_numpy(real.astype(np.int64))
        batch[f"{side}_word_ids"] = torch.from_numpy(words)
        batch[f"{side}_word_lengths"] = torch.from_numpy(
            np.bincount(words[words >= 0], minlength=int(words_in_sentence.sum())).astype(np.float32)
        )
        return first_word


class LengthGroupedBatches(Sampler[int]):
    """Random order in which neighbours are of like length, so that batches need little padding.

    Pairs are shuffled; every block of `batches_per_block` batches is divided into batches by halving it again and again,
    each time by the length of whichever side leaves less padding; and the batches of a block are shuffled. The order
    depends on seed and epoch alone, so that a run that is resumed in the middle of an epoch goes on in it
    (`LengthGroupedSampler` of transformers draws a new one).

    Args:
        lengths: [pairs, 2], tokens of both sides; or [examples].
        batch_size: pairs in an optimizer step, over all processes and accumulated batches.
        seed: of the run.
        batches_per_block: how far the grouping reaches; more means less padding and less randomness.
    """

    def __init__(self, lengths: Sequence, batch_size: int, seed: int, batches_per_block: int = 200) -> None:
        self.lengths = np.asarray(lengths)
        if self.lengths.ndim == 1:
            self.lengths = self.lengths[:, None]
        self.batch_size = batch_size
        self.seed = seed
        self.block = batch_size * batches_per_block
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Trainer before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng((self.seed, self.epoch))
        order = random.permutation(len(self.lengths))
        for begin in range(0, len(order), self.block):
            block = order[begin : begin + self.block]
            n_whole = len(block) // self.batch_size * self.batch_size
            batches = self._batches(block[:n_whole])
            for number in random.permutation(len(batches)):
                yield from batches[number].tolist()
            # What is left over stays at the end, lest batches no longer begin where they were made.
            yield from block[n_whole:].tolist()

    def _batches(self, block: np.ndarray) -> list[np.ndarray]:
        """A block of whole batches, divided."""
        n_batches = len(block) // self.batch_size
        if n_batches < 2:
            return [block] if n_batches else []
        middle = n_batches // 2 * self.batch_size
        halves = []
        for lengths in self.lengths[block].T:
            longest_first = block[np.argsort(-lengths, kind="stable")]
            halves.append((longest_first[:middle], longest_first[middle:]))
        longer, shorter = min(halves, key=lambda parts: sum(map(self._padded, parts)))
        return self._batches(longer) + self._batches(shorter)

    def _padded(self, pairs: np.ndarray) -> int:
        """Tokens of these pairs, if all were padded to the longest."""
        return len(pairs) * int(self.lengths[pairs].max(axis=0).sum())


class AlignmentObjective(Protocol):
    """How far apart the two ends of each link are. One value per link, so that the caller chooses the mean."""

    def __call__(
        self,
        source: torch.Tensor,
        english: torch.Tensor,
        source_spelling: torch.Tensor,
        english_spelling: torch.Tensor,
    ) -> torch.Tensor:
        """Losses [N] of N links from their word vectors [N, dimensions] and the words' checksums [N]."""
        ...


class MeanSquaredError:
    """The paper's objective: the squared difference of the linked vectors, averaged over dimensions.

    Efimov et al. (2023), eq. 1; Cao et al. (2020), eq. 2 (there summed over dimensions).
    """

    def __call__(
        self,
        source: torch.Tensor,
        english: torch.Tensor,
        source_spelling: torch.Tensor,
        english_spelling: torch.Tensor,
    ) -> torch.Tensor:
        return (source - english).square().mean(dim=1)


@dataclass
class ContrastiveObjective:
    """InfoNCE over the linked words of the batch, in both directions.

    The linked word has to be told from every other linked word of the batch by its cosine similarity. A candidate
    spelt like the right one is no negative: the same word in another sentence should not be pushed away. The
    negatives are those of one forward pass: they are not gathered over processes or accumulated batches.
    This kind of realignment: Wu and Dredze (EMNLP 2020), Gaschi et al. (ACL 2023).

    Args:
        temperature: divides the similarities.
    """

    temperature: float = 0.1

    def __call__(
        self,
        source: torch.Tensor,
        english: torch.Tensor,
        source_spelling: torch.Tensor,
        english_spelling: torch.Tensor,
    ) -> torch.Tensor:
        similarity = F.normalize(source, dim=1) @ F.normalize(english, dim=1).T / self.temperature
        right = torch.arange(len(source), device=source.device)
        to_english = _mask_same_spelling(similarity, english_spelling)
        to_source = _mask_same_spelling(similarity.T, source_spelling)
        losses = F.cross_entropy(to_english, right, reduction="none")
        return (losses + F.cross_entropy(to_source, right, reduction="none")) / 2


def _mask_same_spelling(similarity: torch.Tensor, spelling: torch.Tensor) -> torch.Tensor:
    """Take candidates spelt like the right one, which stays on the diagonal, out of the competition."""
    same = spelling.unsqueeze(0) == spelling.unsqueeze(1)
    return similarity.masked_fill(same.fill_diagonal_(False), float("-inf"))


def alignment_objective(name: str, temperature: float = 0.1) -> AlignmentObjective:
    """The objective that `--alignment_objective` names."""
    return ContrastiveObjective(temperature) if name == "contrastive" else MeanSquaredError()


def hidden_states_at(
    model: nn.Module, input_ids: torch.Tensor, attention_mask: torch.Tensor, layers: Sequence[int]
) -> list[torch.Tensor]:
    """Hidden states of an encoder at some layers, [batch, length, dimensions] each.

    A layer is an index into `hidden_states`: 0 the embeddings, -1 the last layer.
    """
    if list(layers) == [-1]:
        return [model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state]
    states = model(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True).hidden_states
    return [states[layer] for layer in layers]


@dataclass
class AlignmentTerms:
    """Both losses of a batch as sums, with the counts that make means of them.

    Sums, so that the mean can be taken over more than this batch: over processes and accumulated batches.
    """

    alignment: torch.Tensor  # scalar: sum over links
    regularization: torch.Tensor  # scalar: sum over English words
    n_links: int
    n_words: int


class AlignmentLoss:
    """`alignment_loss` and `regularization_loss` of a batch of `AlignmentCollator`.

    Args:
        objective: compares linked words.
        reference_model: the encoder as it was before adjustment (f0): frozen here, never trained or saved. Or what stands
            for it: `utils.adapters.AdapterOff`.
        layer: which hidden state the words are pooled from.
    """

    def __init__(self, objective: AlignmentObjective, reference_model: Callable, layer: int = -1) -> None:
        self.objective = objective
        self.reference_model = reference_model
        if isinstance(reference_model, nn.Module):
            reference_model.eval().requires_grad_(False)
        self.layer = layer

    def to(self, device: torch.device) -> None:
        """Move the reference model, if it is one of its own."""
        if isinstance(self.reference_model, nn.Module):
            self.reference_model.to(device)

    def __call__(
        self,
        model: nn.Module,
        batch: Mapping[str, torch.Tensor],
        autocast: Callable[[], AbstractContextManager] = nullcontext,
        alignment: bool = True,
        regularization: bool = True,
    ) -> AlignmentTerms:
        """The two sums for an encoder `model` (f): gradients reach it from both sides of a link.

        Args:
            model: the encoder.
            batch: of `AlignmentCollator`. If it has `english_before`, the reference model is spared.
            autocast: context of the encoders' passes (mixed precision); the losses are computed in fp32.
            alignment, regularization: which of the two is wanted. The passes that only the other one needs are spared,
                and its sum is 0.
        """
        source = before = None
        with autocast():
            if alignment:
                source = word_vectors(model, batch, "source", [self.layer])[0]
            english = word_vectors(model, batch, "english", [self.layer])[0]
            if regularization and "english_before" in batch:
                before = batch["english_before"].float()
            elif regularization:
                with torch.no_grad():
                    before = word_vectors(self.reference_model, batch, "english", [self.layer])[0]
        return self.compare(source, english, before, batch)

    def compare(
        self,
        source: torch.Tensor | None,
        english: torch.Tensor,
        before: torch.Tensor | None,
        batch: Mapping[str, torch.Tensor],
    ) -> AlignmentTerms:
        """The two sums from the word vectors [words, dimensions] of source (f), English (f) and English (f0).

        Without source vectors, or those of before, the sum that needs them is 0.
        """
        links = batch["links"]
        aligned = drift = english.new_zeros(())
        if source is not None:
            ends = source[links[:, 0]], english[links[:, 1]]
            aligned = self.objective(*ends, batch["source_spelling"], batch["english_spelling"]).sum()
        if before is not None:
            drift = (english - before).square().mean(dim=1).sum()
        return AlignmentTerms(aligned, drift, len(links), len(english))


@dataclass
class ContinualAlignment:
    """What `ContinualTrainer` keeps beside a task: pairs, losses, how much they count and how often.

    The weights and the batch of Efimov et al. (2023), section 3, are the defaults.

    Args:
        pairs: rows of `encode_pairs`.
        loss: objective, frozen reference model (f0: the encoder *before any adjustment*) and layer.
        collator: makes batches of the rows.
        alignment_weight, regularization_weight: of the two losses, beside 1 for the task loss. What has weight 0 is
            not computed.
        batch_size: pairs beside every optimizer step, over all processes and accumulated batches.
        every: take part in every N-th optimizer step only.
        seed: of the draw, which is independent of all other random numbers.
    """

    pairs: Dataset
    loss: AlignmentLoss
    collator: AlignmentCollator
    alignment_weight: float = 0.01
    regularization_weight: float = 1.0
    batch_size: int = 16
    every: int = 1
    seed: int = 42

    @property
    def weights(self) -> dict[str, float]:
        """The losses that count, by name, with their weights."""
        weights = {"alignment_loss": self.alignment_weight, "regularization_loss": self.regularization_weight}
        return {name: weight for name, weight in weights.items() if weight}

    def n_draws(self, n_steps: int) -> int:
        """How many pairs are drawn in so many optimizer steps."""
        return -(-n_steps // self.every) * self.batch_size

    def is_due(self, step: int) -> bool:
        """Whether the optimizer step with this number, from 0, has a batch of pairs beside it."""
        return step % self.every == 0 and bool(self.weights)

    def batches(self, step: int, n_shares: int, shares: Sequence[int]) -> list[dict[str, torch.Tensor] | None]:
        """Some of the shares into which the pairs of an optimizer step are divided; None for one without pairs.

        The pairs are drawn at random, with replacement, by seed and step alone: a resumed run draws what the
        uninterrupted one would have, and several processes together what one would.
        """
        drawn = np.random.default_rng((self.seed, step)).integers(len(self.pairs), size=self.batch_size)
        batches = []
        for share in shares:
            columns = self.pairs[drawn[share::n_shares]]
            rows = [dict(zip(columns, values)) for values in zip(*columns.values())]
            batches.append(self.collator(rows) if rows else None)
        return batches


def word_vectors(
    model: nn.Module, batch: Mapping[str, torch.Tensor], side: str, layers: Sequence[int]
) -> list[torch.Tensor]:
    """The vectors [words, dimensions], fp32, of one side's words at each of the layers."""
    states = hidden_states_at(model, batch[f"{side}_input_ids"], batch[f"{side}_attention_mask"], layers)
    word_ids, word_lengths = batch[f"{side}_word_ids"], batch[f"{side}_word_lengths"]
    return [pool_words(state, word_ids, word_lengths) for state in states]
