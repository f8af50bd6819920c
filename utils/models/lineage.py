"""Where a model came from, by the records (`run.json`) that runs leave beside their models."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.utils.hub import cached_file

from utils.core.files import read_json_object


@dataclass(frozen=True)
class Generation:
    """A model in the chain from a model back to the original one.

    Attributes:
        name: Hub id or folder, as the record of the model after it says.
        revision: branch, tag or commit.
        record: the content of its `run.json`; None for an original model.
    """

    name: str
    revision: str
    record: dict[str, Any] | None


def lineage(
    model_name_or_path: str,
    revision: str = "main",
    local_files_only: bool = False,
    **hub_options: Any,  # noqa: ANN401
) -> list[Generation]:
    """The chain of models that a model was made from.

    A record is looked for in the folder of that name, on the Hub, and beside the folder of the model after it (runs are
    sometimes moved together).

    Args:
        model_name_or_path: Hub id or folder of the end of the chain.
        revision: of it.
        local_files_only: ask the cache of the Hub only.
        hub_options: `cache_dir`, `token`; others are ignored.

    Returns:
        The model first, the original one last: the first one without a record, or whose record names no other model.

    Raises:
        InputError: if a record is not a JSON object.
    """
    options = {option: hub_options[option] for option in ("cache_dir", "token") if option in hub_options}
    chain: list[Generation] = []
    seen: set[str] = set()
    name, beside = model_name_or_path, None
    while True:
        path = _record_of(name, revision, beside, local_files_only=local_files_only, **options)
        place = os.path.realpath(path.parent) if path else name
        if place in seen or name in (model.name for model in chain):  # a circle
            return chain
        seen.add(place)
        record = read_json_object(path, "download it again, or repeat the run") if path else None
        chain.append(Generation(name, revision, record))
        if path is None or record is None or not isinstance(record.get("base_model"), str):
            return chain
        name, revision, beside = record["base_model"], record.get("base_model_revision") or "main", path.parent.parent


def original_model(model_name_or_path: str, revision: str = "main", **hub_options: Any) -> tuple[str, str]:  # noqa: ANN401
    """Name and revision of the model at the beginning of the chain, which was neither adjusted nor fine-tuned here.

    Those given, if there is no record beside the model. The arguments are those of `lineage`.
    """
    first = lineage(model_name_or_path, revision, **hub_options)[-1]
    return first.name, first.revision


def ancestors(model_name_or_path: str, revision: str = "main", **hub_options: Any) -> list[str]:  # noqa: ANN401
    """The models that one was made from, the original one last. The arguments are those of `lineage`."""
    return [model.name for model in lineage(model_name_or_path, revision, **hub_options)[1:]]


def _record_of(name: str, revision: str, beside: Path | None, **options: Any) -> Path | None:  # noqa: ANN401
    if Path(name, "run.json").is_file():
        return Path(name, "run.json")
    try:
        if found := cached_file(name, "run.json", revision=revision, **options):
            return Path(found)
    except (OSError, ValueError):  # no record, or no such model: whoever loads it will say so
        pass
    moved = beside / Path(name).name / "run.json" if beside else None
    return moved if moved and moved.is_file() else None
