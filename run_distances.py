#!/usr/bin/env python
"""How far apart are related and unrelated words in an encoder, and how does fine-tuning change that?

    python run_distances.py --models google-bert/bert-base-multilingual-cased aligned-mbert-hi nli-hi --language hi \\
        --parallel_file held-out.tsv --layers all --output_dir distances-hi

Related words are linked across languages in held-out sentence pairs; each link is compared with an unrelated English
word, half of the time from the same pair. Links and unrelated words are drawn once and are the same for every model:
encoders before and after adjustment, fine-tuned with and without --continual (Efimov et al., ECIR 2023). Nothing is
trained. An encoder that links the words itself (by default the original one) looks better on these links than on
others; --links_file and --aligner statistical favor no model.
"""

from utils.core.kept_help import show_kept_help


if __name__ == "__main__":
    show_kept_help(__file__)  # (the imports below take seconds)

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel

from utils.alignment.words import WORD_POOLINGS, WordTokenizer
from utils.core.arguments import announce, arg, parse_arguments, require
from utils.core.errors import InputError, run_script
from utils.core.files import check_output_dir, write_json
from utils.core.next_steps import command, say_where
from utils.core.records import run_record
from utils.core.romanization import check_romanized
from utils.core.tables import languages_of_files
from utils.evaluation.arguments import EvaluationArguments, by_label
from utils.evaluation.distance_report import (
    Measured,
    Words,
    curves_by_layer,
    distance_metrics,
    distance_table,
    flatten,
    write_distances,
)
from utils.evaluation.figures import plot_distances, plot_distances_by_layer
from utils.evaluation.word_distances import WORD_DISTANCES, Triples, draw_triples, measure_words, with_vectors
from utils.models.encoders import empty_encoder, load_encoder
from utils.models.layers import parse_layers
from utils.models.lineage import original_model
from utils.models.tokenizers import load_tokenizer, sentence_length_limit
from utils.parallel.aligners.registry import AlignerArguments
from utils.parallel.arguments import ParallelDataArguments
from utils.parallel.corpus import ChosenPairs, ParallelCorpus
from utils.parallel.linking import check_links_to_write
from utils.parallel.sides import EACH, anchor_name


@dataclass(kw_only=True)
class DistanceArguments(EvaluationArguments):
    """Which models, and how their words are compared."""

    reference_model: str | None = arg(
        None,
        help="Encoder that links the words with `--aligner encoder`. Default: the original model that the first model "
        "was made from, by its record (run.json).",
    )
    layers: list[str] = arg(
        default_factory=lambda: ["-1"],
        help="Hidden states to compare: `8`, `0 4 8` or `all`; 0 is the embeddings, -1 the last layer. "
        "The table and the histograms show the highest one.",
    )
    distances: list[str] = arg(
        default_factory=lambda: list(WORD_DISTANCES),
        aliases=["--distance"],
        help="How distances are measured: l2, cosine (1 - cosine of the angle), or both.",
        choices=list(WORD_DISTANCES),
    )
    max_links: int | None = arg(5000, help="Links compared per language, drawn at random from all pairs.", at_least=1)
    seed: int = arg(42, help="Seed of the draw of pairs, links and unrelated words.", at_least=0)
    word_pooling: str = arg(
        "avg",
        help="A word's vector: mean of its subwords (`avg`), its first (`start`) or last (`end`); `token`: every "
        "subword is a word of its own, which needs models with one vocabulary.",
        choices=list(WORD_POOLINGS),
    )


@dataclass
class HeldOutArguments(ParallelDataArguments):
    """Where the parallel sentences come from: held-out ones that no model was adjusted on."""

    parallel_split: str = arg(
        "train",
        help="Split of --parallel_dataset. If models were adjusted on it, choose another, or hold pairs out with "
        "--validation_split_percentage.",
    )
    max_train_pairs: int | None = arg(
        5000, aliases=["--max_eval_pairs"], help="Draw links from this many random pairs per language.", at_least=1
    )
    validation_split_percentage: float | None = arg(
        None,
        help="Measure only on the pairs that run_align.py holds out with the same percentage of the same corpus.",
        above=0,
        below=100,
    )


