"""Training only the rows of the embedding table that occur in the data, which gives the same weights.

A multilingual vocabulary has up to 250,000 rows, of which a corpus uses a part. The others never get a gradient, but a
dense gradient holds zeros for them, which take memory, are sent to other processes and go through the optimizer. Adam
without weight decay does not change a row that has never had a gradient.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import nn
from transformers import PreTrainedModel, Trainer

from utils.models.layers import encoder_of


# Optimizers that do not change a row without gradient.
_EXACT_WITH = frozenset({"adamw_torch", "adamw_torch_fused", "sgd"})
# Above this share of rows a smaller table is not worth its look-ups.
_TOO_MANY = 0.9


class UsedEmbedding(nn.Module):
    """An `nn.Embedding` that trains only the rows of the ids `used` [rows]. Its state dict holds the whole table.

    The padding row is never trained.
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
        self.register_state_dict_post_hook(self._save_whole)
        self.register_load_state_dict_pre_hook(self._load_whole)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Embeddings [..., dimensions] of ids [...]."""
        rows = self._row_of[ids]
        trained = F.embedding(rows.clamp(min=0), self.weight)
        return torch.where((rows < 0).unsqueeze(-1), F.embedding(ids, self._whole), trained)

    def whole(self) -> torch.Tensor:
        """The table [ids, dimensions], with the rows that were trained."""
        return self._whole.index_copy(0, self._used, self.weight.detach())

    @staticmethod
    def _save_whole(module: "UsedEmbedding", state: dict[str, Any], prefix: str, metadata: object) -> None:
        state[f"{prefix}weight"] = module.whole()

    @staticmethod
    def _load_whole(module: "UsedEmbedding", state: dict[str, Any], prefix: str, *others: object) -> None:
        if (whole := state.get(f"{prefix}weight")) is not None:
            module._whole.copy_(whole)
            state[f"{prefix}weight"] = module._whole[module._used]


@contextmanager
def used_rows_only(trainer: Trainer, *datasets: Dataset | None) -> Iterator[None]:
    """Within the context the trainer's model trains only the embeddings that occur, if that gives the same weights.

    The trainer has no optimizer yet. Token ids are in the columns of the data sets whose names end in `input_ids`.
    """
    encoder = encoder_of(trainer.accelerator.unwrap_model(trainer.model))
    embedding: Any = encoder.get_input_embeddings()
    used = _ids_in(datasets, embedding.num_embeddings) if _is_exact(trainer, embedding) else None
    if used is None or len(used) > _TOO_MANY * embedding.num_embeddings:
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


def _is_exact(trainer: Trainer, embedding: Any) -> bool:
    """Whether training the used rows of a table alone gives the same weights."""
    args, model = trainer.args, trainer.model
    tied = isinstance(model, PreTrainedModel) and model.get_output_embeddings() is not None
    return bool(
        type(embedding) is nn.Embedding
        and embedding.max_norm is None
        and not embedding.scale_grad_by_freq
        and not tied
        and embedding.weight.requires_grad
        and trainer.optimizer is None
        and args.optim in _EXACT_WITH
        and not args.weight_decay
        and not trainer.is_fsdp_enabled
        and not trainer.is_deepspeed_enabled
    )


def _ids_in(datasets: Iterable[Dataset | None], n_ids: int) -> torch.Tensor:
    """All token ids that occur in data sets, in order."""
    occurs = np.zeros(n_ids, dtype=bool)
    for rows in filter(None, datasets):
        columns = [column for column in rows.column_names if column.endswith("input_ids")]
        for batch in rows.select_columns(columns).with_format("arrow").iter(10_000):
            for column in columns:
                occurs[batch[column].combine_chunks().flatten().to_numpy()] = True
    return torch.from_numpy(np.flatnonzero(occurs))
