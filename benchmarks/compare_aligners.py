#!/usr/bin/env python
"""How well do the aligners agree with links made by people, and how fast are they?

    python benchmarks/compare_aligners.py --gold gold.es.jsonl gold.hi.jsonl --parallel es.jsonl.gz hi.jsonl.gz \\
        --pairs 10000 30000 --model google-bert/bert-base-multilingual-cased

A line of a gold file is {"en": [words], "es": [words], "sure": [[i, j], …], "possible": [[i, j], …]}: English word i
with foreign word j, counted from 0; `possible` includes `sure` and may be missing. A file that has "content_links"
instead, links of some words only, gives recall alone. A line of a parallel file is {"en": text, "es": text}. Limits, agreement and
word lists share the model of the line before, so that their time is what they add to it.

Columns: precision and recall of the links, alignment error rate (Och and Ney, Computational Linguistics 2003), then
precision and recall of the links that adjustment learns from: those of words without another link. All in percent.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import TypeAlias


sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from transformers import PreTrainedModel
from transformers.utils import logging

from utils.alignment.words import WordTokenizer, split_on_punctuation
from utils.core.errors import InputError, run_script
from utils.core.files import write_json
from utils.core.tables import read_lines
from utils.evaluation.word_links import agreement
from utils.models.encoders import load_encoder
from utils.models.tokenizers import encoder_max_length, load_tokenizer
from utils.parallel.aligners.agreement import AgreementAligner
from utils.parallel.aligners.base import ScoredLinks, Sentences, WordAligner
from utils.parallel.aligners.dictionary import DictionaryAligner, write_dictionary
from utils.parallel.aligners.encoder import EncoderAligner
from utils.parallel.aligners.statistical import STATISTICAL_MODELS, SYMMETRIZATIONS, StatisticalAligner
from utils.parallel.choosing import one_to_one


@dataclass
class GoldLinks:
    """Sentences whose words people have linked. `partial`: not all words, so that precision means nothing."""

    language: str
    source: list[list[str]]
    english: list[list[str]]
    sure: list[set[tuple[int, int]]]
    possible: list[set[tuple[int, int]]]
    partial: bool

    @classmethod
    def read(cls, path: str) -> "GoldLinks":
        """Read a gold file; its language is the other key than `en` that holds words."""
        rows = [json.loads(line) for _, line in read_lines(path)]
        names = [k for k in rows[0] if k not in ("en", "sure", "possible", "content_links", "source")]
        if len(names) != 1:
            raise InputError(f"The file {path} has sentences in {' and '.join(names) or 'no language'} besides en.")
        partial = "sure" not in rows[0]
        sure = "content_links" if partial else "sure"
        links = [[{(j, i) for i, j in row.get(kind, row[sure])} for row in rows] for kind in (sure, "possible")]
        return cls(names[0], [row[names[0]] for row in rows], [row["en"] for row in rows], *links, partial)


@dataclass
class Result:
    """One line of the table: an aligner on one language."""

    aligner: str
    language: str
    training_pairs: int
    precision: float | None
    recall: float
    error_rate: float | None
    one_to_one_precision: float | None
    one_to_one_recall: float
    links: int
    seconds: float
    pairs_per_second: float


def measure(name: str, aligner: WordAligner, gold: GoldLinks, extra: Sequence[tuple[list[str], list[str]]]) -> Result:
    """Align the gold pairs, and with them the extra ones that a statistical aligner learns from."""
    source = gold.source + [words for words, _ in extra]
    english = gold.english + [words for _, words in extra]
    begin = time.perf_counter()
    aligner.learn(source, english)
    links = aligner.align(gold.source, gold.english)
    seconds = time.perf_counter() - begin
    precision, recall, error_rate = agreement(links, gold.sure, gold.possible)
    kept_precision, kept_recall, _ = agreement([one_to_one(pair) for pair in links], gold.sure, gold.possible)
    if gold.partial:
        precision = error_rate = kept_precision = None
    return Result(
        name, gold.language + ("*" if gold.partial else ""), len(extra), precision, recall, error_rate,
        kept_precision, kept_recall, sum(map(len, links)), seconds, len(source) / seconds,
    )  # fmt: skip


Maker: TypeAlias = Callable[[str], WordAligner]  # of a language


class LearnsOnce(StatisticalAligner):
    """A statistical aligner that several others share: what it has learned is not learned again."""

    def learn(self, source: Sentences, english: Sentences) -> None:
        if self._learned is None:
            super().learn(source, english)


class LimitedAligner(WordAligner):
    """Another aligner's links with at least this score."""

    def __init__(self, aligner: WordAligner, limit: float) -> None:
        self.aligner, self.limit = aligner, limit

    def learn(self, source: Sentences, english: Sentences) -> None:
        self.aligner.learn(source, english)

    def score(self, source: Sentences, english: Sentences) -> list[ScoredLinks]:
        found = self.aligner.score(source, english)
        return [{link: score for link, score in pair.items() if score >= self.limit} for pair in found]


class AlignerByItsWordList(WordAligner):
    """Links by the word list that is made of another aligner's links of all pairs."""

    def __init__(self, aligner: WordAligner) -> None:
        self.aligner = aligner

    def learn(self, source: Sentences, english: Sentences) -> None:
        self.aligner.learn(source, english)
        links = map(one_to_one, self.aligner.align(source, english))
        with tempfile.TemporaryDirectory() as folder:
            write_dictionary(f"{folder}/words", zip(source, english, links), 2, {})
            self.word_list = DictionaryAligner(f"{folder}/words")

    def score(self, source: Sentences, english: Sentences) -> list[ScoredLinks]:
        return self.word_list.score(source, english)


