#!/usr/bin/env python
"""Which words does an encoder link, and what does adjustment change? A page for the browser.

    python view_links.py --models google-bert/bert-base-multilingual-cased aligned-mbert-hi --language hi \\
        --parallel_file held-out.tsv --output_file links.html

Every model links the words that are each other's nearest by the cosine of their vectors in one layer, as
`--aligner encoder` does (Jalili Sabet et al., Findings of EMNLP 2020). The page is one file that opens without a server
and without a connection: the links of all models side by side, similarities, what changed, a search for words, and, with
--links_file, how the links agree with given ones. Nothing is trained.
"""

from utils.core.kept_help import show_kept_help


if __name__ == "__main__":
    show_kept_help(__file__)  # (the imports below take seconds)

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset

from utils.alignment.words import WordTokenizer
from utils.core.arguments import announce, arg, parse_arguments, require
from utils.core.columns import list_lengths
from utils.core.errors import InputError, run_script
from utils.core.next_steps import command, say_next
from utils.core.records import run_record
from utils.core.romanization import check_romanized
from utils.evaluation.arguments import ModelsArguments
from utils.evaluation.link_page import page_data, write_link_page
from utils.evaluation.word_links import ModelLinks, ViewedPairs, summarize, summary_table
from utils.models.encoders import load_encoder
from utils.models.hub import nickname
from utils.models.layers import parse_layers
from utils.models.loading import load_config
from utils.models.tokenizers import load_tokenizer, sentence_length_limit
from utils.parallel.aligners.encoder import EncoderAligner
from utils.parallel.aligners.registry import AlignerArguments
from utils.parallel.arguments import ParallelDataArguments
from utils.parallel.corpus import ParallelCorpus
from utils.parallel.linking import with_links_of_file


@dataclass(kw_only=True)
class ViewArguments(ModelsArguments):
    """Which models link the words, and what the page shows."""

    output_file: str | None = arg(
        None, help="The page. Default: one in runs/ that is named after the script, the models and the language."
    )
    overwrite_output_file: bool = arg(False, help="Replace --output_file if it exists.")
    layer: int | None = arg(
        None,
        help="Hidden state that the words are compared in: 0 is the embeddings, -1 the last layer, which run_align.py "
        "adjusts. Default: at two thirds of the layers (8 of 12), where translations are usually nearest; unlike the "
        "layer that `--aligner encoder` chooses, it does not depend on the pairs, and is the same before and after.",
    )
    links_file: list[str] | None = arg(
        None,
        help="The right links, in Pharaoh format, a line `0-0 1-2 …` per pair of the whole corpus. The page then shows "
        "precision, recall and alignment error rate of every model.",
    )
    reverse_links: bool = arg(False, help="The links file has English first.")
    max_matrices: int = arg(
        1000,
        help="Keep the similarities of all words of at most this many pairs, the first, for the matrix of a pair: one "
        "byte for every two words and model. 0: no matrices, for a smaller page.",
        at_least=0,
    )

    def __post_init__(self) -> None:
        if self.reverse_links and not self.links_file:
            raise InputError("--reverse_links has no effect without --links_file; give both.")

    def check_output_file(self, language: str) -> dict[str, str]:
        """Set `output_file` if it is missing, and see that it can be written; returns what was assumed, by argument."""
        assumed = {}
        if not self.output_file:
            names = "-vs-".join(map(nickname, self.model_name_or_path))
            self.output_file = assumed["--output_file"] = f"runs/links-{names}"[:200] + f"-{language}.html"
        if os.path.isdir(self.output_file):
            raise InputError(f"--output_file {self.output_file} is a folder; give the name of a file.")
        if os.path.exists(self.output_file) and not self.overwrite_output_file:
            raise InputError(
                f"--output_file {self.output_file} exists already; give another name, or add --overwrite_output_file."
            )
        try:
            Path(self.output_file).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"--output_file {self.output_file} cannot be written ({error.strerror}); choose another place."
            ) from None
        return assumed


