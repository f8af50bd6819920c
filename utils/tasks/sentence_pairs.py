"""Classification of pairs of sentences: reading, features, scores."""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from utils.core.errors import InputError, shown
from utils.tasks.examples import LanguageData, Measure, identity_of, is_missing, text_in, unlabeled, value_in


def read_sentence_pair(
    row: Mapping[str, Any],
    where: str,
    columns: Sequence[str],
    classes: Sequence[str],
    labels: Collection[str] | None = None,
) -> dict[str, str]:
    """An example of a row of the source: `id`, both texts under their column names, `label`.

    Args:
        columns: the two columns of text.
        classes: the usual classes. A label is a name, in small or capital letters, or the number of a class (1, "1", 1.0,
            `LABEL_1`; of two classes also false and true).
        labels: classes that the model knows; by default any name is allowed.

    Raises:
        InputError: for a missing text or an unknown label; `UnlabeledError` for none.
    """
    texts = {name: text_in(row, name, where) for name in columns}
    given = value_in(row, "label", where)
    if is_missing(given):
        raise unlabeled(f"{where} has the label {shown(given)}, which means none")
    known = labels or classes
    label = given if isinstance(given, str) and given in known else _known_name(given, classes, known)
    is_name = isinstance(given, str) and not re.fullmatch(r"[-+\d.]+", given.strip())
    if label not in known and (labels or not is_name):
        raise InputError(
            f"{where} has the label {shown(given)}, which is none of {', '.join(known)}; correct it or omit the row."
        )
    return {**identity_of(row, where), **texts, "label": label}


def _known_name(label: object, classes: Sequence[str], known: Collection[str]) -> str:
    """The known name that a number of the classes or a name in other capitals stands for, or else the label as text."""
    numbered = {f"{begin}{k}": name for k, name in enumerate(classes) for begin in ("", "label_")}
    if len(classes) == 2:
        numbered |= dict(zip(("false", "true"), classes))
    name = numbered.get(str(label).strip().casefold().removesuffix(".0"), str(label).strip())
    return name if name in known else {one.casefold(): one for one in known}.get(name.casefold(), name)


# A share of rows below which labels beside all the usual classes are taken for mistakes.
_RARE = 0.05


def name_labels(examples: Dataset, classes: Sequence[str]) -> list[str]:
    """The labels of the training data: the usual classes in their order, or others in alphabetical order.

    Raises `InputError` for labels that differ in capitals only, and for rare ones beside all the usual classes, such as a
    misspelled one.
    """
    found = set(examples.unique("label"))
    if len({label.casefold() for label in found}) < len(found):
        raise InputError(
            f"Labels of the training data differ in capitals only ({', '.join(sorted(found))}); unify them."
        )
    if found <= set(classes):
        return list(classes)
    counts = Counter(examples["label"])
    others = {label: n for label, n in counts.items() if label not in classes}
    if found > set(classes) and sum(others.values()) < _RARE * len(examples):
        raise InputError(
            f"Besides {', '.join(classes)}, the training data have the label {min(others, key=lambda label: others[label])!r} in "
            f"{min(others.values())} of {len(examples):,} rows; correct it, or omit these rows."
        )
    return sorted(found)


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
    name: str, data: LanguageData, best: Sequence[np.ndarray], labels: Sequence[str], measure: Measure
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The class of every example, and the metrics, from probabilities and numbers of the best classes, [rows] each.

    Records have `id`, `gold`, `prediction` and its probability `score`.
    """
    chances, predicted = (values[np.argsort(data.rows["example"])].tolist() for values in best)
    records = [
        {"id": example["id"], "gold": example["label"], "prediction": labels[k], "score": round(chance, 6)}
        for example, k, chance in zip(data.examples, predicted, chances)
    ]
    return records, measure([record["prediction"] for record in records], data.examples["label"][:])
