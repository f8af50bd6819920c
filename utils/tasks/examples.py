"""The examples of a task in many languages, from files or data sets, and the features that a model is given.

An *example* is a unit of the task: a pair of sentences, a sentence, a question. A *row* is one input of the model, with
the features of an example or of a part of it: a long example has several rows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
from datasets import ClassLabel, Dataset, Features, List
from transformers import TrainingArguments

from utils.core.arguments import arg, require
from utils.core.cache import cache_key, dataset_from_files
from utils.core.data_sets import load_split
from utils.core.errors import InputError
from utils.core.tables import READERS, Rows, one_path_each, read_rows


# Makes rows of a batch of examples, given their columns and their positions in the set.
Encode = Callable[[Mapping[str, list], Sequence[int]], dict[str, list]]
# Makes an example of a row of the source, given the row, its place for messages and, if they are known, `labels`; raises
# InputError. Class labels in the row are names.
ReadExample = Callable[..., dict[str, Any]]
Readers = Mapping[str, Callable[[str], Rows]]
# Computes metrics of predictions and references.
Measure = Callable[[Sequence[Any], Sequence[Any]], dict[str, float]]


@dataclass
class TaskDataArguments:
    """Training and evaluation data. A script names the data set and its columns."""

    dataset_name: str | None = arg(None, help="Training data: a data set on the Hub or in a local folder.")
    dataset_config_name: str | None = arg(
        None, help="Its configuration; {language} stands for the language. Default: the first that exists."
    )
    eval_dataset_name: str | None = arg(None, help="Data set for evaluation. Default: --dataset_name.")
    eval_dataset_config_name: str | None = arg(None, help="Its configuration; {language} stands for the language.")
    train_split: str = arg("train", help="Split for training.")
    validation_split: str = arg("validation", help="Split for --do_eval.")
    test_split: str = arg("test", help="Split for --do_predict.")
    train_file: str | None = arg(None, help="Training data in a file: .jsonl, .csv, .tsv, .parquet; also .gz.")
    validation_file: list[str] | None = arg(None, help="Files for --do_eval: `en=dev.en.jsonl hi=dev.hi.jsonl`.")
    test_file: list[str] | None = arg(None, help="Files for --do_predict, LANGUAGE=FILE each.")
    train_language: str = arg("en", help="Code of the training language.", hyperparameter=True)
    eval_languages: list[str] = arg(
        default_factory=lambda: ["en", "es", "ru", "vi", "hi"],
        help="Codes of the languages for evaluation. All but the training language are zero-shot.",
    )
    select_on: str | None = arg(
        None,
        help="With --eval_strategy, keep the checkpoint that is best in this language. Default: the training "
        "language. Any other is an oracle, since zero-shot means that there is no labelled data to select by.",
    )
    max_train_samples: int | None = arg(None, help="Train on the first N examples.", hyperparameter=True, at_least=1)
    max_eval_samples: int | None = arg(None, help="Use the first N of each language for --do_eval.", at_least=1)
    max_predict_samples: int | None = arg(None, help="Use the first N of each language for --do_predict.", at_least=1)
    max_seq_length: int | None = arg(
        None,
        help="Truncate inputs to this number of tokens; words beyond count as wrong. Default: 128.",
        hyperparameter=True,
        at_least=1,
    )
    overwrite_output_dir: bool = arg(False, help="Write into --output_dir even if it is not empty.")

    def __post_init__(self) -> None:
        self.eval_languages = list(dict.fromkeys(self.eval_languages))
        require(self.eval_languages, ["--eval_languages"], "name the languages to evaluate, for example en hi")

    def set_names(self) -> list[str]:
        """Names of the evaluated sets, as in metrics and files."""
        return self.eval_languages

    def languages(self) -> list[str]:
        """All languages of which evaluation data is read."""
        return self.eval_languages


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


@dataclass
class TaskReader:
    """Reads the examples of a task from the files or data sets that the arguments name.

    Attributes:
        features: columns of an example.
        configs: configurations of the task's data sets, of which the first that exists is read; `{language}` stands for
            the language's code, `{language_name}` for its name.
        readers: by suffix, what reads a file (see `utils.core.tables.read_rows`).
        language_names: code of a language → what `{language_name}` stands for.
        select_language: selects the rows of a language in a configuration that holds several.
        hub_options: `cache_dir`, `token`.
    """

    arguments: TaskDataArguments
    features: Features
    read_example: ReadExample
    configs: Sequence[str] = ("{language}",)
    readers: Readers = field(default_factory=lambda: READERS)
    language_names: Mapping[str, str] = field(default_factory=dict)
    select_language: Callable[[Dataset, str], Dataset] | None = None
    hub_options: Mapping[str, Any] = field(default_factory=dict)
    num_proc: int | None = None

    def train(self) -> Dataset:
        """The training examples."""
        data = self.arguments
        if data.train_file:
            examples = self._from_file(data.train_file, self.read_example)
        else:
            source = (data.dataset_name, data.dataset_config_name, data.train_split)
            examples = self._from_dataset("train", data.train_language, *source, self.read_example)
        return _first(examples, data.max_train_samples)

    def evaluation(
        self, purpose: str, language: str, labels: Sequence[str] | None = None, config: str | None = None
    ) -> Dataset:
        """The examples of a language.

        Args:
            purpose: `validation` (--do_eval) or `test` (--do_predict).
            language: code of the language.
            labels: names of the classes that the model knows; any other one raises.
            config: configuration of the data set; by default that of the arguments.
        """
        data, validates = self.arguments, purpose == "validation"
        read_example = partial(self.read_example, labels=labels) if labels else self.read_example
        if files := data.validation_file if validates else data.test_file:
            path = one_path_each(files, data.languages(), f"--{purpose}_file").get(language)
            require(path, [f"--{purpose}_file {language}=FILE"], f"there is no file for {language}")
            examples = self._from_file(str(path), read_example)
        else:
            name, config = data.eval_dataset_name, config or data.eval_dataset_config_name
            if name is None:
                name, config = data.dataset_name, config or data.dataset_config_name
            split = data.validation_split if validates else data.test_split
            examples = self._from_dataset(purpose, language, name, config, split, read_example)
        return _first(examples, data.max_eval_samples if validates else data.max_predict_samples)

    def evaluation_sets(self, purpose: str, labels: Sequence[str] | None = None) -> dict[str, Dataset]:
        """The examples of all `--eval_languages`, by language; arguments as for `evaluation`."""
        return {language: self.evaluation(purpose, language, labels) for language in self.arguments.eval_languages}

    def _from_file(self, path: str, read_example: ReadExample) -> Dataset:
        key = cache_key(read_example, *self.readers.values(), _read_file, read_example=read_example)
        return dataset_from_files(
            [path], _read_file, self.features, key, path=path, readers=self.readers, read_example=read_example
        )

    def _from_dataset(
        self, purpose: str, language: str, name: str | None, config: str | None, split: str, read_example: ReadExample
    ) -> Dataset:
        require(name, ["--dataset_name", f"--{purpose}_file"], "there is no data")
        english = self.language_names.get(language, language)
        configs = [one.replace("{language_name}", english) for one in ([config] if config else self.configs)]
        of_config = "--dataset_config_name" if purpose == "train" else "--eval_dataset_config_name"
        arguments = {"config": of_config, "split": f"--{purpose}_split"}
        rows, config, split = load_split(str(name), language, configs, [split], arguments, **self.hub_options)
        assert isinstance(rows, Dataset)  # (it is not streamed)
        if self.select_language:
            rows = self.select_language(rows, language)
        where = f"the data set {name} ({config}, {split})"
        if not len(rows):
            raise InputError(f"There is nothing in {language} in {where}; choose another one, or omit {language}.")
        names, code = _class_names(rows.features), cache_key(read_example, _read_row)
        return rows.map(
            _read_row,
            with_indices=True,
            remove_columns=rows.column_names,
            features=self.features,
            num_proc=self.num_proc,
            fn_kwargs={"names": names, "where": where, "read_example": read_example, "code": code},
            desc=f"Reading {name} ({config}, {split})",
        )


def _read_file(path: str, readers: Readers, read_example: ReadExample) -> Iterator[dict[str, Any]]:
    number = -1
    for number, (where, row) in enumerate(read_rows(path, readers)):
        yield {"id": str(number), **read_example(row, where)}
    if number < 0:
        raise InputError(f"The file {path} has no example; give one with data.")


def _read_row(
    row: Mapping[str, Any],
    number: int,
    names: Mapping[str, Sequence[str]],
    where: str,
    read_example: ReadExample,
    code: str,  # (part of the key under which `datasets` caches the rows)
) -> dict[str, Any]:
    named = {column: _named(row[column], of_column) for column, of_column in names.items()}
    return {"id": str(number), **read_example({**row, **named}, f"Row {number + 1} of {where}")}


def _class_names(features: Features) -> dict[str, list[str]]:
    """The names of the classes in columns that hold numbers of classes, or lists of them."""
    kinds = {column: kind.feature if isinstance(kind, List) else kind for column, kind in features.items()}
    return {column: kind.names for column, kind in kinds.items() if isinstance(kind, ClassLabel)}


def _named(value: object, names: Sequence[str]) -> object:
    if isinstance(value, list):
        return [_named(one, names) for one in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value


def _first(examples: Dataset, wanted: int | None) -> Dataset:
    return examples if wanted is None else examples.select(range(min(wanted, len(examples))))


def text_in(row: Mapping[str, Any], column: str, where: str) -> str:
    """The text in a column of a row; raises `InputError` if the column is missing or holds something else."""
    if column not in row:
        raise InputError(f"{where} has no column {column}, only {', '.join(map(str, row)) or 'nothing'}; rename it.")
    if not isinstance(row[column], str):
        raise InputError(f"{where} has {row[column]!r} in column {column}, which should be text; correct it.")
    return row[column]


def identity_of(row: Mapping[str, Any]) -> dict[str, str]:
    """The `id` of a row if it has one (by default the id of an example is its number)."""
    return {"id": str(row["id"])} if row.get("id") is not None else {}


def encoded(examples: Dataset, encode: Encode, num_proc: int | None = None) -> LanguageData:
    """The rows of examples; `encode` makes the columns `input_ids` and `example` (position of the example), and more."""
    rows = examples.map(
        _encode_batch,
        batched=True,
        with_indices=True,
        remove_columns=examples.column_names,
        num_proc=num_proc,
        fn_kwargs={"encode": encode, "code": cache_key(encode, _encode_batch)},
        desc="Tokenising",
    )
    return LanguageData(examples, rows)


def read_examples(
    reader: TaskReader,
    training: TrainingArguments,
    find_labels: Callable[[Dataset | None], list[str] | None] = lambda train: None,
) -> tuple[TaskExamples, list[str]]:
    """The examples for what the run is to do (--do_train, --do_eval, --do_predict), and the names of the classes.

    Of several processes the first one reads, the others use its cache.

    Args:
        find_labels: names of the classes, given the training examples (None if nothing is trained). Reading for
            evaluation raises for any other label. By default there are none.
    """
    with training.main_process_first(desc="reading the data"):
        train = reader.train() if training.do_train else None
        labels = find_labels(train)
        validation = reader.evaluation_sets("validation", labels) if training.do_eval else {}
        test = reader.evaluation_sets("test", labels) if training.do_predict else {}
    return TaskExamples(train, validation, test), labels or []


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
    with training.main_process_first(desc="tokenising"):
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
