"""Data sets on the Hub or in a local folder: the configuration and the split that hold a language."""

import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.compute
from datasets import Dataset, Features, IterableDataset, get_dataset_config_names, load_dataset, load_from_disk
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCard, snapshot_download

from utils.core.columns import class_names
from utils.core.errors import InputError, first_line
from utils.core.hub import OFFLINE, hub_problem


# Names from before the Hub had owners, as in papers and older code.
SHORT_NAMES = {
    "multi_nli": "nyu-mll/multi_nli",
    "opus100": "Helsinki-NLP/opus-100",
    "paws-x": "google-research-datasets/paws-x",
    "snli": "stanfordnlp/snli",
    "squad": "rajpurkar/squad",
    "squad_v2": "rajpurkar/squad_v2",
    "tydiqa": "google-research-datasets/tydiqa",
    "wikiann": "unimelb-nlp/wikiann",
    "xnli": "facebook/xnli",
    "xquad": "google/xquad",
    "xtreme": "google/xtreme",
}


def full_name(dataset_name: str) -> str:
    """The folder, or the Hub id, that a data set's name refers to; a folder goes before a short name."""
    return dataset_name if os.path.isdir(dataset_name) else SHORT_NAMES.get(dataset_name, dataset_name)


class NotOfferedError(InputError):
    """A data set does not have the language, configuration or split that was asked for."""


def load_split(
    dataset_name: str,
    language: str,
    configs: Sequence[str],
    splits: Sequence[str],
    arguments: Mapping[str, str],
    streaming: bool = False,
    **hub_options: Any,
) -> tuple[Dataset | IterableDataset, str, str]:
    """The rows, configuration and split of a data set (Hub id, short name or folder) for a language; else `InputError`.

    Of a data set on the Hub only the files of the split are fetched, and found again without a connection.

    Args:
        configs, splits: the first that exists is read; `{language}` stands for the language. A data set without
            configurations is read as a whole.
        arguments: what the command line calls `config` and `split`, for messages.
        streaming: read rows only when they are used, without a download.
        hub_options: `cache_dir`, `token`.
    """
    name, where = full_name(dataset_name), f"The data set {dataset_name}"
    local = os.path.isdir(name)
    if local and Path(name, "state.json").is_file():  # (a folder of several splits is read below)
        return _saved(name, streaming), "default", splits[0]
    try:
        folder = name if local else _fetch(name, ("README.md",), **hub_options)
        listed = _splits_in_card(folder)
        if not listed and not local:
            folder = _fetch(name, None, **hub_options)
        offered = list(listed) or get_dataset_config_names(folder)
        wanted = [*configs, *(offered if offered == ["default"] else [])]
        config = _first_offered(wanted, offered, language, f"{where} has no configuration", arguments["config"])
        where = f"{where} ({config})"
        if streaming:
            parts = load_dataset(name, config, streaming=True, **hub_options)
        elif listed:
            split = _first_offered(splits, list(listed[config]), language, f"{where} has no split", arguments["split"])
            files = listed[config][split]
            if not local:
                _fetch(name, tuple(files), revision=Path(folder).name, **hub_options)
            # (Other splits, whose sizes the card names, are not there.)
            parts = load_dataset(folder, config, data_files={split: files}, verification_mode="no_checks")
            # (Given files, `datasets` forgets what the card says about their columns.)
            parts[split] = _with_class_names(parts[split], _features_in_card(folder, config))
        else:
            parts = load_dataset(folder, config, **hub_options)
    except InputError:
        raise
    except Exception as error:  # files of other people, and cards, can be wrong in every way
        reason = hub_problem(error, f"datasets/{name}") or _reason(error)
        remedy = "; check its files, or name one of them instead" if local else "; check its name"
        remedy = "" if reason == OFFLINE else remedy
        raise InputError(f"{where} cannot be loaded ({reason}){remedy}.") from None
    split = _first_offered(splits, list(parts), language, f"{where} has no split", arguments["split"])
    if not streaming and not len(parts[split]):
        raise InputError(f"{where} has nothing in its split {split}; choose one with {arguments['split']}.")
    return parts[split], config, split


