"""What a finished run predicted: the examples of every language, and what each of them contributes to the metrics."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from utils.core.errors import InputError
from utils.core.files import read_json_object
from utils.core.tables import read_json_lines
from utils.experiments.significance import corpus_f1
from utils.tasks.registry import TASKS, TaskSpec, recorded_task
from utils.training.model_card import ALIGNMENT


RETRIEVAL = "sentence-retrieval"
# The kinds of runs that can be compared, and their titles in tables.
TITLES = {name: spec.title for name, spec in TASKS.items()} | {
    RETRIEVAL: "Sentence retrieval",
    ALIGNMENT: "Word retrieval",
}
# Predictions are rounded, so that metrics computed from them differ by less than this from the recorded ones.
_ROUNDING = 1e-4


@dataclass
class EvaluatedSet:
    """The examples of one language, as one run evaluated them.

    Attributes:
        split: name of the split; empty if unknown.
        sha256: fingerprint of the examples.
        n_examples: number of examples (of links, for word retrieval).
        results: metric → value, 0 to 1.
        rules: settings of the metric, which must be the same for all runs that are compared.
        representation: layer, pooling and distance of retrieval, which distinguish systems.
        ids, gold: of every example; empty for runs without predictions.
        scores: metric → contribution of every example: [examples], 0 to 1, or for F1 counts [sentences, 3] (see
            `utils.experiments.significance.corpus_f1`).
    """

    split: str
    sha256: str
    n_examples: int
    results: dict[str, float]
    rules: dict[str, Any] = field(default_factory=dict)
    representation: dict[str, Any] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    gold: list[str] = field(default_factory=list)
    scores: dict[str, np.ndarray] = field(default_factory=dict)


def kind_of(record: Mapping[str, Any]) -> str | None:
    """Which of `TITLES` a `run.json` is of; None if of none of them.

    Raises:
        InputError: for an unknown `task_name`.
    """
    arguments = record.get("arguments")
    if not isinstance(arguments, dict):
        return None
    if spec := recorded_task(record):
        return spec.name
    if record.get("task") == ALIGNMENT:
        return ALIGNMENT
    return RETRIEVAL if {"pooling", "distance"} <= set(arguments) else None


def evaluated_sets(folder: Path, record: Mapping[str, Any]) -> dict[str, EvaluatedSet]:
    """What a run evaluated, by language or direction (`hi-en`).

    Args:
        folder: the output folder of the run.
        record: the content of its `run.json`.

    Raises:
        InputError: if a file is missing or damaged, or predictions and results do not agree.
    """
    results = read_json_object(folder / "all_results.json", "run the script again")
    try:
        if spec := recorded_task(record):
            return _of_task(folder, record, results, spec)
        read = _of_alignment if kind_of(record) == ALIGNMENT else _of_retrieval
        return read(folder, record, results)
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"The file {folder / 'run.json'} is damaged; run the script again.") from None


def _of_task(
    folder: Path, record: Mapping[str, Any], results: Mapping[str, Any], spec: TaskSpec
) -> dict[str, EvaluatedSet]:
    """The sets of --do_predict, or without it of --do_eval."""
    prefix = "predict" if record.get("predict_data") else "eval"
    rules = {name: record["arguments"][name] for name in spec.rules if name in record["arguments"]}
    sets = {}
    for name, data in (record.get(f"{prefix}_data") or {}).items():
        rows = _predictions(folder / "predictions" / f"{name}.jsonl", data["examples"])
        sets[name] = _evaluated(rows, spec.score_prediction, data["sha256"], rows[0][1].get("split", ""))
        sets[name].rules = rules
        _check_results(folder, name, sets[name], results, f"{prefix}_{name}_", spec.metrics)
    return sets


def _of_retrieval(folder: Path, record: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, EvaluatedSet]:
    sets = {}
    for language, data in (record.get("eval_data") or {}).items():
        for name in (f"{language}-en", f"en-{language}"):
            rows = _predictions(folder / "predictions" / f"{name}.jsonl", data["sentences"])
            sets[name] = _evaluated(rows, _score_retrieval, data["sha256"], data.get("split") or "")
            sets[name].representation = {key: rows[0][1].get(key) for key in ("layer", "pooling", "distance")}
            _check_results(folder, name, sets[name], results, f"{name}_layer{rows[0][1].get('layer')}_")
    return sets


def _of_alignment(folder: Path, record: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, EvaluatedSet]:
    """Word retrieval, of which no predictions are kept."""
    arguments = record["arguments"]
    representation = {"layer": arguments.get("alignment_layer"), "word_pooling": arguments.get("word_pooling")}
    sets = {}
    for language, data in (record.get("eval_data") or {}).items():
        for name in (f"{language}-en", f"en-{language}"):
            key = f"eval_{name}_word_retrieval_accuracy"
            if key not in results:
                raise InputError(f"The file {folder / 'all_results.json'} has no {key}; run it again with --do_eval.")
            found = {"word_retrieval_accuracy": results[key]}
            sets[name] = EvaluatedSet("", data["sha256"], data["links"], found, representation=representation)
    return sets


def _score_retrieval(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"accuracy": float(row["prediction"] == row["gold"]), "mrr": 1 / row["rank"]}


def _predictions(path: Path, n_examples: int) -> list[tuple[str, dict[str, Any]]]:
    if not path.is_file():
        raise InputError(f"There is no file {path}; run the script again with --do_eval or --do_predict.")
    rows = list(read_json_lines(str(path), like='{"id": …, "gold": …, "prediction": …}'))
    if len(rows) != n_examples or not rows:
        raise InputError(
            f"The file {path} has {len(rows)} predictions, but run.json beside it names {n_examples} examples; run the "
            "script again."
        )
    return rows


def _evaluated(
    rows: Sequence[tuple[str, Mapping[str, Any]]],
    score: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    sha256: str,
    split: str,
) -> EvaluatedSet:
    ids, gold, of_examples = [], [], []
    for where, row in rows:
        try:
            of_examples.append(score(row))
            # (Sixty runs on the same examples share one copy of every text.)
            ids.append(sys.intern(str(row["id"])))
            right = row["gold"]
            gold.append(sys.intern(" ".join(map(str, right)) if isinstance(right, list) else str(right)))
        except KeyError as missing:
            raise InputError(f"{where} has no {missing.args[0]}; run the script again.") from None
        except (TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
            raise InputError(f"{where} is not a prediction ({error}); run the script again.") from None
    scores = {metric: np.array([one[metric] for one in of_examples], dtype=float) for metric in of_examples[0]}
    results = {metric: _result(values) for metric, values in scores.items()}
    return EvaluatedSet(split, sha256, len(rows), results, ids=ids, gold=gold, scores=scores)


def _result(values: np.ndarray) -> float:
    """A metric from the contributions of the examples: the mean of scores, or F1 of counts."""
    return float(corpus_f1(values.sum(axis=0)) if values.ndim == 2 else values.mean())


def _check_results(
    folder: Path,
    name: str,
    found: EvaluatedSet,
    results: Mapping[str, Any],
    prefix: str,
    scales: Mapping[str, float] | None = None,
) -> None:
    """Stop if predictions and results are not of the same evaluation."""
    for metric, value in found.results.items():
        recorded, scale = results.get(prefix + metric), (scales or {}).get(metric, 1)
        if not isinstance(recorded, int | float) or abs(recorded / scale - value) > _ROUNDING:
            raise InputError(
                f"The file {folder / 'all_results.json'} says {prefix}{metric} {recorded}, but predictions/{name}.jsonl "
                f"beside it give {scale * value:.6g}: they are not of the same evaluation; run the script again."
            )


def difference_in_data(one: EvaluatedSet, other: EvaluatedSet) -> str:
    """What differs between two sets that should have the same examples and rules; empty if nothing does."""
    if one.split != other.split:
        return f"one on the split {one.split}, one on {other.split}"
    if one.n_examples != other.n_examples:
        return f"one on {one.n_examples} examples, one on {other.n_examples}"
    for number, (here, there) in enumerate(zip(one.ids, other.ids), start=1):
        if here != there:
            return f"example {number} is {here} in one, {there} in the other"
    for identity, here, there in zip(one.ids, one.gold, other.gold):
        if here != there:
            return f"the right answer to {identity} is {here} in one, {there} in the other"
    if one.sha256 != other.sha256:
        return f"the content of the examples differs (fingerprints {one.sha256[:8]}, {other.sha256[:8]})"
    for rule, setting in one.rules.items():
        if setting != other.rules.get(rule):
            return f"{rule} is {setting} for one, {other.rules.get(rule)} for the other"
    return ""
