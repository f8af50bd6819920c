"""Where a model came from, by the records that runs leave beside their models."""

import json
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
    options = {name: value for name, value in hub_options.items() if name in ("cache_dir", "token")}
    name, seen = model_name_or_path, set()
    while name not in seen:
        seen.add(name)
        try:
            path = cached_file(name, "run.json", revision=revision, **options)
        except OSError:  # no record, or no such model: whoever loads it will say so
            break
        with open(path, encoding="utf-8") as file:
            record = json.load(file)
        if not isinstance(record.get("base_model"), str):
            break
        name, revision = record["base_model"], record.get("base_model_revision") or "main"
    return name, revision
