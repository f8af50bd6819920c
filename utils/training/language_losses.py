"""The alignment loss of each language, over the whole run and since the last log."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from accelerate import Accelerator

from utils.alignment.losses import AlignmentTerms


class LanguageLosses:
    """Sums of the alignment losses of the links, or of the sentence pairs, of each language, over all processes.

    Adding does not wait for the device; `collect` does.

    Args:
        languages: their codes, in the order of their numbers in batches; with fewer than two nothing is counted.
        name: of the loss, `alignment_loss` or `sentence_loss`.
    """

    def __init__(self, languages: Sequence[str], accelerator: Accelerator, name: str = "alignment_loss") -> None:
        self.languages = list(languages) if len(languages) > 1 else []
        self.accelerator, self.name = accelerator, name
        # Sums of losses, and numbers of links, of the whole run until `collect`.
        self.totals = np.zeros((2, len(self.languages)))
        self._at_last_log = self.totals.copy()
        self._pending = self._zeros()

    def _zeros(self) -> torch.Tensor:
        return torch.zeros(2, len(self.languages), device=self.accelerator.device)

    def add(self, terms: AlignmentTerms, batch: Mapping[str, torch.Tensor]) -> None:
        """Add the losses of a batch of `AlignmentCollator`, if they were computed."""
        of_links = self.name == "alignment_loss"
        losses = terms.link_losses if of_links else terms.sentence_losses
        if losses is not None and self.languages:
            both = torch.stack([losses.detach().float(), torch.ones_like(losses, dtype=torch.float32)])
            self._pending.index_add_(1, batch["link_languages" if of_links else "pair_languages"], both)

    def collect(self) -> None:
        """Bring `totals` up to date. All processes call this together."""
        if self.languages:
            self.totals += self.accelerator.reduce(self._pending, "sum").double().cpu().numpy()
            self._pending = self._zeros()

    def since_last_log(self) -> dict[str, float]:
        """Mean losses over the links since the last call, as `LOSS_LANGUAGE`, of the languages that had any."""
        self.collect()
        means = self._means(self.totals - self._at_last_log)
        self._at_last_log = self.totals.copy()
        return means

    def of_run(self) -> dict[str, float]:
        """The same over the whole run."""
        self.collect()
        return self._means(self.totals)

    def _means(self, sums: np.ndarray) -> dict[str, float]:
        by_language = zip(self.languages, *sums.tolist())
        return {f"{self.name}_{language}": loss / n_links for language, loss, n_links in by_language if n_links}

    def state(self) -> list[list[float]]:
        """What a checkpoint keeps."""
        return self.totals.tolist()

    def resume(self, state: list[list[float]]) -> None:
        """Continue from the `state` of a checkpoint."""
        self.totals = np.array(state, dtype=float).reshape(self.totals.shape)
        self._at_last_log = self.totals.copy()
