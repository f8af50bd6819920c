"""Word links: added to pairs by an aligner, or read from a file beside them."""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from datasets import Dataset, Features, List, Value, concatenate_datasets

from utils.core.arguments import require
from utils.core.cache import cache_key, dataset_from_files
from utils.core.columns import list_lengths
from utils.core.errors import InputError
from utils.core.tables import one_path_each
from utils.parallel.aligners.agreement import agreed
from utils.parallel.aligners.base import ScoredLinks, Sentences, WordAligner
from utils.parallel.aligners.pharaoh import read_links
from utils.parallel.aligners.registry import AlignerArguments, AlignerInputs, aligner_spec, links_key, make_aligner
from utils.parallel.data_sets import PairStream
from utils.parallel.formats import LINKS


# Pairs that are linked together, and held in memory: enough for an encoder to find many of similar length.
BATCH = 4096
# Pairs at the beginning of a stream that an aligner learns from.
_FIRST_PAIRS = 512
# Digits of scores, in files as well, so that a limit keeps the same links wherever it is applied.
_DIGITS = 4


def scored_links(
    aligner: WordAligner, source: Sentences, english: Sentences, limit: float | None = None
) -> list[ScoredLinks]:
    """The links of every pair with at least the score `limit`, and their scores of `_DIGITS` digits."""
    least = -math.inf if limit is None else limit
    return [
        {link: rounded for link, score in pair.items() if (rounded := round(score, _DIGITS)) >= least}
        for pair in aligner.score(source, english)
    ]


class Linker:
    """Links the words of batches of pairs, by the aligner with a name.

    The aligner learns from the corpus when the first pair is linked, which never happens if all links are cached.
    """

    def __init__(self, name: str, inputs: AlignerInputs, corpus: Dataset | PairStream) -> None:
        self.name = name
        self.inputs = inputs
        self.key = links_key(name, inputs)
        self._aligner: WordAligner | None = make_aligner(name, inputs)
        self._unseen: Dataset | PairStream | None = corpus

    def __getstate__(self) -> dict[str, Any]:
        """What rows are cached under, and what other processes get: how to make the aligner, not the aligner."""
        arguments = replace(self.inputs.arguments, write_links=None, write_dictionary=None, min_dictionary_count=None)
        inputs = AlignerInputs(arguments, self.inputs.dictionary_file)
        return {"name": self.name, "inputs": inputs, "key": self.key, "_aligner": None, "_unseen": None}

    def __call__(self, batch: Mapping[str, list]) -> dict[str, list]:
        """The columns `links` and, if the aligner has them, `scores`, for a batch of columns `source` and `english`.

        If the batch has links already, those on which the aligner agrees.
        """
        aligner = self.aligner
        if self._unseen is not None:
            corpus = self._unseen
            if isinstance(corpus, PairStream):
                corpus = corpus.select(range(_FIRST_PAIRS))
            aligner.learn(corpus["source"], corpus["english"])
            self._unseen = None
        links = scored_links(aligner, batch["source"], batch["english"], self.inputs.arguments.min_link_score)
        if "links" in batch:
            scores = batch.get("scores", [[1.0] * len(pair) for pair in batch["links"]])
            before = [dict(zip(map(tuple, pair), of_pair)) for pair, of_pair in zip(batch["links"], scores)]
            links = [agreed(pair) for pair in zip(links, before)]
        columns: dict[str, list] = {"links": [list(pair) for pair in links]}
        return columns | ({"scores": [list(pair.values()) for pair in links]} if aligner.has_scores else {})

    @property
    def aligner(self) -> WordAligner:
        """What links; another process makes its own."""
        self._aligner = self._aligner or make_aligner(self.name, self.inputs)
        return self._aligner

    def num_proc(self, wanted: int | None) -> int | None:
        """In how many processes it can link; most aligners use all cores themselves."""
        return wanted if aligner_spec(self.name).in_processes else None

    @property
    def batch_size(self) -> int:
        """How many pairs it is given at once."""
        return 1000 if aligner_spec(self.name).in_processes else BATCH

    def link_all(self, pairs: Dataset, num_proc: int | None) -> Dataset:
        """All pairs with the columns of `__call__` added."""
        scores = {"scores": List(Value("float32"))} if self.aligner.has_scores else {}
        return pairs.map(
            self,
            batched=True,
            batch_size=self.batch_size,
            features=Features({**pairs.features, "links": LINKS, **scores}),
            num_proc=self.num_proc(num_proc),
            desc=f"Linking words ({self.name})",
        )


def with_links_of_file(pairs: Dataset, path: str, arguments: AlignerArguments) -> Dataset:
    """The pairs with a column `links` added, read from a file; `InputError` if they do not fit the pairs."""
    lengths = list_lengths(pairs, "source"), list_lengths(pairs, "english")
    options = arguments.reverse_links, arguments.min_link_score

    def rows() -> Iterator[dict[str, Any]]:
        return ({"links": links} for links in read_links(path, lengths[0], lengths[1], *options))

    # (What fits depends on the lengths alone.)
    key = cache_key(read_links, lengths=[length.tobytes() for length in lengths], options=options)
    links = dataset_from_files([path], rows, Features({"links": LINKS}), key)
    return concatenate_datasets([pairs, links], axis=1)


def check_links_to_write(arguments: AlignerArguments, languages: list[str], overwrite: bool) -> None:
    """Raise `InputError` early if `--write_links` or `--write_dictionary` lacks a language, or names a file that exists."""
    for written, read in (("write_links", "links_file"), ("write_dictionary", "dictionary_file")):
        paths = one_path_each(getattr(arguments, written), languages, f"--{written}")
        for language in languages if paths else []:
            require(paths.get(language), [f"--{written} {language}=FILE"], f"there is no file for {language}")
            if os.path.exists(paths[language]) and not overwrite:
                raise InputError(
                    f"--{written} {paths[language]} exists already; give another name, read it with --{read}, or add "
                    "--overwrite_output_dir."
                )
