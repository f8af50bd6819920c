"""What loading a model has in common: its config, the errors, quiet libraries."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from huggingface_hub.errors import EntryNotFoundError, HTTPError, RepositoryNotFoundError, RevisionNotFoundError
from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedConfig
from transformers.utils import logging

from utils.core.errors import InputError
from utils.models.adapters import adapter_config, base_options


# What a model that cannot be loaded may raise.
NOT_LOADED = (OSError, ValueError, SafetensorError, HTTPError)


def load_config(model_name_or_path: str, **hub_options: Any) -> PreTrainedConfig:  # noqa: ANN401
    """The config of a Hub repository or a folder; of what it stands on, if it is an adapter without one.

    Raises:
        InputError: if there is none.
    """
    options = without_permission(hub_options)
    try:
        return AutoConfig.from_pretrained(model_name_or_path, **options)
    except NOT_LOADED as error:
        if adapter := adapter_config(model_name_or_path, **hub_options):
            return load_config(adapter.base_model_name_or_path, **base_options(adapter, hub_options))
        raise not_found(model_name_or_path, error) from error


def without_permission(hub_options: Mapping[str, Any]) -> dict[str, Any]:
    """What `from_pretrained` knows (whether pickles are allowed is decided before it is called)."""
    return {name: value for name, value in hub_options.items() if name != "allow_pickled_weights"}


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """transformers reports errors only."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def not_found(model_name_or_path: str, error: Exception) -> InputError:
    """What to tell the user when a model cannot be loaded."""
    reason = str(error).strip().splitlines()[0]
    if os.path.isdir(model_name_or_path):
        return InputError(f"The folder {model_name_or_path} holds no model that can be loaded ({reason})")
    if isinstance(error, ValueError):  # it is there, but is not what this version of transformers can load
        return InputError(f"The model {model_name_or_path} cannot be loaded ({reason})")
    cause = error if isinstance(error, HTTPError) else error.__cause__ or error
    absent = isinstance(cause, (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError))
    if isinstance(cause, HTTPError) and not absent or reason.startswith("Consistency check failed"):
        reason = str(cause).partition(" for url")[0].partition(" (")[0].rstrip(".")
        return InputError(
            f"The model {model_name_or_path} could not be downloaded ({reason}); run the same command again."
        )
    return InputError(
        f"There is no model {model_name_or_path}: neither a folder of that name nor, as far as can be seen from here, "
        "a repository on the Hub; check the spelling, and `hf auth login` if it is private."
    )


def count_layers(model_name_or_path: str, **hub_options: Any) -> int:  # noqa: ANN401
    """How many layers an encoder has, by its config alone.

    Raises:
        InputError: if it has no config.
    """
    return load_config(model_name_or_path, **hub_options).num_hidden_layers
