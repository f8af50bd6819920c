"""Cross-lingual sentence retrieval: both directions of one model, and the metrics, curves and table of the results."""

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
    """Let the sentences of each side find their translations at each layer; nearest neighbours on the device.

    `vectors` are [layers, 2 N, dimensions]: of the N source sentences, then of their N translations.
    """
    to_english, from_english = pairs.directions
    found: Found = {to_english: {}, from_english: {}}
    for layer, of_layer in zip(layers, vectors):
        source, english = of_layer.to(device).chunk(2)
        for direction, queries, candidates in ((to_english, source, english), (from_english, english, source)):
            found[direction][layer] = retrieve(queries, candidates, distance)
            found[direction][layer].query_spread = vector_spread(queries, distance)
            found[direction][layer].warn_if_collapsed(f"{direction}, layer {layer}")
    return found


def retrieval_metrics(found: Found) -> dict[str, float]:
    """`hi-en_layer8_accuracy`, `…_mrr`, `…_share_found`, 0 to 1, and `…_query_spread`, of every direction and layer."""
    return {
        f"{direction}_layer{layer}_{name}": getattr(retrieval, name)
        for direction, by_layer in found.items()
        for layer, retrieval in by_layer.items()
        for name in ("accuracy", "mrr", "share_found", "query_spread")
        if getattr(retrieval, name) is not None
    }


def accuracy_curves(found: Mapping[str, Found]) -> dict[str, dict[str, dict[int, float]]]:
    """Direction → model → layer → accuracy: a panel for each direction."""
    curves: dict[str, dict[str, dict[int, float]]] = {}
    for model, of_model in found.items():
        for direction, by_layer in of_model.items():
            curve = {layer: retrieval.accuracy for layer, retrieval in by_layer.items()}
            curves.setdefault(direction, {})[model] = curve
    return curves


def retrieval_table(found: Mapping[str, Found], usual: Mapping[str, int]) -> ResultTable:
    """A row per model and direction with up to three layers; 100 characters wide at most.

    Of more than three layers, the most accurate one, the usual one of each model and the last one are shown.
    """
    n_layers = max(len(by_layer) for directions in found.values() for by_layer in directions.values())
    groups = ("best", "usual", "last") if n_layers > 3 else ("layer",) * n_layers
    rows = []
    for model, directions in found.items():
        for direction, by_layer in directions.items():
            shown = list(by_layer)
            if n_layers > 3:
                best, _ = max(by_layer.items(), key=lambda item: item[1].accuracy)
                shown = [best, usual[model], shown[-1]]
            row: list[str | int | None] = [shorten(model, 26), direction]
            for layer in shown:
                at_layer = by_layer.get(layer)
                row += [layer, f"{100 * at_layer.accuracy:.1f}", f"{at_layer.mrr:.3f}"] if at_layer else [None] * 3
            rows.append(row + [None] * (2 + 3 * len(groups) - len(row)))
    header = [name for group in groups for name in (group, "acc %", "MRR")]
    return ResultTable(["model", "direction", *header], rows, n_text_columns=2)
