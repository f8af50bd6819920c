#!/usr/bin/env python
"""How far apart do related and unrelated words lie in an encoder, and what does fine-tuning do to that?

    python run_distances.py --models google-bert/bert-base-multilingual-cased aligned-mbert-hi nli-hi --language hi \\
        --parallel_file held-out.tsv --layers all --output_dir distances-hi

Related are words that are linked across languages in held-out sentence pairs; each link is compared with an unrelated
English word, half the time from the same pair. Links and unrelated words are drawn once and are the same for every
model: encoders before and after adjustment, fine-tuned with and without --continual (Efimov et al., ECIR 2023). Nothing
is trained. An encoder that links the words itself (the original one, by default) looks better on these links than on
others; --links_file or --aligner statistical favours no model.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from utils.alignment.words import WORD_POOLINGS, WordTokenizer
from utils.core.arguments import arg, at_least, parse_arguments, require
from utils.core.errors import InputError, run_script
from utils.core.files import check_output_dir, write_json
from utils.core.records import run_record
from utils.evaluation.distance_report import (
    Measured,
    distance_metrics,
    distance_table,
    each_comparison,
    write_distances,
)
from utils.evaluation.figures import plot_distances, plot_distances_by_layer
from utils.evaluation.word_distances import (
    WORD_DISTANCES,
    Triples,
    WordDistances,
    draw_triples,
    measure_words,
    with_vectors,
)
from utils.models.encoders import empty_encoder, load_encoder
from utils.models.hub import ModelArguments, label_models
from utils.models.layers import parse_layers
from utils.models.lineage import original_model
from utils.models.tokenizers import load_tokenizer, sentence_length_limit
from utils.parallel.aligners.registry import AlignerArguments
from utils.parallel.arguments import ParallelDataArguments
from utils.parallel.corpus import ChosenPairs, ParallelCorpus
from utils.parallel.linking import check_links_to_write


@dataclass(kw_only=True)
class DistanceArguments(ModelArguments):
    """Which models, and how their words are compared."""

    model_name_or_path: list[str] = arg(
        default_factory=lambda: ["google-bert/bert-base-multilingual-cased"],
        aliases=["--model", "--models"],
        help="Model(s): Hub ids or local folders, encoders or fine-tuned for a task. Several are compared on the same "
        "words, in one table and one figure.",
    )
    reference_model: str | None = arg(
        None,
        help="Who links the words with `--aligner encoder`. Default: where the first model came from, by its own "
        "record (run.json), before any adjustment or fine-tuning.",
    )
    output_dir: str = arg(help="Folder for results, distances link by link, and figures.")
    overwrite_output_dir: bool = arg(
        False, help="Write into --output_dir even if not empty, and over --write_links files."
    )
    layers: list[str] = arg(
        default_factory=lambda: ["-1"],
        help="Hidden states to compare: `8`, `0 4 8` or `all`; 0 is the embeddings, -1 the last layer. Of several "
        "the table and the histograms show the highest one.",
    )
    distances: list[str] = arg(
        default_factory=lambda: list(WORD_DISTANCES),
        aliases=["--distance"],
        help="How distances are measured: l2, cosine (1 - cosine of the angle), or both.",
        choices=list(WORD_DISTANCES),
    )
    max_links: int | None = arg(5000, help="Compare so many links per language, drawn at random from all pairs.")
    seed: int = arg(42, help="Seed of the draw of pairs, links and unrelated words.")
    word_pooling: str = arg(
        "avg",
        help="A word's vector: mean of its subwords (`avg`), its first (`start`) or last (`end`); `token`: every "
        "subword is a word of its own, which needs models with one vocabulary.",
        choices=list(WORD_POOLINGS),
    )
    max_seq_length: int | None = arg(
        None, help="Cut sentences after this many tokens. Default: what the encoders can take."
    )
    per_device_eval_batch_size: int = arg(64, help="Sentences encoded at once per device.")
    use_cpu: bool = arg(False, help="Leave the GPU alone.")
    bf16: bool = arg(False, help="Encode in bfloat16 (autocast): faster on recent GPUs.")

    def __post_init__(self) -> None:
        at_least(1, self, "max_links")
        at_least(1, self, "per_device_eval_batch_size")
        self.distances = list(dict.fromkeys(self.distances))


@dataclass
class HeldOutDataArguments(ParallelDataArguments):
    """Where the parallel sentences come from: held-out ones, that no model was adjusted on."""

    parallel_split: str = arg(
        "train",
        help="Its split. Where models were adjusted on the default, name another one, or hold pairs out with "
        "--validation_split_percentage.",
    )
    max_train_pairs: int | None = arg(
        5000,
        aliases=["--max_eval_pairs"],
        help="Draw the links from at most this many random pairs per language.",
        at_least=1,
    )
    validation_split_percentage: float | None = arg(
        None,
        help="Measure only on the pairs that run_align.py holds out when it is given the same percentage of the "
        "same corpus.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < (self.validation_split_percentage or 1) < 100:
            raise InputError(
                f"--validation_split_percentage {self.validation_split_percentage} must be between 0 and 100."
            )


def main() -> None:
    # --- Arguments ---
    args, data, links = parse_arguments(
        DistanceArguments, HeldOutDataArguments, AlignerArguments, description=__doc__
    )  # fmt: skip
    check_output_dir(args.output_dir, args.overwrite_output_dir)
    require(data.languages, ["--language"], "say which language is compared with English, for example --language hi")
    check_links_to_write(links, data.languages, args.overwrite_output_dir)
    models = {label: args.find(name) for label, name in label_models(args.model_name_or_path).items()}
    # (Told of the CPU, several processes on it know of each other.)
    state = PartialState(cpu=args.use_cpu or not torch.accelerator.is_available())

    # --- Models, without their weights: their layers, and what their tokenizers make of words ---
    layers, word_tokenizers = {}, {}
    for label, name in models.items():
        encoder, tokenizer = empty_encoder(name, **args.hub_options()), load_tokenizer(name, **args.hub_options())
        layers[label] = parse_layers(args.layers, encoder.config.num_hidden_layers)
        max_length = sentence_length_limit(args.max_seq_length, tokenizer, encoder)
        word_tokenizers[label] = WordTokenizer(tokenizer, args.word_pooling, max_length)
    tokenizer = next(iter(word_tokenizers.values())).tokenizer
    if args.word_pooling == "token":
        check_same_vocabulary({label: words.tokenizer for label, words in word_tokenizers.items()})

    # --- Words: the same for every model ---
    with state.main_process_first():
        corpus, reference = read_corpus(args, data, links, tokenizer, state)
    words: dict[str, tuple[Dataset, Triples]] = {}
    dropped = {}
    for language, bitext in corpus.pairs.items():
        drawn = draw_triples(bitext, args.max_links, args.seed)
        triples = with_vectors(drawn, bitext, list(word_tokenizers.values()))
        require(
            len(triples), [f"A link of {language}"], f"none of {len(drawn)} has words that every model has a vector of"
        )
        words[language], dropped[language] = (bitext, triples), len(drawn) - len(triples)

    # --- Vectors and distances, one encoder after the other ---
    autocast = partial(torch.autocast, state.device.type, torch.bfloat16, enabled=args.bf16)
    how = {"batch_size": args.per_device_eval_batch_size, "autocast": autocast, "state": state}
    measured: dict[str, Measured] = {}
    for label, name in models.items():
        encoder = load_encoder(name, **args.hub_options()).to(state.device)
        measured[label] = {}
        for language, (bitext, triples) in words.items():
            what = (word_tokenizers[label], bitext, triples, layers[label], args.distances)
            measured[label][language] = measure_words(encoder, *what, **how, description=f"{label}, {language}")
        if not all(found.is_finite for *_, found in each_comparison(measured[label])):
            raise InputError(f"{name} gives vectors with nan or inf; check how it was trained.")

    # --- Write, plot, print ---
    if state.is_main_process:
        folder = Path(args.output_dir)
        metrics = {label: distance_metrics(of_model, args.seed) for label, of_model in measured.items()}
        results: dict[str, Any] = {"word_pooling": args.word_pooling}
        for language, (bitext, triples) in words.items():
            results |= {f"{language}_pairs": len(bitext), f"{language}_links": len(triples)}
            results |= {f"{language}_links_without_vector": dropped[language]}
        for label, of_model in metrics.items():
            results |= of_model if len(models) == 1 else {f"{label}/{name}": v for name, v in of_model.items()}
        record = run_record(
            [args, data, links],
            base_model=models if len(models) > 1 else next(iter(models.values())),
            reference_model=reference,
            seed=args.seed,
            eval_data=corpus.fingerprints(),
        )
        write_json(folder / "run.json", record)
        write_json(folder / "all_results.json", results)
        write_distances(folder / "distances.arrow", measured, words)
        for language, (_, triples) in words.items():
            by_layer = {label: languages[language] for label, languages in measured.items()}
            plot(folder, language, len(triples), by_layer, metrics)
        print(distance_table(measured))


def read_corpus(
    args: DistanceArguments,
    data: HeldOutDataArguments,
    links: AlignerArguments,
    tokenizer: PreTrainedTokenizerBase,
    state: PartialState,
) -> tuple[ChosenPairs, str | None]:
    """The held-out pairs with their links, and the name of the encoder that made them, if one did."""
    hub_options = {"cache_dir": args.cache_dir, "token": args.token}
    corpus = ParallelCorpus.read(
        data, tokenizer, args.word_pooling, data.parallel_file, links.links_file, hub_options=hub_options
    )
    if "encoder" in corpus.aligners(links):
        encoder, word_tokenizer = load_reference(args)
        encoder.to(state.device)
        reference = encoder.name_or_path
    elif args.reference_model:
        by = " and ".join(sorted(corpus.aligners(links)))
        raise InputError(f"--reference_model does nothing where words are linked by --aligner {by}; leave it out.")
    else:
        encoder = word_tokenizer = reference = None
    share = data.validation_split_percentage and data.validation_split_percentage / 100
    linkable = corpus.linkable(links, encoder, word_tokenizer)
    if state.is_main_process:
        linkable.write_links(links)
    return linkable.choose_to_measure(data.max_words, data.max_train_pairs, share, args.seed), reference


def load_reference(args: DistanceArguments) -> tuple[torch.nn.Module, WordTokenizer]:
    """The encoder that links the words, and its tokenizer.

    Raises:
        InputError: if the model that the first one came from is not there any more.
    """
    first = args.find(args.model_name_or_path[0])
    if args.reference_model:
        name, revision = args.find(args.reference_model, "main"), "main"
    else:
        name, revision = original_model(first, **{**args.hub_options(), "revision": args.model_revision})
    options = {**args.hub_options(), "revision": revision}
    try:
        encoder, tokenizer = load_encoder(name, **options), load_tokenizer(name, **options)
    except InputError as error:
        if args.reference_model or name == first:
            raise
        raise InputError(
            f"{first} was made from {name}, which cannot be loaded now; say who links the words with --reference_model, "
            f"or give --links_file. ({error})"
        ) from None
    # (The aligner itself makes a word of all of its subwords.)
    max_length = sentence_length_limit(None, tokenizer, encoder)
    return encoder, WordTokenizer(tokenizer, args.word_pooling, max_length)


def check_same_vocabulary(tokenizers: Mapping[str, PreTrainedTokenizerBase]) -> None:
    """Stop if subwords are not the same for all models."""
    (first, tokenizer), *others = tokenizers.items()
    for label, other in others:
        if other.get_vocab() != tokenizer.get_vocab():
            raise InputError(
                f"{label} and {first} have different vocabularies, so that their subwords cannot be compared; do without "
                "--word_pooling token."
            )


# What is drawn layer by layer, by what it is called in the figure; those with an interval first.
INTERVALS = {
    "Median, related words": "{language}_layer{layer}_{distance}_median_related",
    "Median, unrelated words": "{language}_layer{layer}_{distance}_median_unrelated",
    "Related word nearer": "{language}_layer{layer}_{distance}_share_nearer",
}
CURVES = {
    **INTERVALS,
    "Retrieval, {language} to en": "{language}-en_layer{layer}_{distance}_word_retrieval_accuracy",
    "Retrieval, en to {language}": "en-{language}_layer{layer}_{distance}_word_retrieval_accuracy",
}


def plot(
    folder: Path,
    language: str,
    n_links: int,
    layers: Mapping[str, Mapping[int, Mapping[str, WordDistances]]],
    metrics: Mapping[str, Mapping[str, float]],
) -> None:
    """Histograms of all models at their highest layers and, if there are several layers, curves.

    Args:
        folder: for the figures.
        language, n_links: what was measured.
        layers: model → layer → distance → what was measured.
        metrics: by model, the numbers under the names of `distance_metrics`.
    """
    highest = {label: by_layer[max(by_layer)] for label, by_layer in layers.items()}
    histograms = {
        label: {distance: (found.related, found.unrelated) for distance, found in distances.items()}
        for label, distances in highest.items()
    }
    subject = f"{n_links:,} links, {language} and English"
    plot_distances(histograms, folder / f"distances_{language}", f"Related and unrelated words: {subject}")

    def panels(names: Mapping[str, str], number: Callable[[str, str], Any]) -> dict[str, Any]:
        """Distance → title → model → layer → the number that a model has under a name."""
        panels = {}
        for label, by_layer in layers.items():
            for layer, distances in by_layer.items():
                for distance, (title, name) in product(distances, names.items()):
                    curves = panels.setdefault(distance, {}).setdefault(title.format(language=language), {})
                    name = name.format(language=language, layer=layer, distance=distance)
                    curves.setdefault(label, {})[layer] = number(label, name)
        return panels

    if any(len(by_layer) > 1 for by_layer in layers.values()):
        plot_distances_by_layer(
            panels(CURVES, lambda label, name: metrics[label][name]),
            folder / f"layers_{language}",
            f"Layer by layer: {subject}",
            panels(INTERVALS, lambda label, name: (metrics[label][f"{name}_low"], metrics[label][f"{name}_high"])),
            chance={"Related word nearer": 0.5},
        )


if __name__ == "__main__":
    run_script(main)
