#!/usr/bin/env python
"""How often is a sentence's translation the nearest of all sentences? Cross-lingual sentence retrieval (XSR).

    python run_xsr.py --model aligned-mbert-hi --eval_languages hi --layers all --output_dir xsr-hi

Every sentence of one language searches for its translation among all sentences of the other, by the vectors of one
layer of the encoder. Nothing is trained. Both directions are measured, named with the language of the queries first:
`hi-en` is what Efimov et al. (ECIR 2023) report, `en-hi` what XTREME reports. MEXA (Kargaran et al., 2024) is the share
of pairs that are each other's nearest, with its mean and maximum over the layers that are measured.
"""

from utils.core.kept_help import show_kept_help


if __name__ == "__main__":
    show_kept_help(__file__)  # (the imports below take seconds)

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from utils.alignment.vocabulary import Fits, text_vocabulary_fit
from utils.core.arguments import announce, arg, parse_arguments, require
from utils.core.errors import InputError, run_script
from utils.core.files import check_output_dir, write_json, write_json_lines
from utils.core.next_steps import Command, command, free_folder, say_where
from utils.core.records import run_record
from utils.core.romanization import HELP, check_romanized, files_by_source, source_language
from utils.core.tables import languages_of_files, one_path_each, paths_by_language
from utils.evaluation.arguments import EvaluationArguments, by_label
from utils.evaluation.figures import plot_accuracy_by_layer
from utils.evaluation.neighbors import RETRIEVAL_DISTANCES
from utils.evaluation.report import write_retrieval_report
from utils.evaluation.sentence_pairs import SentencePairs, load_sentence_pairs, read_pairs_file, read_sentence_files
from utils.evaluation.sentence_retrieval import (
    ByDistance,
    Found,
    curves_by_layer,
    mexa_table,
    retrieval_metrics,
    retrieval_table,
    retrieve_translations,
)
from utils.evaluation.vectors import SENTENCE_POOLINGS, encode_sentences
from utils.models.encoders import load_encoder
from utils.models.layers import parse_layers, usual_layer
from utils.models.lineage import original_model
from utils.models.loading import load_config
from utils.models.tokenizers import load_tokenizer
from utils.parallel.sides import ENGLISH, SentenceColumns, check_different, log_pair


@dataclass(kw_only=True)
class XsrArguments(EvaluationArguments):
    """Which encoders, which sentences, and how they are compared."""

    eval_languages: list[str] = arg(
        default_factory=list,
        help="Languages paired with English, by code. Default: those of the files, else those that the models were "
        "adjusted to, else es ru vi hi.",
    )
    dataset_name: str = arg(
        "google/xtreme",
        help="Sentence pairs: a data set on the Hub or in a local folder. The default has Tatoeba in 36 languages, "
        "1,000 pairs in most; mteb/tatoeba-bitext-mining and data/xsr also work without further arguments.",
    )
    dataset_config_name: str | None = arg(
        None,
        help="Configuration of the data set; {language} stands for the language. Default: the first that exists of "
        "tatoeba.hin, hin-eng, hi, hi-en, en-hi (for hi).",
    )
    dataset_split: str | None = arg(
        None, help="Split. Default: the first that exists of test, validation (as in XTREME), train."
    )
    source_column: str | None = arg(None, help="Column of foreign sentences. Default: source_sentence, sentence1 …")
    target_column: str | None = arg(None, help="Column of English sentences. Default: target_sentence, sentence2 …")
    source_file: list[str] | None = arg(
        None,
        help="Instead of a data set: foreign sentences in a text file, one per line, also .gz; line i translates line "
        "i of --target_file. With several languages LANGUAGE=FILE each: hi=tatoeba.hi ru=tatoeba.ru.",
    )
    target_file: list[str] | None = arg(None, help="Their English translations, in the same way.")
    parallel_file: list[str] | None = arg(
        None,
        help="Instead of a data set: sentence pairs in a file of any format of run_align.py (.tsv, .csv, .jsonl, .parquet, "
        "Moses, two aligned files). With several languages LANGUAGE=FILE each: hi=held-out.hi.tsv ru=held-out.ru.tsv.",
    )
    romanize: list[str] = arg(
        default_factory=list, help=HELP.format(example="--eval_languages hi hi-Latn --romanize hi-Latn")
    )
    max_samples: int | None = arg(
        None,
        help="Use at most this many pairs, the first, of each language: fewer are easier to retrieve.",
        at_least=1,
    )
    layers: list[str] | None = arg(
        None,
        help="Hidden states to compare: `8`, `0 4 8` or `all`; 0 is the embeddings, -1 the last layer. "
        "Default: at two thirds of the layers (8 of 12), where translations are usually nearest.",
    )
    pooling: str = arg(
        "mean",
        help="A sentence's vector: the mean of all its tokens, special ones included; the first token, cls. For causal models "
        "(Llama, Qwen, Gemma), without special tokens: weighted, a mean in which the i-th token counts i times, as in MEXA "
        "(Kargaran et al., 2024); or the last token.",
        choices=list(SENTENCE_POOLINGS),
    )
    distance: list[str] = arg(
        default_factory=lambda: ["cosine"],
        help="How nearness is measured; csls is the cosine corrected for hubness (Conneau et al., 2018), centered the cosine "
        "without the mean vector of each language (Libovický et al., 2020). Several stand side by side: cosine csls centered.",
        choices=list(RETRIEVAL_DISTANCES),
    )

    def __post_init__(self) -> None:
        if self.parallel_file and (self.source_file or self.target_file):
            raise InputError("--parallel_file has both sides of the pairs; leave out --source_file and --target_file.")
        self.distance = list(dict.fromkeys(self.distance))


