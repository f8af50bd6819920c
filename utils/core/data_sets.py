"""Data sets on the Hub or in a local folder: the configuration and the split that hold a language."""

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset, IterableDataset, get_dataset_config_names, load_dataset
from datasets.exceptions import DatasetsError

from utils.core.errors import InputError


def load_split(
    dataset_name: str,
    language: str,
    configs: Sequence[str],
    splits: Sequence[str],
    arguments: Mapping[str, str],
    streaming: bool = False,
    **hub_options: Any,
) -> tuple[Dataset | IterableDataset, str, str]:
    """The rows, configuration and split of a data set (Hub id or folder) for a language; else `InputError`.

    Args:
        configs, splits: the first that exists is read; `{language}` stands for the language. A data set without
            configurations is read as a whole.
        arguments: what the command line calls `config` and `split`, for messages.
        streaming: read rows only when they are used, without a download.
        hub_options: `cache_dir`, `token`.
    """
    where = f"The data set {dataset_name}"
    try:
        offered = get_dataset_config_names(dataset_name, **hub_options)
        wanted = [*configs, *(offered if offered == ["default"] else [])]
        config = _first_offered(wanted, offered, language, f"{where} has no configuration", arguments["config"])
        parts = load_dataset(dataset_name, config, streaming=streaming, **hub_options)
    except (DatasetsError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{where} cannot be loaded ({reason}); check its name.") from None
    where = f"{where} ({config})"
    split = _first_offered(splits, list(parts), language, f"{where} has no split", arguments["split"])
    if not streaming and not len(parts[split]):
        raise InputError(f"{where} has nothing in its split {split}; choose one with {arguments['split']}.")
    return parts[split], config, split


def _first_offered(wanted: Sequence[str], offered: Sequence[str], language: str, lacks: str, argument: str) -> str:
    wanted = [name.format(language=language) for name in wanted]
    found = next((name for name in wanted if name in offered), None)
    if found is None:
        # Of the 183 configurations of google/xtreme only those of the same task are of interest.
        tasks = tuple(name.split(".")[0] + "." for name in wanted)
        named = ", ".join([name for name in offered if name.startswith(tasks)] or offered) or "none at all"
        tried = " or ".join(name for name in wanted if not name.startswith("translation."))
        raise InputError(f"{lacks} {tried}, only {named}; choose one with {argument}.")
    return found
