"""Data sets on the Hub or in a local folder: the configuration and the split that hold a language."""

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset, IterableDataset, get_dataset_config_names, load_dataset, load_dataset_builder
from datasets.exceptions import DatasetsError
from datasets.fingerprint import Hasher

from utils.core.errors import InputError


def load_split(
    dataset_name: str,
    language: str,
    configs: Sequence[str],
    splits: Sequence[str],
    arguments: Mapping[str, str],
    streaming: bool = False,
    **hub_options: Any,  # noqa: ANN401
) -> tuple[Dataset | IterableDataset, str, str]:
    """Find the part of a data set on the Hub or in a local folder that holds a language.

    Args:
        dataset_name: Hub id or folder.
        language: code of the language.
        configs: configurations, of which the first that there is gets read; `{language}` stands for the language. A
            data set without configurations has one of its own.
        splits: likewise.
        arguments: what the command line calls `config` and `split`, for messages.
        streaming: download nothing, but read rows as they are asked for.
        hub_options: `cache_dir`, `token`.

    Returns:
        The rows, the configuration and the split.

    Raises:
        InputError: naming what the data set offers instead.
    """
    where = f"The data set {dataset_name}"
    try:
        offered = get_dataset_config_names(dataset_name, **hub_options)
        wanted = [*configs, *(offered if offered == ["default"] else [])]
        config = first_offered(wanted, offered, language, f"{where} has no configuration", arguments["config"])
        parts = load_dataset(dataset_name, config, streaming=streaming, **hub_options)
    except (DatasetsError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{where} cannot be loaded ({reason}); check its name.") from None
    where = f"{where} ({config})"
    split = first_offered(splits, list(parts), language, f"{where} has no split", arguments["split"])
    if not streaming and not len(parts[split]):
        raise InputError(f"{where} has nothing in its split {split}; choose one with {arguments['split']}.")
    return parts[split], config, split


def first_offered(wanted: Sequence[str], offered: Sequence[str], language: str, lacks: str, argument: str) -> str:
    """The first of the wanted names that is offered; `lacks` begins the sentence that says that there is none."""
    wanted = [name.format(language=language) for name in wanted]
    found = next((name for name in wanted if name in offered), None)
    if found is None:
        # Of the 183 configurations of google/xtreme only those of `tatoeba.…` are of interest.
        tasks = tuple(name.split(".")[0] + "." for name in wanted)
        named = ", ".join([name for name in offered if name.startswith(tasks)] or offered) or "none at all"
        tried = " or ".join(name for name in wanted if not name.startswith("translation."))
        raise InputError(f"{lacks} {tried}, only {named}; choose one with {argument}.")
    return found


def stream_fingerprint(dataset_name: str, config: str, split: str, **hub_options: Any) -> str:  # noqa: ANN401
    """Tells a data set that is only streamed from another one, and from itself with other files."""
    builder = load_dataset_builder(dataset_name, config, **hub_options)
    return Hasher.hash([dataset_name, config, split, builder.config_id, builder.hash])
