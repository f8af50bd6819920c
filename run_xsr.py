#!/usr/bin/env python
"""How often is a sentence's translation the nearest of all sentences? Cross-lingual sentence retrieval (XSR).

    python run_xsr.py --model aligned-mbert-hi --eval_languages hi --layers all --output_dir xsr-hi

Every sentence of one language looks for its translation among all sentences of the other, by the vectors of one layer
of the encoder. Nothing is trained. Both directions are measured, named with the querying language first: `hi-en` is
what Efimov et al. (ECIR 2023) report, `en-hi` what XTREME does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from utils.core.arguments import arg, parse_arguments, require
from utils.core.errors import InputError, run_script
from utils.core.files import check_output_dir, write_json, write_json_lines
from utils.core.records import run_record
from utils.core.tables import paths_by_language
from utils.evaluation.figures import plot_accuracy_by_layer
from utils.evaluation.neighbours import RETRIEVAL_DISTANCES, Retrieval, retrieve, vector_spread
from utils.evaluation.retrieval_report import accuracy_curves, retrieval_metrics, retrieval_table
from utils.evaluation.sentence_pairs import SentencePairs, load_sentence_pairs, read_sentence_files
from utils.evaluation.sentence_vectors import SENTENCE_POOLINGS, encode_sentences
from utils.models.encoders import load_encoder
from utils.models.hub import ModelArguments, label_models
from utils.models.layers import parse_layers, usual_layer
from utils.models.loading import count_layers
from utils.models.tokenizers import load_tokenizer


@dataclass(kw_only=True)
class XsrArguments(ModelArguments):
    """Which encoders, which sentences, and how they are compared."""

    model_name_or_path: list[str] = arg(
        default_factory=lambda: ["google-bert/bert-base-multilingual-cased"],
        aliases=["--model", "--models"],
        help="Encoder(s): Hub ids or local folders. Several are compared in one table and one figure.",
    )
    output_dir: str = arg(help="Folder for results, predictions and figure.")
    overwrite_output_dir: bool = arg(False, help="Write into --output_dir even if not empty.")
    eval_languages: list[str] = arg(
        default_factory=lambda: ["es", "ru", "vi", "hi"],
        help="Languages paired with English, by code; the paper's four by default.",
    )
    dataset_name: str = arg(
        "google/xtreme",
        help="Sentence pairs: a data set on the Hub or in a local folder. The default has Tatoeba in 36 "
        "languages, 1,000 pairs in most; others that work as they are: mteb/tatoeba-bitext-mining, data/xsr.",
    )
    dataset_config_name: str | None = arg(
        None,
        help="Its configuration; {language} stands for the language. Default: the first that there is of "
        "tatoeba.hin, hin-eng, hi, hi-en, en-hi (for hi).",
    )
    dataset_split: str | None = arg(None, help="Its split. Default: test, or else validation (as in XTREME).")
    source_column: str | None = arg(
        None, help="Column of the foreign sentences. Default: source_sentence, sentence1 …"
    )
    target_column: str | None = arg(
        None, help="Column of the English sentences. Default: target_sentence, sentence2 …"
    )
    source_file: list[str] | None = arg(
        None,
        help="Foreign sentences in a text file instead, one a line, also .gz; line i of it translates line i "
        "of --target_file. With several languages LANGUAGE=FILE each: hi=tatoeba.hi ru=tatoeba.ru.",
    )
    target_file: list[str] | None = arg(None, help="Their English translations, likewise.")
    max_samples: int | None = arg(
        None, help="Only the first so many pairs of a language. Fewer candidates are easier to tell apart."
    )
    layers: list[str] | None = arg(
        None,
        help="Hidden states to compare: `8`, `0 4 8` or `all`; 0 is the embeddings, -1 the last layer. "
        "Default: two thirds of the way up, that is 8 of 12, where translations lie closest as a rule.",
    )
    pooling: str = arg(
        "mean",
        help="A sentence's vector: the mean of all its tokens, special ones included, or the first token, cls.",
        choices=list(SENTENCE_POOLINGS),
    )
    distance: str = arg(
        "cosine",
        help="What `nearest` means; csls is the cosine made fair to sentences that are near to everything "
        "(Conneau et al., 2018).",
        choices=list(RETRIEVAL_DISTANCES),
    )
    per_device_eval_batch_size: int = arg(64, help="Sentences encoded at once per device.")
    max_seq_length: int | None = arg(
        None, help="Cut sentences after this many tokens. Default: what the encoder can take."
    )
    use_cpu: bool = arg(False, help="Leave the GPU alone.")
    bf16: bool = arg(False, help="Encode in bfloat16 (autocast): faster on recent GPUs.")


def main() -> None:
    # --- Arguments ---
    (args,) = parse_arguments(XsrArguments, description=__doc__)
    check_output_dir(args.output_dir, args.overwrite_output_dir)
    models = {label: args.find(name) for label, name in label_models(args.model_name_or_path).items()}
    # (Told of the CPU, several processes on it know of each other.)
    state = PartialState(cpu=args.use_cpu or not torch.accelerator.is_available())

    # --- Data; and whatever else can be wrong is found before an encoder is loaded ---
    with state.main_process_first():
        data = read_data(args)
        tokenizers = {label: load_tokenizer(name, **args.hub_options()) for label, name in models.items()}
        n_layers = {label: count_layers(name, **args.hub_options()) for label, name in models.items()}
    layers = {label: parse_layers(args.layers, n_layers[label]) for label in models}
    usual = {label: usual_layer(n_layers[label]) for label in models}

    # --- Encode and retrieve, one encoder after the other ---
    found: dict[str, dict[str, dict[int, Retrieval]]] = {}  # model → direction → layer
    combined = {}
    for label, name in models.items():
        encoder = load_encoder(name, **args.hub_options()).to(state.device)
        found[label] = {}
        for pairs in data:
            found[label] |= search(encoder, tokenizers[label], pairs, layers[label], args)
        if state.is_main_process:
            folder = Path(args.output_dir, label) if len(models) > 1 else Path(args.output_dir)
            # The predictions of one layer are kept.
            kept = usual[label] if usual[label] in layers[label] else layers[label][-1]
            results = write_outputs(folder, encoder, found[label], kept, data, args)
            combined |= {f"{label}/{key}": value for key, value in results.items()}

    # --- Compare ---
    if state.is_main_process:
        if len(models) > 1:
            write_json(Path(args.output_dir, "all_results.json"), combined)
            write_json(Path(args.output_dir, "run.json"), run_record([args], base_model=models))
        if any(len(chosen) > 1 for chosen in layers.values()):
            subject = label if len(models) == 1 else "Sentence retrieval"
            title = f"{subject} ({args.pooling} pooling, {args.distance})"
            plot_accuracy_by_layer(accuracy_curves(found), Path(args.output_dir, "accuracy_by_layer.png"), title)
        print(retrieval_table(found, usual))


def read_data(args: XsrArguments) -> list[SentencePairs]:
    """The sentence pairs of every language, from files if there are any, else from the data set."""
    if args.max_samples is not None and args.max_samples < 1:
        raise InputError(f"--max_samples {args.max_samples} leaves no sentence; give 1 or more.")
    languages = list(dict.fromkeys(args.eval_languages))
    source = paths_by_language(args.source_file, languages, "--source_file")
    target = paths_by_language(args.target_file, languages, "--target_file")
    data = []
    for language in languages:
        if source or target:
            why = f"{language} needs one file of its own sentences and one of their translations"
            require(len(source.get(language, [])) == 1, ["--source_file"], why)
            require(len(target.get(language, [])) == 1, ["--target_file"], why)
            pairs = read_sentence_files(language, source[language][0], target[language][0])
        else:
            part = (args.dataset_config_name, args.dataset_split, args.source_column, args.target_column)
            hub_options = {"cache_dir": args.cache_dir, "token": args.token}
            pairs = load_sentence_pairs(args.dataset_name, language, *part, **hub_options)
        if same := next((other.language for other in data if other.source == pairs.source), None):
            raise InputError(f"{same} and {language} have the same sentences; give each language its own.")
        data.append(pairs)
    return [pairs.first(args.max_samples) for pairs in data]


def search(
    encoder: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: SentencePairs,
    layers: Sequence[int],
    args: XsrArguments,
) -> dict[str, dict[int, Retrieval]]:
    """What the sentences of both languages find at each layer, by direction."""
    sentences = [*pairs.source, *pairs.english]
    progress = f"{Path(encoder.name_or_path).name}, {pairs.language}"
    how = (args.pooling, args.per_device_eval_batch_size, args.max_seq_length, progress)
    with torch.autocast(encoder.device.type, torch.bfloat16, enabled=args.bf16):
        vectors = encode_sentences(encoder, tokenizer, sentences, layers, *how)
    found = {direction: {} for direction in pairs.directions}
    for layer, of_layer in zip(layers, vectors):
        source, english = of_layer.to(encoder.device).split(len(pairs.source))
        for direction, queries, candidates in zip(pairs.directions, (source, english), (english, source)):
            found[direction][layer] = retrieve(queries, candidates, args.distance)
            found[direction][layer].query_spread = vector_spread(queries, args.distance)
    return found


def write_outputs(
    folder: Path,
    encoder: PreTrainedModel,
    found: Mapping[str, Mapping[int, Retrieval]],
    kept: int,
    data: Sequence[SentencePairs],
    args: XsrArguments,
) -> dict[str, Any]:
    """Write what one encoder found and how it was measured, and the predictions of the layer `kept`."""
    measured = {"model": encoder.name_or_path, "pooling": args.pooling, "distance": args.distance}
    results = {**measured, "predictions_layer": kept, **retrieval_metrics(found)}
    revision = args.commit(encoder.name_or_path)
    record = run_record([args], base_model=encoder.name_or_path, base_model_revision=revision, eval_data={})
    for pairs in data:
        results |= {f"{pairs.language}_{name}": fact for name, fact in pairs.facts.items()}
        record["eval_data"][pairs.language] = {**pairs.facts, "sha256": pairs.sha256}
        for direction in pairs.directions:
            rows = [{**row, "layer": kept, **measured, **pairs.facts} for row in found[direction][kept].rows()]
            write_json_lines(folder / "predictions" / f"{direction}.jsonl", rows)
    write_json(folder / "run.json", record)
    write_json(folder / "all_results.json", results)
    return results


if __name__ == "__main__":
    run_script(main)
