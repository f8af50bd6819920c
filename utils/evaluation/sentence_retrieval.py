"""Cross-lingual sentence retrieval: both directions of one model, and the metrics, curves and table of the results."""

import math
from collections.abc import Mapping, Sequence

import torch

from utils.core.result_tables import ResultTable, shorten
from utils.evaluation.neighbours import Retrieval, retrieve, vector_spread
from utils.evaluation.sentence_pairs import SentencePairs


# Direction → layer → what was found, for one model.
Found = dict[str, dict[int, Retrieval]]


def retrieve_translations(
    vectors: torch.Tensor, pairs: SentencePairs, layers: Sequence[int], distance: str, device: torch.device
) -> Found:
    """Let the sentences of each side find their translations at each layer.

    Args:
        vectors: [layers, 2 N, dimensions] of the N source sentences, then of their N translations.
        pairs: the sentences.
        layers: keys of the result.
        distance: a name in `RETRIEVAL_DISTANCES`.
        device: where nearest neighbours are searched.
    """
    to_english, from_english = pairs.directions
    found: Found = {to_english: {}, from_english: {}}
    for layer, of_layer in zip(layers, vectors):
        source, english = of_layer.to(device).chunk(2)
        for direction, queries, candidates in ((to_english, source, english), (from_english, english, source)):
            found[direction][layer] = retrieve(queries, candidates, distance)
            found[direction][layer].query_spread = vector_spread(queries, distance)
    return found


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


def accuracy_curves(found: Mapping[str, Found]) -> dict[str, dict[str, dict[int, float]]]:
    """From model → direction → layer to direction → model → layer → accuracy: a panel for each direction."""
    curves: dict[str, dict[str, dict[int, float]]] = {}
    for model, directions in found.items():
        for direction, by_layer in directions.items():
            curve = {layer: retrieval.accuracy for layer, retrieval in by_layer.items()}
            curves.setdefault(direction, {})[model] = curve
    return curves


def retrieval_table(found: Mapping[str, Found], usual: Mapping[str, int]) -> ResultTable:
    """A row per model and direction with up to three layers; 100 characters wide at most.

    Args:
        found: model → direction → layer → what was found.
        usual: the usual layer of each model. Of more than three layers, the most accurate one, the usual one and the
            last one are shown.
    """
    n_layers = max(len(by_layer) for directions in found.values() for by_layer in directions.values())
    groups = ("best", "usual", "last") if n_layers > 3 else ("layer",) * n_layers
    rows = []
    for model, directions in found.items():
        for direction, by_layer in directions.items():
            shown = list(by_layer)
            if n_layers > 3:
                best = max(shown, key=lambda layer: found[model][direction][layer].accuracy)  # noqa: B023
                shown = [best, usual[model], shown[-1]]
            row: list[str | int | None] = [shorten(model, 26), direction]
            for layer in shown:
                at_layer = by_layer.get(layer)
                row += [layer, f"{100 * at_layer.accuracy:.1f}", f"{at_layer.mrr:.3f}"] if at_layer else [None] * 3
            rows.append(row + [None] * (2 + 3 * len(groups) - len(row)))
    header = [name for group in groups for name in (group, "acc %", "MRR")]
    return ResultTable(["model", "direction", *header], rows, n_text_columns=2)
