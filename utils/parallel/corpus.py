"""A parallel corpus from the command line to the batches: read, link, sample, encode.

However many pairs there are, they lie in Arrow files, and memory holds those at work and a few bytes for each other one.
"""

import logging
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from datasets import Dataset, Features, concatenate_datasets
from datasets.fingerprint import Hasher
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from utils.alignment.pairs import encode_pairs
from utils.alignment.words import WordTokenizer, word_splitter
from utils.core.arguments import arg, at_least, require
from utils.core.cache import cache_key, dataset_from_files
from utils.core.columns import content_fingerprint, list_lengths
from utils.core.errors import InputError
from utils.core.files import file_fingerprint
from utils.core.tables import paths_by_language
from utils.parallel.aligners.base import WordAligner
from utils.parallel.aligners.pharaoh import FileAligner, read_header, write_pharaoh
from utils.parallel.aligners.registry import AlignerArguments, make_aligner
from utils.parallel.choosing import choose_pairs, sample_pairs
from utils.parallel.data_sets import load_bitext
from utils.parallel.formats import LINKS, read_bitext
from utils.parallel.streams import PairStream, stream_bitext


logger = logging.getLogger(__name__)

# Held-out pairs are the same for every seed, so that runs can be compared.
HELD_OUT_SEED = 0
# Pairs that are linked together: enough for an encoder to find many of like length, and all that is in memory.
_BATCH = 4096
# Pairs at the beginning of a stream by which an aligner gets to know it.
_FIRST_PAIRS = 512


@dataclass
class ParallelDataArguments:
    """Where the parallel sentences come from, and which of them are used."""

    languages: list[str] = arg(
        default_factory=list,
        aliases=["--language"],
        help="Language(s) pulled to English, by code: `--language hi`; several at once share one model: "
        "`--languages es ru vi hi`.",
        hyperparameter=True,
    )
    parallel_dataset: str | None = arg(None, help="Parallel corpus: a data set on the Hub or in a local folder.")
    parallel_config: str | None = arg(
        None,
        help="Its configuration; {language} stands for the language. Default: the first of en-{language}, "
        "{language}-en, {language} that there is.",
    )
    parallel_split: str = arg("train", help="Its split.")
    streaming: bool = arg(
        False,
        help="Read --parallel_dataset as far as it takes to find --max_train_pairs, and download nothing beyond: "
        "the pairs are drawn from a buffer of 10,000 that moves along, and kept. For --aligner encoder or dictionary.",
    )
    parallel_file: list[str] | None = arg(
        None,
        help="Parallel corpus in a file: .tsv (foreign first, or with a header), .csv, .jsonl, .parquet or Moses "
        "lines `source ||| English`, each also .gz; or two files aligned line by line: `--parallel_file corpus.hi corpus.en`. With several "
        "languages LANGUAGE=FILE each: `--parallel_file hi=a.tsv ru=b.ru,b.en`.",
    )
    source_column: str | None = arg(
        None, help="Column of the foreign sentences, if it is not named by the language's code."
    )
    english_column: str | None = arg(None, help="Column of the English sentences, if it is not named `en`.")
    word_splitting: str = arg(
        "auto",
        help="How sentences become words: `space` for text that is tokenised already, `punctuation` also cuts "
        "off punctuation marks; `auto`: as the links file says or else by space, without one by punctuation.",
        choices=["auto", "space", "punctuation"],
        hyperparameter=True,
    )
    max_words: int = arg(64, help="Drop pairs with more words than this on a side.", hyperparameter=True)
    max_train_pairs: int | None = arg(
        250_000,
        help="Pairs per language, drawn at random from all that can be used; words are linked in as many pairs as "
        "it takes to find these. The paper adjusts with 250,000 and keeps 30,000 for continual learning.",
        hyperparameter=True,
    )
    preprocessing_num_workers: int | None = arg(None, help="Processes that prepare the pairs. Default: one.")

    def __post_init__(self) -> None:
        for name in ("max_words", "max_train_pairs"):
            at_least(1, self, name)
        if len(set(self.languages)) < len(self.languages) or "en" in self.languages:
            raise InputError(
                f"--languages {' '.join(self.languages)}: name each once, and not en, which is the other side."
            )
        if self.parallel_dataset and self.parallel_file:
            raise InputError("--parallel_dataset and --parallel_file are both given; leave one out.")
        if self.streaming and not (self.parallel_dataset and self.max_train_pairs):
            missing = "--max_train_pairs" if self.parallel_dataset else "--parallel_dataset"
            raise InputError(f"--streaming needs {missing}; add it, or leave --streaming out.")


