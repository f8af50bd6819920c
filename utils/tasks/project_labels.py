"""Project the labels of English sentences to their translations, along word links: training data for translate-train.

    python -m utils.tasks.project_labels --task ner --language hi --tagged_file train.en.jsonl --translation_file train.hi.txt \\
        --write_tagged train.hi.jsonl

The translations may come from any system; line i translates sentence i. Words are linked as by run_align.py: by a file, or by an
aligner (of the encoder --model by default). What is written is read by `run_ner.py --train_file train.hi.jsonl --train_language hi`.
The rules are in `utils.tasks.projection`.
"""

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from accelerate import PartialState
from datasets import Dataset

from utils.alignment.words import WordTokenizer
from utils.core.arguments import arg, parse_arguments
from utils.core.errors import InputError, run_script
from utils.core.files import write_json_lines
from utils.core.next_steps import command, say_next
from utils.core.progress import progress
from utils.core.tables import read_rows
from utils.core.text_files import read_lines
from utils.evaluation.entities import entities
from utils.models.encoders import load_encoder
from utils.models.hub import ModelArguments
from utils.models.tokenizers import load_tokenizer, sentence_length_limit
from utils.parallel.aligners.registry import AlignerArguments
from utils.parallel.arguments import ParallelDataArguments
from utils.parallel.corpus import ParallelCorpus
from utils.parallel.linking import check_links_to_write
from utils.tasks.examples import UnlabeledError
from utils.tasks.projection import project_entities, project_tags
from utils.tasks.tagging import read_conllu, read_tagged, readers_of_tags


logger = logging.getLogger(__name__)


@dataclass
class ProjectionArguments:
    """Which sentences, and what is made of them."""

    task: str = arg(help="ner: entities (column ner_tags); pos: parts of speech (pos_tags).", choices=["ner", "pos"])
    language: str = arg(help="Code of the language of the translations.")
    tagged_file: str = arg(
        help="English sentences with their labels, in a format that run_ner.py or run_pos.py reads."
    )
    translation_file: str = arg(help="Their translations: a text file, also compressed, with a sentence per line.")
    write_tagged: str = arg(help="The file to write: translations with projected labels, as .jsonl.")
    word_splitting: str = arg(
        "auto",
        help="How translations are split into words, see run_align.py.",
        choices=["auto", "space", "punctuation", "icu"],
    )
    min_linked: float | None = arg(
        None,
        help="Leave out sentences of which a smaller share of words has a link (punctuation counts as linked). "
        "Default: 0.8 for pos (as Rasooli and Collins, 2015, for dependencies), 0 for ner, where words without a link are O.",
        at_least=0,
        at_most=1,
    )
    overwrite: bool = arg(False, help="Write over --write_tagged and --write_links.")

    def __post_init__(self) -> None:
        if not self.write_tagged.endswith(".jsonl"):
            raise InputError(
                f"--write_tagged {self.write_tagged} is written as JSON lines; give a name that ends in .jsonl."
            )
        if os.path.exists(self.write_tagged) and not self.overwrite:
            raise InputError(
                f"--write_tagged {self.write_tagged} exists already; give another name, or add --overwrite."
            )


def main() -> None:
    # --- Arguments ---
    args, model, links = parse_arguments(ProjectionArguments, ModelArguments, AlignerArguments, description=__doc__)
    links.check_links_files()
    check_links_to_write(links, [args.language], args.overwrite)

    # --- Sentences and their translations, linked ---
    sentences = read_sentences(args)
    pairs = link(args, sentences, model, links)

    # --- Labels ---
    rows = list(project(args, sentences, pairs))
    if not rows:
        raise InputError("No sentence has enough links; look at the translations, or lower --min_linked.")
    write_json_lines(Path(args.write_tagged), rows)
    logger.info(f"{len(rows):,} of {len(sentences):,} sentences written to {args.write_tagged}.")
    say_next(command(f"run_{args.task}", "--train_file", args.write_tagged, "--train_language", args.language))


def read_sentences(args: ProjectionArguments) -> list[dict[str, Any]]:
    """The English sentences: `tokens` and the column of tags."""
    column = f"{args.task}_tags"
    readers = {**readers_of_tags(column), ".conllu": read_conllu}
    sentences = []
    for where, row in read_rows(args.tagged_file, readers):
        try:
            sentences.append(read_tagged(row, where, column, bio=args.task == "ner"))
        except UnlabeledError:  # (whose message names an argument of other scripts)
            raise InputError(
                f"{where} has a word without a tag; correct it, or omit the sentence and its translation."
            ) from None
    if not sentences:
        raise InputError(f"The file {args.tagged_file} has no sentence; give one with tagged sentences.")
    return sentences


def link(
    args: ProjectionArguments, sentences: list[dict[str, Any]], model: ModelArguments, links: AlignerArguments
) -> Dataset:
    """All pairs with the columns `source` (the words of the translation), `english` and `links`."""
    lines = [line for _, line in read_lines(args.translation_file)]
    if len(lines) != len(sentences):
        raise InputError(
            f"{args.tagged_file} has {len(sentences)} sentences and {args.translation_file} has {len(lines)} lines; line i "
            "must translate sentence i."
        )
    data = ParallelDataArguments(
        [args.language], source_column="source", english_column="english", word_splitting=args.word_splitting
    )
    with TemporaryDirectory() as folder:
        path = Path(folder, "pairs.jsonl")
        pairs = ({"source": line, "english": row["tokens"]} for line, row in zip(lines, sentences))
        path.write_text("".join(f"{json.dumps(pair)}\n" for pair in pairs), encoding="utf-8", newline="\n")
        corpus = ParallelCorpus.read(data, None, "avg", [str(path)], links.links_file)
    encoder = words = None
    if "encoder" in corpus.aligners(links):
        name, options = model.find(model.model_name_or_path), model.hub_options()
        encoder, tokenizer = load_encoder(name, **options), load_tokenizer(name, **options)
        words = WordTokenizer(tokenizer, "avg", sentence_length_limit(None, tokenizer, encoder))
        encoder.to(PartialState().device)  # type: ignore[arg-type]  # (the annotation of `to` is wrong in transformers)
    linkable = corpus.linkable(links, encoder, words)
    linkable.write_links(links)
    bitext, linker = linkable.pairs[args.language], linkable.linkers.get(args.language)
    assert isinstance(bitext, Dataset)  # (nothing is streamed)
    return linker.link_all(bitext, None) if linker else bitext


def project(args: ProjectionArguments, sentences: list[dict[str, Any]], pairs: Dataset) -> Iterator[dict[str, Any]]:
    """The translations with projected labels. Those without words on either side, or with too few links, are left out."""
    column, n_english, n_projected = f"{args.task}_tags", 0, 0
    least = args.min_linked if args.min_linked is not None else {"pos": 0.8, "ner": 0.0}[args.task]
    both = progress(zip(sentences, pairs), "Projecting labels", len(sentences), "sentences")
    for number, (sentence, pair) in enumerate(both):
        words, english = pair["source"], sentence[column]
        tags, share = project_tags(english, pair["links"], words)
        if not words or not english or share < least:
            continue
        if args.task == "ner":
            tags = project_entities(english, pair["links"], len(words))
            n_english, n_projected = n_english + len(entities(english)), n_projected + len(entities(tags))
        yield {"id": sentence.get("id", str(number)), "tokens": words, column: tags}
    if args.task == "ner":
        logger.info(f"{n_projected:,} of {n_english:,} entities were projected; the others have no link, or overlap.")


if __name__ == "__main__":
    run_script(main)
