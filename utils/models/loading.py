"""Loading a model's config, and the errors of loading."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from huggingface_hub.errors import EntryNotFoundError, HTTPError, RepositoryNotFoundError, RevisionNotFoundError
from transformers import AutoConfig, PreTrainedConfig
from transformers.utils import logging

from utils.core.errors import InputError, first_line
from utils.core.hub import OFFLINE, is_offline
from utils.models.adapters import adapter_config, base_of
from utils.models.files import MARKS


def load_config(name: str, **hub_options: Any) -> PreTrainedConfig:
    """The config of a text encoder, or that of its base model if it is an adapter without one.

    Raises:
        InputError: if there is none, or it is of a model of another kind.
    """
    config = load_or_base(AutoConfig.from_pretrained, name, hub_options)
    for size, usual in {"num_hidden_layers": 0, "hidden_size": 0, "vocab_size": 0, "num_attention_heads": 1}.items():
        if not isinstance(number := getattr(config, size, usual), int) or number < 1:
            raise InputError(f"The config.json of {name} has {size} {number}: it is not of a text encoder; name one.")
    return config


def load_or_base(load: Callable[..., Any], name: str, hub_options: Mapping[str, Any]) -> Any:
    """What `load` makes of a model's name, or else, if it is an adapter, of the name of its base model.

    Raises:
        InputError: if both fail.
    """
    try:
        with loading(name):
            return load(name, **without_permission(hub_options))
    except InputError:
        if adapter := adapter_config(name, **hub_options):
            return load_or_base(load, *base_of(adapter, hub_options))
        raise


def without_permission(hub_options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `from_pretrained` (`weight_files` has checked whether pickles are allowed)."""
    return {option: value for option, value in hub_options.items() if option != "allow_pickled_weights"}


@contextmanager
def loading(name: str) -> Iterator[None]:
    """Within the context transformers logs errors only, and a model that cannot be loaded is an `InputError`.

    Its reports of missing and unexpected keys are no cause for alarm: a new head is expected, and `save_encoder` loses
    nothing.
    """
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # the libraries raise many types for files that are damaged or do not fit each other
        raise _not_found(name, error) from error
    finally:
        logging.set_verbosity(verbosity)


def _not_found(name: str, error: Exception) -> InputError:
    reason = first_line(error)
    if os.path.isdir(name):
        if not any(os.path.exists(os.path.join(name, mark)) for mark in MARKS):
            return InputError(
                f"The folder {name} holds no model that can be loaded: it has no config.json, so that its run has not finished; "
                "resume that run (--resume_from_checkpoint true), or name another model."
            )
        return InputError(f"The folder {name} holds no model that can be loaded ({reason})")
    if not isinstance(error, (OSError, HTTPError)):  # it exists, but this version of transformers cannot load it
        return InputError(f"The model {name} cannot be loaded ({reason})")
    cause = error if isinstance(error, HTTPError) else error.__cause__ or error
    absent = isinstance(cause, (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError))
    if isinstance(cause, HTTPError) and not absent or reason.startswith("Consistency check failed"):
        reason = str(cause).partition(" for url")[0].partition(" (")[0].rstrip(".")
        return InputError(f"The model {name} could not be downloaded ({reason}); run the same command again.")
    if is_offline():
        return InputError(
            f"There is no model {name}: neither a folder of that name nor a model that is whole ({OFFLINE})."
        )
    return InputError(
        f"There is no model {name}: neither a folder of that name nor a repository on the Hub that you can see; check the "
        "spelling, and `hf auth login` if it is private."
    )
