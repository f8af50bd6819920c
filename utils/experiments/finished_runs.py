"""Finished runs: what was trained, how, and how well it did on every example.

A *system* is what is compared: a model (with the adjustments that it has gone through) and a regime, the way in which it
was fine-tuned. Runs that differ in their seed alone are runs of the same system.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from utils.core.errors import InputError
from utils.core.progress import progress
from utils.core.records import ALIGNMENT, read_record
from utils.experiments.evaluated_sets import (
    RETRIEVAL,
    TITLES,
    EvaluatedSet,
    difference_in_data,
    evaluated_sets,
    kind_of,
)
from utils.models.hub import label_models
from utils.models.lineage import lineage


# Settings of retrieval that a regime does not name.
_USUAL = {"pooling": "mean", "distance": "cosine", "word_pooling": "avg"}


class System(NamedTuple):
    """What is compared: a model, and how it was fine-tuned (or, without fine-tuning, measured)."""

    model: str
    regime: str

    def __str__(self) -> str:
        return f"{self.model}, {self.regime}"


@dataclass
class FinishedRun:
    """A run, as its output folder describes it."""

    folder: str
    task: str  # one of `TITLES`
    system: System
    seed: int | None  # of the last training; None for a model that was not trained by these scripts
    sets: dict[str, EvaluatedSet]  # by language, or direction (`hi-en`)
    settings: dict[str, Any]  # hyperparameters of the training for the task, and the fingerprint of its data
    history: list[dict[str, Any]]  # the settings of this training and of all before it, the last one first
    at_chance: bool = False  # whether the model has not learned the task in the training language

    def only(self, names: Iterable[str]) -> "FinishedRun":
        """The same run with some of its sets."""
        return replace(self, sets={name: self.sets[name] for name in names})


def read_runs(folders: Sequence[str]) -> list[FinishedRun]:
    """Read the output folders of `run_align.py`, `run_xsr.py` (every model) and the scripts of the tasks.

    Raises:
        InputError: naming the file, the line and the remedy.
    """
    records = {folder: _records_of(folder) for folder in _with_folders_of_models(folders)}
    originals = list(dict.fromkeys(original for _, original in records.values()))
    labels = {name: label for label, name in label_models(originals).items()}
    trainings = [step for steps, _ in records.values() for step in _trained(steps)]
    name_languages = len({_languages(step) for step in trainings if step.get("regime") == "continual"}) > 1
    return [
        _finished_run(folder, steps, labels[original], name_languages)
        for folder, (steps, original) in progress(records.items(), "Reading runs", leave=False)
    ]


def check_same_data(runs: Sequence[FinishedRun]) -> None:
    """Raise InputError if runs of a task were measured in one language on different examples, or by different rules."""
    first: dict[tuple[str, str], tuple[FinishedRun, EvaluatedSet]] = {}
    for run in runs:
        for name, here in run.sets.items():
            other, there = first.setdefault((run.task, name), (run, here))
            if difference := difference_in_data(there, here):
                raise InputError(
                    f"The runs {other.folder} and {run.folder} were not measured on the same data in {name}: {difference}; "
                    "compare runs on the same data."
                )


def differing_settings(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The settings in which two trainings differ, as `learning_rate (5e-05, 2e-05)`; empty if in none."""

    def values(setting: object) -> list[object]:  # (one value is the same by itself and in a list)
        return setting if isinstance(setting, list) else [setting]

    both = {name: (values(one[name]), values(other[name])) for name in one if name in other}
    return ", ".join(
        f"{name} ({' '.join(map(str, here))}, {' '.join(map(str, there))})"
        for name, (here, there) in both.items()
        if here != there
    )


def _with_folders_of_models(folders: Sequence[str]) -> Iterator[Path]:
    """The folders, each once; for a run of `run_xsr.py` with several models, the folder of each model."""
    seen = set()
    for folder in map(Path, folders):
        remedy = f"is {folder} the --output_dir of a finished run? Run it again, or leave its folder out"
        models = read_record(folder / "run.json", remedy).get("base_model")
        for part in [folder / label for label in models] if isinstance(models, dict) else [folder]:
            if part.resolve() not in seen:
                seen.add(part.resolve())
                yield part


