"""Word links of a parallel corpus: read from a file, learnt from the corpus, asked of the encoder, or looked up.

A link `(i, j)` joins source word i with English word j, both counted from 0. Every aligner may give a word several
links; which of them adjustment learns from is decided in `utils.bitext`.
"""

import gzip
import io
import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel
from transformers.utils.logging import tqdm

from utils.alignment import AlignmentCollator, word_vectors
from utils.errors import InputError
from utils.records import written_whole
from utils.tables import read_lines
from utils.word_pooling import WordTokenizer


logger = logging.getLogger("utils.word_aligners")

Links = list[tuple[int, int]]

ALIGNERS = ("file", "encoder", "statistical", "dictionary")
# Names as fast_align's atools and Moses have them; the library's are the same in capitals.
SYMMETRIZATIONS = ("intersection", "union", "och", "grow", "grow-diag", "grow-diag-final", "grow-diag-final-and")
# The models of `--aligner statistical`: classes of thot.alignment, each starting from the one before it.
STATISTICAL_MODELS = {
    "eflomal": ("EflomalAlignmentModel",),
    "fast_align": ("FastAlignModel",),
    "hmm": ("Ibm1AlignmentModel", "HmmAlignmentModel"),
    "ibm1": ("Ibm1AlignmentModel",),
    "ibm2": ("Ibm1AlignmentModel", "Ibm2AlignmentModel"),
    "ibm3": ("Ibm1AlignmentModel", "HmmAlignmentModel", "Ibm3AlignmentModel"),
    "ibm4": ("Ibm1AlignmentModel", "HmmAlignmentModel", "Ibm3AlignmentModel", "Ibm4AlignmentModel"),
}


class WordAligner(Protocol):
    """Finds the words of a sentence and its translation that mean the same."""

    def learn(self, source: Sequence[list[str]], english: Sequence[list[str]]) -> None:
        """See, once, the corpus whose pairs are going to be linked in parts. Most aligners need not.

        Args:
            source, english: sentences as lists of words, equally many.
        """

    def align(self, source: Sequence[list[str]], english: Sequence[list[str]]) -> list[Links]:
        """The links of every pair, sorted.

        Args:
            source, english: sentences as lists of words, equally many.
        """
        ...


def make_aligner(
    name: str,
    *,
    links_file: str | None = None,
    reverse_links: bool = False,
    dictionary_file: str | None = None,
    statistical_model: str = "eflomal",
    symmetrization: str = "intersection",
    model: PreTrainedModel | None = None,
    word_tokenizer: WordTokenizer | None = None,
    layer: int | None = None,
) -> WordAligner:
    """The aligner that `--aligner` names.

    Args:
        name: one of `ALIGNERS`.
        links_file, reverse_links: for `file`, see `FileAligner`.
        dictionary_file: for `dictionary`, see `DictionaryAligner`.
        statistical_model, symmetrization: for `statistical`, see `StatisticalAligner`.
        model, word_tokenizer, layer: for `encoder`, see `EncoderAligner`.

    Raises:
        InputError: if something that this aligner needs is missing.
    """
    if name == "file" and links_file:
        return FileAligner(links_file, reverse_links)
    if name == "encoder" and model is not None and word_tokenizer is not None:
        return EncoderAligner(model, word_tokenizer, layer)
    if name == "statistical":
        return StatisticalAligner(statistical_model, symmetrization)
    if name == "dictionary" and dictionary_file:
        return DictionaryAligner(dictionary_file)
    needs = {"file": "--links_file FILE", "encoder": "--model NAME", "dictionary": "--dictionary_file FILE"}
    if name in needs:
        raise InputError(f"--aligner {name} needs {needs[name]}; add it.")
    raise InputError(f"--aligner {name} is unknown; choose one of {', '.join(ALIGNERS)}.")


# --- Links from a file -------------------------------------------------------------------------------------------

# A sure link is i-j, a possible one i?j (NAACL 2003 shared task) or ipj (simalign's gold files).
_LINKS = re.compile(r"\s*(?:[0-9]+[-?p][0-9]+(?:\s+|$))*")
_LINK = re.compile(r"[0-9]+[-?p][0-9]+")
_TO_NUMBERS = str.maketrans("-?p", "   ")


