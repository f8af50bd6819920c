"""The losses of the method: alignment, of words or sentences, and regularization.

Efimov et al., ECIR 2023, section 3, after Cao et al., ICLR 2020, section 2; sentences after Nguyen, Gaschi et al., 2025."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from utils.alignment.negatives import Ends, EndsByLoss, PartOfStep, parts_of_step
from utils.alignment.objectives import ADJUSTMENT, AlignmentObjective, LossWeights
from utils.alignment.sentences import mean_of_tokens
from utils.alignment.words import Batch, pool_words
from utils.models.layers import hidden_states_at


class SideVectors(NamedTuple):
    """The vectors, fp32, of one side of a batch by layer: of words [words, dimensions] and of sentences [pairs, dimensions]."""

    words: list[Tensor]
    sentences: list[Tensor]

    def of_first(self, n_layers: int) -> "SideVectors":
        """Those of the first layers."""
        return SideVectors(self.words[:n_layers], self.sentences[:n_layers])


def side_vectors(
    model: Callable, batch: Batch, side: str, layers: Sequence[int], words: bool = True, sentences: bool = False
) -> SideVectors:
    """The vectors of one side, in one pass of an encoder; none of what is not wanted."""
    mask = batch[f"{side}_attention_mask"]
    states = hidden_states_at(model, batch[f"{side}_input_ids"], mask, layers)
    n_pairs = len(batch[f"{side}_sentence"])  # (there may be one more row, see `first_pairs`)
    word_ids, word_lengths = batch[f"{side}_word_ids"], batch[f"{side}_word_lengths"]
    return SideVectors(
        [pool_words(state, word_ids, word_lengths) for state in states] if words else [],
        [mean_of_tokens(state, mask.bool())[:n_pairs] for state in states] if sentences else [],
    )


def count_terms(batches: Iterable[Batch]) -> list[int]:
    """What the losses of batches are means over: links, English words, sentence pairs."""
    batches = list(batches)
    return [sum(len(b[name]) for b in batches) for name in ("links", "english_word_lengths", "source_sentence")]


@dataclass
class AlignmentTerms:
    """The losses of a batch as sums, so that means can be taken over several processes and accumulated batches."""

    alignment: Tensor  # scalar: sum over links
    regularization: Tensor  # scalar: sum over English words
    sentence: Tensor  # scalar: sum over sentence pairs
    counts: Sequence[int]  # links, English words, sentence pairs
    link_losses: Tensor | None = None  # [links]: the terms of the first sum, if it was computed
    sentence_losses: Tensor | None = None  # [pairs], the same of the third

    def sums(self) -> dict[str, Tensor]:
        """The sums by the names of the losses, in the order of `counts`."""
        return {
            "alignment_loss": self.alignment,
            "regularization_loss": self.regularization,
            "sentence_loss": self.sentence,
        }

    def means(self, counts: Tensor | None = None, n_processes: int = 1) -> dict[str, Tensor]:
        """The losses by name: this batch's shares of the means over the global batch.

        `counts` are the links, English words and, if they are aligned, sentence pairs of the global batch; by default this
        batch is the whole. Distributed training averages gradients over processes: shares are multiplied by `n_processes`,
        so that their sum is the mean.
        """
        if counts is None:
            counts, n_processes = self.alignment.new_tensor(self.counts), 1
        return {name: loss * n_processes / n for (name, loss), n in zip(self.sums().items(), counts.clamp(min=1))}


@dataclass
class AlignmentLoss:
    """`alignment_loss`, `sentence_loss` and `regularization_loss` of a batch of `AlignmentCollator`."""

    objective: AlignmentObjective
    # The encoder before adjustment (f0): a module, which is frozen here and never trained or saved, or a function that is
    # called like one (`utils.models.adapters.without_adapter`).
    reference_model: Callable
    # The hidden states from which vectors are pooled, as indices into `hidden_states`, the highest one last. All losses are
    # means over them.
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
        self,
        model: nn.Module,
        batch: Batch,
        autocast: Callable[[], AbstractContextManager] = nullcontext,
        part: PartOfStep | None = None,
    ) -> AlignmentTerms:
        """The sums for an encoder `model` (f). Gradients reach it from both ends of a link.

        A sum of weight 0 is 0, and the passes that only it needs are not made. `autocast` is the context of the encoders'
        passes (mixed precision); the losses are computed in fp32. `part` (of `parts`) is what the objective needs to know
        of the other batches of the same optimizer step.
        """
        before: list[Tensor] = []
        with autocast():
            with part.same_dropout() if part else nullcontext():
                source, english = self._sides(model, batch)
            if self.weights.regularization:
                with torch.no_grad():
                    before = side_vectors(self.reference_model, batch, "english", self.layers).words
        return self.compare(source, english, before, batch, part)

    def parts(
        self, model: nn.Module, batches: Sequence[Batch | None], accelerator: Accelerator, all_have_pairs: bool = True
    ) -> list[PartOfStep | None]:
        """By batch of an optimizer step on this process, what it needs of the others: see `parts_of_step`."""
        if not self.objective.has_negatives or not (self.weights.alignment or self.weights.sentence):
            return [None] * len(batches)
        model.train()

        def ends_of(batch: Batch) -> EndsByLoss:
            with accelerator.autocast():
                source, english = self._sides(model, batch)
            return self._ends(source, english, batch)

        return parts_of_step(ends_of, batches, accelerator, all_have_pairs)

    def _sides(self, model: Callable, batch: Batch) -> tuple[SideVectors, SideVectors]:
        """The vectors of source and English that the losses need."""
        words, sentences = bool(self.weights.alignment), bool(self.weights.sentence)
        source = SideVectors([], [])
        if words or sentences:
            source = side_vectors(model, batch, "source", self.layers, words, sentences)
        of_english = words or bool(self.weights.regularization)
        return source, side_vectors(model, batch, "english", self.layers, of_english, sentences)

    def _ends(self, source: SideVectors, english: SideVectors, batch: Batch) -> EndsByLoss:
        """The pairs that each alignment loss compares."""
        links, ends = batch["links"], {}
        if source.words:
            ours = [words[links[:, 0]] for words in source.words]
            theirs = [words[links[:, 1]] for words in english.words]
            ends["alignment_loss"] = Ends(ours, theirs, batch["source_spelling"], batch["english_spelling"])
        if source.sentences:
            checksums = batch["source_sentence"], batch["english_sentence"]
            ends["sentence_loss"] = Ends(source.sentences, english.sentences, *checksums)
        return ends

    def compare(
        self,
        source: SideVectors,
        english: SideVectors,
        before: Sequence[Tensor],
        batch: Batch,
        part: PartOfStep | None = None,
    ) -> AlignmentTerms:
        """The sums from vectors at each layer: source (f), English (f), and English words before (f0).

        Without vectors of the source, or of f0, the sums that need them are 0.
        """
        ends = self._ends(source, english, batch)
        others = part.of_others(ends) if part else []
        sums: dict[str, Tensor] = {}
        losses: dict[str, Tensor] = {}
        for name, own in ends.items():
            losses[name], sums[name] = self._losses(own, [of_batch[name] for of_batch in others if of_batch])
        drifts = [(now - then).square().mean(dim=1).sum() for now, then in zip(english.words, before)]
        zero = batch["english_word_lengths"].new_zeros(())
        return AlignmentTerms(
            sums.get("alignment_loss", zero),
            torch.stack(drifts).mean() if drifts else zero,
            sums.get("sentence_loss", zero),
            count_terms([batch]),
            losses.get("alignment_loss"),
            losses.get("sentence_loss"),
        )

    def _losses(self, own: Ends, others: Sequence[Ends]) -> tuple[Tensor, Tensor]:
        """The losses [N] of a batch's pairs, and their sum, whose gradient is that of the sum over the whole step."""
        pairs = own.joined(others)
        by_layer = [self.objective(*sides, *pairs.spellings) for sides in zip(pairs.source, pairs.english)]
        losses, rest = torch.stack(by_layer).mean(dim=0).split([len(own), len(pairs) - len(own)])
        if not others:
            return losses, losses.sum()
        rest_of_step = rest.sum()
        return losses, losses.sum() + (rest_of_step - rest_of_step.detach())
