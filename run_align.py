#!/usr/bin/env python
"""Adjust a multilingual encoder on a parallel corpus, so that translated words get similar vectors.

    python run_align.py --model google-bert/bert-base-multilingual-cased --language hi \\
        --parallel_dataset sentence-transformers/parallel-sentences-wikimatrix \\
        --do_train --do_eval --validation_split_percentage 2 --output_dir aligned-mbert-hi

Linked words of the two sides are pulled together in the last hidden layer, while English words are kept where the
original encoder has them (Cao et al., ICLR 2020; Efimov et al., ECIR 2023). The defaults are the paper's. The
adjusted encoder loads wherever the original did, and keeps every weight of its checkpoint.
"""

from utils.core.kept_help import show_kept_help


if __name__ == "__main__":
    show_kept_help(__file__)  # (the imports below take seconds)

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

import torch
from torch import nn
from transformers import PreTrainedModel, set_seed

from utils.alignment.causal import assume_for_causal
from utils.alignment.language_sampling import LanguageSamplingArguments
from utils.alignment.losses import AlignmentLoss
from utils.alignment.objectives import AlignmentArguments
from utils.alignment.pairs import AlignmentCollator, PairEncoder
from utils.alignment.vocabulary import vocabulary_fit
from utils.alignment.words import WordTokenizer
from utils.core.arguments import announce, arg, check_unused, parse_arguments
from utils.core.errors import InputError, run_script
from utils.core.files import write_json_lines
from utils.core.next_steps import Command, command, say_where
from utils.core.records import ALIGNMENT, run_record
from utils.core.romanization import check_romanized
from utils.models.adapters import LoraArguments, with_lora, without_adapter
from utils.models.encoders import check_same_kind, load_encoder, save_encoder
from utils.models.hub import MBERT, ModelArguments, nickname
from utils.models.layers import aligned_layers, freeze_layers, freeze_unused_parameters, parse_layers
from utils.models.tokenizers import load_tokenizer, sentence_length_limit
from utils.parallel.aligners.registry import AlignerArguments
from utils.parallel.arguments import ParallelDataArguments
from utils.parallel.corpus import HELD_OUT_SEED, ChosenPairs, ParallelCorpus
from utils.parallel.data_sets import check_held_out
from utils.parallel.linking import check_links_to_write
from utils.parallel.sides import ENGLISH
from utils.training.alignment_trainer import AlignmentTrainer
from utils.training.arguments import AlignTrainingArguments
from utils.training.checkpoints import checkpoint_to_resume
from utils.training.interruption import train_and_save
from utils.training.relinking import Relinker, check_realigning
from utils.training.sharing import check_push, publish
from utils.training.word_report import alignment_sections


WIKIMATRIX = "sentence-transformers/parallel-sentences-wikimatrix"


@dataclass
class AlignModelArguments(ModelArguments):
    """The encoder to adjust, and the one with which it is compared."""

    reference_model: str | None = arg(
        None,
        help="The frozen encoder f0, with which English words are compared and `--aligner encoder` links words. Default: "
        "--model before training. Name the original here to measure an adjusted model with --do_eval.",
    )
    dtype: str = arg(
        "float32",
        help="Type of the encoder's weights. With bfloat16 they take half the memory; they must be frozen (--use_lora), for "
        "small steps of training would be rounded away. Matrices of adapters and losses are in float32.",
        choices=["float32", "bfloat16"],
        hyperparameter=True,
    )


