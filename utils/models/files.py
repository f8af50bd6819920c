"""Files of a model, in a folder or in a repository of the Hub.

`name` is a Hub id or a folder here and in the other modules. `hub_options` are those of `HubArguments.hub_options`
(`revision`, `cache_dir`, `token`, `trust_remote_code`, `allow_pickled_weights`); each function uses those it needs.
"""

from collections.abc import Mapping
from typing import Any

from transformers.utils.hub import cached_file


# Every folder or repository with a model has one of these files.
MARKS = ("config.json", "adapter_config.json")


def file_of(name: str, file: str, **hub_options: Any) -> str | None:
    """The path of a file of a Hub repository or a folder; None if there is no such file or no such model."""
    try:
        return find_file(name, file, hub_options)
    except (OSError, ValueError):
        return None


def find_file(name: str, file: str, hub_options: Mapping[str, Any]) -> str | None:
    """The path of a file, downloaded if necessary; None if there is no such file, an error if there is no such model."""
    return cached_file(name, file, _raise_exceptions_for_missing_entries=False, **of_download(hub_options))


def of_download(hub_options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that the download of a file takes."""
    wanted = ("revision", "cache_dir", "token", "local_files_only")
    return {option: value for option, value in hub_options.items() if option in wanted}