def main() -> None:
    # --- Arguments ---
    args, data, links = parse_arguments(DistanceArguments, HeldOutArguments, AlignerArguments, description=__doc__)
    links.check_links_files()
    assumed, models = args.assume_output_dir("distances"), args.find_models()
    if not data.languages:
        data.languages = languages_of_files(data.parallel_file) or args.languages_of(models)
        assumed |= {"--languages": " ".join(data.languages)} if data.languages else {}
    if data.anchor_language == EACH:
        raise InputError("--anchor_language each is for training; name one anchor, and run once for each.")
    announce(assumed)
    check_output_dir(str(args.output_dir), args.overwrite_output_dir)
    require(
        data.languages, ["--language"], "say which language is compared with the anchor, for example --language hi"
    )
    check_romanized(data.romanize, data.languages)
    check_links_to_write(links, data.languages, args.overwrite_output_dir)
    state = args.state()

    # --- Models without their weights: layers and tokenizers ---
    layers, word_tokenizers = {}, {}
    for label, name in models.items():
        encoder, tokenizer = empty_encoder(name, **args.hub_options()), load_tokenizer(name, **args.hub_options())
        layers[label] = parse_layers(args.layers, encoder.config.num_hidden_layers)
        max_length = sentence_length_limit(args.max_seq_length, tokenizer, encoder)
        word_tokenizers[label] = WordTokenizer(tokenizer, args.word_pooling, max_length)
    if args.word_pooling == "token":
        check_same_vocabulary(word_tokenizers)

    # --- Words, the same for every model ---
    with state.main_process_first():
        corpus, reference = read_corpus(args, data, links, next(iter(word_tokenizers.values())))
    words: dict[str, tuple[Dataset, Triples]] = {}
    results: dict[str, Any] = {"word_pooling": args.word_pooling}
    for language, bitext in corpus.pairs.items():
        drawn = draw_triples(bitext, args.max_links, args.seed)
        triples = with_vectors(drawn, bitext, list(word_tokenizers.values()))
        require(len(triples), [f"A link of {language}"], f"none of {len(drawn)} has a vector in every model")
        words[language] = bitext, triples
        results |= {f"{language}_pairs": len(bitext), f"{language}_links": len(triples)}
        results[f"{language}_links_without_vector"] = len(drawn) - len(triples)

    # --- Vectors and distances, one encoder after the other ---
    measured: dict[str, Measured] = {}
    for label, name in models.items():
        encoder = load_encoder(name, **args.hub_options()).to(state.device)
        measured[label] = {
            language: measure_words(
                encoder,
                word_tokenizers[label],
                bitext,
                triples,
                layers[label],
                list(dict.fromkeys(args.distances)),
                args.per_device_eval_batch_size,
                args.autocast,
                state,
                f"{label}, {language}",
            )
            for language, (bitext, triples) in words.items()
        }
        if not all(found.is_finite for *_, found in flatten(measured[label])):
            raise InputError(f"{name} gives vectors with nan or inf; check how it was trained.")

    # --- Write, plot, print ---
    if state.is_main_process:
        record = run_record(
            [args, data, links],
            base_model=models if len(models) > 1 else models[label],
            reference_model=reference,
            seed=args.seed,
            eval_data=corpus.fingerprints(),
        )
        write_json(Path(str(args.output_dir)) / "run.json", record)
        write_results(Path(str(args.output_dir)), words, measured, results, args.seed, data.anchor_language)
        print("Median distances; related word nearer; word retrieval accuracy")
        print(distance_table(measured, data.anchor_language).text())
        sentences = command("run_xsr", "--models", *models.values(), "--eval_languages", *data.languages)
        say_where(str(args.output_dir), sentences)


def read_corpus(
    args: DistanceArguments, data: HeldOutArguments, links: AlignerArguments, words: WordTokenizer
) -> tuple[ChosenPairs, str | None]:
    """The held-out pairs with their links, and the name of the encoder that made the links, if one did."""
    hub = {"cache_dir": args.cache_dir, "token": args.token}
    corpus = ParallelCorpus.read(
        data, words.tokenizer, args.word_pooling, data.parallel_file, links.links_file, hub_options=hub
    )
    encoder = word_tokenizer = None
    if "encoder" in corpus.aligners(links):
        encoder, word_tokenizer = load_reference(args)
        encoder.to(args.state().device)  # type: ignore[arg-type]  # (the annotation of `to` is wrong in transformers)
    elif args.reference_model:
        by = " and ".join(sorted(corpus.aligners(links)))
        raise InputError(f"--reference_model has no effect if --aligner {by} links the words; remove it.")
    linkable = corpus.linkable(links, encoder, word_tokenizer)
    if args.state().is_main_process:
        linkable.write_links(links)
    share = data.validation_split_percentage and data.validation_split_percentage / 100
    pairs = linkable.choose_to_measure(data.max_words, data.max_train_pairs, share, args.seed)
    return pairs, encoder.name_or_path if encoder is not None else None


def load_reference(args: DistanceArguments) -> tuple[PreTrainedModel, WordTokenizer]:
    """The encoder that links the words, and its tokenizer."""
    first = args.find(args.model_name_or_path[0])
    if args.reference_model:
        name, revision = args.find(args.reference_model, "main"), "main"
    else:
        name, revision = original_model(first, args.model_revision, cache_dir=args.cache_dir, token=args.token)
    options = {**args.hub_options(), "revision": revision}
    try:
        encoder, tokenizer = load_encoder(name, **options), load_tokenizer(name, **options)
    except InputError as error:
        if args.reference_model or name == first:
            raise
        raise InputError(
            f"{first} was made from {name}, which cannot be loaded now; give --reference_model or --links_file. ({error})"
        ) from None
    return encoder, WordTokenizer(tokenizer, args.word_pooling, sentence_length_limit(None, tokenizer, encoder))


def check_same_vocabulary(word_tokenizers: Mapping[str, WordTokenizer]) -> None:
    """Raise an `InputError` if the models do not have the same subwords."""
    (first, words), *others = word_tokenizers.items()
    for label, other in others:
        if other.tokenizer.get_vocab() != words.tokenizer.get_vocab():
            raise InputError(
                f"{label} and {first} have different vocabularies, so that their subwords cannot be compared; use "
                "another --word_pooling than token."
            )


def write_results(
    folder: Path, words: Words, measured: Mapping[str, Measured], results: Mapping[str, Any], seed: int, anchor: str
) -> None:
    """Write results, distances and, per language, histograms of the highest layers; curves if there are several layers."""
    metrics = {label: distance_metrics(of_model, seed, anchor) for label, of_model in measured.items()}
    write_json(folder / "all_results.json", {**results, **by_label(metrics)})
    write_distances(folder / "distances.arrow", measured, words)
    for language, (_, triples) in words.items():
        subject = f"{len(triples):,} links, {language} and {anchor_name(anchor)}"
        highest = {label: of_model[language][max(of_model[language])] for label, of_model in measured.items()}
        plot_distances(highest, folder / f"distances_{language}", f"Related and unrelated words: {subject}")
        if any(len(of_model[language]) > 1 for of_model in measured.values()):
            curves = curves_by_layer(language, measured, metrics, anchor)
            plot_distances_by_layer(curves, folder / f"layers_{language}", f"Layer by layer: {subject}")


if __name__ == "__main__":
    run_script(main)
