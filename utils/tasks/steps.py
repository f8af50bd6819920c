"""Steps of a task script that are the same for every task: labels, model, evaluation of all languages, publication."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from utils.alignment.causal import assume_for_causal
from utils.alignment.vocabulary import task_vocabulary_fit
from utils.alignment.words import WordTokenizer
from utils.core.arguments import default_of
from utils.core.columns import content_fingerprint
from utils.core.data_sets import full_name
from utils.core.errors import InputError
from utils.core.files import write_json_lines
from utils.core.next_steps import Command, command, free_folder, same_command, say_where
from utils.core.page import Section
from utils.core.records import run_record
from utils.core.romanization import in_place
from utils.evaluation.intervals import confidence_interval
from utils.models.adapters import with_lora
from utils.models.encoders import load_task_model, save_task_model
from utils.models.hub import nickname
from utils.models.layers import aligned_layers, encoder_of, freeze_layers
from utils.models.lineage import original_model
from utils.models.loading import load_config
from utils.models.tokenizers import encoder_max_length, load_tokenizer, sentence_length_limit
from utils.parallel.sides import ENGLISH
from utils.tasks.arguments import TaskArguments
from utils.tasks.examples import TaskExamples, TaskRows
from utils.tasks.published import note_on_published
from utils.tasks.registry import TaskSpec
from utils.tasks.report import changed_examples, read_baseline, scores_by_language
from utils.tasks.summary import language_table, summarize
from utils.tasks.zero_shot_trainer import ZeroShotTrainer
from utils.training.interruption import train_and_save
from utils.training.sharing import publish, recorded_results


logger = logging.getLogger(__name__)


def known_labels(args: TaskArguments, in_training: list[str] | None) -> list[str]:
    """The names of the classes, in the order of the model if it has the same ones, else of the training data.

    Raises:
        InputError: if nothing is trained (`in_training` is None) and the model has no labels.
    """
    config = load_config(args.model.model_name_or_path, **args.model.hub_options())
    of_model = [str(label) for _, label in sorted((config.id2label or {}).items())]
    if in_training is None and all(label.startswith("LABEL_") for label in of_model):
        raise _not_fine_tuned(args, ", or its classes have no names (write them to id2label in its config.json)")
    if in_training is None:
        return of_model
    named, order = {label.casefold(): label for label in in_training}, [label.casefold() for label in of_model]
    same = len(named) == len(in_training) and sorted(order) == sorted(named)
    return [named[label] for label in order] if same else in_training


def _not_fine_tuned(args: TaskArguments, why: str = "") -> InputError:
    model = f"The model {args.model.model_name_or_path} is not fine-tuned for {args.task.pipeline_tag}{why}"
    return InputError(f"{model}; add --do_train, or name another model.")


def load_model(args: TaskArguments, labels: Sequence[str] | None = None) -> tuple[Any, PreTrainedTokenizerBase]:
    """The task model, in fp32 and with --use_lora with an adapter, and its tokenizer.

    A head that the checkpoint lacks is initialized from `--seed`; `labels` are the names of its classes. What is aligned
    beside a causal task model is decided here (`assume_for_causal`), since frozen layers depend on it.

    Raises:
        InputError: if there is no such model, or if it lacks a head and is not trained.
    """
    name, options = args.model.model_name_or_path, args.model.hub_options()
    set_seed(args.training.seed)
    model, new = load_task_model(args.task.auto_class, name, labels, **options)
    if new and not args.training.do_train:
        raise _not_fine_tuned(args, f" (it lacks {min(new)})")
    layers = [-1]
    if (continual := args.continual).continual or args.tracking.track_alignment_every:
        assume_for_causal(continual, encoder_of(model))
    if continual.continual:
        encoder = encoder_of(model)
        lowest, *_ = aligned_layers(continual.alignment_layer, encoder.config.num_hidden_layers)
        freeze_layers(encoder, continual.freeze_layers, continual.freeze_embeddings, lowest)
        layers = [lowest, -1]  # (the task needs the last one)
    tokenizer = load_tokenizer(name, **options)
    if model.config.pad_token_id is None:  # (a causal model looks for the last token before the padding)
        model.config.pad_token_id = tokenizer.pad_token_id
    if not args.lora.use_lora:
        return model, tokenizer
    return with_lora(model, name, args.lora, args.model.commit(name), layers), tokenizer


def length_limit(wanted: int | None, usual: int, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> int:
    """Tokens of the longest input: `--max_seq_length`, or else what is usual for the task and possible for the model.

    Raises `InputError` if that is more than the model can take, or too little for a pair of words.
    """
    limit = sentence_length_limit(wanted or min(usual, encoder_max_length(tokenizer, model)), tokenizer, model)
    if limit < (shortest := tokenizer.num_special_tokens_to_add(pair=True) + 2):
        raise InputError(
            f"--max_seq_length {limit} leaves no room beside the special tokens; give {shortest} or more."
        )
    return limit


def train_and_evaluate(trainer: ZeroShotTrainer, rows: TaskRows, args: TaskArguments) -> dict[str, Any]:
    """Train and save the model, if asked; measure the sets of --do_eval and of --do_predict; write metrics, print tables.

    `predictions/LANGUAGE.jsonl` holds those of --do_predict, or else those of --do_eval; every line names its split.
    Returns what was found, for `run.json`: whether the training language is at chance, and how well the vocabulary fits.
    """
    facts: dict[str, Any] = {"at_chance": False}
    examples = {name: data.examples for name, data in (rows.validation | rows.test).items()}
    if folder := args.data.baseline_run:
        measured = {name: data.examples for name, data in (rows.test or rows.validation).items()}
        args.baseline = read_baseline(folder, args.task, "predict" if rows.test else "eval", measured)
    if examples and trainer.alignment is None:  # (else the pairs have been looked at)
        tokenizer: Any = trainer.processing_class
        facts["vocabulary"] = task_vocabulary_fit(WordTokenizer(tokenizer), examples)
    if args.training.do_train:
        train_and_save(trainer, args.checkpoint)
    parts = (("eval", rows.validation, args.data.validation_split), ("predict", rows.test, args.data.test_split))
    for prefix, sets, split in parts:
        if not sets:
            continue
        measured = trainer.evaluate_sets(sets, prefix)
        metrics = summarize(measured, prefix, list(sets), args.data.zero_shot(sets), args.task)
        trainer.log_metrics(prefix, metrics)
        trainer.save_metrics(prefix, metrics)
        if trainer.is_world_process_zero():
            for name, records in trainer.records.items():
                path = Path(str(trainer.args.output_dir), "predictions", f"{name}.jsonl")
                write_json_lines(path, ({**record, "split": split} for record in records))
            print(language_table(metrics, prefix, list(sets), args.task, args.data.shots()))
            if note := _published(args, prefix, list(sets), metrics):
                print(note)
            name = args.data.train_language
            if name in sets and (warning := at_chance(args.task, name, sets[name].examples, trainer.records[name])):
                logger.warning(warning)
                facts["at_chance"] = True
    return facts


def _published(args: TaskArguments, prefix: str, names: Sequence[str], metrics: Mapping[str, float]) -> str:
    """How the results of a whole run on the usual data compare with published ones; else an empty text."""
    data, training, model = args.data, args.training, args.model
    limits = (data.train_file, data.validation_file, data.test_file, data.max_train_samples, data.max_eval_samples)
    in_english_alone = training.do_train and data.trained_languages() == [ENGLISH]
    others = data.max_predict_samples or in_place(args.parallel.romanize)
    named = ("dataset_name", "dataset_config_name", "train_split", "validation_split", "test_split")
    own_data = any(
        full_name(str(getattr(data, item.name))) != full_name(str(default_of(item)))
        for item in fields(data)
        if item.name in named
    )
    if not in_english_alone or training.max_steps > 0 or any(limits) or others or own_data:
        return ""
    data_set = full_name(str(data.eval_dataset_name or data.dataset_name))
    original, _ = original_model(model.model_name_or_path, **model.hub_options())
    scores = {
        metric: {name: 100 * metrics[f"{prefix}_{name}_{metric}"] / best for name in names}
        for metric, best in args.task.metrics.items()
    }
    return note_on_published(args.task.name, data_set, original, scores)


def at_chance(task: TaskSpec, name: str, examples: Dataset, records: Sequence[Mapping[str, Any]]) -> str:
    """A warning if the predictions for a set are not significantly better than `task.chance`; else an empty text."""
    metric, chance = task.selection_metric, task.chance.score(examples)
    low, high = confidence_interval([task.score_prediction(record)[metric] for record in records])
    if low > chance:
        return ""
    return (
        f"{name} is at chance: {metric} is between {100 * low:.1f} and {100 * high:.1f} (95 % interval), and {task.chance.strategy} "
        f"would give {100 * chance:.1f}. The model has not learned the task, so that comparisons with it mean nothing."
    )


def publish_task_model(
    trainer: ZeroShotTrainer, args: TaskArguments, examples: TaskExamples, facts: Mapping[str, Any]
) -> None:
    """Write `run.json` (with the fingerprints of the examples, and `facts`) and the model's card; push them if asked.

    With --merge_adapter the merged model replaces the adapter in the output folder.
    """
    model, task, continual = args.model, args.task, args.continual.continual
    if args.lora.merge_adapter and trainer.is_world_process_zero():
        folder = str(args.training.output_dir)
        merged, _ = load_task_model(task.auto_class, folder, **model.hub_options())
        save_task_model(merged, folder)
    pairs = [args.parallel, args.links, args.continual]
    record = run_record(
        [model, args.data, *pairs, args.tracking, args.lora, args.training],
        unused=[*([] if args.lora.use_lora else [args.lora]), *([] if continual else pairs)],
        but=["romanize"] if args.parallel.romanize else [],  # (of the examples)
        task_name=task.name,
        task=task.pipeline_tag,
        title=task.title,
        metrics=list(task.metrics),
        auto_class=task.auto_class.__name__,
        regime="continual" if continual else "plain",
        word_links=args.links.source if continual and args.continual.needs_links else None,
        base_model=model.model_name_or_path,
        base_model_revision=model.commit(model.model_name_or_path),
        seed=args.training.seed,
        zero_shot=args.data.zero_shot(args.data.set_names()),
        **(_fingerprints(examples) if trainer.is_world_process_zero() else {}),
        **facts,
    )
    sections = _report_sections(trainer, args, examples) if trainer.is_world_process_zero() else []
    publish(trainer, record, sections, **args.hub_options)
    if trainer.is_world_process_zero():
        say_where(str(args.training.output_dir), *_next_commands(args))


def _next_commands(args: TaskArguments) -> Iterator[Command]:
    """The same run without adjustment, or with it, and the comparison of both."""
    model, out, script = args.model.model_name_or_path, Path(str(args.training.output_dir)), f"run_{args.task.name}"
    original, _ = original_model(model, **args.model.hub_options())
    foreign = [name for name in args.data.languages() if name != ENGLISH]
    evaluated = ["--eval_languages", *args.data.eval_languages] if args.data.assumes_languages else []
    if not args.training.do_train or not foreign:
        return
    if original != model:
        run, baseline = str(out), free_folder(f"{out}-original")
        yield same_command(script, original, baseline, *evaluated)
    else:
        adjusted = free_folder(f"runs/{nickname(model)}-{'-'.join(foreign)}")
        run, baseline = free_folder(f"{out}-adjusted"), str(out)
        yield command("run_align", "--model", model, "--languages", *foreign, "--output_dir", adjusted)
        yield same_command(script, adjusted, run, *evaluated)
    comparison = free_folder(f"{out}-comparison")
    yield command("compare_runs", run, baseline, "--baseline", baseline, "--output_dir", comparison)


def _report_sections(trainer: ZeroShotTrainer, args: TaskArguments, examples: TaskExamples) -> list[Section]:
    """The sets that were measured last, and what the baseline predicts differently there."""
    prefix, sets = ("predict", examples.test) if examples.test else ("eval", examples.validation)
    if not sets:
        return []
    results, now = recorded_results(Path(str(args.training.output_dir))), trainer.records
    sections = scores_by_language(args.task, results, prefix, now)
    return sections + changed_examples(args.task, sets, now, args.baseline, str(args.data.baseline_run))


def _fingerprints(examples: TaskExamples) -> dict[str, Any]:
    """Number of examples and SHA-256 of their content."""
    train, validation, test = (
        {name: {"examples": len(some), "sha256": content_fingerprint(some)} for name, some in sets.items() if some}
        for sets in ({"": examples.train}, examples.validation, examples.test)
    )
    return {"train_data": train.get(""), "eval_data": validation, "predict_data": test}
