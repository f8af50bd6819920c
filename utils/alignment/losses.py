"""The two losses of the method: alignment and regularization.

Efimov et al., ECIR 2023, section 3, after Cao et al., ICLR 2020, section 2."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from utils.alignment.objectives import ADJUSTMENT, AlignmentObjective, LossWeights
from utils.alignment.words import Batch, word_vectors


@dataclass
class AlignmentTerms:
    """Both losses of a batch as sums, so that means can be taken over several processes and accumulated batches."""

    alignment: torch.Tensor  # scalar: sum over links
    regularization: torch.Tensor  # scalar: sum over English words
    n_links: int
    n_words: int
    link_losses: torch.Tensor | None = None  # [links]: the terms of the first sum, if it was computed

    def means(self, counts: torch.Tensor | None = None, n_processes: int = 1) -> dict[str, torch.Tensor]:
        """Both losses by name: this batch's shares of the means over the global batch.

        `counts` [2] are the links and English words of the global batch; by default this batch is the whole. Distributed
        training averages gradients over processes: shares are multiplied by `n_processes`, so that their sum is the mean.
        """
        if counts is None:
            counts, n_processes = self.alignment.new_tensor([self.n_links, self.n_words]), 1
        n_links, n_words = counts.clamp(min=1).unbind()
        return {
            "alignment_loss": self.alignment * n_processes / n_links,
            "regularization_loss": self.regularization * n_processes / n_words,
        }


@dataclass
class AlignmentLoss:
    """`alignment_loss` and `regularization_loss` of a batch of `AlignmentCollator`."""

    objective: AlignmentObjective
    # The encoder before adjustment (f0): a module, which is frozen here and never trained or saved, or a function that is
    # called like one (`utils.models.adapters.without_adapter`).
    reference_model: Callable
    # The hidden states from which word vectors are pooled, as indices into `hidden_states`, the highest one last. Both
    # losses are means over them.
    layers: Sequence[int] = (-1,)
    weights: LossWeights = ADJUSTMENT

    def __post_init__(self) -> None:
        if isinstance(self.reference_model, nn.Module):
            self.reference_model.eval().requires_grad_(False)

    def to(self, device: torch.device) -> None:
        """Move the reference model, if it is a module."""
        if isinstance(self.reference_model, nn.Module):
            self.reference_model.to(device)

    def __call__(
        self, model: nn.Module, batch: Batch, autocast: Callable[[], AbstractContextManager] = nullcontext
    ) -> AlignmentTerms:
        """The two sums for an encoder `model` (f). Gradients reach it from both ends of a link.

        A sum of weight 0 is 0, and the passes that only it needs are not made. `autocast` is the context of the encoders'
        passes (mixed precision); the losses are computed in fp32.
        """
        source: list[torch.Tensor] = []
        before: list[torch.Tensor] = []
        with autocast():
            if self.weights.alignment:
                source = word_vectors(model, batch, "source", self.layers)
            english = word_vectors(model, batch, "english", self.layers)
            if self.weights.regularization:
                with torch.no_grad():
                    before = word_vectors(self.reference_model, batch, "english", self.layers)
        return self.compare(source, english, before, batch)

    def compare(
        self,
        source: Sequence[torch.Tensor],
        english: Sequence[torch.Tensor],
        before: Sequence[torch.Tensor],
        batch: Batch,
    ) -> AlignmentTerms:
        """The two sums from word vectors [words, dimensions] at each layer: source (f), English (f), and English before (f0).

        Without source vectors, or those of f0, the sum that needs them is 0.
        """
        links = batch["links"]
        aligned = drift = english[0].new_zeros(())
        losses = None
        if source:
            spelling = batch["source_spelling"], batch["english_spelling"]
            ends = [(theirs[links[:, 0]], ours[links[:, 1]]) for theirs, ours in zip(source, english)]
            losses = torch.stack([self.objective(*both, *spelling) for both in ends]).mean(dim=0)
            aligned = losses.sum()
        if before:
            drifts = [(now - then).square().mean(dim=1).sum() for now, then in zip(english, before)]
            drift = torch.stack(drifts).mean()
        return AlignmentTerms(aligned, drift, len(links), len(english[0]), losses)
