"""The results of a run in all languages: the mean over zero-shot languages, the transfer gap, and the printed table."""

from collections.abc import Mapping, Sequence

from utils.core.result_tables import ResultTable, points
from utils.parallel.sides import ENGLISH
from utils.tasks.registry import TaskSpec


def summarize(
    metrics: Mapping[str, float], prefix: str, names: Sequence[str], zero_shot: Sequence[str], task: TaskSpec
) -> dict[str, float]:
    """The metrics, with the means over the zero-shot sets and the transfer gaps.

    Means are named `{prefix}_zero_shot_{metric}`. A transfer gap is the result in English minus the result in a language, by
    the task's selection metric (Hu et al., ICML 2020, section 5): `{prefix}_{set}_gap_{metric}`. It is missing if English was
    not evaluated.
    """
    found = dict(metrics)
    for metric in task.metrics if zero_shot else ():
        found[f"{prefix}_zero_shot_{metric}"] = sum(metrics[f"{prefix}_{name}_{metric}"] for name in zero_shot) / len(
            zero_shot
        )
    if ENGLISH in names:
        metric = task.selection_metric
        for name in [*names, *(["zero_shot"] if zero_shot else [])]:
            if name != ENGLISH:
                gap = metrics[f"{prefix}_{ENGLISH}_{metric}"] - found[f"{prefix}_{name}_{metric}"]
                found[f"{prefix}_{name}_gap_{metric}"] = gap
    return found


def language_table(
    metrics: Mapping[str, float], prefix: str, names: Sequence[str], task: TaskSpec, few_shot: Mapping[str, int]
) -> str:
    """A line per set with its metrics and its transfer gap, in percent, then the gaps, the largest first.

    Args:
        metrics: of `summarize`.
        few_shot: number of training examples in languages that have a few.
    """
    shown = [*names, *(["zero_shot"] if f"{prefix}_zero_shot_{task.selection_metric}" in metrics else [])]
    scale = task.metrics[task.selection_metric]
    gaps = {name: metrics.get(f"{prefix}_{name}_gap_{task.selection_metric}") for name in shown}
    written = {name: points(gap / scale, sign=False) for name, gap in gaps.items() if gap is not None}
    rows = []
    for name in shown:
        label = f"{name} ({few_shot[name]} shots)" if name in few_shot else name.replace("_", "-")
        values = [f"{100 * metrics[f'{prefix}_{name}_{metric}'] / best:.1f}" for metric, best in task.metrics.items()]
        rows.append([label, *values, written.get(name)])
    columns = [prefix, *(metric.replace("_", " ") for metric in task.metrics), "gap"]
    lines = [ResultTable(columns, rows).without_empty_columns().text()]
    if ranked := sorted(set(written) & set(names), key=lambda name: (-(gaps[name] or 0), name)):
        languages = ", ".join(f"{name} {written[name]}" for name in ranked)
        lines.append(f"Transfer gap (English minus language, {task.selection_metric}): {languages}.")
    return "\n".join(lines)
