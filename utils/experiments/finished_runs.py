"""Finished runs: what was trained, how, and how well it did on every example.

A *system* is what is compared: a model (with the adjustments that it has gone through) and a regime, the way in which it
was fine-tuned. Runs that differ in their seed alone are runs of the same system.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from utils.core.errors import InputError
from utils.core.files import file_fingerprint
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
# Arguments that say how a model is measured, beside the rules of a metric and the representation.
_OF_EVALUATION = ("max_seq_length", "max_question_length", "doc_stride", "max_answer_length", "n_best_size", "null_score_diff_threshold",
                  "bf16", "fp16", "bf16_full_eval", "fp16_full_eval", "dtype")  # fmt: skip
# What an alignment learns from: arguments that name it.
_SOURCES = {
    "parallel data": ("parallel_dataset", "parallel_config", "parallel_split", "parallel_file"),
    "links file": ("links_file",),
    "dictionary": ("dictionary_file",),
    "reference model": ("reference_model",),
}
# The files of a model that make it another one.
_WEIGHTS = (".safetensors", ".bin")
_OF_MODELS = (*_WEIGHTS, ".json", ".model", ".txt")


class System(NamedTuple):
    """What is compared: a model, and how it was fine-tuned (or, without fine-tuning, measured)."""

    model: str
    regime: str

    def __str__(self) -> str:
        return f"{self.model}, {self.regime}"


class Original(NamedTuple):
    """The model that a run has started from in the end: its Hub id or folder, and what distinguishes it from another of that name."""

    name: str
    sha256: str = ""  # fingerprint of the files of a folder; empty for a Hub id

    @property
    def identity(self) -> str:
        """The same for two names of one model, different for two models."""
        return self.sha256 or self.name


class Step(NamedTuple):
    """A training that a model has gone through, as far as it makes the model another system."""

    kind: str  # one of `TITLES`
    regime: str  # `continual` or `plain`
    languages: tuple[str, ...]  # that were aligned
    variant: tuple[str, ...]  # what makes it another kind than the usual one
    seed: int | None


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
    # What the system is named after (see `with_systems`); archives from before it was kept have its name alone.
    original: Original | None = None
    steps: tuple[Step, ...] = ()  # the trainings, the last one first
    title: str = ""  # the arm of a grid, which also distinguishes systems where no record does
    evaluation: dict[str, Any] = field(
        default_factory=dict
    )  # how it was measured; empty in archives from before it was kept

    @property
    def adjustments(self) -> tuple[Step, ...]:
        """The adjustments that the model has gone through, with their seeds: the same for runs that start from one adjusted model."""
        return tuple(step for step in self.steps if step.kind == ALIGNMENT)

    def only(self, names: Iterable[str]) -> "FinishedRun":
        """The same run with some of its sets."""
        return replace(self, sets={name: self.sets[name] for name in names})


def read_runs(folders: Sequence[str]) -> list[FinishedRun]:
    """Read the output folders of `run_align.py`, `run_xsr.py` (every model) and the scripts of the tasks.

    Raises:
        InputError: naming the file, the line and the remedy.
    """
    found = list(dict.fromkeys(_with_folders_of_models(folders)))
    return with_systems([_finished_run(folder) for folder in progress(found, "Reading runs", leave=False)])


def with_systems(runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    """The runs with the names of their systems: short ones, which distinguish all systems among these runs.

    So all runs that are compared are named together, wherever they come from. An arm of a grid has its title for a name,
    and only if runs of different models have the same title also what these models are.
    """
    known = {run.original.identity: run.original.name for run in reversed(runs) if run.original}
    labels = _labels(dict(reversed(known.items())))
    aligned = {step.languages for run in runs for step in run.steps if step.regime == "continual"}
    systems = [
        _system(run, labels[run.original.identity], len(aligned) > 1) if run.original else run.system for run in runs
    ]
    of_title: dict[str, set[str]] = {}
    for run, system in zip(runs, systems):
        if run.original:
            of_title.setdefault(run.title, set()).add(system.model)
    named = []
    for run, system in zip(runs, systems):
        if run.title and run.original:
            model = run.title if len(of_title[run.title]) == 1 else f"{run.title}: {system.model}"
            system = system._replace(model=model)
        named.append(replace(run, system=system))
    return named


def _labels(names: Mapping[str, str]) -> dict[str, str]:
    """Identity of a model → its label, of identities with names: names that are the same get a part of the identity."""
    different = list(dict.fromkeys(names.values()))
    labels = {name: label for label, name in (label_models(different) if different else {}).items()}
    shared = Counter(names.values())
    return {one: labels[name] + f" ({one[:8]})" * (shared[name] > 1) for one, name in names.items()}


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


def differing_evaluation(one: FinishedRun, other: FinishedRun) -> str:
    """What differs in how two runs were measured, unless their trainings differ in the same way (see `differing_settings`)."""
    both = (one, other)
    told = [name for name in one.evaluation if all(run.evaluation.get(name) == run.settings.get(name) for run in both)]
    return differing_settings(
        *({name: run.evaluation[name] for name in run.evaluation if name not in told} for run in both)
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


def _records_of(folder: Path) -> tuple[list[dict[str, Any]], Original]:
    """The records of a run and of the runs that its model came from, the last one first; and the original model."""
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
    return steps, _original(steps[-1]["base_model"])


def _original(name: str) -> Original:
    if os.path.isdir(name):
        folder = Path(name).resolve()
        return Original(str(folder), _fingerprint(folder))
    # (A path to a model that is gone: archives do not keep the folders above it, but must not mix two such models.)
    is_path = len(Path(name).parts) > 2 or os.path.isabs(name)
    return Original(name, sha256(name.encode(errors="surrogatepass")).hexdigest() if is_path else "")


@cache
def _fingerprint(folder: Path) -> str:
    """Of the files of a model, wherever its folder is; of its path if it has no weights."""
    files = sorted(path for path in folder.iterdir() if path.suffix in _OF_MODELS and path.is_file())
    if not any(path.suffix in _WEIGHTS for path in files):
        return sha256(os.fsencode(folder)).hexdigest()
    return sha256("".join(f"{path.name} {file_fingerprint(path)}\n" for path in files).encode()).hexdigest()


def _finished_run(folder: Path) -> FinishedRun:
    """A run without the name of its system."""
    records, original = _records_of(folder)
    task, sets = kind_of(records[0]), evaluated_sets(folder, records[0])
    if not sets or task is None:
        raise InputError(
            f"The folder {folder} holds no predictions or results of an evaluation; run its script with --do_eval or "
            "--do_predict, or leave it out."
        )
    trained = _trained(records)
    history = [_settings(record) for record in trained]
    steps = tuple(map(_step, trained))
    settings: dict[str, Any] = next((one for one, step in zip(history, steps) if step.kind == task), {})
    seed = steps[0].seed if steps else None
    at_chance = bool(records[0].get("at_chance"))
    arguments = records[0]["arguments"]
    evaluation = {name: arguments[name] for name in _OF_EVALUATION if name in arguments}
    return FinishedRun(
        str(folder),
        task,
        System("", ""),
        seed,
        sets,
        settings,
        history,
        at_chance,
        original,
        steps,
        evaluation=evaluation,
    )


def _trained(steps: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records of trainings: a model that is only measured stays the same system."""
    return [step for step in steps if kind_of(step) != RETRIEVAL and step["arguments"].get("do_train", True)]