class FileAligner(WordAligner):
    """Links in Pharaoh format, as fast_align, eflomal, awesome-align, simalign and `write_pharaoh` write them.

    Args:
        path: one line of links per pair, `.gz` or not (see `read_pharaoh`).
        reverse: the file has the English word first.
        sure_only: leave out the possible links.
    """

    def __init__(self, path: str | Path, reverse: bool = False, sure_only: bool = False) -> None:
        self.path = path
        self.reverse = reverse
        self.sure_only = sure_only

    def align(self, source: Sequence[list[str]], english: Sequence[list[str]]) -> list[Links]:
        """The file's links; the i-th line that is no comment belongs to the i-th pair.

        Raises:
            InputError: for links that do not fit these pairs.
        """
        return list(self.read([len(words) for words in source], [len(words) for words in english]))

    def read(self, source_lengths: Sequence[int], english_lengths: Sequence[int]) -> Iterator[Links]:
        """The same, one after the other, for pairs of which no more is known than how many words they have.

        Raises:
            InputError: for links that do not fit these pairs; at the end for a line too many or too few.
        """
        n_lines, n_pairs = 0, len(source_lengths)
        lines = read_pharaoh(self.path, self.reverse, self.sure_only)
        for n_source, n_english, (number, links) in zip(source_lengths, english_lengths, lines):
            # Links are sorted: the last one has the last source word.
            if links and (links[-1][0] >= n_source or max(map(itemgetter(1), links)) >= n_english):
                raise self._misfit(number, links, n_source, n_english)
            n_lines += 1
            yield links
        n_lines += sum(1 for _ in lines)
        if n_lines != n_pairs:
            raise InputError(
                f"The file {self.path} has {n_lines} lines of links for {n_pairs} sentence pairs; it needs one "
                "for each pair, a blank one where a pair has no links."
                if n_lines
                else f"The file {self.path} is empty; it needs a line of links for each of {n_pairs} pairs."
            )

    def _misfit(self, number: int, links: Links, n_source: int, n_english: int) -> InputError:
        i, j = next((i, j) for i, j in links if i >= n_source or j >= n_english)
        side, word, n_words = ("source", i, n_source) if i >= n_source else ("English", j, n_english)
        reverse = "without --reverse_links" if self.reverse else "with --reverse_links"
        return InputError(
            f"Line {number} of {self.path} links {side} word {word} of a sentence with {n_words} words; words are "
            f"those between spaces, counted from 0, and if the file has the sides the other way round, read it "
            f"{reverse}."
        )


def read_pharaoh(path: str | Path, reverse: bool = False, sure_only: bool = False) -> Iterator[tuple[int, Links]]:
    """Read Pharaoh links, `0-0 1-2 …` a line; `i?j` and `ipj` are possible links, `i-j` sure ones.

    Args:
        path: the file, `.gz` or not; lines that begin with `#` are comments.
        reverse: swap the sides of every link.
        sure_only: leave out the possible links.

    Yields:
        For every line that is no comment its number in the file, from 1, and its links, sorted; a blank line has none.

    Raises:
        InputError: for anything that is no link, with the number of the line.
    """
    for number, line in read_lines(path):
        if line.startswith("#"):
            continue
        if not _LINKS.fullmatch(line):
            wrong = next(link for link in line.split() if not _LINK.fullmatch(link))
            raise InputError(f"Line {number} of {path} has {wrong!r}; write word links as numbers, like 0-0 1-2.")
        if sure_only:
            line = " ".join(link for link in line.split() if "-" in link)
        numbers = list(map(int, line.translate(_TO_NUMBERS).split()))
        links = zip(numbers[1::2], numbers[::2]) if reverse else zip(numbers[::2], numbers[1::2])
        yield number, sorted(set(links))