@dataclass
class AlignDataArguments(ParallelDataArguments):
    """The parallel sentences, and which of them are held out."""

    parallel_dataset: str | None = arg(
        None,
        aliases=["--dataset_name"],
        help="Parallel corpus: a data set on the Hub or in a local folder, for example Helsinki-NLP/opus-100 or "
        f"data/parallel. Default: {WIKIMATRIX}, if there is no --parallel_file.",
    )
    parallel_config: str | None = arg(
        None,
        aliases=["--dataset_config_name"],
        help="Its configuration; {language} stands for the language. Default: the first that exists of en-{language}, "
        "{language}-en, {language}.",
    )
    validation_file: list[str] | None = arg(None, help="Held-out pairs for --do_eval, in a format of --parallel_file.")
    validation_links_file: list[str] | None = arg(
        None, help="Word links of the held-out pairs. Default: the aligner's."
    )
    validation_split: str | None = arg(None, help="Held-out pairs are this split of --parallel_dataset.")
    validation_split_percentage: float | None = arg(
        None,
        help="Hold out about this percent of the corpus instead: the same English sentences (or of --anchor_language) in every run "
        "and language, however they are split into words and linked.",
        above=0,
        below=100,
    )
    max_eval_pairs: int | None = arg(5000, help="Measure on at most this many pairs per language.", at_least=1)
    eval_layers: list[int] = arg(default_factory=list, help="Also measure word retrieval at hidden states: 0 4 8 12.")
    overwrite_output_dir: bool = arg(False, help="Write to an --output_dir that is not empty, and over --write_links.")

    def __post_init__(self) -> None:
        super().__post_init__()
        ways = ("validation_file", "validation_split", "validation_split_percentage")
        self.held_out_by = [f"--{name}" for name in ways if getattr(self, name)]
        if len(self.held_out_by) > 1:
            raise InputError(f"{' and '.join(self.held_out_by)} both choose the held-out pairs; give one of them.")
        if self.validation_links_file and not (self.validation_file or self.validation_split):
            raise InputError("--validation_links_file belongs to --validation_file, which is missing; give both.")


@dataclass
class AdjustmentArguments(AlignmentArguments, LanguageSamplingArguments):
    """Which words are pulled together, how, and in which layers."""

    max_seq_length: int | None = arg(
        None,
        help="Cut sentences after this many tokens. Default: what the encoder can take.",
        hyperparameter=True,
        at_least=1,
    )
    realign_every: int = arg(
        0,
        help="With --aligner encoder: every N optimizer steps link the words of the training pairs anew, with the encoder as it "
        "is then (0: never). Pairs and batches stay the same ones.",
        hyperparameter=True,
        variant=True,
        at_least=0,
    )


@dataclass
class Arguments:
    """All arguments of a run, by group."""

    model: AlignModelArguments
    data: AlignDataArguments
    links: AlignerArguments
    alignment: AdjustmentArguments
    lora: LoraArguments
    training: AlignTrainingArguments


def check_arguments(args: Arguments) -> None:
    """Raise `InputError` if arguments of different groups contradict each other."""
    model, data, training, alignment = args.model, args.data, args.training, args.alignment
    if training.do_predict:
        raise InputError(
            "--do_predict does nothing in an adjustment; leave it out, or measure held-out pairs by --do_eval."
        )
    if not alignment.weights.losses():
        raise InputError(
            "--alignment_weight and --regularization_weight are both 0; nothing can be learned or measured."
        )
    alignment.check_sampling(list(data.directions), alignment.weights.losses(), training.train_sampling_strategy)
    if training.trains and model.dtype != "float32" and not args.lora.use_lora:
        raise InputError(
            f"--dtype {model.dtype} would round small steps of training away; add --use_lora, which freezes the weights, or "
            "use --bf16, which only computes in bfloat16."
        )
    if training.do_eval != bool(data.held_out_by):
        given, missing = data.held_out_by or ["--do_eval"], "held-out pairs" if training.do_eval else "--do_eval"
        raise InputError(f"{given[0]} does nothing without {missing}; give both (held-out pairs: --validation_file).")
    if args.lora.merge_adapter and not training.trains:
        raise InputError(
            "--merge_adapter merges an adapter that was trained, and nothing is; add --do_train, or omit it."
        )
    check_romanized(data.romanize, data.languages)
    check_realigning(alignment.realign_every, args.links, bool(training.trains and alignment.weights.alignment))
    if not (alignment.needs_links or training.do_eval):
        check_unused(args.links, "alignment_unit word")
    args.links.check_links_files(data.validation_links_file, bool(training.trains and alignment.needs_links))
    args.lora.check_embeddings(alignment.freeze_embeddings)
    check_links_to_write(args.links, list(data.directions), data.overwrite_output_dir)


