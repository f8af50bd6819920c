"""Classification of pairs of sentences: reading, features, scores."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from utils.core.errors import InputError
from utils.tasks.examples import LanguageData, Measure, identity_of, text_in


def read_sentence_pair(
    row: Mapping[str, Any],
    where: str,
    columns: Sequence[str],
    classes: Sequence[str],
    labels: Sequence[str] | None = None,
) -> dict[str, str]:
    """An example of a row of the source: `id`, both texts under their column names, `label`.

    Args:
        columns: the two columns of text.
        classes: the usual classes; a label is a name, or a number (also as text) that is an index into them.
        labels: classes that the model knows; by default any name is allowed.

    Raises:
        InputError: for a missing text or an unknown label.
    """
    texts = {name: text_in(row, name, where) for name in columns}
    label = {str(k): name for k, name in enumerate(classes)}.get(str(row.get("label")), row.get("label"))
    if not isinstance(label, str) or (labels and label not in labels):
        known = ", ".join(labels or classes)
        raise InputError(f"{where} has the label {label!r}, which is none of {known}; correct it, or omit the row.")
    return {**identity_of(row), **texts, "label": label}


def name_labels(examples: Dataset, classes: Sequence[str]) -> list[str]:
    """The labels of the training data: the usual classes in their order, or others in alphabetical order."""
    found = set(examples.unique("label"))
    return list(classes) if found <= set(classes) else sorted(found)


def encode_sentence_pairs(
    batch: Mapping[str, list],
    positions: Sequence[int],
    columns: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    label2id: Mapping[str, int],
) -> dict[str, list]:
    """One row per example: both texts as a pair, of which the longer one is truncated first. `max_length` is in tokens."""
    first, second = columns
    rows = tokenizer(batch[first], batch[second], truncation="longest_first", max_length=max_length)
    return {**rows, "labels": [label2id[label] for label in batch["label"]], "example": list(positions)}


def score(
    name: str, data: LanguageData, logits: np.ndarray, labels: Sequence[str], measure: Measure
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The class of every example, and the metrics.

    Logits are [rows, classes]. Records have `id`, `gold`, `prediction` and its probability `score`.
    """
    of_example = np.argsort(data.rows["example"])
    chances, predicted = torch.from_numpy(logits[of_example]).softmax(dim=1).max(dim=1)
    records = [
        {"id": example["id"], "gold": example["label"], "prediction": labels[k], "score": round(chance, 6)}
        for example, k, chance in zip(data.examples, predicted.tolist(), chances.tolist())
    ]
    return records, measure([record["prediction"] for record in records], data.examples["label"][:])
