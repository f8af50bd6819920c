"""The two losses of the method: alignment and regularization.

Efimov et al., ECIR 2023, section 3, after Cao et al., ICLR 2020, section 2."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from utils.alignment.objectives import AlignmentObjective
from utils.alignment.words import word_vectors


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
            for it: `utils.models.adapters.AdapterOff`.
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