def _settings(step: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters of a training, what linked words, the fingerprint of its data, and the names of parallel data (whose
    fingerprint depends on the seed)."""
    data, arguments = step.get("train_data"), step["arguments"]
    fingerprint = {"training data": data["sha256"][:8]} if isinstance(data, dict) and "sha256" in data else {}
    links = {"word links": step["word_links"]} if step.get("word_links") else {}
    aligns = kind_of(step) == ALIGNMENT or step.get("regime") == "continual"
    of_data_set = () if arguments.get("parallel_dataset") else ("parallel_config", "parallel_split")
    sources = {
        title: [part for name in names if name not in of_data_set for part in _names(arguments.get(name))]
        for title, names in _SOURCES.items()
        if aligns
    }
    named = {title: names for title, names in sources.items() if names}
    return {**(step.get("hyperparameters") or {}), **links, **fingerprint, **named}


def _names(value: Any) -> list[str]:
    """Names of files, data sets or models without the folders or owners before them, which differ between machines:
    `hi=a/b.hi,a/b.en` is `hi=b.hi,b.en`."""
    values = value if isinstance(value, list) else [value]
    return [re.sub(r"[^=,]*[/\\](?=[^=,])", "", str(one).rstrip("/\\")) for one in values if one]


def _step(record: Mapping[str, Any]) -> Step:
    languages = tuple(sorted(record["arguments"].get("languages") or ["?"]))
    regime = "continual" if record.get("regime") == "continual" else "plain"
    return Step(kind_of(record) or "", regime, languages, tuple(_variant(record)), record.get("seed"))


def _system(run: FinishedRun, label: str, name_languages: bool) -> System:
    """The model's label with all adjustments, and its regime, which names the languages of continual learning if asked."""
    fine_tuned = bool(run.steps) and run.steps[0].kind == run.task != ALIGNMENT
    before = run.steps[1:] if fine_tuned else run.steps
    model = " ".join([label, *(_step_label(step, name_languages) for step in reversed(before))])
    if fine_tuned:
        return System(model, _regime(run.steps[0], name_languages))
    representation = next(iter(run.sets.values())).representation
    if not representation:
        return System(model, "not fine-tuned here")
    others = [str(v) for name, v in representation.items() if name != "layer" and v != _USUAL.get(name)]
    return System(model, ", ".join([f"layer {representation['layer']}", *others]))


def _step_label(step: Step, name_languages: bool) -> str:
    """What was done to a model before the fine-tuning, such as `adjusted (hi, contrastive)`."""
    if step.kind == ALIGNMENT:
        return f"adjusted ({', '.join([' '.join(step.languages), *step.variant])})"
    return f"fine-tuned ({TITLES[step.kind]}, {_regime(step, name_languages)})"


def _regime(step: Step, name_languages: bool) -> str:
    languages = f" ({' '.join(step.languages)})" * (step.regime == "continual" and name_languages)
    return ", ".join([step.regime + languages, *step.variant])


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
