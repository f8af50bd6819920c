"""Reads the examples of a task in many languages, from files or data sets."""

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from datasets import Dataset, Features, concatenate_datasets
from transformers import TrainingArguments

from utils.core.arguments import require
from utils.core.cache import cache_key, dataset_from_files
from utils.core.columns import class_names, same_content, with_class_names
from utils.core.data_sets import NotOfferedError, full_name, load_split
from utils.core.errors import InputError
from utils.core.romanization import files_by_source, romanize_columns, source_language
from utils.core.tables import READERS, Rows, one_path_each, read_rows
from utils.parallel.sides import same_language
from utils.tasks.data_arguments import TaskDataArguments
from utils.tasks.examples import TaskExamples, UnlabeledError


logger = logging.getLogger(__name__)

# Makes an example of a row of the source, given the row, its place for messages and, if they are known, `labels`; raises
# InputError. Class labels in the row are names.
ReadExample = Callable[..., dict[str, Any]]
Readers = Mapping[str, Callable[[str], Rows]]


@dataclass
class TaskReader:
    """Reads the examples of a task from the files or data sets that the arguments name.

    Attributes:
        features: columns of an example.
        configs: configurations of the task's data sets, of which the first that exists is read; `{language}` stands for
            the language's code, `{language_name}` for its name.
        readers: by suffix, what reads a file (see `utils.core.tables.read_rows`).
        language_names: code of a language → what `{language_name}` stands for.
        select_language: selects the rows of a language in a configuration, or a file, that holds several; gives others as they are.
        hub_options: `cache_dir`, `token`.
        romanized: languages whose texts are written in Latin letters (`utils.core.romanization`).
        texts: columns with these texts; if there are none, as where labels are places in a text, they stay as they are.
        evaluated: of every language that was read for evaluation, the file, or the data set and its configuration.

    No two languages have the same examples: one source of both, or equal content, raises `InputError`. Nor has a set for
    evaluation those of the training, of which all are meant, however few of them are used.
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
    romanized: Sequence[str] = ()
    texts: Sequence[str] = ()
    evaluated: dict[str, str] = field(default_factory=dict, init=False)
    # Which language was read from a file, or from a configuration; and the examples of every set that was read.
    _language_of: dict[tuple[str, ...], str] = field(default_factory=dict, init=False, repr=False)
    _sets: list[tuple[str, Dataset]] = field(default_factory=list, init=False, repr=False)
    _trained_on: list[Dataset] = field(default_factory=list, init=False, repr=False)

    def train(self) -> Dataset:
        """The training examples: those of the training language, then those of `--few_shot`."""
        few = {language: self._few(language, number) for language, number in self.arguments.shots().items()}
        examples = self._train()
        for language, some in few.items():
            self._check_different(language, some)
            if _same_but_for_ids(some, examples.select(range(min(len(some), len(examples))))):
                raise _same_examples(self.arguments.train_language, language)
        self._check_different(self.arguments.train_language, examples)
        return _chosen(concatenate_datasets([examples, *few.values()]), None) if few else examples

    def _few(self, language: str, number: int) -> Dataset:
        """The first examples of a language, of its file or of the data set that is evaluated."""
        data = self.arguments
        files = files_by_source(data.few_shot_file, list(data.shots()), self.romanized)
        if path := one_path_each(files, list(data.shots()), "--few_shot_file").get(language):
            examples, where = self._from_file(path, language, self.read_example), f"The file {path}"
        elif data.train_file and (data.validation_file or data.test_file):
            # (Not of the usual data set, which has no part in the run.)
            raise InputError(f"--few_shot {language}={number} has no file; add --few_shot_file {language}=FILE.")
        else:
            name, config = data.evaluated_data_set()
            examples = self._from_dataset("few_shot", language, name, config, data.train_split, self.read_example)
            where = f"The data set {name}"
        if len(examples) < number:
            raise InputError(
                f"{where} has only {len(examples)} examples in {language}; lower --few_shot {language}={number}."
            )
        self._trained_on.append(examples)
        return self._in_latin(_chosen(examples, number), language)

    def _train(self) -> Dataset:
        data = self.arguments
        if data.train_file:
            examples = self._from_file(data.train_file, data.train_language, self.read_example)
        else:
            source = (data.dataset_name, data.dataset_config_name, data.train_split)
            examples = self._from_dataset("train", data.train_language, *source, self.read_example)
        self._trained_on.append(examples)
        return self._in_latin(_chosen(examples, data.max_train_samples), data.train_language)

    def evaluation(
        self,
        purpose: str,
        language: str,
        labels: Sequence[str] | None = None,
        config: str | None = None,
        limited: bool = True,
    ) -> Dataset:
        """The examples of a language.

        Args:
            purpose: `validation` (--do_eval) or `test` (--do_predict).
            language: code of the language.
            labels: names of the classes that the model knows; any other one raises.
            config: configuration of the data set; by default that of the arguments.
            limited: no more of them than the arguments say.
        """
        data, validates = self.arguments, purpose == "validation"
        # (A dictionary, in which a label is found at once however many there are.)
        read_example = partial(self.read_example, labels=dict.fromkeys(labels)) if labels else self.read_example
        if files := data.validation_file if validates else data.test_file:
            values = files_by_source(files, data.languages(), self.romanized)
            path = one_path_each(values, data.languages(), f"--{purpose}_file").get(language)
            require(path, [f"--{purpose}_file {language}=FILE"], f"there is no file for {language}")
            examples = self._from_file(str(path), language, read_example)
            self.evaluated[language] = str(path)
        else:
            name, usual = data.evaluated_data_set()
            split = data.validation_split if validates else data.test_split
            examples = self._from_dataset(purpose, language, name, config or usual, split, read_example)
        if any(_same_but_for_ids(examples, seen) for seen in self._trained_on):
            raise InputError(
                f"The examples in {language} of --{purpose}_{'file' if files else 'split'} ({path if files else split}) are those of the "
                "training; give others, or train on others."
            )
        return self._in_latin(_chosen(examples, data.limit(purpose) if limited else None), language)

    def evaluation_sets(self, purpose: str, labels: Sequence[str] | None = None) -> dict[str, Dataset]:
        """The examples of all `--eval_languages`, by language; arguments as for `evaluation`."""
        return self._offered(
            {
                language: partial(self.evaluation, purpose, language, labels)
                for language in self.arguments.eval_languages
            }
        )

    def _offered(self, sets: Mapping[str, Callable[[], Dataset]]) -> dict[str, Dataset]:
        """Read sets; of languages that nobody named, those that the data set does not have are left out."""
        found = {}
        for name, read in sets.items():
            try:
                found[name] = read()
            except NotOfferedError as error:
                if not self.arguments.assumes_languages or name == self.arguments.train_language:
                    raise
                logger.info("Without %s: %s", name, error)
        for name, examples in found.items():
            self._check_different(name, examples)
        return found

    def _check_different(self, name: str, examples: Dataset) -> None:
        """Raise `InputError` if another set has the same examples; keep them for later ones."""
        for other, of_other in self._sets:
            if other != name and _same_but_for_ids(examples, of_other):
                raise _same_examples(other, name)
        self._sets.append((name, examples))

    def _claim(self, source: tuple[str, ...], language: str, where: str, remedy: str) -> None:
        """Note that a language is read from a source; raise `InputError` if another one was (`NotOfferedError`, to leave out
        one that nobody named)."""
        language = source_language(language, self.romanized)
        owner = self._language_of.setdefault(source, language)
        if not same_language(owner, language):
            raise NotOfferedError(f"{owner} and {language} would both be read from {where}; {remedy}.")

    def _in_latin(self, examples: Dataset, language: str) -> Dataset:
        if language not in self.romanized:
            return examples
        if not self.texts:
            raise InputError(
                f"--romanize {language} would move the answers, which are places in a text; leave it out for this task."
            )
        return romanize_columns(examples, self.texts, language, self.num_proc)

    def _from_file(self, path: str, language: str, read_example: ReadExample) -> Dataset:
        skip = self.arguments.skip_unlabeled
        key = cache_key(read_example, *self.readers.values(), _read_file, read_example=read_example, skip=skip)
        how = {"path": path, "readers": self.readers, "read_example": read_example, "skip": skip}
        examples = dataset_from_files([path], _read_file, self.features, key, **how)
        rows = self.select_language(examples, language) if self.select_language else examples
        if rows is examples:
            self._claim(
                (os.path.realpath(path),), language, f"the file {path}", "give each language a file of its own"
            )
        elif not len(rows):
            raise InputError(
                f"There is nothing in {language} in the file {path}; give another file, or omit {language}."
            )
        return _not_empty(rows, f"The file {path}", skip)

    def _from_dataset(
        self, purpose: str, language: str, name: str | None, config: str | None, split: str, read_example: ReadExample
    ) -> Dataset:
        require(name, ["--dataset_name", f"--{purpose}_file"], "there is no data")
        language = source_language(language, self.romanized)
        english = self.language_names.get(language, language)
        configs = [one.replace("{language_name}", english) for one in ([config] if config else self.configs)]
        of_config = "--dataset_config_name" if purpose == "train" else "--eval_dataset_config_name"
        arguments = {"config": of_config, "split": "--train_split" if purpose == "few_shot" else f"--{purpose}_split"}
        all_rows, config, split = load_split(str(name), language, configs, [split], arguments, **self.hub_options)
        assert isinstance(all_rows, Dataset)  # (it is not streamed)
        rows = self.select_language(all_rows, language) if self.select_language else all_rows
        if rows is all_rows:
            self._check_language(str(name), config, split, language, arguments)
        if purpose in ("validation", "test"):
            self.evaluated[language] = f"{name} {config}"
        where, skip = f"the data set {name} ({config}, {split})", self.arguments.skip_unlabeled
        if not len(rows):
            raise NotOfferedError(
                f"There is nothing in {language} in {where}; choose another one, or omit {language}."
            )
        examples = rows.map(
            _read_batch,
            batched=True,
            with_indices=True,
            remove_columns=rows.column_names,
            features=self.features,
            num_proc=self.num_proc,
            fn_kwargs={
                "columns": tuple(self.features),
                "names": class_names(rows.features),
                "where": where,
                "read_example": read_example,
                "skip": skip,
                "code": cache_key(read_example, _read_batch),
            },
            desc=f"Reading {name} ({config}, {split})",
        )
        _log_skipped(len(rows) - len(examples), where)
        return _not_empty(examples, f"The {where.removeprefix('the ')}", skip)

    def _check_language(self, name: str, config: str, split: str, language: str, arguments: Mapping[str, str]) -> None:
        """Raise `InputError` if a configuration is that of another language, by its name or because that was read from it."""
        if any(same_language(part, language) for part in re.split("[._]", f"{config}.{split}")):
            return self._claim(
                (full_name(name), config, split), language, f"{name} ({config}, {split})", "name others"
            )
        others = [*self.arguments.trained_languages(), *self.arguments.languages()]
        if other := next((one for one in others if same_language(config, one)), None):
            raise NotOfferedError(
                f"The configuration {config} of {name} is that of {other}, not of {language}; write {{language}} in "
                f"{arguments['config']}."
            )
        # (Not by split: those for training, validation and test have the same language.)
        remedy = (
            f"name a configuration of each language ({{language}} in {arguments['config']}), give each a file of its own, or omit "
            f"--eval_languages {language}"
        )
        return self._claim((full_name(name), config), language, f"the data set {name} ({config})", remedy)


def _same_but_for_ids(one: Dataset, other: Dataset) -> bool:
    return same_content(one.remove_columns("id"), other.remove_columns("id"))


def _same_examples(one: str, other: str) -> InputError:
    return InputError(f"{one} and {other} have the same examples; give each language its own, or omit one of them.")


def _read_file(path: str, readers: Readers, read_example: ReadExample, skip: bool) -> Iterator[dict[str, Any]]:
    n_skipped = 0
    for number, (where, row) in enumerate(read_rows(path, readers)):
        if example := _example(number, row, where, read_example, skip):
            yield example
        else:
            n_skipped += 1
    _log_skipped(n_skipped, f"the file {path}")


def _read_batch(
    batch: Mapping[str, list],
    numbers: Sequence[int],
    columns: Sequence[str],
    names: Mapping[str, Sequence[str]],
    where: str,
    read_example: ReadExample,
    skip: bool,
    code: str,  # (part of the key under which `datasets` caches the rows)
) -> dict[str, list]:
    examples = [
        _example(
            number, with_class_names(dict(zip(batch, row)), names), f"Row {number + 1} of {where}", read_example, skip
        )
        for number, row in zip(numbers, zip(*batch.values()))
    ]
    return {column: [example[column] for example in examples if example] for column in columns}


def _example(
    number: int, row: Mapping[str, Any], where: str, read_example: ReadExample, skip: bool
) -> dict[str, Any] | None:
    """The example of a row; None if the row has no label and such rows are skipped."""
    try:
        return {"id": str(number), **read_example(row, where)}
    except UnlabeledError:
        if skip:
            return None
        raise


def _not_empty(examples: Dataset, where: str, skip: bool) -> Dataset:
    if not len(examples):
        raise InputError(f"{where} has no {'labeled ' if skip else ''}example; give one with data.")
    return examples


def _log_skipped(n_skipped: int, where: str) -> None:
    if n_skipped:
        logger.info(f"{n_skipped:,} rows of {where} have no label and are left out (--skip_unlabeled).")


def _chosen(examples: Dataset, wanted: int | None) -> Dataset:
    """The first examples, with an id of its own each: `a`, `a#2`, `a#3` for an id that repeats."""
    examples = examples if wanted is None else examples.select(range(min(wanted, len(examples))))
    ids: dict[str, None] = {}
    repeats: Counter[str] = Counter()
    for identity in examples["id"]:
        unique = identity
        while unique in ids:
            repeats[identity] += 1
            unique = f"{identity}#{repeats[identity] + 1}"
        ids[unique] = None
    if list(ids) == examples["id"][:]:
        return examples
    return examples.remove_columns("id").add_column("id", list(ids)).select_columns(examples.column_names)


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
