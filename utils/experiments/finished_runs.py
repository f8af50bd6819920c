"""Runs that are done: what their folders say about how a system came about, and how well it did on every example.

A *system* is what is compared: a model (with whatever it was adjusted to before) and a regime, how it was fine-tuned.
Runs that differ in their seed alone are runs of the same system.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from transformers.utils.hub import cached_file

from utils.core.errors import InputError
from utils.core.tables import read_json_lines
from utils.evaluation.metrics.entities import entities
from utils.experiments.significance import corpus_f1
from utils.models.hub import label_models
from utils.training.model_card import ALIGNMENT


RETRIEVAL = "sentence-retrieval"
# What the tables call the tasks.
TASK_NAMES = {
    "text-classification": "Natural language inference",
    "token-classification": "Named entities",
    "question-answering": "Question answering",
    RETRIEVAL: "Sentence retrieval",
    ALIGNMENT: "Word retrieval",
}
# Runs of one system have these in common; they may differ in the seed, and in what does not change the model.
_TASK_SETTINGS = (
    "learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps",
    "lr_scheduler_type", "warmup_steps", "weight_decay", "max_train_samples", "max_seq_length", "train_language",
)  # fmt: skip
_ALIGNMENT_SETTINGS = (
    "languages", "alignment_objective", "alignment_weight", "regularization_weight", "alignment_layer", "word_pooling",
    "temperature", "aligner", "max_train_pairs", "alignment_batch_size", "alignment_every", "freeze_layers", "lora_rank",
)  # fmt: skip
# How far results may be from the predictions they were computed of: predictions are rounded.
_ROUNDING = 1e-4


class System(NamedTuple):
    """What is compared: a model, and how it was fine-tuned (or, without fine-tuning, measured)."""

    model: str
    regime: str

    def __str__(self) -> str:
        return f"{self.model}, {self.regime}"


@dataclass
class EvaluatedSet:
    """What a run did on the examples of a language.

    Attributes:
        split: of the data set; empty if unknown.
        sha256: of the examples.
        measured_by: settings of the metric.
        n_examples: how many.
        results: metric → 0 to 1.
        ids, gold: of every example; empty if the run has kept no predictions.
        scores: metric → of every example [examples], 0 to 1; F1 of entities: counts [sentences, 3] (see
            `utils.experiments.significance.corpus_f1`).
    """

    split: str
    sha256: str
    n_examples: int
    results: dict[str, float]
    measured_by: dict[str, Any] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    gold: list[str] = field(default_factory=list)
    scores: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass
class FinishedRun:
    """A run, as its folder tells it.

    Attributes:
        folder: where it is.
        task: one of `TASK_NAMES`.
        system: what was run.
        seed: of the last training; None for a model as it came.
        sets: by language, or direction (`hi-en`).
        settings: of the training for the task, by name; what a comparison takes to be the same.
        history: settings of everything that was trained before, the last one first, and of this run.
    """

    folder: str
    task: str
    system: System
    seed: int | None
    sets: dict[str, EvaluatedSet]
    settings: dict[str, Any]
    history: list[dict[str, Any]]


def read_runs(folders: Sequence[str]) -> list[FinishedRun]:
    """Read the folders that the scripts have left.

    Args:
        folders: `--output_dir` of `run_nli.py`, `run_ner.py`, `run_qa.py`, `run_xsr.py` or `run_align.py`. For several
            models in one folder of `run_xsr.py`, that of every model is read.

    Raises:
        InputError: naming the file, the line and the remedy.
    """
    chains = [_Chain.of(folder) for folder in _with_folders_of_models(folders)]
    labels = _labels([chain.original for chain in chains])
    in_languages = {tuple(sorted(step["arguments"].get("languages") or ())) for c in chains for step in c.continual()}
    runs = []
    for chain in chains:
        task = chain.task
        try:
            sets = _READERS[task](chain.folder, chain.record)
        except (KeyError, TypeError, AttributeError):
            raise InputError(f"The file {chain.folder / 'run.json'} is damaged; run the script again.") from None
        if not sets:
            raise InputError(
                f"The folder {chain.folder} holds no predictions or results of an evaluation; run its script with --do_eval "
                "or --do_predict, or leave it out."
            )
        system = chain.system(labels[chain.original], sets, name_languages=len(in_languages) > 1)
        steps = chain.trained
        history = [_settings(step, (*_TASK_SETTINGS, *_ALIGNMENT_SETTINGS)) for step in steps]
        of_task = next((_settings(step, _TASK_SETTINGS) for step in steps if step["task"] == task), {})
        runs.append(FinishedRun(str(chain.folder), task, system, chain.seed, sets, of_task, history))
    return runs


def check_same_data(runs: Sequence[FinishedRun]) -> None:
    """Stop if runs of a task were measured in one language on different examples, or by different rules.

    Raises:
        InputError: naming two folders, the language and what is different.
    """
    first: dict[tuple[str, str], tuple[FinishedRun, EvaluatedSet]] = {}
    for run in runs:
        for name, here in run.sets.items():
            other, there = first.setdefault((run.task, name), (run, here))
            if difference := _difference(there, here):
                raise InputError(
                    f"The runs {other.folder} and {run.folder} were not measured on the same data in {name}: {difference}; "
                    "compare runs on the same data."
                )


def differing_settings(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The settings in which two trainings differ, as `learning_rate (5e-05, 2e-05)`; empty if in none."""
    names = [name for name in one if name in other and one[name] != other[name]]
    return ", ".join(f"{name} ({_short(one[name])}, {_short(other[name])})" for name in names)


