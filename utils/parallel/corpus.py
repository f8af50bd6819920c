"""A parallel corpus from the command line to the batches: read, linked, chosen and encoded.

`ParallelCorpus` is what was read, `LinkableCorpus` knows how to link it, `ChosenPairs` are linked pairs. All pairs are
kept in Arrow files; memory holds one batch of them and a few bytes for every other one.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import numpy as np
from datasets import Dataset, concatenate_datasets
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from utils.alignment.pairs import PairEncoder
from utils.alignment.words import UNSPACED, UNSPACED_LANGUAGES, WordTokenizer, word_splitter
from utils.core.arguments import require
from utils.core.columns import column_array, content_fingerprint, list_lengths
from utils.core.errors import InputError
from utils.core.romanization import (
    files_by_source,
    romanization_key,
    romanize,
    romanize_columns,
    source_language,
)
from utils.core.tables import one_path_each, paths_by_language
from utils.models.tokenizers import tokenizer_fingerprint
from utils.parallel.aligners.dictionary import write_dictionary
from utils.parallel.aligners.pharaoh import read_header, write_pharaoh
from utils.parallel.aligners.registry import AlignerArguments, AlignerInputs, aligner_name, first_and_later
from utils.parallel.arguments import ParallelDataArguments
from utils.parallel.choosing import ENCODED, choose_pairs, one_to_one, sample_pairs
from utils.parallel.data_sets import Bitext, Pair, PairStream, check_not_shared, load_bitext, sentence_columns
from utils.parallel.formats import BITEXT_FEATURES, read_bitext
from utils.parallel.linking import Linker, with_links_of_file
from utils.parallel.sides import EACH, ENGLISH, SAMPLE, check_different, log_pair, same_language


logger = logging.getLogger(__name__)

# Held-out pairs are the same for every seed, so that runs can be compared.
HELD_OUT_SEED = 0
# Mean letters of a word in a script without spaces (Thai has about 5), beyond which it is a clause.
_LONGEST_UNSPACED = 8


@dataclass(frozen=True)
class ParallelCorpus:
    """The sentence pairs of one or several languages with English, split into words."""

    pairs: dict[str, Bitext]  # by language, with the columns of `BITEXT_FEATURES`
    splitting: dict[str, str]  # by language: `space`, `punctuation`, `icu` or `subword`
    links_files: dict[str, str]  # by language, the file that holds the word links, if there is one
    num_proc: int | None = None  # number of processes
    # If all have the same rows: the one whose English sentences decide which rows are held out.
    decides: str | None = None

    @classmethod
    def read(
        cls,
        data: ParallelDataArguments,
        tokenizer: PreTrainedTokenizerBase | None,
        word_pooling: str,
        files: list[str] | None,
        links_files: list[str] | None,
        purpose: str = "parallel",
        dataset_split: str | None = None,
        like: "ParallelCorpus | None" = None,
        hub_options: Mapping[str, Any] | None = None,
    ) -> "ParallelCorpus":
        """Read the sentences of all languages, from files if there are any, else from the data set.

        Args:
            tokenizer: splits sentences into subwords if `word_pooling` is `token`.
            files: values of the argument `--{purpose}_file`.
            links_files: values of `--links_file`, or of `--{purpose}_links_file` for another purpose than `parallel`.
            purpose: `parallel`, `validation` or `tracking`.
            dataset_split: split of the data set, if not `data.parallel_split`.
            like: split words as in this corpus, unless these pairs have links of their own.
            hub_options: `cache_dir` and `token`.
        """
        require(data.languages, ["--language"], "say which language is pulled to the other, for example --language hi")
        file_argument = f"--{purpose}_file"
        links_argument = "--links_file" if purpose == "parallel" else f"--{purpose}_links_file"
        files, links_files = (files_by_source(some, data.languages, data.romanize) for some in (files, links_files))
        links = one_path_each(links_files, list(data.directions), links_argument)
        paths = _paths(files, data, file_argument)
        of = "" if purpose == "parallel" else f" ({purpose})"
        pairs, splitting = {}, dict(like.splitting) if like else {}
        for language, sides in data.directions.items():
            if language in links or not like:
                splitting[language] = _word_splitting(data.word_splitting, sides, links.get(language), word_pooling)
            split = word_splitter(splitting[language], tokenizer)
            source, anchor = source_language(sides[0], data.romanize), sides[1]
            name = _name_of_split(splitting[language], tokenizer)
            if files:
                columns = sentence_columns(data, source, anchor)
                pairs[language] = read_bitext(
                    paths[language], source, split, name, columns.source, columns.english, anchor
                )
            elif data.parallel_dataset is None:
                raise InputError(f"--parallel_dataset or {file_argument} is missing: there are no parallel sentences.")
            elif data.streaming and language in links:
                raise InputError(
                    f"{links_argument} {links[language]} has a line for every pair, but --streaming reads only some "
                    "of them; leave one of the two out."
                )
            else:
                pairs[language] = load_bitext(
                    data, source, split, name, dataset_split or data.parallel_split, anchor, **(hub_options or {})
                )
            _look_at(pairs[language], source, anchor, splitting[language], of)
            if language in data.romanize:
                pairs[language] = _romanized(pairs[language], language, splitting[language], data)
        check_not_shared(pairs)
        # With every language as the anchor, all pairs of a row are held out by the row's sentence in the first language.
        first = f"{data.languages[1]}-{data.languages[0]}" if data.anchor_language == EACH else None
        return cls(pairs, splitting, links, data.preprocessing_num_workers, first)

    def aligners(self, arguments: AlignerArguments) -> set[str]:
        """The names of the aligners that link the words of these languages."""
        names = (aligner_name(arguments, language in self.links_files) for language in self.pairs)
        return {part for name in names for part in name.split("+")}

    def linkable(
        self, arguments: AlignerArguments, encoder: PreTrainedModel | None, word_tokenizer: WordTokenizer | None
    ) -> "LinkableCorpus":
        """The corpus with a way to link its words: by the links file if there is one, else by an aligner.

        An aligner that judges each pair alone links pairs when they are chosen. All of them are linked now only if the
        links are to be written, or if it learns from all; of a stream that raises `InputError`, as do links that do
        not fit the pairs. (Of `encoder+statistical`, the encoder links the chosen pairs.) The (frozen) encoder is for
        the aligners that need one.
        """
        dictionaries = one_path_each(arguments.dictionary_file, list(self.pairs), "--dictionary_file")
        pairs, linkers, headers = dict(self.pairs), {}, {}
        for language, bitext in self.pairs.items():
            links_file = self.links_files.get(language)
            name = aligner_name(arguments, bool(links_file))
            headers[language] = {"word_splitting": self.splitting[language], "aligner": name}
            if links_file:
                assert isinstance(bitext, Dataset)  # (a stream has been refused)
                pairs[language] = with_links_of_file(bitext, links_file, arguments)
                continue
            inputs = AlignerInputs(arguments, dictionaries.get(language), encoder, word_tokenizer)
            first, later = first_and_later(name)
            argument = f"--aligner {name}"
            if arguments.write_links or arguments.write_dictionary:
                argument = argument if first else "--write_links" if arguments.write_links else "--write_dictionary"
                first, later = name, ""
            if later:
                linkers[language] = Linker(later, inputs, bitext)
            if first:
                if isinstance(bitext, PairStream):
                    raise InputError(
                        f"{argument} needs the whole corpus, of which --streaming reads only some pairs; leave "
                        f"--streaming out, or {argument}."
                    )
                pairs[language] = Linker(first, inputs, bitext).link_all(bitext, self.num_proc)
        return LinkableCorpus(pairs, linkers, headers, self.num_proc, self.decides)


@dataclass(frozen=True)
class LinkableCorpus:
    """Sentence pairs that are linked, or that can be.

    By language, `pairs` has the columns `source`, `english` and, if they are linked already, `links` (lists of
    `[i, j]`: source word i and English word j), possibly with `scores`; otherwise `linkers` has what links them, if links
    are needed.
    """

    pairs: dict[str, Bitext]
    linkers: dict[str, Linker]
    headers: dict[str, dict[str, str]]  # by language, what is written above links
    num_proc: int | None = None
    decides: str | None = None  # as in `ParallelCorpus`

    def write_links(self, arguments: AlignerArguments) -> None:
        """Write the links of all pairs to the files of `--write_links` and `--write_dictionary`, one per language."""
        for language, path in one_path_each(arguments.write_links, list(self.pairs), "--write_links").items():
            bitext = self.pairs[language]
            assert isinstance(bitext, Dataset)  # (a stream has been refused)
            scores = bitext["scores"] if "scores" in bitext.column_names else None
            write_pharaoh(path, bitext["links"], {**self.headers[language], "pairs": len(bitext)}, scores)
            logger.info(f"Word links of {len(bitext):,} pairs written to {path}")
        for language, path in one_path_each(
            arguments.write_dictionary, list(self.pairs), "--write_dictionary"
        ).items():
            bitext = self.pairs[language]
            assert isinstance(bitext, Dataset)
            linked = zip(bitext["source"], bitext["english"], map(one_to_one, bitext["links"]))
            header = {**self.headers[language], "pairs": len(bitext)}
            n_entries = write_dictionary(path, linked, arguments.min_dictionary_count or 2, header)
            logger.info(f"A word list of {n_entries:,} entries written to {path}")

    def split(self, share: float) -> tuple["LinkableCorpus", "LinkableCorpus"]:
        """The corpus without, and the corpus of, about this share (0 to 1) of its pairs.

        The checksum of the English sentence, without white space, alone decides: a pair is held out in every run and language
        or in none, however sentences are split into words.
        """
        return replace(self, pairs=self._part(share, False)), replace(self, pairs=self._part(share, True))

    def _part(self, share: float, held_out: bool) -> dict[str, Bitext]:
        """The pairs that are held out, or the others."""
        if self.decides is None:
            return {language: _part(bitext, share, held_out) for language, bitext in self.pairs.items()}
        rows = _rows_of_part(cast(Dataset, self.pairs[self.decides]), share, held_out)
        return {language: cast(Dataset, bitext).select(rows) for language, bitext in self.pairs.items()}

    def unlinked(self) -> "LinkableCorpus":
        """The corpus for what needs no links: none are made, and no pair is dropped because it has none."""
        pairs = {
            language: bitext.select_columns(list(BITEXT_FEATURES)) if isinstance(bitext, Dataset) else bitext
            for language, bitext in self.pairs.items()
        }
        return replace(self, pairs=pairs, linkers={})

    def choose(
        self, max_words: int, max_pairs: int | None, seed: int, encoder: PairEncoder | None = None
    ) -> "ChosenPairs":
        """At most `max_pairs` random pairs of each language that can be learned from, linked.

        Only as many pairs are linked as it takes to find them (see `choose_pairs` and `sample_pairs`). A language
        without any raises `InputError`.
        """
        chosen = {}
        for language, bitext in self.pairs.items():
            usable = partial(
                choose_pairs,
                max_words=max_words,
                num_proc=self.num_proc,
                linker=self.linkers.get(language),
                encoder=encoder,
                language=language if len(self.pairs) > 1 else None,
            )
            chosen[language] = sample_pairs(bitext, max_pairs, seed, usable)
            if not len(chosen[language]):
                which = f"the {len(bitext)}" if isinstance(bitext, Dataset) else "the first"
                raise InputError(
                    f"None of {which} pairs of {language} can be used: they are longer than --max_words {max_words}, or "
                    "have no one-to-one link between different words; look at the data."
                )
        return ChosenPairs(chosen, {language: header["word_splitting"] for language, header in self.headers.items()})

    def choose_to_measure(
        self, max_words: int, max_pairs: int | None = None, share: float | None = None, seed: int = HELD_OUT_SEED
    ) -> "ChosenPairs":
        """Linked pairs to measure on: the usable ones of `max_pairs` random pairs of each language, or of all.

        The sample is the same for every aligner: it is drawn from all pairs (with a `share`, from those that `split`
        holds out), not only from usable ones, which depend on the links. No pair at all raises `InputError`.
        """
        drawn: dict[str, Bitext] = {}
        for language, bitext in (self._part(share, True) if share else self.pairs).items():
            if isinstance(bitext, PairStream):
                raise InputError(
                    "Pairs to measure on are the same in every run, which those of --streaming are not; leave it out."
                )
            sample = sample_pairs(bitext, max_pairs, seed)
            if not len(sample):
                n_pairs = len(cast(Dataset, self.pairs[language]))
                raise InputError(f"None of the {n_pairs} pairs of {language} is held out; hold out more of them.")
            drawn[language] = sample
        return replace(self, pairs=drawn).choose(max_words, None, seed)


@dataclass(frozen=True)
class ChosenPairs:
    """Linked sentence pairs to learn from or to measure on."""

    data: dict[str, Dataset]  # by language, what `choose_pairs` returns
    splitting: Mapping[str, str] = field(default_factory=dict)  # by language, how sentences were split into words

    @property
    def pairs(self) -> dict[str, Dataset]:
        """By language, columns `source`, `english` and `links`."""
        return {language: data.select_columns(["source", "english", "links"]) for language, data in self.data.items()}

    @property
    def rows(self) -> dict[str, Dataset]:
        """By language, the encoded rows for `AlignmentCollator`; of several languages with a column `language`."""
        names = {stored: name for name, stored in ENCODED.items()}
        names |= {"language": "language"} if len(self.data) > 1 else {}
        return {
            language: data.select_columns(list(names)).rename_columns(names) for language, data in self.data.items()
        }

    @property
    def all_rows(self) -> Dataset:
        """The encoded rows of all languages."""
        return concatenate_datasets(list(self.rows.values()))

    def fingerprints(self) -> dict[str, dict[str, Any]]:
        """By language, how many pairs and links there are, how words were split, and the SHA-256 of the content."""
        return {
            language: {
                "pairs": len(pairs),
                "links": int(list_lengths(pairs, "links").sum()),
                "word_splitting": self.splitting.get(language),
                "sha256": content_fingerprint(pairs),
            }
            for language, pairs in self.pairs.items()
        }


def _name_of_split(splitting: str, tokenizer: PreTrainedTokenizerBase | None) -> str:
    """A name for the cache of how sentences are split; subwords are those of a certain tokenizer."""
    return f"{splitting} {tokenizer_fingerprint(tokenizer)}" if splitting == "subword" and tokenizer else splitting


def _part(bitext: Bitext, share: float, held_out: bool) -> Bitext:
    """The pairs that are held out, or the others."""
    if isinstance(bitext, PairStream):
        return bitext.filter(_belongs_to_part, share=share, held_out=held_out)
    return bitext.select(_rows_of_part(bitext, share, held_out))


def _paths(files: Sequence[str] | None, data: ParallelDataArguments, argument: str) -> dict[str, list[str]]:
    """The files of each language, or the one with all languages for each direction of `--anchor_language each`."""
    if files and data.anchor_language == EACH:
        if len(files) > 1:
            raise InputError(
                f"{argument} names {len(files)} files; --anchor_language each needs one table with all languages."
            )
        return dict.fromkeys(data.directions, list(files))
    paths = paths_by_language(files, data.languages, argument)
    for language in data.languages if files else ():
        require(paths.get(language), [f"{argument} {language}=FILE"], f"there is no file for {language}")
    return paths


def _rows_of_part(bitext: Dataset, share: float, held_out: bool) -> np.ndarray:
    return np.flatnonzero(_belong(column_array(bitext, "checksum"), share, held_out))


def _belong(checksums: np.ndarray, share: float, held_out: bool) -> np.ndarray:
    return (checksums < share * 2**32) == held_out


def _belongs_to_part(pair: Pair, share: float, held_out: bool) -> bool:
    return bool(_belong(np.asarray(pair["checksum"]), share, held_out))


def _look_at(bitext: Bitext, language: str, anchor: str, splitting: str, of: str) -> None:
    """Log the first pair of a bitext, and `of` which data it is; raise `InputError` if both sides are the same, or if clauses were taken for words."""
    first = bitext.select(range(min(SAMPLE, len(bitext)) if isinstance(bitext, Dataset) else SAMPLE))
    empty: dict[str, list[str]] = {"source": [], "english": []}
    pair = next((row for row in first if row["source"] and row["english"]), empty)
    log_pair(language, " ".join(pair["source"]), " ".join(pair["english"]), anchor, of)
    # (Whoever has read the first pairs, and found a difference there, need not read all of them.)
    if all(map(list.__eq__, first["source"], first["english"])):
        every = bitext.iter(1000) if isinstance(bitext, Dataset) else [first[:]]
        check_different((pair for some in every for pair in zip(some["source"], some["english"])), language)
    for side, code in (("source", language), ("english", anchor)):
        unspaced = [word for words in first[side] for word in words if UNSPACED.search(word)]
        are_clauses = sum(map(len, unspaced)) > _LONGEST_UNSPACED * len(unspaced)
        if are_clauses and splitting != "subword" and code != ENGLISH:
            raise InputError(
                f"The words of {code} have no spaces between them (one would be {max(unspaced, key=len)[:40]!r}); use "
                "--word_splitting icu, or separate them."
            )


def _romanized(bitext: Bitext, language: str, splitting: str, data: ParallelDataArguments) -> Bitext:
    """The pairs with their source words in Latin letters; the words, and thus links and tags, stay the same ones."""
    if splitting == "subword":
        raise InputError("--romanize changes whole words, not subwords; leave out --word_pooling token.")
    if isinstance(bitext, Dataset):
        return romanize_columns(bitext, ["source"], language, data.preprocessing_num_workers)
    return bitext.map(_romanized_pair, language=language, code=romanization_key())


def _romanized_pair(pair: Pair, language: str, code: str) -> Pair:
    """Pairs are cached under `code`."""
    return {**pair, "source": romanize(pair["source"], language)}


def _word_splitting(wanted: str, sides: Sequence[str], links_file: str | None, word_pooling: str) -> str:
    """How sentences become words, so that links of `--write_links`, which record it, and of tokenized text fit."""
    recorded = read_header(links_file).get("word_splitting") if links_file else None
    if recorded and (recorded == "subword") != (word_pooling == "token"):
        between, remedy = ("subwords", "use") if recorded == "subword" else ("words", "do without")
        raise InputError(f"The links in {links_file} are between {between}; {remedy} --word_pooling token with them.")
    if word_pooling == "token":
        return "subword"
    if wanted != "auto" or recorded or links_file:
        return wanted if wanted != "auto" else recorded or "space"
    # (`icu` splits languages with spaces as `punctuation` does, so that one splitter serves both sides.)
    unspaced = any(same_language(side, code) for side in sides for code in UNSPACED_LANGUAGES)
    return "icu" if unspaced else "punctuation"
