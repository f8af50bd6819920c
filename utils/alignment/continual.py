"""Parallel pairs beside a task: what continual learning draws and how much it counts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset

from utils.alignment.losses import AlignmentLoss
from utils.alignment.pairs import AlignmentCollator


@dataclass
class ContinualAlignment:
    """What `ContinualTrainer` keeps beside a task: pairs, losses, how much they count and how often.

    The defaults are those of Efimov et al. (2023), section 3.

    Args:
        pairs: rows of `encode_pairs`.
        loss: objective, frozen reference model (f0: the encoder *before any adjustment*), layer and weights of the losses,
            beside 1 for the task loss.
        collator: makes batches of the rows.
        batch_size: pairs beside every optimizer step, over all processes and accumulated batches.
        every: take part in every N-th optimizer step only.
        seed: of the draw, which is independent of all other random numbers.
    """

    pairs: Dataset
    loss: AlignmentLoss
    collator: AlignmentCollator
    batch_size: int = 16
    every: int = 1
    seed: int = 42

    def n_draws(self, n_steps: int) -> int:
        """How many pairs are drawn in so many optimizer steps."""
        return -(-n_steps // self.every) * self.batch_size

    def is_due(self, step: int) -> bool:
        """Whether the optimizer step with this number, from 0, has a batch of pairs beside it."""
        return step % self.every == 0 and bool(self.loss.weights.losses())

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