class Linker:
    """Adds the word links, column `links`, to pairs of a corpus.

    The aligner sees the corpus before the first pair is linked, but only if one is: links are cached with the pairs.

    Args:
        aligner: links the pairs.
        corpus: what the pairs come from.
        made_by: whatever the links depend on beside the pairs.
        num_proc: processes that share the work.
        desc: of the progress bar.
    """

    def __init__(
        self,
        aligner: WordAligner,
        corpus: Dataset | PairStream,
        made_by: list[Any],
        num_proc: int | None = None,
        desc: str | None = None,
    ) -> None:
        self.aligner = aligner
        self.made_by = made_by
        self.num_proc = num_proc
        self.desc = desc
        self._unseen: Dataset | PairStream | None = corpus

    def __call__(self, pairs: Dataset) -> Dataset:
        """The pairs with their links."""
        return pairs.map(
            self._add_links,
            batched=True,
            batch_size=_BATCH,
            features=Features({**pairs.features, "links": LINKS}),
            num_proc=self.num_proc,
            # What is made of the links later is cached under this, too.
            new_fingerprint=Hasher.hash([pairs._fingerprint, self.made_by]),
            desc=self.desc,
        )

    def _add_links(self, batch: Mapping[str, list]) -> dict[str, list]:
        if self._unseen is not None:
            streamed = isinstance(self._unseen, PairStream)
            corpus = self._unseen.select(range(_FIRST_PAIRS)) if streamed else self._unseen
            self.aligner.learn(corpus["source"], corpus["english"])
            self._unseen = None
        return {"links": self.aligner.align(batch["source"], batch["english"])}


