"""Continual alignment: the parallel pairs that are drawn beside the batches of a task."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset

from utils.alignment.language_sampling import BY_SIZE, LanguageSampling
from utils.alignment.losses import AlignmentLoss
from utils.alignment.pairs import AlignmentCollator
from utils.core.columns import column_array


@dataclass
class ContinualAlignment:
    """The pairs and losses that `ContinualTrainer` keeps beside a task (Efimov et al., 2023, section 3)."""

    pairs: Dataset  # rows of `encode_pairs`
    loss: AlignmentLoss  # its weights are beside 1 for the task loss; f0 is the encoder *before any adjustment*
    collator: AlignmentCollator
    batch_size: int = 16  # pairs in an optimizer step, over all processes and accumulated batches
    every: int = 1  # only every N-th optimizer step has pairs
    seed: int = 42  # of the draw of pairs, which is independent of all other random numbers
    gradients_every: int | None = None  # log how the gradients of the losses compare at every N-th optimizer step
    sampling: LanguageSampling = BY_SIZE  # how often pairs of each of the collator's languages are drawn

    def __post_init__(self) -> None:
        if self.sampling.name != "size":
            of_pairs = column_array(self.pairs, "language")
            self._pairs_of = [np.flatnonzero(of_pairs == language) for language in self.collator.languages]

    def is_due(self, step: int) -> bool:
        """Whether an optimizer step, numbered from 0, has pairs."""
        return step % self.every == 0 and bool(self.loss.weights.losses())

    def measures_gradients(self, step: int) -> bool:
        """Whether the gradients of the losses are compared in an optimizer step: every N-th one, if it has pairs."""
        return bool(self.gradients_every) and step % (self.gradients_every or 1) == 0 and self.is_due(step)

    def batches(self, step: int, n_shares: int, shares: Sequence[int]) -> list[dict[str, torch.Tensor] | None]:
        """The batches numbered `shares` among the `n_shares` (processes × accumulated batches) of an optimizer step.

        The pairs are drawn at random, with replacement, by seed and step (from 0) alone: a resumed run draws the same pairs
        as an uninterrupted one, and several processes together the same as one. A batch without pairs is None.
        """
        drawn = self._draw(np.random.default_rng((self.seed, step)))
        batches = []
        for share in shares:
            columns = self.pairs[drawn[share::n_shares]]
            rows = [dict(zip(columns, values)) for values in zip(*columns.values())]
            batches.append(self.collator(rows) if rows else None)
        return batches

    def _draw(self, random: np.random.Generator) -> np.ndarray:
        """The pairs of a step: any of them, or first a language for each."""
        if self.sampling.name == "size":
            return random.integers(len(self.pairs), size=self.batch_size)
        sizes = np.array(list(map(len, self._pairs_of)))
        languages = random.choice(len(sizes), size=self.batch_size, p=self.sampling.shares(sizes))
        return np.array([self._pairs_of[language][random.integers(sizes[language])] for language in languages])
