"""Parallel corpora from data sets on the Hub or in a local folder."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from datasets import Dataset

from utils.core.cache import cache_key
from utils.core.data_sets import load_split
from utils.parallel.formats import BITEXT_FEATURES, ENGLISH, SentenceColumns, words_of


# What run_align.py and the scripts with --continual call the arguments about a data set.
PARALLEL = {
    "config": "--parallel_config",
    "split": "--parallel_split",
    "source": "--source_column",
    "english": "--english_column",
}


def load_bitext(
    dataset_name: str,
    language: str,
    split: Callable[[str], list[str]],
    splitting: str = "space",
    config_name: str | None = None,
    dataset_split: str = "train",
    source_column: str | None = None,
    english_column: str | None = None,
    num_proc: int | None = None,
    **hub_options: Any,  # noqa: ANN401
) -> Dataset:
    """Read a parallel corpus from a data set on the Hub or in a local folder.

    Args:
        dataset_name: Hub id or folder.
        language: code of the source language.
        split: splits a sentence into words.
        splitting: its name; lists of words are split once more for `subword`.
        config_name: configuration, in which `{language}` stands for the language; by default the first of
            `en-hi`, `hi-en`, `hi` that the data set has.
        dataset_split: which split.
        source_column, english_column: names of the columns, where they are not the usual ones.
        num_proc: processes that split the sentences.
        hub_options: `cache_dir`, `token`.

    Raises:
        InputError: naming what the data set offers instead.
    """
    configs, columns = usual_configs(config_name), (source_column, english_column)
    rows, _, _ = load_sentences(dataset_name, language, configs, [dataset_split], columns, PARALLEL, **hub_options)
    return rows.map(
        _split_columns,
        batched=True,
        features=BITEXT_FEATURES,
        num_proc=num_proc,
        fn_kwargs={
            "split": split,
            "splits_words": splitting.startswith("subword"),
            "code": cache_key(_split_columns, split),
        },
        desc="Splitting into words",
    )


def usual_configs(config_name: str | None) -> list[str]:
    return [config_name] if config_name else [f"{ENGLISH}-{{language}}", f"{{language}}-{ENGLISH}", "{language}"]


def load_sentences(
    dataset_name: str,
    language: str,
    configs: Sequence[str],
    splits: Sequence[str],
    columns: tuple[str | None, str | None],
    arguments: Mapping[str, str],
    **hub_options: Any,  # noqa: ANN401
) -> tuple[Dataset, str, str]:
    """Find the sentence pairs of a language in a data set on the Hub or in a local folder.

    Args:
        dataset_name: Hub id or folder.
        language: code of the source language.
        configs: configurations, of which the first that there is gets read; `{language}` stands for the language. A
            data set without configurations has one of its own.
        splits: likewise; a data set with a single split needs no name for it, unless one is asked for.
        columns: of source and English sentences; None for the usual names.
        arguments: what the command line calls `config`, `split`, `source` and `english`, for messages.
        hub_options: `cache_dir`, `token`.

    Returns:
        Rows with the columns `source` and `english`, the configuration and the split.

    Raises:
        InputError: naming what the data set offers instead.
    """
    rows, config, split = load_split(dataset_name, language, configs, splits, arguments, **hub_options)
    where = f"The data set {dataset_name} ({config})"
    rows = rows.flatten()  # OPUS data sets keep both sides in one column `translation`
    stored = {name.removeprefix("translation."): name for name in rows.column_names}
    names = SentenceColumns(language, *columns, arguments=(arguments["source"], arguments["english"])).find(
        list(stored), where
    )
    rows = rows.select_columns([stored[name] for name in names])
    return rows.rename_columns(dict(zip(rows.column_names, ("source", "english")))), config, split


def _split_columns(
    batch: Mapping[str, list],
    split: Callable[[str], list[str]],
    splits_words: bool,
    code: str,  # (rows are cached under it)
) -> dict[str, list[list[str]]]:
    return {side: [words_of(text, split, splits_words) for text in batch[side]] for side in ("source", "english")}