@dataclass(frozen=True)
class ParallelCorpus:
    """The sentence pairs of one or several languages with English. Every step returns a new corpus.

    Attributes:
        pairs: by language, a bitext (see `utils.bitext`), or with --streaming a stream of pairs until `sampled`.
        splitting: by language, how sentences became words: `space`, `punctuation` or `subword`.
        links_files: by language, the file that holds the word links, where there is one.
        num_proc: processes that share the work.
        linkers: by language, what links the words where it is not done yet.
    """

    pairs: dict[str, Dataset | PairStream]
    splitting: dict[str, str]
    links_files: dict[str, str]
    num_proc: int | None = None
    linkers: dict[str, Linker] = field(default_factory=dict)

    @classmethod
    def read(
        cls,
        data: ParallelDataArguments,
        tokenizer: PreTrainedTokenizerBase,
        word_pooling: str,
        files: tuple[str, list[str] | None],
        links_files: tuple[str, list[str] | None],
        dataset_split: str | None = None,
        like: "ParallelCorpus | None" = None,
        hub_options: Mapping[str, Any] | None = None,
    ) -> "ParallelCorpus":
        """Read the sentences of all languages, from files if there are any, else from the data set.

        Args:
            data: languages, data set, columns.
            tokenizer: splits into subwords where each is a word of its own (`word_pooling` is `token`).
            word_pooling: as in `AlignmentArguments`.
            files: the argument that names files, and its values.
            links_files: the argument that names files with word links for these pairs, and its values.
            dataset_split: split of the data set, if not `data.parallel_split`.
            like: split words as in this corpus, unless links for these pairs say otherwise.
            hub_options: `cache_dir` and `token`.

        Raises:
            InputError: for data that cannot be read.
        """
        require(data.languages, ["--language"], "say which language is pulled to English, for example --language hi")
        links = one_file_each(links_files[1], data.languages, links_files[0])
        paths = paths_by_language(files[1], data.languages, files[0])
        columns = {"source_column": data.source_column, "english_column": data.english_column}
        pairs, splitting = {}, {}
        for language in data.languages:
            splitting[language] = _word_splitting(data.word_splitting, links.get(language), word_pooling)
            if like and language not in links:
                splitting[language] = like.splitting[language]
            split = word_splitter(splitting[language], tokenizer)
            name = f"{splitting[language]} {tokenizer.name_or_path if word_pooling == 'token' else ''}"
            if files[1]:
                require(paths.get(language), [f"{files[0]} {language}=FILE"], f"there is no file for {language}")
                pairs[language] = read_bitext(paths[language], language, split, name, **columns)
            else:
                require(data.parallel_dataset, ["--parallel_dataset", files[0]], "there are no parallel sentences")
                if data.streaming and language in links:
                    raise InputError(
                        f"{links_files[0]} {links[language]} has a line for every pair, but --streaming reads only some "
                        "of them; leave one of the two out."
                    )
                load = partial(load_bitext, num_proc=data.preprocessing_num_workers)
                pairs[language] = (stream_bitext if data.streaming else load)(
                    data.parallel_dataset,
                    language,
                    split,
                    name,
                    data.parallel_config,
                    dataset_split or data.parallel_split,
                    **columns,
                    **(hub_options or {}),
                )
        return cls(pairs, splitting, links, data.preprocessing_num_workers)

    def linked(
        self, arguments: AlignerArguments, encoder: PreTrainedModel, word_tokenizer: WordTokenizer
    ) -> "ParallelCorpus":
        """Say where the word links come from: from the links file where there is one, else from an aligner.

        An aligner that judges each pair alone links those that `sampled` looks at, later; all of them now only if they
        are to be written, or if it learns from all.

        Raises:
            InputError: for links that do not fit the pairs, or if all of a stream would have to be linked.
        """
        dictionaries = one_file_each(arguments.dictionary_file, list(self.pairs), "--dictionary_file")
        pairs, linkers = dict(self.pairs), {}
        for language, bitext in self.pairs.items():
            name = aligner_name(arguments, language in self.links_files)
            aligner = make_aligner(
                name,
                links_file=self.links_files.get(language),
                reverse_links=arguments.reverse_links,
                dictionary_file=dictionaries.get(language),
                statistical_model=arguments.statistical_model,
                symmetrization=arguments.symmetrization,
                model=encoder,
                word_tokenizer=word_tokenizer,
                layer=arguments.aligner_layer,
            )
            if isinstance(aligner, FileAligner):
                pairs[language] = _with_links_of_file(bitext, aligner)
                continue
            made_by = [name, arguments.aligner_layer, arguments.statistical_model, arguments.symmetrization]
            made_by += [cache_key(make_aligner)]
            made_by += [file_fingerprint(dictionaries[language])] if name == "dictionary" else []
            made_by += [_checksum(encoder), word_tokenizer.max_length] if name == "encoder" else []
            linkers[language] = Linker(
                aligner,
                bitext,
                made_by,
                self.num_proc if name == "dictionary" else None,  # (the others use all cores by themselves)
                f"Linking the words of {language} and English ({name})",
            )
            if name == "statistical" or arguments.write_links:
                _check_whole(bitext, "--aligner statistical" if name == "statistical" else "--write_links")
                pairs[language] = linkers.pop(language)(bitext)
        return replace(self, pairs=pairs, linkers=linkers)

    def aligners(self, arguments: AlignerArguments) -> set[str]:
        """The names of the aligners that link the words of these languages."""
        return {aligner_name(arguments, language in self.links_files) for language in self.pairs}

    def write_links(self, arguments: AlignerArguments) -> None:
        """Keep the links in Pharaoh files, one a language, to be given as `--links_file` next time."""
        paths = one_file_each(arguments.write_links, list(self.pairs), "--write_links")
        for language, bitext in self.pairs.items():
            aligner = aligner_name(arguments, language in self.links_files)
            header = {"word_splitting": self.splitting[language], "aligner": aligner, "pairs": len(bitext)}
            write_pharaoh(paths[language], bitext["links"], header)
            logger.info(f"Word links of {len(bitext):,} pairs written to {paths[language]}")

    def sampled(self, max_words: int, max_pairs: int | None, seed: int) -> "ParallelCorpus":
        """At most `max_pairs` random pairs of each language that can be learnt from, with links (see `choose_pairs`).

        Only so many pairs are linked as it takes to find them (see `sample_pairs`).

        Raises:
            InputError: if a language has none.
        """

        def sample(language: str, bitext: Dataset | PairStream) -> Dataset:
            link = self.linkers.get(language)
            usable = partial(choose_pairs, max_words=max_words, num_proc=self.num_proc, link=link)
            chosen = sample_pairs(bitext, max_pairs, seed, usable)
            if not len(chosen):
                which = f"the {len(bitext)}" if isinstance(bitext, Dataset) else "the first"
                raise InputError(
                    f"None of {which} pairs of {language} can be used: they are longer than --max_words {max_words}, or "
                    "have no one-to-one link between different words; look at the data."
                )
            return chosen

        return self._with({language: sample(language, bitext) for language, bitext in self.pairs.items()})

    def split(self, share: float) -> tuple["ParallelCorpus", "ParallelCorpus"]:
        """The corpus without, and the corpus of, about this share of its pairs.

        The English sentence alone decides, by its checksum: a pair is held out in every run and language or in none,
        whatever was dropped before.
        """

        def part(held_out: bool) -> "ParallelCorpus":
            how = {"input_columns": ["english"], "fn_kwargs": {"share": share, "held_out": held_out}}
            return self._each(lambda bitext: bitext.filter(_is_held_out, **how, num_proc=self.num_proc))

        return part(False), part(True)

    def to_measure(
        self,
        arguments: AlignerArguments,
        encoder: PreTrainedModel | None,
        word_tokenizer: WordTokenizer | None,
        max_words: int,
        max_pairs: int | None = None,
        share: float | None = None,
        seed: int = HELD_OUT_SEED,
        write_links: bool = False,
    ) -> "ParallelCorpus":
        """Linked pairs to measure on, the same ones whoever links them.

        Args:
            arguments, encoder, word_tokenizer: see `linked`.
            max_words: see `chosen`.
            max_pairs: of at most so many random pairs of each language, those that can be used.
            share: only of those that `split` holds out.
            seed: of the sample.
            write_links: keep the links of all pairs, where the arguments name files for them.

        Raises:
            InputError: if a language has no pair.
        """

        corpus = self.linked(arguments, encoder, word_tokenizer)
        if write_links and arguments.write_links:
            corpus.write_links(arguments)
        corpus = corpus.split(share)[1] if share else corpus
        for language, bitext in corpus.pairs.items():
            if isinstance(bitext, PairStream):
                raise InputError(
                    "Pairs to measure on are the same in every run, which those of --streaming are not; leave it out."
                )
            if not len(bitext):
                raise InputError(
                    f"None of the {len(self.pairs[language])} pairs of {language} is held out; hold out more of them."
                )
        # Drawn from all pairs, not from those that are found usable, which depends on who links them.
        drawn = corpus._each(lambda bitext: sample_pairs(bitext, max_pairs, seed))
        return drawn.sampled(max_words, None, seed)

    def encoded(self, word_tokenizer: WordTokenizer, include_special_tokens: bool) -> dict[str, Dataset]:
        """By language, rows for `AlignmentCollator`."""
        return {
            language: encode_pairs(bitext, word_tokenizer, include_special_tokens, self.num_proc)
            for language, bitext in self.pairs.items()
        }

    def fingerprints(self) -> dict[str, dict[str, Any]]:
        """By language, how many pairs and links there are, and the SHA-256 of their content."""
        return {
            language: {
                "pairs": len(bitext),
                "links": int(list_lengths(bitext, "links").sum()),
                "sha256": content_fingerprint(bitext),
            }
            for language, bitext in self.pairs.items()
        }

    def _each(self, step: Callable[[Dataset], Dataset]) -> "ParallelCorpus":
        return self._with({language: step(bitext) for language, bitext in self.pairs.items()})

    def _with(self, pairs: dict[str, Dataset]) -> "ParallelCorpus":
        return replace(self, pairs=pairs)