@dataclass
class ViewedDataArguments(ParallelDataArguments):
    """Where the parallel sentences come from: preferably held-out ones that no model was adjusted on."""

    max_train_pairs: int | None = arg(
        1000, aliases=["--max_pairs"], help="Show at most this many pairs, the first of the corpus.", at_least=1
    )


def main() -> None:
    # --- Arguments ---
    args, data = parse_arguments(ViewArguments, ViewedDataArguments, description=__doc__)
    require(data.languages, ["--language"], "say which language is linked with the anchor, for example --language hi")
    if len(data.languages) > 1:
        raise InputError("A page shows one language; name one --language, and run once for each.")
    check_romanized(data.romanize, data.languages)
    announce(args.check_output_file(data.languages[0]))
    models, state = args.find_models(), args.state()
    wanted = None if args.layer is None else [args.layer]
    layers = {}
    for label, name in models.items():
        n_layers = load_config(name, **args.hub_options()).num_hidden_layers
        (layers[label],) = parse_layers(wanted, n_layers, "--layer")

    # --- Pairs, the same for every model ---
    with state.main_process_first():
        pairs = read_pairs(args, data)

    # --- Links, one encoder after the other ---
    linked = []
    for label, name in models.items():
        encoder = load_encoder(name, **args.hub_options()).to(state.device)
        tokenizer = load_tokenizer(name, **args.hub_options())
        words = WordTokenizer(tokenizer, "avg", sentence_length_limit(args.max_seq_length, tokenizer, encoder))
        aligner = EncoderAligner(encoder, words, layers[label], args.per_device_eval_batch_size)
        with args.autocast():
            links, cosines = aligner.score_with_similarities(pairs.source, pairs.english)
        linked.append(ModelLinks(label, layers[label], links, cosines[: args.max_matrices]))

    # --- Write, print ---
    if state.is_main_process:
        summaries = summarize(pairs, linked)
        page = Path(str(args.output_file))
        record = run_record([args, data], base_model=models)
        write_link_page(page, page_data(pairs, linked, summaries, record))
        print(summary_table(linked, summaries).text())
        print(f"\n{len(pairs.numbers):,} pairs in {page} ({page.stat().st_size / 1e6:.1f} MB); open it in a browser.")
        say_next(command("run_xsr", "--models", *models.values(), "--eval_languages", *data.languages))


def read_pairs(args: ViewArguments, data: ViewedDataArguments) -> ViewedPairs:
    """The first pairs with words on both sides, no more than --max_words, and the given links, if there are any."""
    (language,) = data.languages
    hub = {"cache_dir": args.cache_dir, "token": args.token}
    corpus = ParallelCorpus.read(data, None, "avg", data.parallel_file, args.links_file, hub_options=hub)
    bitext = corpus.pairs[language]
    if language in corpus.links_files:
        assert isinstance(bitext, Dataset)  # (`read` refuses links of a stream)
        links = AlignerArguments(reverse_links=args.reverse_links)
        bitext = with_links_of_file(bitext, corpus.links_files[language], links)
    most = data.max_train_pairs or sys.maxsize
    first = bitext.select(range(min(most, len(bitext)) if isinstance(bitext, Dataset) else most))
    lengths = np.stack([list_lengths(first, side) for side in ("source", "english")])
    usable = np.flatnonzero((lengths.min(0) > 0) & (lengths.max(0) <= data.max_words))
    if not len(usable):
        raise InputError(
            f"None of the first {len(first)} pairs of {language} can be shown: they have an empty side, or more words "
            f"than --max_words {data.max_words}; look at the data."
        )
    shown = first.select(usable)
    gold = [[(i, j) for i, j in links] for links in shown["links"]] if "links" in shown.column_names else None
    numbers = (usable + 1).tolist()
    return ViewedPairs(language, data.anchor_language, numbers, list(shown["source"]), list(shown["english"]), gold)


if __name__ == "__main__":
    run_script(main)
