"""Classification of pairs of sentences: reading, features, scores."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from utils.core.errors import InputError
from utils.evaluation.metrics import load_metric
from utils.tasks.examples import LanguageData, identity_of, text_in


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
        classes: the usual classes; a label is a name, or a number that is an index into them.
        labels: classes that the model knows; by default any name is allowed.

    Raises:
        InputError: for a missing text or an unknown label.
    """
    texts = {name: text_in(row, name, where) for name in columns}
    label = row.get("label")
    if isinstance(label, int) and 0 <= label < len(classes):
        label = classes[label]
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
    name: str, data: LanguageData, logits: np.ndarray, labels: Sequence[str]
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The class of every example, and the accuracy.

    Logits are [rows, classes]. Records have `id`, `gold`, `prediction` and its probability `score`; `accuracy` is between
    0 and 1.
    """
    of_example = np.argsort(data.rows["example"])
    probabilities = torch.from_numpy(logits[of_example]).softmax(dim=1).numpy()
    predicted = probabilities.argmax(axis=1)
    records = [
        {"id": example["id"], "gold": example["label"], "prediction": labels[k], "score": round(float(chances[k]), 6)}
        for example, k, chances in zip(data.examples, predicted, probabilities)
    ]
    gold = [labels.index(label) for label in data.examples["label"]]
    return records, load_metric("accuracy").compute(predictions=predicted, references=gold) or {}