def _is_held_out(english: list[str], share: float, held_out: bool) -> bool:
    return (zlib.crc32(" ".join(english).encode()) < share * 2**32) == held_out


def one_file_each(values: list[str] | None, languages: list[str], argument: str) -> dict[str, str]:
    """The one file that an argument names for each language.

    Raises:
        InputError: if it names several for one.
    """
    paths = paths_by_language(values, languages, argument)
    for language, files in paths.items():
        if len(files) > 1:
            raise InputError(f"{argument} names {len(files)} files for {language} ({' '.join(files)}); give one.")
    return {language: files[0] for language, files in paths.items()}


def check_links_to_write(arguments: AlignerArguments, languages: list[str], overwrite: bool) -> None:
    """Stop before the work if `--write_links` lacks a language, or names a file that is there already."""
    paths = one_file_each(arguments.write_links, languages, "--write_links")
    for language in languages if paths else []:
        require(paths.get(language), [f"--write_links {language}=FILE"], f"there is no file for {language}")
        if os.path.exists(paths[language]) and not overwrite:
            raise InputError(
                f"--write_links {paths[language]} exists already; give another name, read it with --links_file, or add "
                "--overwrite_output_dir."
            )


def aligner_name(arguments: AlignerArguments, has_links: bool) -> str:
    """The aligner at work: the one asked for; by default the links file where there is one, else the encoder."""
    if has_links:
        return "file"
    return "encoder" if arguments.aligner in (None, "file") else arguments.aligner


