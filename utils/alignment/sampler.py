"""Batches of examples of similar length, in random order, from languages in given shares."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from torch.utils.data import Sampler

from utils.alignment.language_sampling import LanguageBandit


class LengthGroupedBatches(Sampler[int]):
    """Random order in which neighbors have similar lengths, so that batches need little padding.

    Pairs are shuffled; every block of `batches_per_block` batches is divided into batches by halving it recursively,
    each time by the length of the side that leaves less padding; and the batches of a block are shuffled. The order
    depends on seed and epoch alone, so a run that is resumed in the middle of an epoch continues in the same order
    (`LengthGroupedSampler` of transformers draws a new one).

    Args:
        lengths: [pairs, 2], tokens of both sides; or [examples].
        batch_size: pairs in an optimizer step, over all processes and accumulated batches.
        batches_per_block: more means less padding and less randomness; 1 is a plain shuffle.
    """

    def __init__(
        self, lengths: Sequence | np.ndarray, batch_size: int, seed: int, batches_per_block: int = 200
    ) -> None:
        self.lengths = np.asarray(lengths)
        if self.lengths.ndim == 1:
            self.lengths = self.lengths[:, None]
        self.batch_size = batch_size
        self.seed = seed
        self.batches_per_block = batches_per_block
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Trainer before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng((self.seed, self.epoch))
        return self._grouped(self._shuffled(random), random)

    def _shuffled(self, random: np.random.Generator) -> np.ndarray:
        """The pairs of an epoch in random order."""
        return random.permutation(len(self.lengths))

    def _grouped(self, order: np.ndarray, random: np.random.Generator) -> Iterator[int]:
        """Pairs in an order in which those of a batch have similar lengths."""
        block_size = self.batch_size * self.batches_per_block
        for begin in range(0, len(order), block_size):
            block = order[begin : begin + block_size]
            n_whole = len(block) // self.batch_size * self.batch_size
            batches = self._batches(block[:n_whole])
            for number in random.permutation(len(batches)):
                yield from batches[number].tolist()
            # The remainder stays at the end: in the middle it would shift the batches after it.
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


class MixedLanguages(LengthGroupedBatches):
    """The same, with languages in given shares, mixed in every batch.

    An epoch has as many pairs as there are: those of languages with a larger share than their size repeat, of the others
    some are left out, other ones in every epoch. A language's pairs are passed through in random order again and again. A
    block is no longer than half a pass: copies of a pair have one length, so all those of a block come into one batch.

    Args:
        languages: [pairs], the number of the language of each.
        shares: [languages], which sum to 1.
    """

    def __init__(self, *args, languages: np.ndarray, shares: np.ndarray, **kwargs) -> None:  # noqa: ANN002, ANN003
        super().__init__(*args, **kwargs)
        self.pairs_of = [np.flatnonzero(languages == language) for language in range(len(shares))]
        bounds = np.rint(len(self.lengths) * np.cumsum(shares)).astype(int)
        self.counts = np.diff(bounds, prepend=0)
        shortest_pass = min(len(pairs) / share for pairs, share in zip(self.pairs_of, shares))
        self.batches_per_block = max(1, min(self.batches_per_block, int(shortest_pass / 2) // self.batch_size))

    def _shuffled(self, random: np.random.Generator) -> np.ndarray:
        languages = random.permutation(np.repeat(np.arange(len(self.counts)), self.counts))
        order = np.empty(len(languages), np.int64)
        for language, (pairs, count) in enumerate(zip(self.pairs_of, self.counts)):
            order[languages == language] = _passes(pairs, count, random)
        return order


class OneLanguageAtATime(LengthGroupedBatches):
    """Batches of one language each, which a bandit chooses batch by batch.

    Each language has an endless sequence of batches that depends on the seed alone: its pairs are shuffled and grouped by
    length, again and again. An epoch has as many pairs as there are.

    Args:
        languages: [pairs], the number of the language of each.
        bandit: its draws so far are repeated, others are made when the batch is asked for.
    """

    def __init__(self, *args, languages: np.ndarray, bandit: LanguageBandit, **kwargs) -> None:  # noqa: ANN002, ANN003
        super().__init__(*args, **kwargs)
        self.pairs_of = [np.flatnonzero(languages == language) for language in range(len(bandit.shares))]
        self.bandit = bandit
        self._round = lru_cache(maxsize=len(self.pairs_of))(self._make_round)

    def __iter__(self) -> Iterator[int]:
        n_steps = -(-len(self) // self.batch_size)
        first = self.epoch * n_steps
        n_drawn = [self.bandit.drawn[:first].count(language) for language in range(len(self.pairs_of))]
        for step in range(n_steps):
            language = self.bandit.language(first + step)
            batch = self._batch(language, n_drawn[language])
            n_drawn[language] += 1
            yield from batch[: len(self) - step * self.batch_size].tolist()

    def _batch(self, language: int, number: int) -> np.ndarray:
        """The batch with a number, from 0, in the sequence of a language."""
        n_batches = -(-len(self.pairs_of[language]) // self.batch_size)
        begin = number % n_batches * self.batch_size
        return self._round(language, number // n_batches)[begin : begin + self.batch_size]

    def _make_round(self, language: int, number: int) -> np.ndarray:
        """All pairs of a language as whole batches; for the last one some are taken twice."""
        random = np.random.default_rng((self.seed, language, number))
        pairs = self.pairs_of[language]
        n_pairs = -(-len(pairs) // self.batch_size) * self.batch_size
        return np.fromiter(self._grouped(_passes(pairs, n_pairs, random), random), np.int64, n_pairs)


def _passes(pairs: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """This many of the pairs: all of them in random order, and again, until there are enough."""
    n_passes = -(-count // len(pairs))
    return np.concatenate([random.permutation(pairs) for _ in range(n_passes)] or [pairs])[:count]
