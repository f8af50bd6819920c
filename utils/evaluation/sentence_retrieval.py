"""Cross-lingual sentence retrieval: both directions of one model, and the metrics, curves and tables of the results."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import TypeVar

import torch

from utils.core.result_tables import ResultTable, shorten
from utils.evaluation.neighbors import Retrieval, retrieve, vector_spread
from utils.evaluation.sentence_pairs import SentencePairs
from utils.parallel.sides import directions


T = TypeVar("T")
# Direction → layer → what was found, for one model and distance.
Found = dict[str, dict[int, Retrieval]]
# Distance → what was found, for one model.
ByDistance = Mapping[str, Found]


def retrieve_translations(
    vectors: torch.Tensor, pairs: SentencePairs, layers: Sequence[int], distance: str, device: torch.device
) -> Found:
    """Let the sentences of each side find their translations at each layer; nearest neighbors on the device.

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
        to_english, from_english = (found[way] for way in directions(language))
        mexa[language] = {
            layer: ((there.rank == 1) & (from_english[layer].rank == 1)).double().mean().item()
            for layer, there in to_english.items()
        }
    return mexa


def retrieval_metrics(found: ByDistance) -> dict[str, float]:
    """What is reported of one model, by name.

    Of every direction and layer `hi-en_layer8_accuracy`, `…_mrr`, `…_share_found`, 0 to 1, and `…_query_spread`; of every
    language `hi_layer8_mexa`, and the mean and the maximum over the layers, `hi_mexa_mean` and `hi_mexa_max`. These are by
    the first distance; the names of others have the distance in them, as in `hi-en_layer8_csls_accuracy`.
    """
    metrics: dict[str, float] = {}
    for number, (distance, of_distance) in enumerate(found.items()):
        by = f"_{distance}" if number else ""
        for direction, by_layer in of_distance.items():
            for layer, retrieval in by_layer.items():
                values = {
                    name: getattr(retrieval, name) for name in ("accuracy", "mrr", "share_found", "query_spread")
                }
                where = f"{direction}_layer{layer}{by}"
                metrics |= {f"{where}_{name}": value for name, value in values.items() if value is not None}
        for language, curve in mexa_by_layer(of_distance).items():
            metrics |= {f"{language}_layer{layer}{by}_mexa": value for layer, value in curve.items()}
            metrics[f"{language}{by}_mexa_mean"] = fmean(curve.values())
            metrics[f"{language}{by}_mexa_max"] = max(curve.values())
    return metrics


def curves_by_layer(found: Mapping[str, ByDistance]) -> dict[str, dict[str, dict[int, float]]]:
    """Panel → model → layer → value: for each language the accuracies of both directions, and MEXA.

    With several distances there is a curve for each model and distance.
    """
    curves: dict[str, dict[str, dict[int, float]]] = {}
    for model, direction, distance, by_layer in _each(found):
        label = f"{model}, {distance}" if len(found[model]) > 1 else model
        curve = {layer: retrieval.accuracy for layer, retrieval in by_layer.items()}
        curves.setdefault(direction, {})[label] = curve
        language = direction.removeprefix("en-")
        if language != direction:  # the second direction of a language
            mexa = mexa_by_layer(found[model][distance])
            curves.setdefault(f"{language}: MEXA", {})[label] = mexa[language]
    return curves


def retrieval_table(found: Mapping[str, ByDistance], usual: Mapping[str, int]) -> ResultTable:
    """A row per model, direction and distance with up to three layers; 100 characters wide at most.

    Of more than three layers, the most accurate one, the usual one of each model and the last one are shown.
    """
    groups = _groups_of_layers(found)
    rows = []
    for model, direction, distance, by_layer in _each(found):
        row = _names(model, direction, distance, found)
        accuracy = {layer: retrieval.accuracy for layer, retrieval in by_layer.items()}
        for layer in _layers_shown(accuracy, groups, usual[model]):
            at_layer = by_layer.get(layer)
            row += [layer, f"{100 * at_layer.accuracy:.1f}", f"{at_layer.mrr:.3f}"] if at_layer else [None] * 3
        rows.append(row + [None] * (3 + 3 * len(groups) - len(row)))
    header = [name for group in groups for name in (group, "acc %", "MRR")]
    return ResultTable(["model", "direction", "distance", *header], rows, 3).without_empty_columns()


def mexa_table(found: Mapping[str, ByDistance], usual: Mapping[str, int]) -> ResultTable:
    """A row per model, language and distance: MEXA in percent at up to three layers, its mean and maximum over all."""
    groups = _groups_of_layers(found)
    mexa = {model: {name: mexa_by_layer(one) for name, one in of_model.items()} for model, of_model in found.items()}
    rows = []
    for model, language, distance, curve in _each(mexa):
        row = _names(model, language, distance, found)
        for layer in _layers_shown(curve, groups, usual[model]):
            row += [layer, f"{100 * curve[layer]:.1f}"] if layer in curve else [None] * 2
        row += [None] * (3 + 2 * len(groups) - len(row))
        rows.append([*row, *(f"{100 * value:.1f}" for value in (fmean(curve.values()), max(curve.values())))])
    header = [name for group in groups for name in (group, "MEXA %")]
    return ResultTable(["model", "language", "distance", *header, "mean", "max"], rows, 3).without_empty_columns()


def _each(found: Mapping[str, Mapping[str, Mapping[str, T]]]) -> Iterator[tuple[str, str, str, T]]:
    """Model, direction (or language), distance and what was found, in the order of a table."""
    for model, by_distance in found.items():
        for direction in next(iter(by_distance.values())):
            for distance, of_distance in by_distance.items():
                yield model, direction, distance, of_distance[direction]


def _names(model: str, direction: str, distance: str, found: Mapping[str, ByDistance]) -> list[str | int | None]:
    """The first cells of a row; the distance is named if there are several."""
    several = len(found[model]) > 1
    return [shorten(model, 16 if several else 26), direction, distance if several else None]


def _groups_of_layers(found: Mapping[str, ByDistance]) -> tuple[str, ...]:
    """The names of the layers that a table shows."""
    n_layers = max(len(by_layer) for _, _, _, by_layer in _each(found))
    return ("best", "usual", "last") if n_layers > 3 else ("layer",) * n_layers


def _layers_shown(values: Mapping[int, float], groups: Sequence[str], usual: int) -> list[int]:
    """All layers of a curve, or with groups the one with the largest value, the usual one and the last one."""
    layers = list(values)
    return [max(layers, key=values.__getitem__), usual, layers[-1]] if "best" in groups else layers
