"""Continual alignment: the parallel pairs that are drawn beside the batches of a task."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset

from utils.alignment.losses import AlignmentLoss
from utils.alignment.pairs import AlignmentCollator


@dataclass
class ContinualAlignment:
    """The pairs and losses that `ContinualTrainer` keeps beside a task.

    The defaults are those of Efimov et al. (2023), section 3.

    Args:
        pairs: rows of `encode_pairs`.
        loss: objective, frozen reference model (f0: the encoder *before any adjustment*), layer and weights of the losses,
            beside 1 for the task loss.
        collator: makes batches of the rows.
        batch_size: pairs in an optimizer step, over all processes and accumulated batches.
        every: have pairs in every N-th optimizer step only.
        seed: of the draw of pairs, which is independent of all other random numbers.
    """

    pairs: Dataset
    loss: AlignmentLoss
    collator: AlignmentCollator
    batch_size: int = 16
    every: int = 1
    seed: int = 42

    def is_due(self, step: int) -> bool:
        """Whether an optimizer step, numbered from 0, has pairs."""
        return step % self.every == 0 and bool(self.loss.weights.losses())

    def batches(self, step: int, n_shares: int, shares: Sequence[int]) -> list[dict[str, torch.Tensor] | None]:
        """Batches of the pairs of an optimizer step, which are divided into `n_shares` (processes × accumulated batches).

        The pairs are drawn at random, with replacement, by seed and step alone: a resumed run draws the same pairs as an
        uninterrupted one, and several processes together the same as one.

        Args:
            step: number of the optimizer step, from 0.
            n_shares: into how many batches the pairs are divided.
            shares: numbers of the batches that are wanted.

        Returns:
            One batch of `AlignmentCollator` for each of `shares`; None if it has no pairs.
        """
        drawn = np.random.default_rng((self.seed, step)).integers(len(self.pairs), size=self.batch_size)
        batches = []
        for share in shares:
            columns = self.pairs[drawn[share::n_shares]]
            rows = [dict(zip(columns, values)) for values in zip(*columns.values())]
            batches.append(self.collator(rows) if rows else None)
        return batches