def complete_arguments(args: Arguments) -> None:
    """Decide what the command line does not say, announce it, and find the models."""
    model, data, training = args.model, args.data, args.training
    training.do_train = training.trains
    assumed = {"--model": MBERT} if model.model_name_or_path == MBERT else {}
    if not (data.parallel_dataset or data.parallel_file) and (training.do_train or not data.validation_file):
        data.parallel_dataset = assumed["--parallel_dataset"] = WIKIMATRIX
    to_anchor = [] if data.anchor_language == ENGLISH else ["to", data.anchor_language]
    assumed |= training.assume_output_dir("-".join([nickname(model.model_name_or_path), *data.languages, *to_anchor]))
    announce(assumed)
    model.model_name_or_path = model.find(model.model_name_or_path)
    if model.reference_model:
        model.reference_model = model.find(model.reference_model, "main")


def load_encoders(args: Arguments) -> tuple[PreTrainedModel, PreTrainedModel]:
    """The encoder to adjust (f), with the parameters frozen that are not trained, and the frozen encoder (f0)."""
    model, alignment = args.model, args.alignment
    dtype = getattr(torch, model.dtype)
    encoder = load_encoder(model.model_name_or_path, dtype, **model.hub_options())
    assume_for_causal(alignment, encoder)
    alignment.alignment_layer = aligned_layers(alignment.alignment_layer, encoder.config.num_hidden_layers)
    is_shared = args.lora.use_lora or not args.training.do_train
    reference = encoder if is_shared else copy.deepcopy(encoder)
    if model.reference_model:
        reference = load_encoder(model.reference_model, dtype, **{**model.hub_options(), "revision": "main"})
        check_same_kind(encoder, reference)
    freeze_unused_parameters(encoder, alignment.alignment_layer[-1])
    freeze_layers(encoder, alignment.freeze_layers, alignment.freeze_embeddings, alignment.alignment_layer[0])
    return encoder, reference.to(args.training.device)  # type: ignore[arg-type]  # (its annotation is wrong)


def read_pairs(
    args: Arguments, encode: PairEncoder, reference: PreTrainedModel
) -> tuple[ChosenPairs | None, ChosenPairs | None]:
    """The pairs to train on, and those to measure on: read, linked, chosen and encoded."""
    data, links, training, words = args.data, args.links, args.training, encode.word_tokenizer
    hub_options = {"cache_dir": args.model.cache_dir, "token": args.model.token}
    read = partial(ParallelCorpus.read, data, words.tokenizer, words.word_pooling, hub_options=hub_options)
    corpus = held_out = train_pairs = eval_pairs = None
    if training.do_train or data.validation_split_percentage:
        corpus = read(data.parallel_file, links.links_file)
    if data.validation_file or data.validation_split:
        files, split = data.validation_file, data.validation_split
        held_out = read(files, data.validation_links_file, "validation", dataset_split=split, like=corpus)
        if corpus:
            check_held_out(held_out.pairs, corpus.pairs, "--validation_file" if files else "--validation_split")
    linked, linked_held_out = (part and part.linkable(links, reference, words) for part in (corpus, held_out))
    if training.should_save and (written := linked or linked_held_out):
        written.write_links(links)
    if linked and data.validation_split_percentage:
        linked, linked_held_out = linked.split(data.validation_split_percentage / 100)
    if linked and training.do_train:
        linked = linked if args.alignment.needs_links else linked.unlinked()
        train_pairs = linked.choose(data.max_words, data.max_train_pairs, training.seed, encode)
    if linked_held_out and training.do_eval:
        eval_pairs = linked_held_out.choose(data.max_words, data.max_eval_pairs, HELD_OUT_SEED, encode)
    return train_pairs, eval_pairs


def add_adapter(args: Arguments, encoder: PreTrainedModel, reference: PreTrainedModel) -> tuple[nn.Module, Callable]:
    """What is trained, and what it is compared with: with --use_lora an adapter on f, which is f0 without it."""
    name, seed = args.model.model_name_or_path, args.training.seed
    if not args.lora.use_lora:
        return encoder, reference
    set_seed(seed)  # (the adapter is initialized at random, whatever has drawn numbers before)
    trained = with_lora(encoder, name, args.lora, args.model.commit(name), args.alignment.alignment_layer)
    return trained, reference if args.model.reference_model else without_adapter(trained)


