"""Parallel corpora from data sets on the Hub or in a local folder."""

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset

from utils.core.cache import cache_key
from utils.core.data_sets import load_split
from utils.parallel.arguments import ParallelDataArguments
from utils.parallel.formats import BITEXT_FEATURES, ENGLISH, SentenceColumns, Split, words_of


# What run_align.py and the scripts with --continual call the arguments about a data set.
PARALLEL = {
    "config": "--parallel_config",
    "split": "--parallel_split",
    "source": "--source_column",
    "english": "--english_column",
}


def load_bitext(
    data: ParallelDataArguments,
    language: str,
    split: Split,
    splitting: str = "space",
    dataset_split: str = "train",
    **hub_options: Any,
) -> Dataset:
    """Read the pairs of a language from `--parallel_dataset`; `InputError` names what the data set offers instead.

    `split` splits a sentence into words, and `splitting` is its name (see `words_of`); `hub_options` are `cache_dir`
    and `token`.
    """
    columns = data.source_column, data.english_column
    rows, _, _ = load_sentences(
        str(data.parallel_dataset), language, usual_configs(data), [dataset_split], columns, PARALLEL, **hub_options
    )
    return rows.map(
        _split_columns,
        batched=True,
        features=BITEXT_FEATURES,
        num_proc=data.preprocessing_num_workers,
        fn_kwargs={"split": split, "splitting": splitting, "code": cache_key(_split_columns, split)},
        desc="Splitting into words",
    )


def usual_configs(data: ParallelDataArguments) -> list[str]:
    """The configurations of which the first that exists is read."""
    usual = [f"{ENGLISH}-{{language}}", f"{{language}}-{ENGLISH}", "{language}"]
    return [data.parallel_config] if data.parallel_config else usual


def load_sentences(
    dataset_name: str,
    language: str,
    configs: Sequence[str],
    splits: Sequence[str],
    columns: tuple[str | None, str | None],
    arguments: Mapping[str, str],
    **hub_options: Any,
) -> tuple[Dataset, str, str]:
    """The sentence pairs of a language in a data set (Hub id or folder), the configuration and the split.

    The rows have the columns `source` and `english`. `columns` are the stored names of both, None for the usual ones;
    `arguments` are what the command line calls `config`, `split`, `source` and `english`. See `load_split`.
    """
    rows, config, split = load_split(dataset_name, language, configs, splits, arguments, **hub_options)
    rows = rows.flatten()  # OPUS data sets keep both sides in one column `translation`
    stored = {name.removeprefix("translation."): name for name in rows.column_names}
    named = SentenceColumns(language, *columns, arguments=(arguments["source"], arguments["english"]))
    names = named.find(list(stored), f"The data set {dataset_name} ({config})")
    rows = rows.select_columns([stored[name] for name in names])
    return rows.rename_columns(dict(zip(rows.column_names, ("source", "english")))), config, split


def _split_columns(batch: Mapping[str, list], split: Split, splitting: str, code: str) -> dict[str, list[list[str]]]:
    """Rows are cached under `code`."""
    return {side: [words_of(text, split, splitting) for text in batch[side]] for side in ("source", "english")}