def read_header(path: str | Path) -> dict[str, str]:
    """What `write_pharaoh` wrote above the links: the `# key: value` lines at the beginning of a file."""
    header = {}
    for _, line in read_lines(path):
        if not line.startswith("#"):
            break
        key, colon, value = line[1:].partition(":")
        if colon:
            header[key.strip()] = value.strip()
    return header


def write_pharaoh(
    path: str | Path, links: Iterable[Sequence[Sequence[int]]], header: Mapping[str, Any] | None = None
) -> None:
    """Write links in Pharaoh format, as a whole: a reader sees the old file or the new one, never a part.

    Args:
        path: the file; compressed if it ends in `.gz`.
        links: the links `(i, j)` of every pair, sure ones.
        header: facts about the links, written above them as `# key: value` (see `read_header`).
    """
    path = Path(path)
    comments = (f"# {key}: {' '.join(str(value).split())}\n" for key, value in (header or {}).items())
    lines = (" ".join(f"{i}-{j}" for i, j in pair) + "\n" for pair in links)
    with written_whole(path) as temporary, open(temporary, "wb") as file:
        # Without name and time the same links make the same archive.
        archive = gzip.GzipFile("", "wb", 6, file, mtime=0) if path.suffix == ".gz" else file
        with io.TextIOWrapper(archive, encoding="utf-8", newline="\n") as text:
            text.writelines(chain(comments, lines))


# --- Links learnt from the corpus --------------------------------------------------------------------------------


class StatisticalAligner(WordAligner):
    """Links from a word alignment model that learns from the given pairs alone, with the library sil-thot.

    The model is trained in both directions and the two are joined. The default model is that of eflomal (Östling and
    Tiedemann, PBML 2016), which makes the fewest errors of those in the library; fast_align (Dyer et al., NAACL
    2013) is the faster one and the one usual in the literature. All need pairs by the thousand, better more.

    It is the one aligner whose memory grows with the corpus: while it learns, the library holds all sentences, as
    numbers of words, and its statistics, in both directions.

    Args:
        model: one of `STATISTICAL_MODELS`.
        symmetrization: one of `SYMMETRIZATIONS`. `intersection`, the paper's choice, has the fewest wrong links.
        prefix: learn from the first letters of lower-cased words, this many of them; None: from words as they are.
            Inflected forms then count as one word, which raises precision and recall alike.

    Raises:
        InputError: for an unknown name, or if the library is not installed.
    """

    _ITERATIONS = 5  # of every model in turn, as GIZA++ and fast_align have it; eflomal's has a schedule of its own

    def __init__(self, model: str = "eflomal", symmetrization: str = "intersection", prefix: int | None = 5) -> None:
        for value, names, what in (
            (model, STATISTICAL_MODELS, "--statistical_model"),
            (symmetrization, SYMMETRIZATIONS, "--symmetrization"),
        ):
            if value not in names:
                raise InputError(f"{what} {value} is unknown; choose one of {', '.join(names)}.")
        try:
            import thot.alignment as thot
        except ImportError as error:
            raise InputError(f"--aligner statistical needs sil-thot ({error}); run pip install sil-thot.") from None
        self._thot = thot
        self.model = model
        self.symmetrization = symmetrization
        self.prefix = prefix
        self._learnt = None

    def learn(self, source: Sequence[list[str]], english: Sequence[list[str]]) -> None:
        """Train on the pairs, by which others are linked from then on."""
        self._learnt = self._symmetrized(source, english)

    def align(self, source: Sequence[list[str]], english: Sequence[list[str]]) -> list[Links]:
        """Link pairs by what was learnt, or else train on these first.

        The same pairs in the same order get the same links (with fast_align, which adds up in whatever order its
        threads finish, all but a few).
        """
        joined = self._learnt or self._symmetrized(source, english)
        return [
            list(zip(*(positions.tolist() for positions in matrix.to_numpy().nonzero())))
            for _, matrix in joined.get_best_alignments([*map(self._stems, source)], [*map(self._stems, english)])
        ]

    def _stems(self, words: list[str]) -> list[str]:
        return [word.lower()[: self.prefix] for word in words] if self.prefix else words

    def _symmetrized(self, source: Iterable[list[str]], english: Iterable[list[str]]) -> Any:  # noqa: ANN401
        joined = self._thot.SymmetrizedAlignmentModel(self._train(source, english), self._train(english, source))
        heuristic = self.symmetrization.replace("-", "_").upper()
        joined.heuristic = getattr(self._thot.SymmetrizationHeuristic, heuristic)
        return joined

    def _train(self, source: Iterable[list[str]], target: Iterable[list[str]]) -> Any:  # noqa: ANN401
        model = None
        for name in STATISTICAL_MODELS[self.model]:
            new_model = getattr(self._thot, name)
            if model is None:
                model = new_model()
                for words, translation in zip(source, target):
                    model.add_sentence_pair(self._stems(words), self._stems(translation))
            else:
                model = new_model(model)
            if self.model == "eflomal":
                model.deterministic = True
            model.start_training()
            iterations = model.scheduled_iterations if self.model == "eflomal" else self._ITERATIONS
            for _ in tqdm(range(iterations), desc=f"Training {name}"):
                model.train()
            model.end_training()
        return model


