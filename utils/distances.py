"""How far apart related and unrelated words lie: the draw of the words, their vectors, their distances, what sums them up.

*Related* are words that are linked across languages in held-out sentence pairs. To each such link belongs an *unrelated*
English word, drawn at random. An encoder is well aligned if the related word is nearer than the unrelated one; what
fine-tuning does to that is the question of Efimov et al. (ECIR 2023).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import torch
import torch.nn.functional as F
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from torch import nn
from transformers.utils import logging

from utils.alignment import hidden_states_at
from utils.records import written_whole
from utils.retrieval import retrieve, spread
from utils.word_pooling import WordTokenizer, pool_words


DISTANCES = ("l2", "cosine")

# Of 100 intervals about 95 hold the value that more links would give.
_CONFIDENCE = 0.95
_RESAMPLES = 1000


# --- Which words -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Triples:
    """N links, each with an unrelated English word. All arrays are [N] and count from 0.

    Attributes:
        pair: row of the bitext.
        source, english: the linked words of that pair, by position.
        unrelated_pair, unrelated: row and position of an English word that `source` is not linked with.
    """

    pair: np.ndarray
    source: np.ndarray
    english: np.ndarray
    unrelated_pair: np.ndarray
    unrelated: np.ndarray

    def __len__(self) -> int:
        return len(self.pair)

    def select(self, kept: np.ndarray) -> "Triples":
        """Some of them, by number or by a mask."""
        return Triples(*(getattr(self, column.name)[kept] for column in fields(self)))

    @property
    def source_words(self) -> np.ndarray:
        """[N, 2]: sentence and position of the source words."""
        return np.stack([self.pair, self.source], axis=1)

    @property
    def english_words(self) -> np.ndarray:
        """[2 N, 2]: sentence and position of the related English words, then of the unrelated ones."""
        related = np.stack([self.pair, self.english], axis=1)
        return np.concatenate([related, np.stack([self.unrelated_pair, self.unrelated], axis=1)])


def draw_triples(bitext: Dataset, max_links: int | None = None, seed: int = 0) -> Triples:
    """Draw links, and an unrelated English word for each of them.

    Half of the unrelated words come from the sentence pair of the link, where encoders mix the words of a context into
    each other, half from all other pairs; where one of the two has no word to offer, the other one does. A word that
    is spelt like the related one (in whatever case) or linked with the same source word is not unrelated. The draw is
    made among words, before any tokenizer sees them, so that it is the same for every model.

    Args:
        bitext: columns `source`, `english` (lists of words) and `links` (lists of `[i, j]`).
        max_links: draw so many of the links; None: all.
        seed: of the draw.

    Returns:
        The triples in the order of the bitext. A link that no English word is unrelated to is left out.
    """
    sentences = list(bitext["english"])
    links = np.array([(k, i, j) for k, linked in enumerate(bitext["links"]) for i, j in linked], np.int64)
    links = links.reshape(-1, 3)
    random = np.random.default_rng(seed)
    chosen = np.sort(random.permutation(len(links))[:max_links])
    draws = random.random((len(links), 2))[chosen]

    numbers: dict[str, int] = {}
    spelling = np.array([numbers.setdefault(word.lower(), len(numbers)) for words in sentences for word in words])
    n_words = np.array([len(words) for words in sentences], np.int64)
    first_word = np.cumsum(n_words) - n_words
    linked_with: dict[tuple[int, int], list[int]] = {}
    for pair, i, j in links.tolist():
        linked_with.setdefault((pair, i), []).append(j)

    rows = []
    for (pair, i, j), (coin, place) in zip(links[chosen].tolist(), draws.tolist()):
        first = first_word[pair]
        inside = slice(first, first + n_words[pair])
        unrelated = spelling != spelling[first + j]
        unrelated[first + np.array(linked_with[pair, i])] = False
        here = np.flatnonzero(unrelated[inside]) + first
        unrelated[inside] = False
        elsewhere = np.flatnonzero(unrelated)
        candidates = here if len(here) and (coin < 0.5 or not len(elsewhere)) else elsewhere
        if len(candidates):
            word = candidates[int(place * len(candidates))]
            unrelated_pair = int(np.searchsorted(first_word, word, side="right")) - 1
            rows.append((pair, i, j, unrelated_pair, word - first_word[unrelated_pair]))
    return Triples(*np.array(rows, np.int64).reshape(-1, 5).T)


def with_vectors(triples: Triples, bitext: Dataset, word_tokenizers: Sequence[WordTokenizer]) -> Triples:
    """The triples whose three words have a vector by every one of the tokenizers.

    A tokenizer makes nothing of some words (`\\u200b`) and cuts long sentences. A triple that one model cannot measure
    is measured by none, so that all are compared on the same words.
    """
    if not len(triples):
        return triples
    kept = np.ones(len(triples), bool)
    for side, words in (("source", triples.source_words), ("english", triples.english_words)):
        numbers = np.unique(words[:, 0])
        sentences = list(bitext.select(numbers)[side])
        for word_tokenizer in word_tokenizers:
            tokenized = word_tokenizer(sentences)["words"]
            present = {(k, position) for k, positions in zip(numbers.tolist(), tokenized) for position in positions}
            has_vector = np.array([tuple(word) in present for word in words.tolist()], bool)
            kept &= has_vector.reshape(-1, len(triples)).all(axis=0)
    return triples.select(kept)


# --- Their vectors -----------------------------------------------------------------------------------------------


def encode_words(
    model: nn.Module,
    word_tokenizer: WordTokenizer,
    sentences: Sequence[Sequence[str]],
    words: np.ndarray,
    layers: Sequence[int] = (-1,),
    batch_size: int = 64,
    autocast: Callable[[], AbstractContextManager] = nullcontext,
    state: PartialState | None = None,
    description: str | None = None,
) -> torch.Tensor:
    """The vectors of some words of some sentences at several layers, in one pass; no other vector is kept.

    Args:
        model: an encoder in evaluation mode, on the device that is to do the work.
        word_tokenizer: of that encoder.
        sentences: as lists of words.
        words: [N, 2], sentence and position of every word that is wanted; each must have a vector (`with_vectors`).
        layers: indices into `hidden_states`: 0 the embeddings, -1 the last layer.
        batch_size: sentences encoded at once per process.
        autocast: context of the encoder's passes (mixed precision).
        state: several processes that share the work; each gets the whole result. None: this process does it alone.
        description: what the progress bar says; None for no bar.

    Returns:
        [layers, N, dimensions], fp32, on the CPU.
    """
    # A word that is wanted twice is encoded once; sorted, the words of a sentence stand together.
    wanted, row_of = np.unique(words, axis=0, return_inverse=True)
    numbers, begins = np.unique(wanted[:, 0], return_index=True)
    positions = np.split(wanted[:, 1], begins[1:])
    tokens = word_tokenizer([sentences[k] for k in numbers])
    # Like lengths together, for little padding; the longest first, so that memory runs out at once or never.
    by_length = sorted(range(len(numbers)), key=lambda k: -len(tokens["input_ids"][k]))
    batches = [by_length[begin : begin + batch_size] for begin in range(0, len(by_length), batch_size)]
    share = batches[state.process_index :: state.num_processes] if state else batches
    parts = []
    quiet = description is None or (state is not None and not state.is_main_process)
    for batch in logging.tqdm(share, desc=description, disable=quiet):
        ids = [tokens["input_ids"][k] for k in batch]
        places = [_places(tokens["word_ids"][k], tokens["words"][k], positions[k]) for k in batch]
        rows = np.concatenate([begins[k] + np.arange(len(positions[k])) for k in batch])
        with autocast():
            vectors = _encode_batch(model, ids, places, layers, word_tokenizer.tokenizer.pad_token_id or 0)
        parts.append((rows, vectors))
    parts = gather_object(parts) if state and state.num_processes > 1 else parts
    dimensions = parts[0][1].shape[-1]
    vectors = torch.empty(len(layers), len(wanted), dimensions)
    for rows, of_batch in parts:
        vectors[:, rows] = of_batch
    return vectors[:, row_of.reshape(-1)]


def _places(word_ids: Sequence[int], words: Sequence[int], wanted: np.ndarray) -> np.ndarray:
    """For every token of a sentence which of the wanted words it represents, -1 for none.

    Args:
        word_ids, words: as `WordTokenizer` gives them.
        wanted: positions of words.
    """
    place_of = {position: place for place, position in enumerate(wanted.tolist())}
    place_of_word = np.array([place_of.get(position, -1) for position in words] + [-1])
    return place_of_word[np.asarray(word_ids)]  # (-1, a token of no word, is the last one)


@torch.no_grad()
def _encode_batch(
    model: nn.Module, ids: Sequence[Sequence[int]], places: Sequence[np.ndarray], layers: Sequence[int], pad: int
) -> torch.Tensor:
    """The vectors [layers, words, dimensions] of the words that `places` numbers, sentence after sentence."""
    shape = (len(ids), max(map(len, ids)))
    input_ids, mask, word_ids = np.full(shape, pad), np.zeros(shape, np.int64), np.full(shape, -1)
    n_words = 0
    for row, (sentence, place) in enumerate(zip(ids, places)):
        length = len(sentence)
        input_ids[row, :length], mask[row, :length] = sentence, 1
        word_ids[row, :length] = np.where(place < 0, -1, place + n_words)
        n_words += int(place.max()) + 1
    lengths = np.bincount(word_ids[word_ids >= 0], minlength=n_words).astype(np.float32)
    device = next(model.parameters()).device
    to_device = (torch.from_numpy(array).to(device) for array in (input_ids, mask, word_ids, lengths))
    input_ids, mask, word_ids, lengths = to_device
    states = hidden_states_at(model, input_ids, mask, layers)
    return torch.stack([pool_words(state, word_ids, lengths) for state in states]).cpu()


# --- Their distances ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """N links at one layer of one model, by one distance.

    Attributes:
        related: [N], distance of the source word from the English word it is linked with.
        unrelated: [N], its distance from the unrelated English word.
        to_english: word retrieval accuracy (Cao et al., ICLR 2020, section 4), 0 to 1: how often the nearest of all
            linked English words is the one that a source word is linked with.
        from_english: the same for English words that look for their source words.
        spread_source, spread_english: how far all source words, all English words lie apart (`utils.retrieval.spread`).
    """

    related: np.ndarray
    unrelated: np.ndarray
    to_english: float
    from_english: float
    spread_source: float = 0.0
    spread_english: float = 0.0

    @property
    def is_finite(self) -> bool:
        """Whether all distances are numbers; those of a model that diverged are not."""
        return bool(np.isfinite(self.related).all() and np.isfinite(self.unrelated).all())

    @property
    def difference(self) -> np.ndarray:
        """[N]: how much farther the unrelated word is than the related one, link by link."""
        return self.unrelated - self.related

    @property
    def nearer(self) -> np.ndarray:
        """[N]: 1 where the related word is nearer, 0 where the unrelated one is, 1/2 where they are equally near."""
        return (np.sign(self.difference) + 1) / 2

    @property
    def share_nearer(self) -> float:
        """Share of links whose related word is nearer, ties counted half: like the area under a ROC curve, but every
        related word is held against its own unrelated one only.
        """
        return float(self.nearer.mean())


def distances_between(first: torch.Tensor, second: torch.Tensor, distance: str) -> np.ndarray:
    """Row-by-row distances [N] of vectors [N, dimensions].

    Args:
        first, second: the vectors.
        distance: `l2`, the Euclidean one, from 0; or `cosine`, 1 minus the cosine of the angle, 0 to 2.
    """
    # In double precision: 1 minus a cosine near 1 loses digits.
    first, second = first.double(), second.double()
    if distance == "l2":
        return (first - second).norm(dim=1).numpy(force=True)
    return (1 - F.cosine_similarity(first, second)).numpy(force=True)


def compare(
    source: torch.Tensor,
    english: torch.Tensor,
    unrelated: torch.Tensor,
    distance: str,
    device: torch.device | str = "cpu",
) -> Comparison:
    """Compare source words with related and unrelated English words by their vectors [N, dimensions].

    The vectors are on the CPU; `device` is where nearest neighbours are looked for.
    """
    on_device = source.to(device), english.to(device)
    return Comparison(
        distances_between(source, english, distance),
        distances_between(source, unrelated, distance),
        retrieve(*on_device, distance).accuracy,
        retrieve(*reversed(on_device), distance).accuracy,
        spread(source, distance),
        spread(english, distance),
    )


def measure(
    model: nn.Module,
    word_tokenizer: WordTokenizer,
    bitext: Dataset,
    triples: Triples,
    layers: Sequence[int] = (-1,),
    distances: Sequence[str] = DISTANCES,
    **encoding: Any,  # noqa: ANN401
) -> dict[int, dict[str, Comparison]]:
    """Encode the words of some triples and compare them, by layer and distance.

    Args:
        model, word_tokenizer: an encoder in evaluation mode, and its tokenizer.
        bitext, triples: the sentences, and the words in them.
        layers: indices into `hidden_states`.
        distances: some of `DISTANCES`.
        encoding: see `encode_words`.
    """
    source = encode_words(model, word_tokenizer, bitext["source"], triples.source_words, layers, **encoding)
    both = encode_words(model, word_tokenizer, bitext["english"], triples.english_words, layers, **encoding)
    english, unrelated = both.chunk(2, dim=1)
    device = next(model.parameters()).device
    return {
        layer: {name: compare(source[k], english[k], unrelated[k], name, device) for name in distances}
        for k, layer in enumerate(layers)
    }


# --- What sums them up -------------------------------------------------------------------------------------------


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
Measured = Mapping[str, Mapping[int, Mapping[str, Comparison]]]


def each_comparison(measured: Measured) -> Iterator[tuple[str, int, str, Comparison]]:
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
    with written_whole(path) as temporary, pyarrow.ipc.new_stream(temporary, _SCHEMA, options=options) as file:
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