def main() -> None:
    # --- Arguments ---
    (args,) = parse_arguments(XsrArguments, description=__doc__)
    assumed, models = args.assume_output_dir("xsr"), args.find_models()
    if not args.eval_languages:
        of_files = languages_of_files(args.parallel_file or args.source_file or args.target_file)
        args.eval_languages = of_files or args.languages_of(models) or ["es", "ru", "vi", "hi"]
        assumed["--eval_languages"] = " ".join(args.eval_languages)
    announce(assumed)
    check_romanized(args.romanize, args.eval_languages)
    check_output_dir(str(args.output_dir), args.overwrite_output_dir)
    state, output_dir = args.state(), Path(str(args.output_dir))

    # --- Data; whatever else can be wrong is found before an encoder is loaded ---
    with state.main_process_first():
        data = read_data(args)
        tokenizers = {label: load_tokenizer(name, **args.hub_options()) for label, name in models.items()}
        texts = {pairs.language: pairs.source for pairs in data} | {ENGLISH: data[0].english}
        fits = {
            label: text_vocabulary_fit(tokenizer, texts, label if len(models) > 1 else "")
            for label, tokenizer in tokenizers.items()
        }
        n_layers = {label: load_config(name, **args.hub_options()).num_hidden_layers for label, name in models.items()}
    layers = {label: parse_layers(args.layers, n_layers[label]) for label in models}
    usual = {label: usual_layer(n_layers[label]) for label in models}

    # --- Encode and retrieve, one encoder after the other ---
    found: dict[str, dict[str, Found]] = {}  # by model and distance
    results: dict[str, dict[str, Any]] = {}
    predicted: dict[str, int] = {}  # the layer whose predictions are kept
    for label, name in models.items():
        encoder = load_encoder(name, **args.hub_options()).to(state.device)
        found[label] = {distance: {} for distance in args.distance}
        for pairs in data:
            with args.autocast():
                vectors = encode_sentences(
                    encoder,
                    tokenizers[label],
                    pairs.source + pairs.english,
                    layers[label],
                    args.pooling,
                    args.per_device_eval_batch_size,
                    args.max_seq_length,
                    f"{label}, {pairs.language}",
                )
            for distance, directions in found[label].items():
                directions |= retrieve_translations(vectors, pairs, layers[label], distance, state.device)
        if state.is_main_process:
            folder = output_dir / label if len(models) > 1 else output_dir
            predicted[label] = usual[label] if usual[label] in layers[label] else layers[label][-1]
            results[label] = write_results(folder, name, found[label], predicted[label], data, args, fits[label])

    # --- Compare ---
    if state.is_main_process:
        record = run_record([args], base_model=models)
        if len(models) > 1:
            write_json(output_dir / "all_results.json", by_label(results))
            write_json(output_dir / "run.json", record)
        write_retrieval_report(output_dir / "report.html", found, predicted, data, record)
        if any(len(chosen) > 1 for chosen in layers.values()):
            subject = "Sentence retrieval" if len(models) > 1 else label
            title = f"{subject} ({args.pooling} pooling, {' '.join(args.distance)})"
            plot_accuracy_by_layer(curves_by_layer(found), output_dir / "accuracy_by_layer.png", title)
        print(retrieval_table(found, usual).text())
        print("\nMEXA: pairs that are each other's nearest, with mean and maximum over the layers measured")
        print("(as published with --distance cosine --layers all)")
        print(mexa_table(found, usual).text())
        say_where(output_dir, *next_commands(args, models))


