"""Loading a model's config, the errors of loading, and quiet libraries."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from huggingface_hub.errors import EntryNotFoundError, HTTPError, RepositoryNotFoundError, RevisionNotFoundError
from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedConfig
from transformers.utils import logging

from utils.core.errors import InputError
from utils.models.adapters import adapter_config, base_of


# Errors of a model that cannot be loaded.
NOT_LOADED = (OSError, ValueError, SafetensorError, HTTPError)


def load_config(model_name_or_path: str, **hub_options: Any) -> PreTrainedConfig:  # noqa: ANN401
    """The config of a Hub repository or a folder; that of its base model, if it is an adapter without one.

    Raises:
        InputError: if there is none.
    """
    options = without_permission(hub_options)
    try:
        return AutoConfig.from_pretrained(model_name_or_path, **options)
    except NOT_LOADED as error:
        if adapter := adapter_config(model_name_or_path, **hub_options):
            base, options = base_of(adapter, hub_options)
            return load_config(base, **options)
        raise not_found(model_name_or_path, error) from error


def without_permission(hub_options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `from_pretrained` (`weight_files` has checked whether pickles are allowed)."""
    return {name: value for name, value in hub_options.items() if name != "allow_pickled_weights"}


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Within the context transformers logs errors only."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def not_found(model_name_or_path: str, error: Exception) -> InputError:
    """The error to raise when a model cannot be loaded."""
    reason = str(error).strip().splitlines()[0]
    if os.path.isdir(model_name_or_path):
        return InputError(f"The folder {model_name_or_path} holds no model that can be loaded ({reason})")
    if isinstance(error, ValueError):  # it exists, but this version of transformers cannot load it
        return InputError(f"The model {model_name_or_path} cannot be loaded ({reason})")
    cause = error if isinstance(error, HTTPError) else error.__cause__ or error
    absent = isinstance(cause, (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError))
    if isinstance(cause, HTTPError) and not absent or reason.startswith("Consistency check failed"):
        reason = str(cause).partition(" for url")[0].partition(" (")[0].rstrip(".")
        return InputError(
            f"The model {model_name_or_path} could not be downloaded ({reason}); run the same command again."
        )
    return InputError(
        f"There is no model {model_name_or_path}: neither a folder of that name nor a "
        "repository on the Hub that you can see; check the spelling, and `hf auth login` if it is private."
    )


def count_layers(model_name_or_path: str, **hub_options: Any) -> int:  # noqa: ANN401
    """The number of layers of an encoder, from its config alone.

    Raises:
        InputError: if it has no config.
    """
    return load_config(model_name_or_path, **hub_options).num_hidden_layers
