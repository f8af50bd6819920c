"""What the frozen model makes of the English words, computed once for pairs that are seen more than once."""

import logging
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from datasets import Dataset
from datasets.fingerprint import Hasher

from utils.alignment.losses import AlignmentLoss
from utils.alignment.pairs import AlignmentCollator
from utils.alignment.words import word_vectors
from utils.models.adapters import AdapterOff
from utils.models.encoders import weights_checksum


logger = logging.getLogger(__name__)

# Pairs that go through the frozen model at once, and among how many they are put together by length.
_BATCH_SIZE, _POOL = 32, 1024


def with_reference_vectors(
    pairs: Dataset, loss: AlignmentLoss, collator: AlignmentCollator, accelerator: Accelerator
) -> Dataset:
    """Add what the reference model makes of every English word, so that training needs no pass through it.

    The vectors are kept in an Arrow file that is mapped into memory, beside the other files of the data set: another run
    on the same pairs with the same model, layer and precision finds them there, and so does one that is resumed. They
    are float32, or float16 where the passes are in mixed precision.

    Args:
        pairs: rows of `encode_pairs`.
        loss: reference model and layer.
        collator: of the pairs.
        accelerator: whose precision and device are those of the passes.

    Returns:
        The pairs with one column more, of bytes: [words, dimensions] of each. Or the pairs as they are, if the disk has
        not twice the room for that.
    """
    precision = "float32" if accelerator.mixed_precision == "no" else "float16"
    column = f"reference_{precision}"
    size = _n_english_words(pairs) * loss.reference_model.config.hidden_size * np.dtype(precision).itemsize
    folder = Path(pairs.cache_files[0]["filename"]).parent if pairs.cache_files else Path(tempfile.gettempdir())
    if 2 * size > shutil.disk_usage(folder).free:
        logger.warning(
            f"The frozen model's vectors ({size / 2**30:.1f} GiB) have no room in {folder}; they are computed anew."
        )
        return pairs
    reference = loss.reference_model.encoder if isinstance(loss.reference_model, AdapterOff) else loss.reference_model
    made_by = [pairs._fingerprint, weights_checksum(reference), loss.layer, accelerator.mixed_precision]

    def add(batch: Mapping[str, list]) -> dict[str, list[bytes]]:
        rows = [dict(zip(batch, values)) for values in zip(*batch.values())]
        vectors: list[bytes] = [b""] * len(rows)
        by_length = np.argsort([len(row["english_input_ids"]) for row in rows], kind="stable")
        for begin in range(0, len(rows), _BATCH_SIZE):
            chosen = by_length[begin : begin + _BATCH_SIZE]
            tensors = {k: v.to(accelerator.device) for k, v in collator([rows[k] for k in chosen]).items()}
            with torch.no_grad(), accelerator.autocast():
                words = word_vectors(loss.reference_model, tensors, "english", [loss.layer])[0]
            n_words = [_n_words(rows[k]["english_word_ids"]) for k in chosen]
            for k, of_pair in zip(chosen, words.to(getattr(torch, precision)).cpu().split(n_words)):
                vectors[k] = of_pair.numpy().tobytes()
        return {column: vectors}

    return pairs.map(
        add,
        batched=True,
        batch_size=_POOL,
        writer_batch_size=_POOL,
        new_fingerprint=Hasher.hash(made_by),
        desc="Asking the frozen model once",
    )


def _n_words(word_ids: list[int]) -> int:
    return max(word_ids, default=-1) + 1


def _n_english_words(pairs: Dataset) -> int:
    ids = pairs.select_columns("english_word_ids")
    return sum(_n_words(row) for batch in ids.iter(1000) for row in batch["english_word_ids"])