def read_parallel(paths: Sequence[str], language: str, n_pairs: int) -> list[tuple[list[str], list[str]]]:
    """The first pairs of the first file that has this language, split into words."""
    for path in paths:
        lines = (json.loads(line) for _, line in read_lines(path))
        pairs = []
        for row in lines:
            if language not in row or len(pairs) == n_pairs:
                break
            pairs.append((split_on_punctuation(row[language]), split_on_punctuation(row["en"])))
        if pairs:
            return pairs
    return []


def candidates(args: argparse.Namespace, model: PreTrainedModel | None) -> Iterator[tuple[str, Maker, int]]:
    """Name, maker (of a language) and number of extra training pairs of everything that is to be compared."""
    if model is not None:
        tokenizer = load_tokenizer(args.model)
        words = WordTokenizer(tokenizer, max_length=encoder_max_length(tokenizer, model))
    for n_pairs in args.pairs if args.parallel else [0]:
        for kind, heuristic in product(args.statistical, args.symmetrization):
            name = f"{kind} {heuristic}"
            make: Maker = cache(partial(_statistical, kind, heuristic))
            yield name, make, n_pairs
            for limit in args.limits:
                yield f"{name} >= {limit}", _around(make, partial(LimitedAligner, limit=limit)), n_pairs
            if args.word_list:
                yield f"word list of {name}", _around(make, AlignerByItsWordList), n_pairs
            if args.agreement and model is not None:
                both = partial(_agreement, partial(_encoder, model, words, None, args.batch_size), make)
                yield f"encoder+{name}", both, n_pairs
    if model is not None:
        layers = range(model.config.num_hidden_layers + 1) if args.layers is None else args.layers
        for layer in [*layers, None]:
            name = "encoder, layer of most links" if layer is None else f"encoder, layer {layer}"
            yield name, partial(_encoder, model, words, layer, args.batch_size), 0


def _statistical(kind: str, heuristic: str, language: str) -> WordAligner:
    """A statistical aligner, to be shared by all that compares links of this language."""
    return LearnsOnce(kind, heuristic)


def _encoder(
    model: PreTrainedModel, words: WordTokenizer, layer: int | None, batch_size: int, language: str
) -> WordAligner:
    return EncoderAligner(model, words, layer, batch_size)


def _agreement(one: Maker, other: Maker, language: str) -> WordAligner:
    return AgreementAligner([one(language), other(language)])


def _around(make: Maker, wrap: Callable[[WordAligner], WordAligner]) -> Maker:
    return lambda language: wrap(make(language))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gold", nargs="+", required=True, metavar="FILE", help="links made by people, .jsonl[.gz]")
    parser.add_argument("--parallel", nargs="*", default=[], metavar="FILE", help="text to learn from, .jsonl[.gz]")
    parser.add_argument("--pairs", nargs="+", type=int, default=[10_000], help="how much of that text is used")
    parser.add_argument("--statistical", nargs="*", default=["eflomal", "fast_align"], choices=STATISTICAL_MODELS)
    parser.add_argument("--symmetrization", nargs="+", default=["intersection"], choices=SYMMETRIZATIONS)
    parser.add_argument(
        "--limits", nargs="*", type=float, default=[], help="also only statistical links of these scores"
    )
    parser.add_argument("--word_list", action="store_true", help="also link by the word list of the statistical links")
    parser.add_argument("--agreement", action="store_true", help="also the links of both statistics and --model")
    parser.add_argument("--model", metavar="NAME", help="encoder; without one only the others are compared")
    parser.add_argument("--layers", nargs="*", type=int, help="layers of the encoder (all)")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--json", metavar="FILE", help="write the figures here as well")
    args = parser.parse_args()
    logging.disable_progress_bar()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    gold = [GoldLinks.read(path) for path in args.gold]
    model = load_encoder(args.model).to(device) if args.model else None
    results = []
    print(
        f"{'aligner':<34} lang    pairs precision recall    AER | 1-to-1: precision recall |  links  seconds pairs/s"
    )
    for name, make, n_pairs in candidates(args, model):
        for links in gold:
            result = measure(name, make(links.language), links, read_parallel(args.parallel, links.language, n_pairs))
            results.append(result)
            print(_line(result), flush=True)
    if any(links.partial for links in gold):
        print("* links of some words only")
    if args.json:
        facts = {"arguments": vars(args), "device": device, "threads": torch.get_num_threads()}
        write_json(args.json, facts | {"results": [asdict(result) for result in results]})


def _line(result: Result) -> str:
    def percent(share: float | None) -> str:
        return "    –" if share is None else f"{100 * share:5.1f}"

    return (
        f"{result.aligner:<34} {result.language:<4} {result.training_pairs:>8} {percent(result.precision):>9} "
        f"{percent(result.recall):>6}  {percent(result.error_rate)} |         {percent(result.one_to_one_precision):>9} "
        f"{percent(result.one_to_one_recall):>6} | {result.links:>6} {result.seconds:>8.1f} {result.pairs_per_second:>7.0f}"
    )


if __name__ == "__main__":
    run_script(main)