@dataclass
class _Chain:
    """The records of a run and of the models that it came from, the last one first.

    Attributes:
        folder: of the run.
        records: its own, then those of its ancestors.
        original: name of the model at the beginning.
    """

    folder: Path
    records: list[dict[str, Any]]
    original: str

    @classmethod
    def of(cls, folder: Path) -> "_Chain":
        record = _read_object(folder / "run.json")
        if _task_of(record) not in _READERS:
            raise InputError(
                f"The file {folder / 'run.json'} is not of a run of run_nli.py, run_ner.py, run_qa.py, run_xsr.py or "
                "run_align.py; leave its folder out."
            )
        records, seen, place = [record], {folder.resolve()}, folder
        while True:
            name = record.get("base_model")
            if not isinstance(name, str):
                raise InputError(f"The file {place / 'run.json'} names no base_model; it is damaged: run it again.")
            found = _folder_of(name, place, record.get("base_model_revision"))
            before = _read_object(found / "run.json") if found else {}
            if found is None or found.resolve() in seen or _task_of(before) not in _READERS:
                return cls(folder, records, str(Path(name).resolve()) if Path(name).is_dir() else name)
            record, place = before, found
            records.append(record)
            seen.add(found.resolve())

    @property
    def record(self) -> dict[str, Any]:
        return self.records[0]

    @property
    def task(self) -> str:
        return _task_of(self.record)

    @property
    def trained(self) -> list[dict[str, Any]]:
        """The records that are of a training: measuring alone makes no other system."""
        return [r for r in self.records if _task_of(r) != RETRIEVAL and r["arguments"].get("do_train", True)]

    @property
    def seed(self) -> int | None:
        return self.trained[0].get("seed") if self.trained else None

    def continual(self) -> list[dict[str, Any]]:
        return [step for step in self.trained if step.get("regime") == "continual"]

    def system(self, label: str, sets: Mapping[str, EvaluatedSet], name_languages: bool) -> System:
        """The model's label and its regime.

        Args:
            label: of the original model.
            sets: what was measured.
            name_languages: whether continual learning is told apart by its languages.
        """
        before, fine_tuning = self.trained, None
        if before and before[0]["task"] == self.task != ALIGNMENT:
            fine_tuning, *before = before
        model = " ".join([label, *(_step_label(step, name_languages) for step in reversed(before))])
        if fine_tuning:
            return System(model, _regime(fine_tuning, name_languages))
        if self.task in (RETRIEVAL, ALIGNMENT):
            usual = {"pooling": "mean", "distance": "cosine", "word_pooling": "avg"}
            by = next(iter(sets.values())).measured_by
            others = [str(value) for name, value in by.items() if name != "layer" and value != usual.get(name)]
            return System(model, ", ".join([f"layer {by['layer']}", *others]))
        return System(model, "not fine-tuned here")


def _task_of(record: Mapping[str, Any]) -> str | None:
    arguments = record.get("arguments")
    if not isinstance(arguments, dict):
        return None
    return record.get("task") or (RETRIEVAL if {"pooling", "distance"} <= set(arguments) else None)


def _folder_of(name: str, run_folder: Path, revision: str | None) -> Path | None:
    """The folder with the record of a model: where it was, beside the run if both were moved, or the cache of the Hub."""
    for folder in (Path(name), run_folder.parent / Path(name).name):
        if (folder / "run.json").is_file():
            return folder
    try:
        return Path(cached_file(name, "run.json", revision=revision or "main", local_files_only=True)).parent
    except (OSError, ValueError):
        return None


def _step_label(step: Mapping[str, Any], name_languages: bool) -> str:
    """What was done to a model before the fine-tuning, such as `adjusted (hi, contrastive)`."""
    if step["task"] != ALIGNMENT:
        return f"fine-tuned ({TASK_NAMES.get(step['task'], step['task'])}, {_regime(step, name_languages)})"
    return f"adjusted ({', '.join([_languages(step), *_unusual(step)])})"


