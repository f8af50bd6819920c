"""Batches of examples of similar length, in random order."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler


class LengthGroupedBatches(Sampler[int]):
    """Random order in which neighbours have similar lengths, so that batches need little padding.

    Pairs are shuffled; every block of `batches_per_block` batches is divided into batches by halving it recursively,
    each time by the length of the side that leaves less padding; and the batches of a block are shuffled. The order
    depends on seed and epoch alone, so a run that is resumed in the middle of an epoch continues in the same order
    (`LengthGroupedSampler` of transformers draws a new one).

    Args:
        lengths: [pairs, 2], tokens of both sides; or [examples].
        batch_size: pairs in an optimizer step, over all processes and accumulated batches.
        batches_per_block: more means less padding and less randomness.
    """

    def __init__(
        self, lengths: Sequence | np.ndarray, batch_size: int, seed: int, batches_per_block: int = 200
    ) -> None:
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
