"""The data of a task in many languages: examples from files or data sets, and the rows that a model is given.

An *example* is what the task is about: a sentence pair, a sentence, a question. A *row* is one input of the model; a
long example has several.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, Features, List

from utils.core.arguments import arg, at_least, require
from utils.core.cache import cache_key, dataset_from_files
from utils.core.columns import content_fingerprint
from utils.core.data_sets import load_split
from utils.core.errors import InputError
from utils.core.tables import paths_by_language, read_rows


_ARGUMENTS = {
    "train": {"config": "--dataset_config_name", "split": "--train_split"},
    "validation": {"config": "--eval_dataset_config_name", "split": "--validation_split"},
    "test": {"config": "--eval_dataset_config_name", "split": "--test_split"},
}


@dataclass
class TaskDataArguments:
    """What a task is trained and evaluated on. A script names the data set and its columns."""

    dataset_name: str | None = arg(None, help="Training data: a data set on the Hub or in a local folder.")
    dataset_config_name: str | None = arg(
        None, help="Its configuration; {language} stands for the language. Default: the one that fits."
    )
    eval_dataset_name: str | None = arg(None, help="Data to evaluate on, likewise. Default: --dataset_name.")
    eval_dataset_config_name: str | None = arg(None, help="Its configuration; {language} stands for the language.")
    train_split: str = arg("train", help="Split that is trained on.")
    validation_split: str = arg("validation", help="Split that --do_eval measures on.")
    test_split: str = arg("test", help="Split that --do_predict measures on.")
    train_file: str | None = arg(
        None, help="Training data in a file instead, with the same columns: .jsonl, .csv, .tsv, .parquet; also .gz."
    )
    validation_file: list[str] | None = arg(
        None,
        help="Data for --do_eval in files, LANGUAGE=FILE each: `--validation_file en=dev.en.jsonl hi=dev.hi.jsonl`.",
    )
    test_file: list[str] | None = arg(None, help="Data for --do_predict in files, likewise.")
    train_language: str = arg("en", help="Language that is trained on, by code.", hyperparameter=True)
    eval_languages: list[str] = arg(
        default_factory=lambda: ["en", "es", "ru", "vi", "hi"],
        help="Languages that are evaluated, by code; those that are not trained on zero-shot.",
    )
    select_on: str | None = arg(
        None,
        help="With --eval_strategy, keep the checkpoint that is best in this language. Default: the training "
        "language; any other one is an oracle, to be reported beside it, since zero-shot means that there is no "
        "labelled data to choose by.",
    )
    max_train_samples: int | None = arg(None, help="Only the first so many training examples.", hyperparameter=True)
    max_eval_samples: int | None = arg(None, help="… examples for --do_eval, a language.")
    max_predict_samples: int | None = arg(None, help="… examples for --do_predict, a language.")
    max_seq_length: int | None = arg(None, help="Cut inputs after this many tokens.", hyperparameter=True)
    overwrite_output_dir: bool = arg(False, help="Write into --output_dir even if not empty.")

    def __post_init__(self) -> None:
        for name in ("max_train_samples", "max_eval_samples", "max_predict_samples", "max_seq_length"):
            at_least(1, self, name)
        self.eval_languages = list(dict.fromkeys(self.eval_languages))
        require(self.eval_languages, ["--eval_languages"], "name the languages to evaluate, for example en hi")

    def set_names(self) -> list[str]:
        """What the sets are called that are evaluated."""
        return self.eval_languages

    def languages(self) -> list[str]:
        """All languages that are read for evaluation."""
        return self.eval_languages


@dataclass
class LanguageData:
    """A set of examples with the rows that the model is given for them.

    Attributes:
        examples: columns are the task's own, `id` among them.
        rows: inputs of the model, with the columns `example` (the position of the example that a row belongs to) and
            `length` (tokens).
    """

    examples: Dataset
    rows: Dataset

    def longest_first(self) -> "LanguageData":
        """With the rows in another order: batches need little padding, and memory runs out at once or never."""
        order = np.argsort(-np.asarray(self.rows["length"]), kind="stable")
        return LanguageData(self.examples, self.rows.select(order))


@dataclass
class TaskExamples:
    """The examples of a task: for training, and by language for --do_eval and --do_predict."""

    train: Dataset | None
    validation: dict[str, Dataset]
    test: dict[str, Dataset]

    def fingerprints(self) -> dict[str, Any]:
        """How many examples there are of each kind, and the SHA-256 of their content, for `run.json`."""
        return {
            "train_data": self.train and _fingerprint(self.train),
            "eval_data": {language: _fingerprint(examples) for language, examples in self.validation.items()},
            "predict_data": {language: _fingerprint(examples) for language, examples in self.test.items()},
        }


def _fingerprint(examples: Dataset) -> dict[str, Any]:
    return {"examples": len(examples), "sha256": content_fingerprint(examples)}


@dataclass
class TaskRows:
    """The rows of a task, in the same three parts as its examples."""

    train: Dataset | None
    validation: dict[str, LanguageData]
    test: dict[str, LanguageData]


class TaskReader:
    """Reads a task's examples from wherever the arguments say.

    Args:
        arguments: names of data sets, files, splits; how many examples are wanted.
        features: the columns of an example.
        read_example: makes an example of a row of the source, or raises InputError: given the row, its place for
            messages, and what is handed to `train` and `evaluation`. Class labels arrive as their names.
        configs: names that the configurations of such data sets have for a language, `{language}` standing for it.
        read_file: yields the rows of a file, with their places.
        select_language: takes a language's rows out of a configuration that holds several.
        hub_options: `cache_dir`, `token`.
    """

    def __init__(
        self,
        arguments: TaskDataArguments,
        features: Features,
        read_example: Callable[..., dict[str, Any]],
        configs: Sequence[str] = ("{language}",),
        read_file: Callable[[str], Iterator[tuple[str, dict[str, Any]]]] = read_rows,
        select_language: Callable[[Dataset, str], Dataset] | None = None,
        hub_options: Mapping[str, Any] | None = None,
        num_proc: int | None = None,
    ) -> None:
        self.arguments = arguments
        self.features = features
        self.read_example = read_example
        self.configs = configs
        self.read_file = read_file
        self.select_language = select_language
        self.hub_options = hub_options or {}
        self.num_proc = num_proc

    def train(self, **options: Any) -> Dataset:  # noqa: ANN401
        """The training examples."""
        data = self.arguments
        if data.train_file:
            examples = self._from_file(data.train_file, options)
        else:
            part = (data.dataset_name, data.dataset_config_name, data.train_split)
            examples = self._from_dataset("train", data.train_language, *part, options)
        return _first(examples, data.max_train_samples)

    def evaluation(self, purpose: str, language: str, config: str | None = None, **options: Any) -> Dataset:  # noqa: ANN401
        """The examples of a language for `validation` (--do_eval) or `test` (--do_predict).

        Args:
            purpose: which of the two.
            language: its code.
            config: the configuration of the data set, if not the usual one.
            options: for `read_example`.
        """
        data = self.arguments
        files = data.validation_file if purpose == "validation" else data.test_file
        if files:
            paths = paths_by_language(files, data.languages(), f"--{purpose}_file").get(language)
            require(paths, [f"--{purpose}_file {language}=FILE"], f"there is no file for {language}")
            if len(paths) > 1:
                raise InputError(f"--{purpose}_file names {len(paths)} files for {language}; give one.")
            examples = self._from_file(paths[0], options)
        else:
            name, usual_config = data.eval_dataset_name, data.eval_dataset_config_name
            if name is None:
                name, usual_config = data.dataset_name, usual_config or data.dataset_config_name
            split = data.validation_split if purpose == "validation" else data.test_split
            examples = self._from_dataset(purpose, language, name, config or usual_config, split, options)
        wanted = data.max_eval_samples if purpose == "validation" else data.max_predict_samples
        return _first(examples, wanted)

    def evaluation_sets(self, purpose: str, **options: Any) -> dict[str, Dataset]:  # noqa: ANN401
        """The examples of all `--eval_languages`, by language."""
        return {code: self.evaluation(purpose, code, **options) for code in self.arguments.eval_languages}

    def _from_file(self, path: str, options: Mapping[str, Any]) -> Dataset:
        return dataset_from_files(
            [path],
            _read_file,
            self.features,
            cache_key(self.read_example, self.read_file, _read_file, options=options),
            path=path,
            read_file=self.read_file,
            read_example=self.read_example,
            options=tuple(options.items()),
        )

    def _from_dataset(
        self, purpose: str, language: str, name: str | None, config: str | None, split: str, options: Mapping[str, Any]
    ) -> Dataset:
        require(name, ["--dataset_name", f"--{purpose}_file"], "there is no data")
        configs = [config] if config else self.configs
        rows, config, split = load_split(name, language, configs, [split], _ARGUMENTS[purpose], **self.hub_options)
        if self.select_language:
            rows = self.select_language(rows, language)
        where = f"the data set {name} ({config}, {split})"
        if not len(rows):
            raise InputError(
                f"There is nothing in {language} in {where}; choose another one, or leave {language} out."
            )
        return rows.map(
            _read_row,
            with_indices=True,
            remove_columns=rows.column_names,
            features=self.features,
            num_proc=self.num_proc,
            fn_kwargs={
                "names": _class_names(rows.features),
                "where": where,
                "read_example": self.read_example,
                "options": options,
                "code": cache_key(self.read_example, _read_row),
            },
            desc=f"Reading {name} ({config}, {split})",
        )


def _read_file(
    path: str,
    read_file: Callable[[str], Iterator[tuple[str, dict[str, Any]]]],
    read_example: Callable[..., dict[str, Any]],
    options: Sequence[tuple[str, Any]],
) -> Iterator[dict[str, Any]]:
    empty = True
    for number, (where, row) in enumerate(read_file(path)):
        empty = False
        yield {"id": str(number), **read_example(row, where, **dict(options))}
    if empty:
        raise InputError(f"The file {path} has no example; give one with data.")


def _read_row(
    row: Mapping[str, Any],
    number: int,
    names: Mapping[str, Sequence[str]],
    where: str,
    read_example: Callable[..., dict[str, Any]],
    options: Mapping[str, Any],
    code: str,  # (rows are cached under it)
) -> dict[str, Any]:
    named = {column: _named(row[column], of_column) for column, of_column in names.items()}
    return {"id": str(number), **read_example({**row, **named}, f"Row {number + 1} of {where}", **options)}


def _class_names(features: Features) -> dict[str, list[str]]:
    """The names of the classes that columns hold as numbers, or as lists of numbers."""
    kinds = {column: kind.feature if isinstance(kind, List) else kind for column, kind in features.items()}
    return {column: kind.names for column, kind in kinds.items() if isinstance(kind, ClassLabel)}


def _named(value: object, names: Sequence[str]) -> object:
    if isinstance(value, list):
        return [_named(one, names) for one in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value


def _first(examples: Dataset, wanted: int | None) -> Dataset:
    return examples if wanted is None else examples.select(range(min(wanted, len(examples))))


def text_in(row: Mapping[str, Any], column: str, where: str) -> str:
    """The text in a column of a row.

    Raises:
        InputError: if there is no such column, or something else in it.
    """
    if column not in row:
        raise InputError(f"{where} has no column {column}, only {', '.join(map(str, row)) or 'nothing'}; rename it.")
    if not isinstance(row[column], str):
        raise InputError(f"{where} has {row[column]!r} in column {column}, which should be text; correct it.")
    return row[column]


def identity_of(row: Mapping[str, Any]) -> dict[str, str]:
    """The `id` of a row if it has one (else an example is known by its number)."""
    return {"id": str(row["id"])} if row.get("id") is not None else {}


def encoded(
    examples: Dataset,
    encode: Callable[..., dict[str, list]],
    num_proc: int | None = None,
    **options: Any,  # noqa: ANN401
) -> LanguageData:
    """The rows of examples.

    Args:
        examples: of any task.
        encode: makes rows of a batch of examples; given the columns, the examples' positions and `options`. It returns
            columns with `input_ids` and `example`.
        num_proc: processes that share the work.
        options: for `encode`.
    """
    rows = examples.map(
        _encode_batch,
        batched=True,
        with_indices=True,
        remove_columns=examples.column_names,
        num_proc=num_proc,
        fn_kwargs={"encode": encode, "options": options, "code": cache_key(encode, _encode_batch)},
        desc="Tokenising",
    )
    return LanguageData(examples, rows)


def _encode_batch(
    batch: Mapping[str, list],
    positions: Sequence[int],
    encode: Callable[..., dict[str, list]],
    options: Mapping[str, Any],
    code: str,  # (rows are cached under it)
) -> dict[str, list]:
    rows = encode(batch, positions, **options)
    return {**rows, "length": [len(ids) for ids in rows["input_ids"]]}
