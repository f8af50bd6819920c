"""Classification of pairs of sentences: what the model is given, and how its outputs are judged."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from utils.evaluation.metrics import load_metric
from utils.tasks.examples import LanguageData


def encode_sentence_pairs(
    batch: Mapping[str, list],
    positions: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    label2id: Mapping[str, int],
) -> dict[str, list]:
    """One row per example: premise and hypothesis as a pair, the longer one cut first."""
    rows = tokenizer(batch["premise"], batch["hypothesis"], truncation="longest_first", max_length=max_length)
    return {**rows, "labels": [label2id[label] for label in batch["label"]], "example": list(positions)}


def score(
    name: str, data: LanguageData, logits: np.ndarray, labels: Sequence[str]
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """What was predicted for every example, and the accuracy.

    Args:
        name: of the set.
        data: its examples and rows.
        logits: [rows, labels].
        labels: names of the classes.

    Returns:
        Records with `id`, `gold`, `prediction` and its probability `score`; and `accuracy`, between 0 and 1.
    """
    of_example = np.argsort(data.rows["example"])
    probabilities = torch.from_numpy(logits[of_example]).softmax(dim=1).numpy()
    predicted = probabilities.argmax(axis=1)
    records = [
        {"id": example["id"], "gold": example["label"], "prediction": labels[k], "score": round(float(chances[k]), 6)}
        for example, k, chances in zip(data.examples, predicted, probabilities)
    ]
    gold = [labels.index(label) for label in data.examples["label"]]
    return records, load_metric("accuracy").compute(predictions=predicted, references=gold)
