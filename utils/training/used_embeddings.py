"""Only the rows of the embedding table that occur in the data are trained, which changes nothing but the time.

A multilingual vocabulary has up to 250,000 rows, of which a corpus uses a part. The others never get a gradient, and yet a
dense gradient is filled with zeros for them, added up, sent to other processes, and taken through the optimizer: for a
small encoder that is a large share of a step. Adam without weight decay leaves a row alone that has never had a gradient,
so a table of the rows that occur gives the same weights.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import nn
from transformers import PreTrainedModel, Trainer

from utils.models.layers import encoder_of


# Optimizers that leave a row without gradient as it is.
_EXACT_WITH = frozenset({"adamw_torch", "adamw_torch_fused", "sgd"})
# If so many rows occur, a smaller table is not worth its look-ups.
_TOO_MANY = 0.9


class UsedEmbedding(nn.Module):
    """An `nn.Embedding` that trains some of its rows; to a state dict it is the whole table.

    Args:
        embedding: the table; its padding row is not trained, as ever.
        used: [rows], the ids whose rows are trained.
    """

    def __init__(self, embedding: nn.Embedding, used: torch.Tensor) -> None:
        super().__init__()
        if embedding.padding_idx is not None:
            used = used[used != embedding.padding_idx]
        # Not buffers: distributed training would send them at every step, and a checkpoint would hold them.
        self._whole = embedding.weight.detach()
        self._used = used.to(self._whole.device)
        self._row_of = torch.full((len(self._whole),), -1, device=self._whole.device)
        self._row_of[self._used] = torch.arange(len(used), device=self._whole.device)
        self.padding_idx = embedding.padding_idx
        self.weight = nn.Parameter(self._whole[self._used])

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """[…, dimensions] of ids […]."""
        rows = self._row_of[ids]
        trained = F.embedding(rows.clamp(min=0), self.weight)
        return torch.where((rows < 0).unsqueeze(-1), F.embedding(ids, self._whole), trained)

    def whole(self) -> torch.Tensor:
        """The table [ids, dimensions], with the rows that were trained."""
        return self._whole.index_copy(0, self._used, self.weight.detach())

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        destination[f"{prefix}weight"] = self.whole()

    def _load_from_state_dict(self, state_dict: Mapping[str, torch.Tensor], prefix: str, *others: Any) -> None:  # noqa: ANN401
        if (whole := state_dict.get(f"{prefix}weight")) is not None:
            with torch.no_grad():
                self._whole.copy_(whole)
                self.weight.copy_(self._whole[self._used])

    def _apply(self, fn: Any, recurse: bool = True) -> "UsedEmbedding":  # noqa: ANN401
        """To another device, or precision."""
        super()._apply(fn, recurse)
        self._whole = fn(self._whole)
        self._used, self._row_of = (ids.to(self._whole.device) for ids in (self._used, self._row_of))
        return self


@contextmanager
def used_rows_only(trainer: Trainer, datasets: Mapping[str, Dataset | None]) -> Iterator[None]:
    """While it lasts, the trainer's model trains the embeddings that occur in its data, if that comes to the same.

    Args:
        trainer: whose optimizer is not made yet.
        datasets: what is trained on, by names of columns with ids, separated by commas.
    """
    encoder = encoder_of(trainer.accelerator.unwrap_model(trainer.model))
    embedding = encoder.get_input_embeddings()
    if not _is_exact(trainer, embedding):
        yield
        return
    columns = [(rows, column) for names, rows in datasets.items() if rows is not None for column in names.split(",")]
    used = _ids_in(columns, embedding.num_embeddings)
    if len(used) > _TOO_MANY * embedding.num_embeddings:
        yield
        return
    compact = UsedEmbedding(embedding, used)
    encoder.set_input_embeddings(compact)
    try:
        yield
    finally:
        with torch.no_grad():
            embedding.to(compact.weight.device).weight.copy_(compact.whole())
        encoder.set_input_embeddings(embedding)


def _is_exact(trainer: Trainer, embedding: nn.Module) -> bool:
    args, model = trainer.args, trainer.model
    plain = type(embedding) is nn.Embedding and embedding.max_norm is None and not embedding.scale_grad_by_freq
    tied = isinstance(model, PreTrainedModel) and model.get_output_embeddings() is not None
    return (
        plain
        and not tied
        and embedding.weight.requires_grad
        and trainer.optimizer is None
        and args.optim in _EXACT_WITH
        and not args.weight_decay
        and not trainer.is_fsdp_enabled
        and not trainer.is_deepspeed_enabled
    )


def _ids_in(columns: Sequence[tuple[Dataset, str]], n_ids: int) -> torch.Tensor:
    """All ids that occur in columns of data sets, in order."""
    occurs = np.zeros(n_ids, dtype=bool)
    for rows, column in columns:
        for batch in rows.select_columns([column]).with_format("arrow").iter(10_000):
            occurs[batch[column].combine_chunks().flatten().to_numpy()] = True
    return torch.from_numpy(np.flatnonzero(occurs))
