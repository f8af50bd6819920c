"""Where a model came from, by the records that runs leave beside their models."""

import json
from collections.abc import Mapping
from typing import Any

from transformers.utils.hub import cached_file


def original_model(model_name_or_path: str, revision: str = "main", **hub_options: Any) -> tuple[str, str]:  # noqa: ANN401
    """The model at the beginning of the chain: the one that was neither adjusted nor fine-tuned by these scripts.

    Args:
        model_name_or_path: Hub id or folder of the end of the chain.
        revision: of it.
        hub_options: `cache_dir`, `token`; others are not used.

    Returns:
        Name and revision; those given, if there is no record beside the model.
    """
    chain = _chain(model_name_or_path, revision, hub_options)
    return chain[-1]


def ancestors(model_name_or_path: str, revision: str = "main", **hub_options: Any) -> list[str]:  # noqa: ANN401
    """The models that one came from, the last one before it first, the original one last."""
    return [name for name, _ in _chain(model_name_or_path, revision, hub_options)[1:]]


def _chain(name: str, revision: str, hub_options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and revisions, from the end of the chain to its beginning."""
    options = {option: value for option, value in hub_options.items() if option in ("cache_dir", "token")}
    chain = [(name, revision)]
    while True:
        try:
            path = cached_file(name, "run.json", revision=revision, **options)
        except OSError:  # no record, or no such model: whoever loads it will say so
            return chain
        with open(path, encoding="utf-8") as file:
            record = json.load(file)
        name, revision = record.get("base_model"), record.get("base_model_revision") or "main"
        if not isinstance(name, str) or name in dict(chain):
            return chain
        chain.append((name, revision))