def _records_of(folder: Path) -> tuple[list[dict[str, Any]], str]:
    """The records of a run and of the runs that its model came from, the last one first; and the original model's name."""
    steps: list[dict[str, Any]] = []
    for model in lineage(str(folder), local_files_only=True):
        if model.record is None or kind_of(model.record) is None:
            if not steps:
                raise InputError(
                    f"The file {folder / 'run.json'} is not of a run of run_align.py, run_xsr.py or the script of a task; "
                    "leave its folder out."
                )
            break
        steps.append(model.record)
        if not isinstance(model.record.get("base_model"), str):
            raise InputError(f"The run.json of {model.name} names no base_model; it is damaged: run the script again.")
    name = steps[-1]["base_model"]
    return steps, str(Path(name).resolve()) if os.path.isdir(name) else name


def _finished_run(folder: Path, steps: list[dict[str, Any]], label: str, name_languages: bool) -> FinishedRun:
    """A run from the records `_records_of` it, with the label of its original model."""
    task, sets = kind_of(steps[0]), evaluated_sets(folder, steps[0])
    if not sets or task is None:
        raise InputError(
            f"The folder {folder} holds no predictions or results of an evaluation; run its script with --do_eval or "
            "--do_predict, or leave it out."
        )
    trained = _trained(steps)
    history = [_settings(step) for step in trained]
    settings: dict[str, Any] = next((one for one, step in zip(history, trained) if kind_of(step) == task), {})
    seed = trained[0].get("seed") if trained else None
    system = _system(task, trained, sets, label, name_languages)
    return FinishedRun(str(folder), task, system, seed, sets, settings, history, bool(steps[0].get("at_chance")))


def _trained(steps: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records of trainings: a model that is only measured stays the same system."""
    return [step for step in steps if kind_of(step) != RETRIEVAL and step["arguments"].get("do_train", True)]


def _settings(step: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters of a training, what linked words, and the fingerprint of its data (not of pairs, which depend on the
    seed)."""
    data = step.get("train_data")
    fingerprint = {"training data": data["sha256"][:8]} if isinstance(data, dict) and "sha256" in data else {}
    links = {"word links": step["word_links"]} if step.get("word_links") else {}
    return {**(step.get("hyperparameters") or {}), **links, **fingerprint}


def _system(
    task: str, trained: Sequence[dict[str, Any]], sets: Mapping[str, EvaluatedSet], label: str, name_languages: bool
) -> System:
    """The model's label with all adjustments, and its regime, which names the languages of continual learning if asked."""
    fine_tuned = bool(trained) and kind_of(trained[0]) == task != ALIGNMENT
    before = trained[1:] if fine_tuned else trained
    model = " ".join([label, *(_step_label(step, name_languages) for step in reversed(before))])
    if fine_tuned:
        return System(model, _regime(trained[0], name_languages))
    representation = next(iter(sets.values())).representation
    if not representation:
        return System(model, "not fine-tuned here")
    others = [str(v) for name, v in representation.items() if name != "layer" and v != _USUAL.get(name)]
    return System(model, ", ".join([f"layer {representation['layer']}", *others]))


def _step_label(step: Mapping[str, Any], name_languages: bool) -> str:
    """What was done to a model before the fine-tuning, such as `adjusted (hi, contrastive)`."""
    kind = kind_of(step)
    if kind == ALIGNMENT:
        return f"adjusted ({', '.join([_languages(step), *_variant(step)])})"
    return f"fine-tuned ({TITLES[kind or '']}, {_regime(step, name_languages)})"


def _regime(step: Mapping[str, Any], name_languages: bool) -> str:
    if step.get("regime") != "continual":
        return ", ".join(["plain", *_variant(step)])
    begin = f"continual ({_languages(step)})" if name_languages else "continual"
    return ", ".join([begin, *_variant(step)])


def _languages(step: Mapping[str, Any]) -> str:
    return " ".join(sorted(step["arguments"].get("languages") or ["?"]))


def _variant(step: Mapping[str, Any]) -> list[str]:
    """What makes a training another kind than the usual one, rather than the same one with other numbers."""
    if (recorded := step.get("variant")) is not None:
        return recorded
    # Records from before `variant`.
    arguments = step["arguments"]
    lora = ["LoRA"] if arguments.get("use_lora") else []
    if kind_of(step) != ALIGNMENT and step.get("regime") != "continual":
        return lora
    objective = arguments.get("alignment_objective", "mse")
    zeros = [f"{name} 0" for name in ("alignment_weight", "regularization_weight") if arguments.get(name) == 0]
    return [*([objective] if objective != "mse" else []), *zeros, *lora]
