"""The results of word distances: metrics with intervals, a table, every distance link by link."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow
from datasets import Dataset

from utils.core.files import atomic_write
from utils.evaluation.word_distances import Triples, WordDistances


# Of 100 intervals about 95 hold the value that more links would give.
_CONFIDENCE = 0.95
_RESAMPLES = 1000


def bootstrap_interval(
    values: np.ndarray,
    statistic: Callable[[np.ndarray], float] = np.median,
    n_resamples: int = _RESAMPLES,
    confidence: float = _CONFIDENCE,
    seed: int = 0,
) -> tuple[float, float]:
    """The percentile interval of a statistic (Efron and Tibshirani, 1993, chapter 13), links drawn with replacement.

    It says how much would change with other links of the same kind. Links of one sentence are not independent, so it
    is somewhat too narrow.
    """
    random = np.random.default_rng(seed)
    estimates = [statistic(random.choice(values, len(values))) for _ in range(n_resamples)]
    low, high = np.quantile(estimates, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


# Language → layer → distance → what was measured, for one model.
Measured = Mapping[str, Mapping[int, Mapping[str, WordDistances]]]


def each_comparison(measured: Measured) -> Iterator[tuple[str, int, str, WordDistances]]:
    """Language, layer, distance and what was measured, one after the other."""
    for language, layers in measured.items():
        for layer, distances in layers.items():
            for distance, comparison in distances.items():
                yield language, layer, distance, comparison


def distance_metrics(measured: Measured, seed: int = 0) -> dict[str, float]:
    """The numbers of one model by flat names.

    `hi_layer12_cosine_median_related`, `…_median_unrelated`, `…_median_difference` and `…_share_nearer`, each also with
    `_low` and `_high`, the ends of its `bootstrap_interval`; `hi-en_layer12_cosine_word_retrieval_accuracy` and
    `en-hi_…`, the querying language first; `hi_layer12_cosine_spread_source` and `…_spread_english`.
    """
    metrics = {}
    for language, layer, distance, comparison in each_comparison(measured):
        where = f"layer{layer}_{distance}"
        for name, values, statistic in (
            ("median_related", comparison.related, np.median),
            ("median_unrelated", comparison.unrelated, np.median),
            ("median_difference", comparison.difference, np.median),
            ("share_nearer", comparison.nearer, np.mean),
        ):
            name = f"{language}_{where}_{name}"
            metrics[name] = float(statistic(values))
            metrics[f"{name}_low"], metrics[f"{name}_high"] = bootstrap_interval(values, statistic, seed=seed)
        metrics[f"{language}-en_{where}_word_retrieval_accuracy"] = comparison.to_english
        metrics[f"en-{language}_{where}_word_retrieval_accuracy"] = comparison.from_english
        metrics[f"{language}_{where}_spread_source"] = comparison.spread_source
        metrics[f"{language}_{where}_spread_english"] = comparison.spread_english
    return metrics


_SCHEMA = pyarrow.schema(
    {
        "model": pyarrow.string(), "language": pyarrow.string(), "layer": pyarrow.int32(),
        "distance": pyarrow.string(), "link": pyarrow.int32(), "pair": pyarrow.int32(),
        "source_word": pyarrow.string(), "related_word": pyarrow.string(), "unrelated_word": pyarrow.string(),
        "same_pair": pyarrow.bool_(), "related": pyarrow.float64(), "unrelated": pyarrow.float64(),
    }
)  # fmt: skip


def write_distances(
    path: str | Path, measured: Mapping[str, Measured], words: Mapping[str, tuple[Dataset, Triples]]
) -> None:
    """Write the distances link by link in Arrow's streaming format, as a whole.

    `datasets.Dataset.from_file(path)` reads it (and `.to_pandas()` makes a table). The columns: `model`, `language`,
    `layer` (index into hidden states), `distance` (its name); `link`, the same number for the same three words
    whatever the model; `pair`, the sentence pair it is from; `source_word`, `related_word`, `unrelated_word`;
    `same_pair`, whether the unrelated word is from the same pair; `related`, `unrelated`, the distances of the source
    word from the two.

    Args:
        path: of the file.
        measured: by model.
        words: by language, the bitext and the triples that were measured.
    """
    of_language = {}
    for language, (bitext, triples) in words.items():
        source, english = list(bitext["source"]), list(bitext["english"])
        of_language[language] = {
            "link": np.arange(len(triples)),
            "pair": triples.pair,
            "source_word": [source[k][i] for k, i in triples.source_words.tolist()],
            "related_word": [english[k][j] for k, j in triples.english_words[: len(triples)].tolist()],
            "unrelated_word": [english[k][j] for k, j in triples.english_words[len(triples) :].tolist()],
            "same_pair": triples.pair == triples.unrelated_pair,
        }
    options = pyarrow.ipc.IpcWriteOptions(compression="lz4")
    with atomic_write(path) as temporary, pyarrow.ipc.new_stream(temporary, _SCHEMA, options=options) as file:
        for model, languages in measured.items():
            for language, layer, distance, found in each_comparison(languages):
                n_links = len(found.related)
                where = {"model": model, "language": language, "layer": layer, "distance": distance}
                columns = {name: [value] * n_links for name, value in where.items()}
                columns |= {**of_language[language], "related": found.related, "unrelated": found.unrelated}
                file.write_table(pyarrow.table(columns, schema=_SCHEMA))


def distance_table(measured: Mapping[str, Measured]) -> str:
    """A line per model, language and distance at the highest layer of each model; 100 columns at most.

    Args:
        measured: by model.
    """
    width = max(5, min(28, max(map(len, measured))))
    lines = [
        f"{'':{width}}                             median distance   nearer   retrieval %",
        f"{'model':{width}}  language  layer  distance  related  unrelated       %  to en  from en",
    ]
    for model, languages in measured.items():
        name = (
            model if len(model) <= width else f"{model[: width // 2]}…{model[len(model) - width + width // 2 + 1 :]}"
        )
        for language, layers in languages.items():
            layer = max(layers)
            for distance, found in layers[layer].items():
                lines.append(
                    f"{name:{width}}  {language:8}  {layer:5}  {distance:8}  {np.median(found.related):7.3f}  "
                    f"{np.median(found.unrelated):9.3f}  {100 * found.share_nearer:6.1f}  {100 * found.to_english:5.1f}  "
                    f"{100 * found.from_english:7.1f}"
                )
    return "\n".join(lines)
