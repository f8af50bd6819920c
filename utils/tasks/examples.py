"""The examples of a task in many languages, from files or data sets, and the features that a model is given.

An *example* is a unit of the task: a pair of sentences, a sentence, a question. A *row* is one input of the model, with
the features of an example or of a part of it: a long example has several rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from datasets import Dataset
from transformers import TrainingArguments

from utils.core.cache import cache_key
from utils.core.errors import InputError, shown


# Makes rows of a batch of examples, given their columns and their positions in the set.
Encode = Callable[[Mapping[str, list], Sequence[int]], dict[str, list]]
# Computes metrics of predictions and references.
Measure = Callable[[Sequence[Any], Sequence[Any]], dict[str, float]]


@dataclass
class LanguageData:
    """A set of examples with the rows made of them."""

    examples: Dataset  # columns of the task, `id` among them
    rows: Dataset  # inputs of the model, `example` (position of the example in `examples`), `length` (tokens)

    def longest_first(self) -> "LanguageData":
        """The rows sorted by length: batches need little padding, and the first one needs the most memory."""
        order = np.argsort(-np.asarray(self.rows["length"]), kind="stable")
        return LanguageData(self.examples, self.rows.select(order))


SetT = TypeVar("SetT", Dataset, LanguageData)


@dataclass
class TaskSets(Generic[SetT]):
    """Examples or rows for training, and by language for --do_eval (`validation`) and --do_predict (`test`)."""

    train: Dataset | None
    validation: dict[str, SetT]
    test: dict[str, SetT]


TaskExamples = TaskSets[Dataset]
TaskRows = TaskSets[LanguageData]


class UnlabeledError(InputError):
    """A row has no label; with --skip_unlabeled such rows are left out."""


def unlabeled(what: str, remedy: str = "correct it") -> UnlabeledError:
    """The error for a row without a label: what it has instead, and what to do besides --skip_unlabeled."""
    return UnlabeledError(f"{what}; {remedy}, or add --skip_unlabeled to leave such rows out.")


_NONE = frozenset({"", "-", "_", "-1", "-1.0", "-100", "nan", "null", "none", "na", "n/a", "<na>"})


def is_missing(label: object) -> bool:
    """Whether a label says that there is none, as in SNLI (-1, -), SQL, spreadsheets and pandas."""
    return label is None or str(label).strip().casefold() in _NONE


def value_in(row: Mapping[str, Any], column: str, where: str) -> Any:
    """The value in a column of a row; raises `InputError` if the column is missing."""
    if column not in row:
        others = f", only {', '.join(map(str, row))}; rename the one that holds it to {column}" if row else "; add it"
        raise InputError(f"{where} has no column {column}{others}.")
    return row[column]


def text_in(row: Mapping[str, Any], column: str, where: str) -> str:
    """The text in a column of a row; raises `InputError` if the column is missing or holds something else."""
    if not isinstance(text := value_in(row, column, where), str):
        raise InputError(f"{where} has {shown(text)} in column {column}, which should be text; correct it.")
    return text


def identity_of(row: Mapping[str, Any], where: str) -> dict[str, str]:
    """The `id` of a row if it has one (by default the id of an example is its number): a text or a number, else `InputError`."""
    if (identity := row.get("id")) is None:
        return {}
    if isinstance(identity, bool) or not isinstance(identity, str | int | float):
        raise InputError(f"{where} has {shown(identity)} in column id, which should be text or a number; correct it.")
    return {"id": str(identity)}


def encoded(examples: Dataset, encode: Encode, num_proc: int | None = None) -> LanguageData:
    """The rows of examples; `encode` makes the columns `input_ids` and `example` (position of the example), and more."""
    rows = examples.map(
        _encode_batch,
        batched=True,
        with_indices=True,
        remove_columns=examples.column_names,
        num_proc=num_proc,
        fn_kwargs={"encode": encode, "code": cache_key(encode, _encode_batch)},
        desc="Tokenizing",
    )
    return LanguageData(examples, rows)


def encode_examples(
    examples: TaskExamples,
    encode: Encode,
    training: TrainingArguments,
    num_proc: int | None = None,
    encode_training: Encode | None = None,
) -> TaskRows:
    """The rows of all examples, encoded as in `encoded`; those of sets that are evaluated are sorted, the longest first.

    `encode_training` encodes the training examples, if these need other columns.
    """
    with training.main_process_first(desc="tokenizing"):
        train = encoded(examples.train, encode_training or encode, num_proc).rows if examples.train else None
        validation, test = (
            {name: encoded(some, encode, num_proc).longest_first() for name, some in sets.items()}
            for sets in (examples.validation, examples.test)
        )
        return TaskRows(train, validation, test)


def _encode_batch(
    batch: Mapping[str, list],
    positions: Sequence[int],
    encode: Encode,
    code: str,  # (part of the key under which `datasets` caches the rows)
) -> dict[str, list]:
    rows = encode(batch, positions)
    return {**rows, "length": [len(ids) for ids in rows["input_ids"]]}
