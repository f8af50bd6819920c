"""What a finished run predicted: the examples of every language, and what each of them contributes to the metrics."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from utils.core.arguments import is_language
from utils.core.errors import InputError
from utils.core.files import read_json_object
from utils.core.records import ALIGNMENT
from utils.core.result_tables import shorten
from utils.core.tables import read_json
from utils.experiments.significance import corpus_f1
from utils.parallel.sides import ENGLISH, directions
from utils.tasks.registry import TASKS, TaskSpec, recorded_task


RETRIEVAL = "sentence-retrieval"
# The kinds of runs that can be compared, and their titles in tables.
TITLES = {name: spec.title for name, spec in TASKS.items()} | {
    RETRIEVAL: "Sentence retrieval",
    ALIGNMENT: "Word retrieval",
}
# Predictions are rounded, so that metrics computed from them differ by less than this from the recorded ones.
_ROUNDING = 1e-4

_Json = Mapping[str, Any]


@dataclass
class EvaluatedSet:
    """The examples of one language, as one run evaluated them. Without predictions there are no ids, gold and scores.

    `scores` has what every example contributes to a metric: [examples], 0 to 1, or for F1 counts [sentences, 3] (see
    `utils.experiments.significance.corpus_f1`).
    """

    split: str  # empty if unknown
    sha256: str  # fingerprint of the examples
    n_examples: int  # of pairs, for word retrieval
    results: dict[str, float]  # 0 to 1
    rules: dict[str, Any] = field(
        default_factory=dict
    )  # settings of the metric: the same for all runs that are compared
    representation: dict[str, Any] = field(default_factory=dict)  # of retrieval: distinguishes systems
    ids: list[str] = field(default_factory=list)
    gold: list[str] = field(default_factory=list)
    scores: dict[str, np.ndarray] = field(default_factory=dict)


def kind_of(record: _Json) -> str | None:
    """Which of `TITLES` a `run.json` is of; None if of none of them. InputError for an unknown `task_name`."""
    arguments = record.get("arguments")
    if not isinstance(arguments, dict):
        return None
    if spec := recorded_task(record):
        return spec.name
    if record.get("task") == ALIGNMENT:
        return ALIGNMENT
    return RETRIEVAL if {"pooling", "distance"} <= set(arguments) else None


def evaluated_sets(folder: Path, record: _Json) -> dict[str, EvaluatedSet]:
    """What a run evaluated, by language or direction (`hi-en`), from its output folder and its `run.json`.

    Raises:
        InputError: if a file is missing or damaged, or predictions and results do not agree.
    """
    results = read_json_object(folder / "all_results.json", "run the script again")
    named = [name for kind in ("eval_data", "predict_data") for name in record.get(kind) or {}]
    if wrong := next((name for name in named if not is_language(name)), None):
        raise InputError(
            f"The file {folder / 'run.json'} is damaged ({wrong} is not a language); run the script again."
        )
    try:
        if spec := recorded_task(record):
            return _of_task(folder, record, results, spec)
        anchor = record["arguments"].get("anchor_language") or ENGLISH
        of_direction = _of_alignment if kind_of(record) == ALIGNMENT else _of_retrieval
        return {
            name: of_direction(folder, name, data, record["arguments"], results)
            for language, data in (record.get("eval_data") or {}).items()
            for name in directions(language, anchor)
        }
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"The file {folder / 'run.json'} is damaged; run the script again.") from None


def _of_task(folder: Path, record: _Json, results: _Json, spec: TaskSpec) -> dict[str, EvaluatedSet]:
    """The sets of --do_predict, or without it of --do_eval."""
    prefix = "predict" if record.get("predict_data") else "eval"
    rules = {name: record["arguments"][name] for name in spec.rules if name in record["arguments"]}
    sets = {}
    for name, data in (record.get(f"{prefix}_data") or {}).items():
        rows = _predictions(folder, name, data["examples"])
        sets[name] = _evaluated(rows, spec.score_prediction, data["sha256"], rows[0][1].get("split", ""))
        sets[name].rules = rules
        _check_results(folder, name, sets[name], results, f"{prefix}_{name}_", spec.metrics)
    return sets


def _of_retrieval(folder: Path, name: str, data: _Json, arguments: _Json, results: _Json) -> EvaluatedSet:
    def score(row: _Json) -> dict[str, Any]:
        return {"accuracy": float(row["prediction"] == row["gold"]), "mrr": 1 / row["rank"]}

    rows = _predictions(folder, name, data["sentences"])
    found = _evaluated(rows, score, data["sha256"], data.get("split") or "")
    found.representation = {key: rows[0][1].get(key) for key in ("layer", "pooling", "distance")}
    _check_results(folder, name, found, results, f"{name}_layer{rows[0][1].get('layer')}_", {})
    return found


def _of_alignment(folder: Path, name: str, data: _Json, arguments: _Json, results: _Json) -> EvaluatedSet:
    """Word retrieval. Older runs have kept no predictions; of newer ones there is a line for every pair."""
    key = f"eval_{name}_word_retrieval_accuracy"
    if not is_number(results.get(key)):
        raise InputError(f"The file {folder / 'all_results.json'} has no {key}; run it again with --do_eval.")
    aligned = arguments.get("alignment_layer")  # (several, the highest one last; a number in older records)
    layer = aligned[-1] if isinstance(aligned, list) and aligned else aligned
    representation = {"layer": layer, "word_pooling": arguments.get("word_pooling")}
    if (folder / "predictions" / f"{name}.jsonl").exists():
        found = _evaluated(_predictions(folder, name, data["pairs"]), _score_links, data["sha256"], "")
        _check_results(folder, name, found, results, f"eval_{name}_", {})
        return replace(found, representation=representation)
    of_all = {"word_retrieval_accuracy": results[key]}
    return EvaluatedSet("", data["sha256"], data["pairs"], of_all, representation=representation)


def _score_links(row: _Json) -> dict[str, tuple[int, int, int]]:
    """A link that is not found is a false positive and a false negative: F1 over all pairs is then the accuracy."""
    wrong = row["gold"] - row["prediction"]
    return {"word_retrieval_accuracy": (row["prediction"], wrong, wrong)}


def _predictions(folder: Path, name: str, n_examples: int) -> list[tuple[str, dict[str, Any]]]:
    path = folder / "predictions" / f"{name}.jsonl"
    if not os.path.isfile(path):
        raise InputError(f"There is no file {path}; run the script again with --do_eval or --do_predict.")
    rows = list(read_json(str(path), like='{"id": …, "gold": …, "prediction": …}'))
    if len(rows) != n_examples or not rows:
        raise InputError(
            f"The file {path} has {len(rows)} predictions, but run.json beside it names {n_examples} examples; run the "
            "script again."
        )
    return rows


def _evaluated(
    rows: Sequence[tuple[str, _Json]], score: Callable[[_Json], _Json], sha256: str, split: str
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
        except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise InputError(f"{where} is not a prediction ({error}); run the script again.") from None
    scores = {metric: np.array([one[metric] for one in of_examples], dtype=float) for metric in of_examples[0]}
    for metric, values in scores.items():
        if (wrong := ~np.isfinite(values.reshape(len(rows), -1)).all(axis=1)).any():
            raise InputError(f"{rows[wrong.argmax()][0]} has no finite {metric}; run the script again.")
    results = {
        metric: float(corpus_f1(values.sum(axis=0)) if values.ndim == 2 else values.mean())
        for metric, values in scores.items()
    }
    return EvaluatedSet(split, sha256, len(rows), results, ids=ids, gold=gold, scores=scores)


def _check_results(
    folder: Path, name: str, found: EvaluatedSet, results: _Json, prefix: str, scales: Mapping[str, float]
) -> None:
    """Stop if predictions and results are not of the same evaluation."""
    for metric, value in found.results.items():
        recorded: Any = results.get(prefix + metric)
        scale = scales.get(metric, 1)
        if not is_number(recorded) or abs(recorded / scale - value) > _ROUNDING:
            raise InputError(
                f"The file {folder / 'all_results.json'} says {prefix}{metric} {shorten(str(recorded), 40)}, but predictions/{name}.jsonl "
                f"beside it give {scale * value:.6g}: they are not of the same evaluation; run the script again."
            )


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a finite number that is no larger than a metric can be."""
    return isinstance(value, int | float) and abs(value) <= 1000


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
    # (Which archives know without the right answers: true positives and false negatives.)
    for metric in one.scores.keys() & other.scores.keys():
        both = [of.scores[metric] for of in (one, other)]
        if all(counts.ndim == 2 for counts in both):
            n, m = (counts[:, 0] + counts[:, 2] for counts in both)
            if (n != m).any():
                k = int((n != m).argmax())
                return f"example {k + 1} has {n[k]:.0f} right answers in one, {m[k]:.0f} in the other"
    if one.sha256 != other.sha256:
        return f"the content of the examples differs (fingerprints {one.sha256[:8]}, {other.sha256[:8]})"
    for rule, setting in one.rules.items():
        if setting != other.rules.get(rule):
            return f"{rule} is {setting} for one, {other.rules.get(rule)} for the other"
    return ""
