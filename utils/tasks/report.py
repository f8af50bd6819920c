"""What the report of a task shows first: scores by language, the transfer gap, and what another run predicts differently."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset

from utils.core.charts import describe_dots, dot_chart
from utils.core.columns import content_fingerprint
from utils.core.errors import InputError
from utils.core.page import Chart, Section, Table
from utils.core.records import read_record
from utils.core.result_tables import ResultTable, points, shorten
from utils.core.tables import read_json
from utils.evaluation.intervals import confidence_interval
from utils.parallel.sides import ENGLISH
from utils.tasks.registry import TaskSpec, recorded_task


# Examples of each kind that are shown, by language.
_EXAMPLES = 5

_Json = Mapping[str, Any]
# By set, a record for every example, as in `predictions/`.
Predictions = Mapping[str, Sequence[_Json]]


def scores_by_language(task: TaskSpec, results: _Json, prefix: str, predictions: Predictions) -> list[Section]:
    """The metrics of every set with the interval of the selection metric, and the sets ranked by their transfer gap.

    Args:
        results: of `summarize`, for this prefix (`eval`, `predict`).
        predictions: of the same sets.
    """
    metric, scale = task.selection_metric, task.metrics[task.selection_metric]
    scores = {name: results[f"{prefix}_{name}_{metric}"] / scale for name in predictions}
    intervals = {
        name: confidence_interval([task.score_prediction(row)[metric] for row in rows])
        for name, rows in predictions.items()
    }
    gaps = {name: results.get(f"{prefix}_{name}_gap_{metric}") for name in predictions}
    ranked = sorted(predictions, key=lambda name: (name != ENGLISH, -scores[name], name))
    rows = [
        [name, *(f"{100 * results[f'{prefix}_{name}_{one}'] / best:.1f}" for one, best in task.metrics.items()),
         _percents(*intervals[name]), _points(gaps[name], scale), f"{len(predictions[name]):,}"]
        for name in ranked
    ]  # fmt: skip
    mean = f"{prefix}_zero_shot_"
    if f"{mean}{metric}" in results:
        means = [f"{100 * results[f'{mean}{one}'] / best:.1f}" for one, best in task.metrics.items()]
        rows.append(["zero-shot mean", *means, None, _points(results.get(f"{mean}gap_{metric}"), scale), None])
    shown = [one.replace("_", " ") for one in task.metrics]
    columns = ["language", *shown, f"95 % interval of {metric.replace('_', ' ')}", "gap", "examples"]
    dots = {metric: {name: [100 * scores[name], *(100 * end for end in intervals[name])] for name in ranked}}
    charts = [
        Chart(f"{metric.capitalize()} (%) with its 95 % interval", partial(dot_chart, dots, "%"), describe_dots(dots))
    ]
    by_gap = sorted((name for name in ranked if gaps[name] is not None), key=lambda name: (-(gaps[name] or 0), name))
    if by_gap:
        distances = {"gap": {name: [100 * (gaps[name] or 0) / scale] for name in by_gap}}
        draw = partial(dot_chart, distances, f"English minus language, {metric} (points)", True)
        charts.append(Chart("Transfer gap, the largest first", draw, describe_dots(distances)))
    split = {"eval": "validation", "predict": "test"}[prefix]
    table = Table(f"Scores on the {split} data (%)", ResultTable(columns, rows).without_empty_columns())
    return [Section("Scores by language", charts=charts, tables=[table])]


def _percents(*values: float) -> str:
    return " to ".join(f"{100 * value:.1f}" for value in values)


def _points(gap: float | None, scale: float) -> str | None:
    return None if gap is None else points(gap / scale, sign=False)


# --- What another run predicts differently ---


def read_baseline(folder: str, task: TaskSpec, prefix: str, sets: Mapping[str, Dataset]) -> Predictions:
    """The predictions of `--baseline_run` for the examples of the sets that it was measured on, too.

    Raises:
        InputError: if the folder is not of a run of this task, or was measured on other examples.
    """
    record = read_record(Path(folder, "run.json"), "is --baseline_run the --output_dir of a finished run?")
    theirs = recorded_task(record)
    if theirs is None or theirs.name != task.name:
        raise InputError(f"--baseline_run {folder} is not a run of run_{task.name}.py; name one that is.")
    measured = record.get("predict_data") or record.get("eval_data") or {}
    if prefix != ("predict" if record.get("predict_data") else "eval") or not set(sets) & set(measured):
        raise InputError(
            f"--baseline_run {folder} was not measured on the same data: here {', '.join(sets)} with --do_{prefix}; measure "
            "both runs in the same way."
        )
    found = {}
    for name in sets.keys() & measured.keys():
        if measured[name].get("sha256") != content_fingerprint(sets[name]):
            raise InputError(
                f"--baseline_run {folder} was measured on other examples in {name}; use the same for both."
            )
        path = Path(folder, "predictions", f"{name}.jsonl")
        found[name] = [row for _, row in read_json(str(path), like='{"id": …, "gold": …, "prediction": …}')]
        try:
            n = len([task.score_prediction(row) for row in found[name]])
        except (KeyError, TypeError, ValueError, AttributeError):
            n = -1
        if n != len(sets[name]):
            raise InputError(f"The file {path} of --baseline_run is damaged; run its script again.")
    return {name: found[name] for name in sets if name in found}


def changed_examples(
    task: TaskSpec, examples: Mapping[str, Dataset], now: Predictions, baseline: Predictions, folder: str
) -> list[Section]:
    """How many examples this run and the baseline predict differently, who is right, and some of them."""
    counts, rows = [], []
    for name, before in baseline.items():
        both = list(zip(before, now[name], strict=True))
        change = [_right(task, new) - _right(task, old) for old, new in both]
        different = [k for k, (old, new) in enumerate(both) if old["prediction"] != new["prediction"]]
        better, worse = ([k for k in different if sign * change[k] > 0] for sign in (1, -1))
        numbers = (len(both), len(different), len(better), len(worse))
        counts.append([name, *(f"{n:,}" for n in numbers)])
        for kind, chosen in (("better", better), ("worse", worse)):
            for k in sorted(chosen, key=lambda k: (-abs(change[k]), k))[:_EXAMPLES]:
                rows.append([name, kind, *_as_texts(examples[name][k], *both[k])])
    if not counts:
        return []
    columns = ["language", "examples", "predicted differently", "better here", "worse here"]
    more = ["language", "here", "example", "right answer", "baseline", "this run"]
    tables = [Table("This run and the baseline, example by example", ResultTable(columns, counts))]
    tables += [Table("Examples that changed most", ResultTable(more, rows, len(more)), wide=True)] * bool(rows)
    note = (
        f"The baseline is the run in {Path(folder).absolute().name}. compare_runs.py tests whether two runs differ "
        "significantly; single examples do not show it."
    )
    return [Section("What changed against the baseline", [note], tables=tables)]


def _right(task: TaskSpec, row: _Json) -> float:
    """How right a prediction is, 0 to 1; of counts F1, and 1 if there is nothing to find and nothing was found."""
    score = task.score_prediction(row)[task.selection_metric]
    if not isinstance(score, tuple):
        return score
    found, wrong, missed = score
    return 2 * found / (2 * found + wrong + missed) if any(score) else 1.0


def _as_texts(example: _Json, before: _Json, now: _Json) -> list[str]:
    """An example, the right answer and both predictions; of tags only those that differ."""
    if "tokens" in example:
        differ = [k for k, (old, new) in enumerate(zip(before["prediction"], now["prediction"])) if old != new]
        text = " ".join(example["tokens"])
        tags = [
            "\n".join(f"{example['tokens'][k]}: {of_words[k]}" for k in differ)
            for of_words in (now["gold"], before["prediction"], now["prediction"])
        ]
        return [shorten(text, 400), *tags]
    texts = {name: value for name, value in example.items() if isinstance(value, str) and name not in ("id", "label")}
    text = "\n".join(shorten(value, 400) for _, value in sorted(texts.items(), key=lambda one: one[0] == "context"))
    gold = now["gold"]
    answers = [
        " / ".join(dict.fromkeys(gold)) if isinstance(gold, list) else gold,
        before["prediction"],
        now["prediction"],
    ]
    return [text, *(shorten(str(answer), 200) for answer in answers)]