def _word_splitting(wanted: str, links_file: str | None, word_pooling: str) -> str:
    """How sentences become words, so that links that were made before still fit.

    Links written by `--write_links` say how words were split; others belong to text that is tokenised already.
    """
    recorded = read_header(links_file).get("word_splitting") if links_file else None
    if recorded and (recorded == "subword") != (word_pooling == "token"):
        between, remedy = ("subwords", "use") if recorded == "subword" else ("words", "do without")
        raise InputError(f"The links in {links_file} are between {between}; {remedy} --word_pooling token with them.")
    if word_pooling == "token":
        return "subword"
    return wanted if wanted != "auto" else recorded or ("space" if links_file else "punctuation")


def _check_whole(bitext: Dataset | PairStream, argument: str) -> None:
    """Stop if an argument that is about all pairs meets a stream."""
    if isinstance(bitext, PairStream):
        raise InputError(
            f"{argument} needs the whole corpus, of which --streaming reads only some pairs; leave --streaming out, or "
            f"{argument} (--aligner encoder and dictionary link pairs as they are drawn)."
        )


def _with_links_of_file(bitext: Dataset, aligner: FileAligner) -> Dataset:
    """The pairs beside their links, which are read line by line."""

    def rows() -> Iterator[dict[str, Any]]:
        lengths = (list_lengths(bitext, side) for side in ("source", "english"))
        return ({"links": links} for links in aligner.read(*lengths))

    key = cache_key(FileAligner, pairs=bitext._fingerprint, reverse=aligner.reverse)
    links = dataset_from_files([str(aligner.path)], rows, Features({"links": LINKS}), key)
    return concatenate_datasets([bitext, links], axis=1)


def _checksum(encoder: PreTrainedModel) -> list[float]:
    """Tells two encoders apart, whatever their folders are called.

    What the checkpoint does not hold (a pooler) is random, other in every run, and has no part in the links.
    """
    invented = encoder.checkpoint_layout.invented
    weights = (weight for name, weight in encoder.named_parameters() if name not in invented)
    return [weight.detach().double().sum().item() for weight in weights]
