"""The results of sentence retrieval: metrics, curves, a table."""

import math
from collections.abc import Mapping

from utils.evaluation.neighbours import Retrieval


def retrieval_metrics(found: Mapping[str, Mapping[int, Retrieval]]) -> dict[str, float]:
    """`hi-en_layer8_accuracy`, `…_mrr`, `…_share_found`, 0 to 1, and `…_query_spread`, of every direction and layer."""
    metrics = {}
    for direction, by_layer in found.items():
        for layer, retrieval in by_layer.items():
            metrics[f"{direction}_layer{layer}_accuracy"] = retrieval.accuracy
            metrics[f"{direction}_layer{layer}_mrr"] = retrieval.mrr
            metrics[f"{direction}_layer{layer}_share_found"] = retrieval.share_found
            if retrieval.query_spread is not None and math.isfinite(retrieval.query_spread):
                metrics[f"{direction}_layer{layer}_query_spread"] = retrieval.query_spread
    return metrics


def accuracy_curves(
    found: Mapping[str, Mapping[str, Mapping[int, Retrieval]]],
) -> dict[str, dict[str, dict[int, float]]]:
    """From model → direction → layer to direction → model → layer → accuracy: a panel for each direction."""
    curves: dict[str, dict[str, dict[int, float]]] = {}
    for model, directions in found.items():
        for direction, by_layer in directions.items():
            curve = {layer: retrieval.accuracy for layer, retrieval in by_layer.items()}
            curves.setdefault(direction, {})[model] = curve
    return curves


def retrieval_table(found: Mapping[str, Mapping[str, Mapping[int, Retrieval]]], usual: Mapping[str, int]) -> str:
    """A table of 100 columns at most: a line per model and direction, three layers of each.

    Args:
        found: model → direction → layer → what was found.
        usual: the usual layer of each model. Of more than three layers, the most accurate one, the usual one and the
            last one are shown.
    """
    everything = [by_layer for directions in found.values() for by_layer in directions.values()]
    n_groups = min(3, max(map(len, everything)))
    choose = max(map(len, everything)) > 3
    width = min(28, max(map(len, found)))
    lines = [f"{'model':{width}}  direction" + "  layer acc. %   MRR" * n_groups]
    if choose:
        lines.insert(0, " " * (width + 11) + "".join(f"  {name:^18}" for name in ("most accurate", "usual", "last")))
    for model, directions in found.items():
        name = (
            model if len(model) <= width else f"{model[: width // 2]}…{model[len(model) - width + width // 2 + 1 :]}"
        )
        for direction, by_layer in directions.items():
            shown = list(by_layer)
            if choose:
                best = max(by_layer, key=lambda layer, by_layer=by_layer: by_layer[layer].accuracy)
                shown = [best, usual[model], shown[-1]]
            cells = [
                f"  {layer:5} {100 * by_layer[layer].accuracy:6.1f} {by_layer[layer].mrr:.3f}"
                if layer in by_layer
                else " " * 20
                for layer in shown
            ]
            lines.append(f"{name:{width}}  {direction:9}" + "".join(cells))
    return "\n".join(line.rstrip() for line in lines)
