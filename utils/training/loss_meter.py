"""Component losses: means over the global batch, and means since the last log."""

import time
from collections import Counter
from collections.abc import Mapping

import torch
from accelerate import Accelerator

from utils.alignment.losses import AlignmentTerms


class LossMeter:
    """Means of the component losses since the last reading, and the pace. Adding waits for no device."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._n_steps: Counter[str] = Counter()
        self._n_pairs = 0
        self._since = time.perf_counter()

    def begin_step(self, *names: str) -> None:
        """A new optimizer step that has these losses: what is added from here on are its batches' shares."""
        self._n_steps.update(names)

    def add(self, losses: Mapping[str, torch.Tensor], n_pairs: int = 0) -> None:
        """Add one batch's share of the losses of its optimizer step."""
        for name, loss in losses.items():
            self._sums[name] = self._sums.get(name, 0) + loss.detach()
        self._n_pairs += n_pairs

    def pairs_per_second(self) -> float:
        """Pairs that were added since the last reading, by the time that has passed."""
        return self._n_pairs / (time.perf_counter() - self._since)

    def read(self, accelerator: Accelerator) -> dict[str, float]:
        """Mean losses over processes and over the optimizer steps that had them; the next reading starts anew."""
        sums = {name: self._sums.get(name, torch.zeros((), device=accelerator.device)) for name in self._n_steps}
        means = {name: accelerator.reduce(sums[name], "mean").item() / n for name, n in self._n_steps.items()}
        self.__init__()
        return means


def global_means(terms: AlignmentTerms, counts: torch.Tensor | None, n_processes: int) -> dict[str, torch.Tensor]:
    """Both losses of a batch as its shares of the means over the global batch, which has so many links and words.

    Gradients are averaged over processes, but sums of the shares are wanted: so each counts as many times as there
    are processes. Without counts the batch stands alone.
    """
    if counts is None:
        n_links, n_words, n_processes = max(terms.n_links, 1), max(terms.n_words, 1), 1
    else:
        n_links, n_words = counts.clamp(min=1).unbind()
    return {
        "alignment_loss": terms.alignment * n_processes / n_links,
        "regularization_loss": terms.regularization * n_processes / n_words,
    }