def _saved(folder: str, streaming: bool) -> Dataset:
    """The rows in a folder that `Dataset.save_to_disk` wrote."""
    if streaming:
        raise InputError(
            f"The folder {folder} was written by save_to_disk, which is not streamed; leave --streaming out."
        )
    try:
        rows = load_from_disk(folder)
    except Exception as error:
        raise InputError(f"The folder {folder} cannot be loaded ({_reason(error)}); write it again.") from None
    if not len(rows):
        raise InputError(f"The folder {folder} has no rows; write it again.")
    return rows


def _reason(error: BaseException) -> str:
    """The first line of an error's innermost cause, which says more than that of the error."""
    while error.__cause__:
        error = error.__cause__
    return first_line(error)[:150]


@cache  # (one request per run to ask for the newest commit)
def _fetch(name: str, patterns: tuple[str, ...] | None, revision: str = "main", **hub_options: Any) -> str:
    """The folder in the cache with the files of a Hub data set that match `patterns` (None: all).

    Without a connection, files that were fetched before are enough; if one is missing, `LocalEntryNotFoundError` is raised.
    """
    return snapshot_download(
        name,
        repo_type="dataset",
        revision=revision,
        allow_patterns=list(patterns) if patterns else None,
        **hub_options,
    )


@cache
def _splits_in_card(folder: str) -> dict[str, dict[str, list[str]]]:
    """Configuration → split → patterns of its files; empty unless the card of a data set says so for every configuration."""
    card = Path(folder, "README.md")
    configs = (DatasetCard.load(card).data.get("configs") if card.is_file() else None) or []
    found = {}
    for config in configs:
        files = config.get("data_files")
        if not isinstance(files, list) or not all(isinstance(one, dict) for one in files):
            return {}
        paths = {one["split"]: one["path"] for one in files}
        found[config["config_name"]] = {
            split: [path] if isinstance(path, str) else path for split, path in paths.items()
        }
    return found


def _features_in_card(folder: str, config: str) -> Features:
    """The columns of a configuration, as far as the card of a data set describes them."""
    infos = DatasetInfosDict.from_dataset_card_data(DatasetCard.load(Path(folder, "README.md")).data)
    return (infos[config].features if config in infos else None) or Features()


def _with_class_names(rows: Dataset, described: Features) -> Dataset:
    """The rows, with the names that a description has for numbers of classes which are plain numbers in the files."""
    names = class_names(described)
    for column, kind in described.items():
        if column not in names or column not in rows.column_names or column in class_names(rows.features):
            continue
        values = rows.select_columns([column]).with_format("arrow")[:][column]
        while pyarrow.types.is_nested(values.type):
            values = pyarrow.compute.list_flatten(values)
        is_number = pyarrow.types.is_integer(values.type) or pyarrow.types.is_floating(values.type)
        # (Names stay as they are, also those that the card lacks, such as `-` for none.)
        if is_number or (pyarrow.types.is_string(values.type) and _are_numbers(values)):
            rows = rows.cast_column(column, kind)
    return rows


def _are_numbers(texts: pyarrow.ChunkedArray) -> bool:
    return bool(pyarrow.compute.any(pyarrow.compute.match_substring_regex(texts, "^[0-9]+$")).as_py())


def _first_offered(wanted: Sequence[str], offered: Sequence[str], language: str, lacks: str, argument: str) -> str:
    wanted = [name.replace("{language}", language) for name in wanted]
    found = next((name for name in wanted if name in offered), None)
    if found is None:
        # Of the 183 configurations of google/xtreme only those of the same task are of interest.
        tasks = tuple(name.split(".")[0] + "." for name in wanted)
        named = ", ".join([name for name in offered if name.startswith(tasks)] or offered) or "none at all"
        raise NotOfferedError(f"{lacks} {' or '.join(wanted)}, only {named}; choose one with {argument}.")
    return found
