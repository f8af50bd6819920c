"""Alignment objectives: how far apart the two ends of each link are."""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F

from utils.alignment.words import POOLING_MODES
from utils.core.arguments import arg, at_least
from utils.core.errors import InputError


OBJECTIVES = ("mse", "contrastive")


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


@dataclass
class AlignmentArguments:
    """What is pulled together, and how."""

    word_pooling: str = arg(
        "avg",
        help="A word's vector: mean of its subwords (`avg`), its first (`start`) or last (`end`); `token`: "
        "every subword is a word of its own.",
        choices=list(POOLING_MODES),
    )
    alignment_layer: int = arg(-1, help="Hidden state that is aligned: 0 the embeddings, -1 the last layer.")
    alignment_objective: str = arg(
        "mse",
        help="`mse`: squared difference of linked words, as in the paper; `contrastive`: tell the linked word "
        "from the other words of the batch.",
        choices=list(OBJECTIVES),
    )
    temperature: float = arg(0.1, help="Divides the similarities of `contrastive`.")
    alignment_weight: float = arg(1.0, help="Weight of the alignment loss.")
    regularization_weight: float = arg(
        1.0, help="Weight of the loss that keeps English words where the original has them."
    )
    include_special_tokens: bool = arg(
        True, help="Count [CLS]-[CLS] and [SEP]-[SEP] (whatever they are called) as links too."
    )

    def __post_init__(self) -> None:
        for name in ("alignment_weight", "regularization_weight"):
            at_least(0, self, name)
        if self.temperature <= 0:
            raise InputError(f"--temperature {self.temperature} is too small; it must be more than 0.")

    def check_layer(self, n_layers: int) -> None:
        """Stop if an encoder with so many layers has none of this number."""
        if not -n_layers - 1 <= self.alignment_layer <= n_layers:
            raise InputError(
                f"--alignment_layer {self.alignment_layer} does not exist; choose from 0 (the embeddings) to {n_layers} "
                "(the last, also -1)."
            )
