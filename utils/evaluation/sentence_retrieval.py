"""Cross-lingual sentence retrieval: both directions of one model, and the metrics, curves and tables of the results."""

from collections.abc import Mapping, Sequence
from statistics import fmean

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


def mexa_by_layer(found: Found) -> dict[str, dict[int, float]]:
    """Language → layer → MEXA, 0 to 1: the share of pairs that are each other's nearest, in both directions.

    Kargaran et al. (2024), who define it by cosine similarity: a pair counts if its own similarity is larger than all
    others in its row and in its column. A tie does not count.
    """
    mexa: dict[str, dict[int, float]] = {}
    for language in (direction.removesuffix("-en") for direction in found if direction.endswith("-en")):
        to_english, from_english = found[f"{language}-en"], found[f"en-{language}"]
        mexa[language] = {
            layer: ((there.rank == 1) & (from_english[layer].rank == 1)).double().mean().item()
            for layer, there in to_english.items()
        }
    return mexa


def retrieval_metrics(found: Found) -> dict[str, float]:
    """What is reported of one model, by name.

    Of every direction and layer `hi-en_layer8_accuracy`, `…_mrr`, `…_share_found`, 0 to 1, and `…_query_spread`; of every
    language `hi_layer8_mexa`, and the mean and the maximum over the layers, `hi_mexa_mean` and `hi_mexa_max`.
    """
    metrics = {
        f"{direction}_layer{layer}_{name}": getattr(retrieval, name)
        for direction, by_layer in found.items()
        for layer, retrieval in by_layer.items()
        for name in ("accuracy", "mrr", "share_found", "query_spread")
        if getattr(retrieval, name) is not None
    }
    for language, curve in mexa_by_layer(found).items():
        metrics |= {f"{language}_layer{layer}_mexa": value for layer, value in curve.items()}
        metrics |= {f"{language}_mexa_mean": fmean(curve.values()), f"{language}_mexa_max": max(curve.values())}
    return metrics


def curves_by_layer(found: Mapping[str, Found]) -> dict[str, dict[str, dict[int, float]]]:
    """Panel → model → layer → value: for each language the accuracies of both directions, and MEXA."""
    curves: dict[str, dict[str, dict[int, float]]] = {}
    for model, of_model in found.items():
        mexa = mexa_by_layer(of_model)
        for direction, by_layer in of_model.items():
            curve = {layer: retrieval.accuracy for layer, retrieval in by_layer.items()}
            curves.setdefault(direction, {})[model] = curve
            if (language := direction.removeprefix("en-")) in mexa:  # after the second direction
                curves.setdefault(f"{language}: MEXA", {})[model] = mexa[language]
    return curves


def retrieval_table(found: Mapping[str, Found], usual: Mapping[str, int]) -> ResultTable:
    """A row per model and direction with up to three layers; 100 characters wide at most.

    Of more than three layers, the most accurate one, the usual one of each model and the last one are shown.
    """
    groups = _groups_of_layers(found)
    rows = []
    for model, directions in found.items():
        for direction, by_layer in directions.items():
            row: list[str | int | None] = [shorten(model, 26), direction]
            accuracy = {layer: retrieval.accuracy for layer, retrieval in by_layer.items()}
            for layer in _layers_shown(accuracy, groups, usual[model]):
                at_layer = by_layer.get(layer)
                row += [layer, f"{100 * at_layer.accuracy:.1f}", f"{at_layer.mrr:.3f}"] if at_layer else [None] * 3
            rows.append(row + [None] * (2 + 3 * len(groups) - len(row)))
    header = [name for group in groups for name in (group, "acc %", "MRR")]
    return ResultTable(["model", "direction", *header], rows, n_text_columns=2)


def mexa_table(found: Mapping[str, Found], usual: Mapping[str, int]) -> ResultTable:
    """A row per model and language: MEXA in percent at the layers of `retrieval_table`, its mean and maximum over all."""
    groups = _groups_of_layers(found)
    rows = []
    for model, of_model in found.items():
        for language, curve in mexa_by_layer(of_model).items():
            row: list[str | int | None] = [shorten(model, 26), language]
            for layer in _layers_shown(curve, groups, usual[model]):
                row += [layer, f"{100 * curve[layer]:.1f}"] if layer in curve else [None] * 2
            row += [None] * (2 + 2 * len(groups) - len(row))
            rows.append([*row, f"{100 * fmean(curve.values()):.1f}", f"{100 * max(curve.values()):.1f}"])
    header = [name for group in groups for name in (group, "MEXA %")]
    return ResultTable(["model", "language", *header, "mean", "max"], rows, n_text_columns=2)


def _groups_of_layers(found: Mapping[str, Found]) -> tuple[str, ...]:
    """The names of the layers that a table shows."""
    n_layers = max(len(by_layer) for directions in found.values() for by_layer in directions.values())
    return ("best", "usual", "last") if n_layers > 3 else ("layer",) * n_layers


def _layers_shown(values: Mapping[int, float], groups: Sequence[str], usual: int) -> list[int]:
    """All layers of a curve, or with groups the one with the largest value, the usual one and the last one."""
    layers = list(values)
    return [max(layers, key=values.__getitem__), usual, layers[-1]] if "best" in groups else layers