# --- Links asked of the encoder ----------------------------------------------------------------------------------


class EncoderAligner(WordAligner):
    """Links words that are each other's nearest by the cosine of their vectors in a middle layer of an encoder.

    Jalili Sabet et al., Findings of EMNLP 2020 ("inter-argmax", words as averages of their subwords). No word gets
    more than one link; special tokens and words without vector (cut off, or tokenised to nothing) get none.

    Args:
        model: the encoder; the work is done on its device.
        word_tokenizer: tokenises both sides and says which tokens make up a word. A word is the average of all of
            them even where it pools the first or last only: that makes better links.
        layer: index into `hidden_states`. None: the one at which most words find each other, judged on up to
            `_PROBE_PAIRS` of the pairs. That count is highest where the links agree best with people's, or next to
            it (`benchmarks/compare_aligners.py`); of equal ones the layer closest to two thirds of the way up, which
            is the 8th of 12 in the paper.
        batch_size: pairs that go through the encoder at once.
    """

    _PROBE_PAIRS = 512
    _BATCHES_IN_POOL = 64  # pairs are sorted by length within so many batches, tokenised together

    def __init__(
        self,
        model: PreTrainedModel,
        word_tokenizer: WordTokenizer,
        layer: int | None = None,
        batch_size: int = 64,
    ) -> None:
        self.n_layers = model.config.num_hidden_layers
        if layer is not None and not -self.n_layers - 1 <= layer <= self.n_layers:
            raise InputError(
                f"--aligner_layer {layer} does not exist; the model has the layers 0 (embeddings) to {self.n_layers}."
            )
        if word_tokenizer.word_pooling != "token":
            word_tokenizer = WordTokenizer(word_tokenizer.tokenizer, "avg", word_tokenizer.max_length)
        self.model = model
        self.word_tokenizer = word_tokenizer
        self.layer = layer
        self.batch_size = batch_size
        self._collator = AlignmentCollator(word_tokenizer.tokenizer.pad_token_id or 0)

    def learn(self, source: Sequence[list[str]], english: Sequence[list[str]]) -> None:
        """Settle on a layer, if none was given."""
        if self.layer is None:
            self.layer = self.most_links(source, english)

    def align(self, source: Sequence[list[str]], english: Sequence[list[str]]) -> list[Links]:
        """The links of every pair; they depend on the pair only, once the layer is known."""
        linked: list[Links] = [[] for _ in source]
        layer = self.most_links(source, english) if self.layer is None else self.layer
        for rows, links in self._batches(source, english, range(len(source)), [layer]):
            pair, i, j = links[0].tolist()
            for row, link in zip(pair, zip(i, j)):
                linked[rows[row]].append(link)
        return linked

    def most_links(self, source: Sequence[list[str]], english: Sequence[list[str]]) -> int:
        """The layer that links most words, judged on pairs spread evenly over the corpus."""
        chosen = range(0, len(source), -(-len(source) // self._PROBE_PAIRS) or 1)
        n_links = np.zeros(self.n_layers + 1, np.int64)
        for _, links in self._batches(source, english, chosen, range(self.n_layers + 1)):
            n_links += [layer_links.shape[1] for layer_links in links]
        layer = max(range(self.n_layers + 1), key=lambda k: (n_links[k], -abs(3 * k - 2 * self.n_layers)))
        logger.info(f"Linking words by layer {layer} (links in {len(chosen)} pairs by layer: {n_links.tolist()})")
        return layer

    def _batches(
        self, source: Sequence[list[str]], english: Sequence[list[str]], rows: Sequence[int], layers: Sequence[int]
    ) -> Iterator[tuple[list[int], list[torch.Tensor]]]:
        """Batches of pairs: their positions in the corpus and, for every layer, `_link`'s links."""
        was_training = self.model.training
        self.model.eval()
        try:
            with tqdm(total=len(rows), desc="Linking words", unit=" pairs", leave=False) as progress, torch.no_grad():
                for begin in range(0, len(rows), pool_size := self.batch_size * self._BATCHES_IN_POOL):
                    pool = rows[begin : begin + pool_size]
                    encoded = self._encode([source[row] for row in pool], [english[row] for row in pool])
                    # Pairs of like length make little padding.
                    order = sorted(range(len(pool)), key=lambda k: _n_tokens(encoded[k]), reverse=True)
                    for first in range(0, len(pool), self.batch_size):
                        part = order[first : first + self.batch_size]
                        yield [pool[k] for k in part], self._link([encoded[k] for k in part], layers)
                        progress.update(len(part))
        finally:
            self.model.train(was_training)

    def _encode(self, source: list[list[str]], english: list[list[str]]) -> list[dict[str, list[int]]]:
        """Rows for `AlignmentCollator`, without links; `…_words` are the positions of their words.

        -1 stands for a special token.
        """
        pairs: list[dict[str, list[int]]] = [
            {"links": [], "source_spelling": [], "english_spelling": []} for _ in range(len(source))
        ]
        for side, sentences in (("source", source), ("english", english)):
            tokens = self.word_tokenizer(sentences)
            for row, (pair, sentence) in enumerate(zip(pairs, sentences)):
                pair[f"{side}_input_ids"] = tokens["input_ids"][row]
                pair[f"{side}_word_ids"] = tokens["word_ids"][row]
                pair[f"{side}_words"] = [k if 0 <= k < len(sentence) else -1 for k in tokens["words"][row]]
        return pairs

    def _link(self, pairs: list[dict[str, list[int]]], layers: Sequence[int]) -> list[torch.Tensor]:
        """The links of a batch at every layer, [3, links]: pair in the batch, source word, English word; sorted."""
        batch = {name: tensor.to(self.model.device) for name, tensor in self._collator(pairs).items()}
        vectors, present = {}, {}
        for side in ("source", "english"):
            states = word_vectors(self.model, batch, side, layers)
            vectors[side], present[side] = self._by_sentence(states, [pair[f"{side}_words"] for pair in pairs])
        return [
            mutual_argmax(s @ e.transpose(1, 2), present["source"], present["english"])
            for s, e in zip(vectors["source"], vectors["english"])
        ]

    @staticmethod
    def _by_sentence(vectors: list[torch.Tensor], words: list[list[int]]) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Unit vectors [batch, words, dimensions] at every layer, and which of them exist [batch, words].

        Args:
            vectors: [words of the batch, dimensions] at every layer.
            words: for every sentence the positions of the words that these vectors belong to, -1 for none.
        """
        position = np.fromiter(chain.from_iterable(words), np.int64)
        sentence = np.repeat(np.arange(len(words)), [len(positions) for positions in words])
        chosen, n_words = np.flatnonzero(position >= 0), 1 + int(position.max(initial=0))
        index = torch.from_numpy(np.stack([chosen, sentence[chosen], position[chosen]])).to(vectors[0].device)
        chosen, sentence, position = index
        shape = len(words), n_words
        present = index.new_zeros(shape, dtype=torch.bool)
        present[sentence, position] = True
        padded = []
        for layer_vectors in vectors:
            rectangle = layer_vectors.new_zeros(*shape, layer_vectors.shape[-1])
            rectangle[sentence, position] = F.normalize(layer_vectors[chosen], dim=-1)
            padded.append(rectangle)
        return padded, present


def _n_tokens(pair: dict[str, list[int]]) -> int:
    return max(len(pair["source_input_ids"]), len(pair["english_input_ids"]))


def mutual_argmax(similarity: torch.Tensor, source: torch.Tensor, english: torch.Tensor) -> torch.Tensor:
    """Words that are each other's most similar one, of a batch of pairs.

    Args:
        similarity: [batch, source words, English words].
        source, english: [batch, words], which words exist.

    Returns:
        [3, links]: pair, source word, English word, sorted; on the CPU.
    """
    similarity = similarity.masked_fill(~(source.unsqueeze(2) & english.unsqueeze(1)), float("-inf"))
    nearest_english, nearest_source = similarity.argmax(2), similarity.argmax(1)
    here = torch.arange(source.shape[1], device=source.device)
    mutual = source & english.gather(1, nearest_english) & (nearest_source.gather(1, nearest_english) == here)
    pair, i = mutual.nonzero(as_tuple=True)
    return torch.stack([pair, i, nearest_english[pair, i]]).cpu()


# --- Links looked up ---------------------------------------------------------------------------------------------


class DictionaryAligner(WordAligner):
    """Links every pair of words that a bilingual word list has, such as those of MUSE (Conneau et al., ICLR 2018).

    A word that the list translates by several words of the sentence keeps all these links; the one-to-one filter
    later drops them. Where the same two words occur repeatedly, their occurrences are linked one to one: in order if
    there are equally many on both sides, else those first whose relative positions in the sentences are closest.

    Args:
        path: one entry a line: source word, tab or white space, English word; `#` begins a comment line; `.gz` or
            not. Entries of several words (possible with tabs) never match.
        ignore_case: compare case-folded words.

    Raises:
        InputError: for a line without exactly two columns, or a file without entries.
    """

    def __init__(self, path: str | Path, ignore_case: bool = True) -> None:
        self._spelling = str.casefold if ignore_case else str
        self._translations: defaultdict[str, set[str]] = defaultdict(set)
        for number, line in read_lines(path):
            if line.startswith("#") or not line.strip():
                continue
            columns = [column.strip() for column in line.split("\t")] if "\t" in line else line.split()
            if len(columns) != 2 or not all(columns):
                raise InputError(
                    f"Line {number} of {path} is not two words ({line.strip()[:40]!r}); write the source word, a tab "
                    "and the English word."
                )
            source, english = map(self._spelling, columns)
            self._translations[source].add(english)
        if not self._translations:
            raise InputError(f"The file {path} has no entries; give a list of source words with English words.")

    def align(self, source: Sequence[list[str]], english: Sequence[list[str]]) -> list[Links]:
        """The links of every pair; each depends on the pair only."""
        return [self._link(*pair) for pair in zip(source, english)]

    def _link(self, source: list[str], english: list[str]) -> Links:
        source_positions, english_positions = self._positions(source), self._positions(english)
        links = []
        for word in source_positions.keys() & self._translations.keys():
            for translation in english_positions.keys() & self._translations[word]:
                here, there = source_positions[word], english_positions[translation]
                links += self._pair_up(here, there, len(english) / len(source))
        return sorted(links)

    def _positions(self, words: list[str]) -> dict[str, list[int]]:
        positions: defaultdict[str, list[int]] = defaultdict(list)
        for position, word in enumerate(words):
            positions[self._spelling(word)].append(position)
        return positions

    @staticmethod
    def _pair_up(source: list[int], english: list[int], stretch: float) -> Links:
        if len(source) == len(english):
            return list(zip(source, english))
        links, left = [], (set(source), set(english))
        # The middle of a word is at (i + ½) of its sentence's length.
        for _, i, j in sorted((abs((i + 0.5) * stretch - (j + 0.5)), i, j) for i in source for j in english):
            if i in left[0] and j in left[1]:
                left[0].remove(i)
                left[1].remove(j)
                links.append((i, j))
        return links
