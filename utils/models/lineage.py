"""Where a model came from, by the records (`run.json`) that runs leave beside their models."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.core.records import read_record
from utils.models.files import file_of


@dataclass(frozen=True)
class Generation:
    """A model in the chain from a model back to the original one."""

    name: str  # Hub id or folder, as the record of the model after it says
    revision: str
    record: dict[str, Any] | None  # its `run.json`; an original model has none


def lineage(name: str, revision: str = "main", **hub_options: Any) -> list[Generation]:
    """The chain of models that a model was made from: itself first, the original one last.

    A record is searched for in the folder of that name, on the Hub, and beside the folder of the model after it (runs are
    sometimes moved together), where it must say that it was written to a folder of that name. The original model has no record,
    or one that names no other model.

    Raises:
        InputError: if a record is damaged.
    """
    chain: list[Generation] = []
    seen: set[str] = set()
    beside: Path | None = None
    while True:
        path = _record_of(name, revision, beside, **hub_options)
        place = os.path.realpath(path.parent) if path else name
        if place in seen or name in (model.name for model in chain):  # a circle
            return chain
        seen.add(place)
        record = read_record(path, "download it again, or repeat the run") if path else None
        chain.append(Generation(name, revision, record))
        if path is None or record is None or not isinstance(record.get("base_model"), str):
            return chain
        commit = record.get("base_model_revision")
        name, revision, beside = (
            record["base_model"],
            commit if isinstance(commit, str) else "main",
            path.parent.parent,
        )


def original_model(name: str, revision: str = "main", **hub_options: Any) -> tuple[str, str]:
    """Name and revision of the original model at the end of the `lineage`; those given if there is no record."""
    first = lineage(name, revision, **hub_options)[-1]
    return first.name, first.revision


def ancestors(name: str, revision: str = "main", **hub_options: Any) -> list[str]:
    """The names of the models that a model was made from, the original one last."""
    return [model.name for model in lineage(name, revision, **hub_options)[1:]]


def _record_of(name: str, revision: str, beside: Path | None, **hub_options: Any) -> Path | None:
    if found := file_of(name, "run.json", revision=revision, **hub_options):
        return Path(found)
    moved = beside / Path(name).name / "run.json" if beside else None
    return moved if moved and os.path.isfile(moved) and _was_written_to(name, moved) else None


def _was_written_to(name: str, path: Path) -> bool:
    """Whether a record says that its run wrote to the folder of this name (which a Hub id `org/model` is not, only for its end)."""
    written = (read_record(path, "repeat the run").get("arguments") or {}).get("output_dir")
    if not isinstance(written, str):
        return False
    place, wanted = Path(os.path.normpath(written)), Path(os.path.normpath(name))
    if place.is_absolute() == wanted.is_absolute():
        return place == wanted
    relative, absolute = sorted((place, wanted), key=Path.is_absolute)
    # (A relative output folder is that of an absolute name, whatever the folder was from which the run was started.)
    return absolute.parts[-len(relative.parts) :] == relative.parts


def adjusted_languages(name: str, revision: str = "main", **hub_options: Any) -> list[str]:
    """The languages that a model and its ancestors were adjusted to, by code, in the order of their records."""
    records = [model.record or {} for model in lineage(name, revision, **hub_options)]
    settings = [record["arguments"] for record in records if isinstance(record.get("arguments"), dict)]
    return list(dict.fromkeys(str(language) for one in settings for language in one.get("languages") or ()))
