"""The results of word distances: metrics with intervals, curves by layer, a table, every distance link by link."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from datasets import Dataset

from utils.core.files import atomic_write
from utils.core.result_tables import ResultTable, shorten
from utils.evaluation.word_distances import Triples, WordDistances
from utils.parallel.sides import ENGLISH, directions


def bootstrap_interval(
    values: np.ndarray, statistic: Callable[[np.ndarray], float] = np.median, n_resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of a statistic of values [N] (Efron and Tibshirani, 1993, chapter 13).

    Links are resampled. Those of one sentence are not independent, so the interval is somewhat too narrow.
    """
    random = np.random.default_rng(seed)
    estimates = [statistic(random.choice(values, len(values))) for _ in range(n_resamples)]
    low, high = np.quantile(estimates, [0.025, 0.975])
    return float(low), float(high)


# Language → layer → distance → what was measured, for one model.
Measured = dict[str, dict[int, dict[str, WordDistances]]]
# Language → its sentence pairs, and the words in them that are measured.
Words = Mapping[str, tuple[Dataset, Triples]]
# Distance → measure → model → layer → value, or value with the ends of its interval.
DistancePanels = Mapping[str, Mapping[str, Mapping[str, Mapping[int, Sequence[float]]]]]


def flatten(measured: Measured) -> Iterator[tuple[str, int, str, WordDistances]]:
    """Tuples of language, layer, distance and what was measured."""
    for language, layers in measured.items():
        for layer, distances in layers.items():
            for distance, found in distances.items():
                yield language, layer, distance, found


def distance_metrics(measured: Measured, seed: int = 0, anchor: str = ENGLISH) -> dict[str, float]:
    """The numbers of one model by name.

    `hi_layer12_cosine_median_related`, `…_median_unrelated`, `…_median_difference`, `…_share_nearer`, each also with the
    suffixes `_low` and `_high` of its `bootstrap_interval`; `hi-en_layer12_cosine_word_retrieval_accuracy` and
    `en-hi_…`, the querying language first; `hi_layer12_cosine_spread_source`, `…_spread_english`.
    """
    metrics = {}
    for language, layer, distance, found in flatten(measured):
        where = f"layer{layer}_{distance}"
        for name, values, statistic in (
            ("median_related", found.related, np.median),
            ("median_unrelated", found.unrelated, np.median),
            ("median_difference", found.difference, np.median),
            ("share_nearer", found.nearer, np.mean),
        ):
            name = f"{language}_{where}_{name}"
            metrics[name] = float(statistic(values))
            metrics[f"{name}_low"], metrics[f"{name}_high"] = bootstrap_interval(values, statistic, seed=seed)
        for way, accuracy in zip(directions(language, anchor), (found.to_english, found.from_english)):
            metrics[f"{way}_{where}_word_retrieval_accuracy"] = accuracy
        metrics[f"{language}_{where}_spread_source"] = found.spread_source
        metrics[f"{language}_{where}_spread_english"] = found.spread_english
    return metrics


# Curves of a figure: title and name of the metric.
_CURVES = {
    "Median, related words": "{language}_layer{layer}_{distance}_median_related",
    "Median, unrelated words": "{language}_layer{layer}_{distance}_median_unrelated",
    "Related word nearer": "{language}_layer{layer}_{distance}_share_nearer",
    "Retrieval, {language} to {anchor}": "{language}-{anchor}_layer{layer}_{distance}_word_retrieval_accuracy",
    "Retrieval, {anchor} to {language}": "{anchor}-{language}_layer{layer}_{distance}_word_retrieval_accuracy",
}


def curves_by_layer(
    language: str, measured: Mapping[str, Measured], metrics: Mapping[str, Mapping[str, float]], anchor: str = ENGLISH
) -> DistancePanels:
    """The panels of `plot_distances_by_layer` for one language; `metrics` has the `distance_metrics` of each model."""
    panels: dict[str, dict[str, dict[str, dict[int, list[float]]]]] = {}
    for model, of_model in measured.items():
        for _, layer, distance, _ in flatten({language: of_model[language]}):
            for title, name in _CURVES.items():
                name = name.format(language=language, layer=layer, distance=distance, anchor=anchor)
                keys = [key for key in (name, f"{name}_low", f"{name}_high") if key in metrics[model]]
                curves = panels.setdefault(distance, {}).setdefault(title.format(language=language, anchor=anchor), {})
                curves.setdefault(model, {})[layer] = [metrics[model][key] for key in keys]
    return panels


_SCHEMA = pyarrow.schema(
    {
        "model": pyarrow.string(), "language": pyarrow.string(), "layer": pyarrow.int32(),
        "distance": pyarrow.string(), "link": pyarrow.int32(), "pair": pyarrow.int32(),
        "source_word": pyarrow.string(), "related_word": pyarrow.string(), "unrelated_word": pyarrow.string(),
        "same_pair": pyarrow.bool_(), "related": pyarrow.float64(), "unrelated": pyarrow.float64(),
    }
)  # fmt: skip


def write_distances(path: str | Path, measured: Mapping[str, Measured], words: Words) -> None:
    """Write the distances link by link in Arrow's streaming format, atomically.

    `datasets.Dataset.from_file(path)` reads it. Columns: `model`, `language`, `layer`, `distance` (its name); `link`, the
    same number for the same three words in every model; `pair`, the row of the sentence pair; `source_word`,
    `related_word`, `unrelated_word`; `same_pair`, whether the unrelated word is from the same pair; `related`,
    `unrelated`, the distances of the source word from the two.
    """
    of_language = {}
    for language, (bitext, triples) in words.items():
        source, english = list(bitext["source"]), list(bitext["english"])
        english_words = [english[k][j] for k, j in triples.english_words.tolist()]
        of_language[language] = {
            "link": np.arange(len(triples)),
            "pair": triples.pair,
            "source_word": [source[k][i] for k, i in triples.source_words.tolist()],
            "related_word": english_words[: len(triples)],
            "unrelated_word": english_words[len(triples) :],
            "same_pair": triples.pair == triples.unrelated_pair,
        }
    options = pyarrow.ipc.IpcWriteOptions(compression="lz4")
    with atomic_write(path) as temporary, pyarrow.ipc.new_stream(temporary, _SCHEMA, options=options) as file:
        for model, languages in measured.items():
            for language, layer, distance, found in flatten(languages):
                where = {"model": model, "language": language, "layer": layer, "distance": distance}
                columns: dict[str, Any] = {name: [value] * len(found.related) for name, value in where.items()}
                columns |= {**of_language[language], "related": found.related, "unrelated": found.unrelated}
                file.write_table(pyarrow.table(columns, schema=_SCHEMA))


def distance_table(measured: Mapping[str, Measured], anchor: str = ENGLISH) -> ResultTable:
    """A row per model, language and distance at the highest layer of each model; 100 characters wide at most.

    The columns `related` and `unrelated` are median distances, `to en` and `from en` word retrieval accuracies.
    """
    rows = []
    for model, of_model in measured.items():
        for language, layer, distance, found in flatten(of_model):
            if layer == max(of_model[language]):
                medians = [f"{np.median(values):.3f}" for values in (found.related, found.unrelated)]
                shares = [f"{100 * share:.1f}" for share in (found.share_nearer, found.to_english, found.from_english)]
                rows.append([shorten(model, 22), language, layer, distance, *medians, *shares])
    columns = [
        "model",
        "language",
        "layer",
        "distance",
        "related",
        "unrelated",
        "nearer %",
        f"to {anchor} %",
        f"from {anchor} %",
    ]
    return ResultTable(columns, rows, n_text_columns=4)
