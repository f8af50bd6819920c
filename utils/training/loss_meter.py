"""Component losses: their means since the last log."""

import time
from collections import Counter
from collections.abc import Mapping

import torch
from accelerate import Accelerator


class LossMeter:
    """Means of the component losses since the last reading, and pairs per second. Adding does not wait for the device."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._n_steps: Counter[str] = Counter()
        self._n_pairs = 0
        self._since = time.perf_counter()

    def begin_step(self, *names: str) -> None:
        """Begin an optimizer step that has these losses; what is added next belongs to its batches."""
        self._n_steps.update(names)

    def add(self, losses: Mapping[str, torch.Tensor], n_pairs: int = 0) -> None:
        """Add one batch's share of the losses of its optimizer step."""
        for name, loss in losses.items():
            self._sums[name] = self._sums.get(name, 0) + loss.detach()
        self._n_pairs += n_pairs

    def pairs_per_second(self) -> float:
        """Pairs added since the last reading, divided by the seconds since then."""
        return self._n_pairs / (time.perf_counter() - self._since)

    def read(self, accelerator: Accelerator) -> dict[str, float]:
        """Mean losses over processes and over the optimizer steps that had them, since the last reading."""
        sums = {name: self._sums.get(name, torch.zeros((), device=accelerator.device)) for name in self._n_steps}
        means = {name: accelerator.reduce(sums[name], "mean").item() / n for name, n in self._n_steps.items()}
        self._reset()
        return means