def share(args: Arguments, trainer: AlignmentTrainer, used: Mapping[str, ChosenPairs | None], **facts: Any) -> None:
    """Merge the adapter if asked; write `run.json`, with the facts, the report and the model's card; push them if asked."""
    model, training = args.model, args.training
    if args.lora.merge_adapter and training.should_save:
        folder = str(training.output_dir)
        save_encoder(load_encoder(folder, **model.hub_options()), folder)
    record = run_record(
        list(vars(args).values()),
        unused=[] if args.lora.use_lora else [args.lora],
        task=ALIGNMENT,
        metrics=["word_retrieval_accuracy"],
        auto_class="AutoModel",
        base_model=model.model_name_or_path,
        base_model_revision=model.commit(model.model_name_or_path),
        reference_model=model.reference_model or model.model_name_or_path,
        word_links=args.links.source if args.alignment.needs_links else None,
        seed=training.seed,
        **facts,
    )
    record |= {name: pairs and pairs.fingerprints() for name, pairs in used.items()}
    sections = alignment_sections(trainer, used["eval_data"])
    publish(trainer, record, sections, cache_dir=model.cache_dir, token=model.token)


def next_commands(args: Arguments) -> list[Command]:
    """Measure sentences before and after, and fine-tune; or adjust what was only measured."""
    model, folder = args.model.model_name_or_path, args.training.output_dir
    if not args.training.do_train:
        return [command("run_align", "--model", model, "--languages", *args.data.languages)]
    return [command("run_xsr", "--models", model, folder), command("run_ner", "--model", folder)]


def main() -> None:
    # --- Arguments ---
    groups = parse_arguments(
        *get_type_hints(Arguments).values(),
        description=__doc__,
        check=lambda *groups: check_arguments(Arguments(*groups)),
    )
    args = Arguments(*groups)
    complete_arguments(args)
    data, alignment, training = args.data, args.alignment, args.training
    checkpoint = checkpoint_to_resume(training, data.overwrite_output_dir)
    check_push(training)
    set_seed(training.seed)

    # --- Model: the encoder to adjust (f), and the frozen one with which its English words are compared (f0) ---
    tokenizer = load_tokenizer(args.model.model_name_or_path, **args.model.hub_options())
    encoder, reference = load_encoders(args)
    eval_layers = data.eval_layers and parse_layers(
        data.eval_layers, encoder.config.num_hidden_layers, "--eval_layers"
    )

    # --- Data: parallel sentences, and links between their words ---
    max_length = sentence_length_limit(alignment.max_seq_length, tokenizer, encoder)
    words = WordTokenizer(tokenizer, alignment.word_pooling, max_length)
    with training.main_process_first(desc="preparing the pairs"):
        encode = PairEncoder(words, alignment.include_special_tokens)
        train_pairs, eval_pairs = read_pairs(args, encode, reference)
    used = {"train_data": train_pairs, "eval_data": eval_pairs}
    fit = vocabulary_fit(words, next(pairs.pairs for pairs in used.values() if pairs), data.directions)

    # --- Train ---
    trained, frozen = add_adapter(args, encoder, reference)
    relinker = None
    if alignment.realign_every and train_pairs:
        relinker = Relinker(alignment.realign_every, train_pairs.pairs, encode, args.links)
    trainer = AlignmentTrainer(
        model=trained,
        args=training,
        alignment_loss=AlignmentLoss(alignment.objective(), frozen, alignment.alignment_layer, alignment.weights),
        sampling=alignment.sampling,
        anchor=data.anchor_language,
        eval_layers=tuple(eval_layers),
        relinker=relinker,
        data_collator=AlignmentCollator(
            tokenizer.pad_token_id or 0, 8 if training.bf16 else None, list(data.directions)
        ),
        train_dataset=train_pairs.all_rows if train_pairs else None,
        eval_dataset=eval_pairs.rows if eval_pairs else None,
        processing_class=tokenizer,
    )
    if training.do_train:
        train_and_save(trainer, checkpoint)

    # --- Evaluate ---
    if training.do_eval:
        metrics = trainer.evaluate()
        trainer.log_metrics("eval", metrics)
        trainer.save_metrics("eval", metrics)
        for direction, found in trainer.word_predictions.items() if training.should_save else ():
            write_json_lines(Path(str(training.output_dir), "predictions", f"{direction}.jsonl"), found)

    # --- Share ---
    share(args, trainer, used, vocabulary=fit)
    if training.should_save:
        say_where(str(training.output_dir), *next_commands(args))


if __name__ == "__main__":
    run_script(main)