def next_commands(args: XsrArguments, models: Mapping[str, str]) -> list[Command]:
    """Test differences; or measure the original as well, or adjust it."""
    first, folder = next(iter(models)), str(args.output_dir)
    if len(models) > 1:
        comparison = ["--output_dir", free_folder(f"{folder}-comparison")]
        return [command("compare_runs", folder, "--baseline", Path(folder, first), *comparison)]
    original, _ = original_model(models[first], **args.hub_options())
    if original != models[first]:
        return [command("run_xsr", "--models", original, models[first], "--eval_languages", *args.eval_languages)]
    return [command("run_align", "--model", models[first], "--languages", *args.eval_languages)]


def read_data(args: XsrArguments) -> list[SentencePairs]:
    """The sentence pairs of every language, from files if they are given, else from the data set."""
    languages = list(dict.fromkeys(args.eval_languages))

    def paths(values: list[str] | None, argument: str) -> dict[str, str]:
        return one_path_each(files_by_source(values, languages, args.romanize), languages, argument)

    source, target = paths(args.source_file, "--source_file"), paths(args.target_file, "--target_file")
    parallel = files_by_source(args.parallel_file, languages, args.romanize)
    tables = paths_by_language(parallel, languages, "--parallel_file")
    data: list[SentencePairs] = []
    for language in languages:
        if tables:
            require(tables.get(language), [f"--parallel_file {language}=FILE"], f"there is no file for {language}")
            columns = SentenceColumns(source_language(language, args.romanize), args.source_column, args.target_column)
            pairs = replace(read_pairs_file(tables[language], columns), language=language)
        elif source or target:
            for argument, files in (("--source_file", source), ("--target_file", target)):
                require(language in files, [argument], f"{language} needs a file of sentences and one of translations")
            pairs = read_sentence_files(language, source[language], target[language])
        else:
            pairs = load_sentence_pairs(
                args.dataset_name,
                source_language(language, args.romanize),
                args.dataset_config_name,
                args.dataset_split,
                args.source_column,
                args.target_column,
                cache_dir=args.cache_dir,
                token=args.token,
            )
        if language in args.romanize:
            pairs = pairs.romanized(language)
        check_different(zip(pairs.source, pairs.english), language)
        if same := next((other.language for other in data if other.source == pairs.source), None):
            raise InputError(f"{same} and {language} have the same sentences; give each language its own.")
        log_pair(language, pairs.source[0], pairs.english[0])
        data.append(pairs)
    return [pairs.first(args.max_samples) for pairs in data]


def write_results(
    folder: Path,
    model: str,
    found: ByDistance,
    predicted: int,
    data: Sequence[SentencePairs],
    args: XsrArguments,
    vocabulary: Fits,
) -> dict[str, Any]:
    """Write the results and the record of one encoder, and its predictions at the layer `predicted`, by the first distance.

    `vocabulary` says how well its vocabulary fits each language, for the record.
    """
    settings = {"model": model, "pooling": args.pooling, "distance": args.distance[0]}
    results = {**settings, "predictions_layer": predicted, **retrieval_metrics(found)}
    eval_data = {}
    for pairs in data:
        results |= {f"{pairs.language}_{name}": fact for name, fact in pairs.facts.items()}
        eval_data[pairs.language] = {**pairs.facts, "sha256": pairs.sha256}
        for direction in pairs.directions:
            rows = found[args.distance[0]][direction][predicted].rows()
            predictions = [{**row, "layer": predicted, **settings, **pairs.facts} for row in rows]
            write_json_lines(folder / "predictions" / f"{direction}.jsonl", predictions)
    revision = args.commit(model)
    record = run_record(
        [args], base_model=model, base_model_revision=revision, eval_data=eval_data, vocabulary=vocabulary
    )
    write_json(folder / "run.json", record)
    write_json(folder / "all_results.json", results)
    return results


if __name__ == "__main__":
    run_script(main)
