#!/usr/bin/env python
"""Cross-lingual sentence retrieval: how often is the nearest sentence the translation? No training.

    python run_xsr.py --model google-bert/bert-base-multilingual-cased --eval_languages hi ru --output_dir xsr

A sentence's vector is the mean of its tokens in one layer; its nearest neighbour is sought among all sentences of the
other language, in both directions: `hi-en` queries with Hindi, as the code of Efimov et al. (ECIR 2023) does, `en-hi`
with English, as XTREME does.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset, Features, Value
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.hf_argparser import HfArg

from utils.arguments import ModelArguments, parse_arguments, require
from utils.bitext import content_fingerprint, load_bitext, paths_by_language, read_bitext
from utils.encoders import load_encoder, load_tokenizer
from utils.errors import InputError, run_script
from utils.plots import plot_by_layer
from utils.records import check_output_dir, run_record, write_json, write_json_lines, write_results
from utils.retrieval import (
    DISTANCES,
    SENTENCE_POOLING,
    Retrieval,
    choose_layers,
    encode_sentences,
    retrieve,
)


# XTREME's Tatoeba names languages by three letters, and three of them differently from ISO 639-3.
TATOEBA = "google/xtreme"
TATOEBA_CODES = {
    "af": "afr", "ar": "ara", "bg": "bul", "bn": "ben", "de": "deu", "el": "ell", "es": "spa", "et": "est",
    "eu": "eus", "fa": "pes", "fi": "fin", "fr": "fra", "he": "heb", "hi": "hin", "hu": "hun", "id": "ind",
    "it": "ita", "ja": "jpn", "jv": "jav", "ka": "kat", "kk": "kaz", "ko": "kor", "ml": "mal", "mr": "mar",
    "nl": "nld", "pt": "por", "ru": "rus", "sw": "swh", "ta": "tam", "te": "tel", "th": "tha", "tl": "tgl",
    "tr": "tur", "ur": "urd", "vi": "vie", "zh": "cmn",
}  # fmt: skip


@dataclass
class XsrModelArguments(ModelArguments):
    """Which encoders."""

    models: list[str] = field(
        default_factory=list, metadata={"help": "Several encoders to compare, instead of --model."}
    )


@dataclass
class XsrArguments:
    """What is retrieved, and how."""

    eval_languages: list[str] = field(
        default_factory=list, metadata={"help": "Languages to pair with English: hi ru."}
    )
    dataset_name: str = field(
        default=TATOEBA,
        metadata={
            "help": "Sentence pairs on the Hub or in a local folder (data/xsr). The default is Tatoeba as XTREME has "
            "it; mteb/tatoeba-bitext-mining with --dataset_config_name hin-eng has more languages."
        },
    )
    dataset_config_name: str | None = field(
        default=None, metadata={"help": "Configuration of the data set; {language} stands for the language."}
    )
    dataset_split: str | None = field(default=None, metadata={"help": "Default: test, or else validation."})
    source_column: str | None = field(default=None, metadata={"help": "Column of the foreign sentences."})
    target_column: str | None = field(default=None, metadata={"help": "Column of the English sentences."})
    source_file: list[str] | None = field(
        default=None,
        metadata={
            "help": "Foreign sentences in a file, one a line, instead of a data set; with several languages "
            "LANGUAGE=FILE each. A file with both sides (.tsv, .jsonl, …, see run_align.py) needs no --target_file."
        },
    )
    target_file: list[str] | None = field(
        default=None, metadata={"help": "English sentences: line i translates line i of --source_file."}
    )
    max_samples: int | None = field(default=None, metadata={"help": "Use only the first so many pairs."})
    layers: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Hidden states to take sentence vectors from: numbers (0 the embeddings, -1 the last layer), or "
            "`all`. Default: two thirds up, layer 8 of 12, the usual one."
        },
    )
    pooling: str = field(
        default="mean",
        metadata={"help": "A sentence's vector: mean of all its tokens, or the first.", "choices": SENTENCE_POOLING},
    )
    distance: str = field(
        default="cosine", metadata={"help": "What nearest means; csls corrects for hubs.", "choices": DISTANCES}
    )
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Sentences encoded at once per device."})
    max_seq_length: int | None = field(default=None, metadata={"help": "Cut sentences after this many tokens."})
    bf16: bool = field(default=False, metadata={"help": "Encode under bfloat16 autocast."})
    use_cpu: bool = field(default=False, metadata={"help": "Do not use an accelerator."})
    output_dir: str = HfArg(default="xsr", help="Where results, predictions and the figure go.")
    overwrite_output_dir: bool = field(default=False, metadata={"help": "Write into --output_dir even if not empty."})


SENTENCES = Features({"source": Value("string"), "english": Value("string")})


def main() -> None:
    # --- Arguments ---
    model, xsr = parse_arguments(XsrModelArguments, XsrArguments, description=__doc__)
    require(xsr.eval_languages, ["--eval_languages"], "say which languages to pair with English, for example hi ru")
    check_output_dir(xsr.output_dir, xsr.overwrite_output_dir)
    state = PartialState(cpu=xsr.use_cpu)

    # --- Data: sentences and their translations ---
    pairs = read_sentences(xsr, cache_dir=model.cache_dir, token=model.token)

    # --- Encode and retrieve: one pass of a model serves all layers ---
    names = model.models or [model.model_name_or_path]
    results = {}
    for name, label in zip(names, distinct_labels(names)):
        encoder = load_encoder(name, **model.hub_options()).to(state.device)
        tokenizer = load_tokenizer(name, **model.hub_options())
        layers = choose_layers(xsr.layers, encoder.config.num_hidden_layers)
        usual = choose_layers([], encoder.config.num_hidden_layers)[0]
        results[label] = ModelResults(name, getattr(encoder.config, "_commit_hash", None), layers, usual)
        for language, sentences in pairs.items():
            source = encode(encoder, tokenizer, sentences["source"], layers, xsr, state)
            english = encode(encoder, tokenizer, sentences["english"], layers, xsr, state)
            for layer, source_vectors, english_vectors in zip(layers, source, english):
                results[label].add(f"{language}-en", layer, retrieve(source_vectors, english_vectors, xsr.distance))
                results[label].add(f"en-{language}", layer, retrieve(english_vectors, source_vectors, xsr.distance))

    # --- Report ---
    if state.is_main_process:
        write_reports(results, xsr, model, pairs)
        print(table(results))


# --- Data ---


def read_sentences(xsr: XsrArguments, **hub_options: Any) -> dict[str, Dataset]:  # noqa: ANN401
    """By language, columns `source` and `english` with a sentence each."""
    sources = paths_by_language(xsr.source_file, xsr.eval_languages, "--source_file")
    targets = paths_by_language(xsr.target_file, xsr.eval_languages, "--target_file")
    pairs = {}
    for language in xsr.eval_languages:
        columns = {"source_column": xsr.source_column, "english_column": xsr.target_column}
        if xsr.source_file:
            require(sources.get(language), [f"--source_file {language}=FILE"], f"there is no file for {language}")
            files = [*sources[language], *targets.get(language, [])]
            bitext = read_bitext(files, language, whole_sentence, "sentences", **columns)
        else:
            config = xsr.dataset_config_name
            if config is None and xsr.dataset_name == TATOEBA:
                code = TATOEBA_CODES.get(language)
                require(code, [f"A Tatoeba set for {language}"], "name it by --dataset_name and --dataset_config_name")
                config = f"tatoeba.{code}"
            splits = xsr.dataset_split or ("test", "validation")
            bitext = load_bitext(xsr.dataset_name, language, whole_sentence, config, splits, **columns, **hub_options)
        bitext = bitext.map(lambda pair: {side: pair[side][0].strip() for side in pair}, features=SENTENCES)
        bitext = bitext.filter(lambda pair: pair["source"] and pair["english"])
        pairs[language] = bitext.select(range(min(len(bitext), xsr.max_samples or len(bitext))))
    return pairs


def whole_sentence(sentence: str) -> list[str]:
    """Sentences are not split into words here."""
    return [sentence]


def distinct_labels(names: list[str]) -> list[str]:
    """Short names of the models for tables and folders: as many last parts of the path as tell them apart."""
    parts = [Path(name).parts for name in names]
    for n_parts in range(1, max(map(len, parts)) + 1):
        labels = ["-".join(part[-n_parts:]).strip("/") for part in parts]
        if len(set(labels)) == len(labels):
            return labels
    raise InputError(f"--models names the same model twice: {' '.join(names)}; give each once.")


# --- Encoding ---


def encode(
    encoder: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sentences: list[str],
    layers: list[int],
    xsr: XsrArguments,
    state: PartialState,
) -> torch.Tensor:
    """Vectors [layers, sentences, dimensions]; each process encodes its share."""
    autocast = torch.autocast(state.device.type, torch.bfloat16) if xsr.bf16 else nullcontext()
    with state.split_between_processes(list(sentences)) as share, autocast:
        vectors = encode_sentences(
            encoder, tokenizer, share, layers, xsr.pooling, xsr.per_device_eval_batch_size, xsr.max_seq_length
        )
    return torch.cat(gather_object([vectors]), dim=1).to(state.device)


# --- Reports ---


@dataclass
class ModelResults:
    """What one model found, by direction (`hi-en`, the querying language first) and layer."""

    name: str
    revision: str | None
    layers: list[int]
    usual_layer: int
    found: dict[str, dict[int, Retrieval]] = field(default_factory=dict)

    def add(self, direction: str, layer: int, retrieval: Retrieval) -> None:
        self.found.setdefault(direction, {})[layer] = retrieval

    def metrics(self) -> dict[str, float]:
        """`hi-en_layer8_accuracy`, `hi-en_layer8_mrr`, …"""
        return {
            f"{direction}_layer{layer}_{name}": getattr(retrieval, name)
            for direction, by_layer in self.found.items()
            for layer, retrieval in by_layer.items()
            for name in ("accuracy", "mrr")
        }

    def accuracies(self, direction: str) -> dict[int, float]:
        """By layer."""
        return {layer: retrieval.accuracy for layer, retrieval in self.found[direction].items()}

    def predictions(self, direction: str) -> Iterator[dict[str, Any]]:
        """One row for every query, at the usual layer if it was measured, else at the first that was."""
        layer = self.usual_layer if self.usual_layer in self.layers else self.layers[0]
        retrieval = self.found[direction][layer]
        columns = (retrieval.nearest.tolist(), retrieval.score.tolist(), retrieval.rank.tolist())
        for number, (nearest, score, rank) in enumerate(zip(*columns)):
            yield {"id": number, "gold": number, "prediction": nearest, "score": score, "rank": rank, "layer": layer}


def write_reports(
    results: dict[str, ModelResults], xsr: XsrArguments, model: ModelArguments, pairs: dict[str, Dataset]
) -> None:
    """Results and predictions, for several models in a folder each; the record of the run; a figure."""
    several = len(results) > 1
    settings = {name: getattr(xsr, name) for name in ("pooling", "distance", "dataset_name", "dataset_split")}
    settings |= {"dataset_name": None, "source_file": xsr.source_file} if xsr.source_file else {}
    together = {}
    for label, result in results.items():
        folder = Path(xsr.output_dir, label if several else "")
        write_results(folder, {**result.metrics(), **settings, "model": result.name})
        for direction in result.found:
            write_json_lines(folder / "predictions" / f"{direction}.jsonl", result.predictions(direction))
        together |= {f"{label}/{name}": value for name, value in result.metrics().items()}
    if several:
        write_results(xsr.output_dir, {**together, **settings})
    data = {k: {"pairs": len(bitext), "sha256": content_fingerprint(bitext)} for k, bitext in pairs.items()}
    revisions = {result.name: result.revision for result in results.values()}
    write_json(Path(xsr.output_dir, "run.json"), run_record([model, xsr], models=revisions, eval_data=data))
    if any(len(result.layers) > 1 for result in results.values()):
        directions = next(iter(results.values())).found
        panels = {d: {label: r.accuracies(d) for label, r in results.items()} for d in directions}
        path = Path(xsr.output_dir, "accuracy_by_layer.png")
        plot_by_layer(panels, path, "Sentence retrieval (query language first)")
        print(f"Figure: {path}")


def table(results: dict[str, ModelResults]) -> str:
    """A row for every model and direction: accuracy and MRR at the usual layer (or the one asked for), and the best."""
    width = max(len(label) for label in results)
    lines = [f"{'model':<{width}}  query  layer  accuracy     MRR   best layer  accuracy"]
    for label, result in results.items():
        layer = result.usual_layer if result.usual_layer in result.layers else result.layers[0]
        for direction, by_layer in result.found.items():
            accuracies = result.accuracies(direction)
            best = max(accuracies, key=accuracies.get)
            at = f"{layer:>5}  {accuracies[layer]:>7.1%}  {by_layer[layer].mrr:>7.3f}"
            lines.append(f"{label:<{width}}  {direction:<5}  {at}  {best:>11}  {accuracies[best]:>7.1%}")
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main)