def _regime(step: Mapping[str, Any], name_languages: bool) -> str:
    if step.get("regime") != "continual":
        return ", ".join(["plain", *(["LoRA"] if step["arguments"].get("use_lora") else [])])
    begin = f"continual ({_languages(step)})" if name_languages else "continual"
    return ", ".join([begin, *_unusual(step)])


def _languages(step: Mapping[str, Any]) -> str:
    return " ".join(sorted(step["arguments"].get("languages") or ["?"]))


def _unusual(step: Mapping[str, Any]) -> list[str]:
    """What makes an alignment another one in kind, not only in degree."""
    arguments = step["arguments"]
    objective = arguments.get("alignment_objective", "mse")
    return [
        *([objective] if objective != "mse" else []),
        *(f"{name} 0" for name in ("alignment_weight", "regularization_weight") if arguments.get(name) == 0),
        *(["LoRA"] if arguments.get("use_lora") else []),
    ]


def _labels(originals: Sequence[str]) -> dict[str, str]:
    return {name: label for label, name in label_models(list(dict.fromkeys(originals))).items()}


def _settings(step: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The settings of a training that it has, and what it was trained on."""
    arguments = step["arguments"]
    found = {name: arguments[name] for name in names if name in arguments}
    data = step.get("train_data")
    if isinstance(data, dict) and "sha256" in data:  # (of an adjustment it depends on the seed, which draws the pairs)
        found["training data"] = data["sha256"][:8]
    return found


def _short(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _with_folders_of_models(folders: Sequence[str]) -> Iterator[Path]:
    """The folders; of several models in one run of `run_xsr.py` that of each. None twice."""
    seen = set()
    for folder in map(Path, folders):
        models = _read_object(folder / "run.json").get("base_model")
        parts = [folder / label for label in models] if isinstance(models, dict) else [folder]
        for part in parts:
            if part.resolve() not in seen:
                seen.add(part.resolve())
                yield part


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"The file {path} cannot be read ({error.strerror}); is {path.parent} the --output_dir of a finished run?"
        ) from None
    except ValueError as error:
        raise InputError(f"The file {path} is no JSON ({error}); run it again, or leave its folder out.") from None
    if not isinstance(content, dict):
        raise InputError(f"The file {path} is no JSON object; run it again, or leave its folder out.")
    return content


def _read_task(folder: Path, record: Mapping[str, Any]) -> dict[str, EvaluatedSet]:
    """The sets of a task script: those of --do_predict, or without it of --do_eval."""
    prefix = "predict" if record.get("predict_data") else "eval"
    results = _read_object(folder / "all_results.json")
    rules = ("answer_normalization", "version_2_with_negative", "null_score_diff_threshold")
    measured_by = {name: record["arguments"][name] for name in rules if name in record["arguments"]}
    scale = 100 if record["task"] == "question-answering" else 1
    sets = {}
    for name, data in (record.get(f"{prefix}_data") or {}).items():
        rows = _read_predictions(folder / "predictions" / f"{name}.jsonl", data["examples"])
        found = _evaluated(rows, _SCORES[record["task"]], data["sha256"], rows[0][1].get("split", ""), measured_by)
        _check_results(folder, name, found, results, f"{prefix}_{name}_", scale)
        sets[name] = found
    return sets


def _read_retrieval(folder: Path, record: Mapping[str, Any]) -> dict[str, EvaluatedSet]:
    """Both directions of every language of a run of `run_xsr.py`."""
    results = _read_object(folder / "all_results.json")
    sets = {}
    for language, data in (record.get("eval_data") or {}).items():
        for name in (f"{language}-en", f"en-{language}"):
            rows = _read_predictions(folder / "predictions" / f"{name}.jsonl", data["sentences"])
            measured_by = {rule: rows[0][1].get(rule) for rule in ("layer", "pooling", "distance")}
            found = _evaluated(rows, _SCORES[RETRIEVAL], data["sha256"], data.get("split") or "", measured_by)
            _check_results(folder, name, found, results, f"{name}_layer{measured_by['layer']}_")
            sets[name] = found
    return sets


def _read_alignment(folder: Path, record: Mapping[str, Any]) -> dict[str, EvaluatedSet]:
    """Word retrieval in both directions of every language of a run of `run_align.py`, which keeps no predictions."""
    results = _read_object(folder / "all_results.json")
    arguments = record["arguments"]
    measured_by = {"layer": arguments.get("alignment_layer"), "word_pooling": arguments.get("word_pooling")}
    sets = {}
    for language, data in (record.get("eval_data") or {}).items():
        for name in (f"{language}-en", f"en-{language}"):
            key = f"eval_{name}_word_retrieval_accuracy"
            if key not in results:
                raise InputError(f"The file {folder / 'all_results.json'} has no {key}; run it again with --do_eval.")
            found = {"word_retrieval_accuracy": results[key]}
            sets[name] = EvaluatedSet("", data["sha256"], data["links"], found, measured_by)
    return sets


_READERS = {
    "text-classification": _read_task,
    "token-classification": _read_task,
    "question-answering": _read_task,
    RETRIEVAL: _read_retrieval,
    ALIGNMENT: _read_alignment,
}


def _read_predictions(path: Path, n_examples: int) -> list[tuple[str, dict[str, Any]]]:
    if not path.is_file():
        raise InputError(f"There is no file {path}; run the script again with --do_eval or --do_predict.")
    rows = list(read_json_lines(str(path), like='{"id": …, "gold": …, "prediction": …}'))
    if len(rows) != n_examples or not rows:
        raise InputError(
            f"The file {path} has {len(rows)} predictions, but run.json beside it speaks of {n_examples} examples; run the "
            "script again."
        )
    return rows


def _evaluated(
    rows: Sequence[tuple[str, Mapping[str, Any]]],
    score: Callable[[Mapping[str, Any]], dict[str, Any]],
    sha256: str,
    split: str,
    measured_by: dict[str, Any],
) -> EvaluatedSet:
    """A set by its predictions: what each of them scores, and all together."""
    ids, gold, of_examples = [], [], []
    for where, row in rows:
        try:
            of_examples.append(score(row))
            # (Of sixty runs on the same examples every text is kept once.)
            ids.append(sys.intern(str(row["id"])))
            gold.append(sys.intern(_short(row["gold"])))
        except KeyError as missing:
            raise InputError(f"{where} has no {missing.args[0]}; run the script again.") from None
        except (TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
            raise InputError(f"{where} is no prediction ({error}); run the script again.") from None
    scores = {metric: np.array([one[metric] for one in of_examples], dtype=float) for metric in of_examples[0]}
    results = {metric: result(values) for metric, values in scores.items()}
    return EvaluatedSet(split, sha256, len(rows), results, measured_by, ids, gold, scores)


def result(values: np.ndarray) -> float:
    """A metric from what examples contribute to it: the mean of scores, or F1 of counts."""
    return float(corpus_f1(values.sum(axis=0)) if values.ndim == 2 else values.mean())


def _score_answer(row: Mapping[str, Any]) -> dict[str, Any]:
    return {metric: float(row[metric]) for metric in ("f1", "exact_match")}


def _score_tags(row: Mapping[str, Any]) -> dict[str, Any]:
    found, wanted = set(entities(row["prediction"])), set(entities(row["gold"]))
    return {"f1": (len(found & wanted), len(found - wanted), len(wanted - found))}


_SCORES = {
    "text-classification": lambda row: {"accuracy": float(row["prediction"] == row["gold"])},
    "token-classification": _score_tags,
    "question-answering": _score_answer,
    RETRIEVAL: lambda row: {"accuracy": float(row["prediction"] == row["gold"]), "mrr": 1 / row["rank"]},
}


def _check_results(
    folder: Path, name: str, found: EvaluatedSet, results: Mapping[str, Any], prefix: str, scale: float = 1
) -> None:
    """Stop if predictions and results are not of the same evaluation."""
    for metric, value in found.results.items():
        told = results.get(prefix + metric)
        if not isinstance(told, int | float) or abs(told / scale - value) > _ROUNDING:
            raise InputError(
                f"The file {folder / 'all_results.json'} says {prefix}{metric} {told}, but predictions/{name}.jsonl beside "
                f"it give {scale * value:.6g}: they are not of the same evaluation; run the script again."
            )


def _difference(there: EvaluatedSet, here: EvaluatedSet) -> str:
    """In what two sets differ that should be the same; empty if in nothing."""
    if there.split != here.split:
        return f"one on the split {there.split}, one on {here.split}"
    if there.n_examples != here.n_examples:
        return f"one on {there.n_examples} examples, one on {here.n_examples}"
    for number, (one, other) in enumerate(zip(there.ids, here.ids), start=1):
        if one != other:
            return f"example {number} is {one} in one, {other} in the other"
    for identity, one, other in zip(there.ids, there.gold, here.gold):
        if one != other:
            return f"the right answer to {identity} is {one} in one, {other} in the other"
    if there.sha256 != here.sha256:
        return f"the content of the examples differs (fingerprints {there.sha256[:8]}, {here.sha256[:8]})"
    rules = [rule for rule in there.measured_by if rule in ("answer_normalization", "version_2_with_negative")]
    for rule in rules:
        if there.measured_by[rule] != here.measured_by.get(rule):
            return f"{rule} is {there.measured_by[rule]} for one, {here.measured_by.get(rule)} for the other"
    return ""
