"""Steps of a task script that are the same for every task: labels, model, evaluation of all languages, publication."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from utils.core.errors import InputError
from utils.core.files import write_json_lines
from utils.core.records import run_record
from utils.core.result_tables import ResultTable
from utils.models.adapters import with_lora
from utils.models.encoders import load_task_model, save_task_model
from utils.models.loading import load_config
from utils.models.tokenizers import encoder_max_length, load_tokenizer, sentence_length_limit
from utils.tasks.arguments import TaskArguments
from utils.tasks.examples import LanguageData, TaskExamples, TaskRows
from utils.tasks.registry import TaskSpec
from utils.tasks.zero_shot_trainer import ZeroShotTrainer
from utils.training.sharing import publish


def known_labels(args: TaskArguments, task: TaskSpec, in_training: list[str] | None) -> list[str]:
    """The names of the classes, in the order of the model if it has the same ones, else of the training data.

    Args:
        args: of the run.
        task: entry of the registry.
        in_training: labels of the training data; None if nothing is trained.

    Raises:
        InputError: if nothing is trained and the model has no labels.
    """
    name = args.model.model_name_or_path
    config = load_config(name, **args.model.hub_options())
    of_model = [str(label) for _, label in sorted((config.id2label or {}).items())]
    if in_training is None and all(label.startswith("LABEL_") for label in of_model):
        raise InputError(
            f"The model {name} is not fine-tuned for {task.pipeline_tag}; add --do_train, or name another model."
        )
    return in_training if in_training is not None and set(in_training) != set(of_model) else of_model


def load_model(
    args: TaskArguments, task: TaskSpec, labels: Sequence[str] | None = None
) -> tuple[Any, PreTrainedTokenizerBase]:
    """The task model, in fp32, and its tokenizer. A head that the checkpoint lacks is initialised from `--seed`.

    Args:
        args: of the run; with --use_lora there is an adapter on the model.
        task: entry of the registry.
        labels: names of the classes.

    Raises:
        InputError: if there is no such model, or if it lacks a head and is not trained.
    """
    name, options = args.model.model_name_or_path, args.model.hub_options()
    set_seed(args.training.seed)
    model, new = load_task_model(task.auto_class, name, labels, **options)
    if new and not args.training.do_train:
        raise InputError(
            f"The model {name} is not fine-tuned for {task.pipeline_tag} (it lacks {min(new)}); add --do_train, or name "
            "another model."
        )
    tokenizer = load_tokenizer(name, **options)
    if not args.lora.use_lora:
        return model, tokenizer
    return with_lora(model, name, args.lora, args.model.commit(name)), tokenizer


def length_limit(wanted: int | None, usual: int, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> int:
    """Tokens of the longest input: `--max_seq_length`, or else what is usual for the task and possible for the model.

    Raises:
        InputError: if the model cannot take so many tokens.
    """
    return sentence_length_limit(wanted or min(usual, encoder_max_length(tokenizer, model)), tokenizer, model)


def evaluate_languages(trainer: ZeroShotTrainer, rows: TaskRows, args: TaskArguments, task: TaskSpec) -> None:
    """Measure the sets of --do_eval and of --do_predict in all languages; write metrics and predictions, print tables.

    `predictions/LANGUAGE.jsonl` holds those of --do_predict, or else those of --do_eval; every line names its split.
    """
    if rows.validation:
        _evaluate(trainer, rows.validation, "eval", args.data.validation_split, args.data.train_language, task)
    if rows.test:
        _evaluate(trainer, rows.test, "predict", args.data.test_split, args.data.train_language, task)


def _evaluate(
    trainer: ZeroShotTrainer,
    sets: Mapping[str, LanguageData],
    prefix: str,
    split: str,
    train_language: str,
    task: TaskSpec,
) -> None:
    metrics = trainer.evaluate_sets(sets, prefix)
    zero_shot = [name for name in sets if name != train_language]
    for metric in task.metrics if zero_shot else ():
        mean = sum(metrics[f"{prefix}_{name}_{metric}"] for name in zero_shot) / len(zero_shot)
        metrics[f"{prefix}_zero_shot_{metric}"] = mean
    trainer.log_metrics(prefix, metrics)
    trainer.save_metrics(prefix, metrics)
    if trainer.is_world_process_zero():
        for name, records in trainer.records.items():
            path = Path(str(trainer.args.output_dir), "predictions", f"{name}.jsonl")
            write_json_lines(path, ({**record, "split": split} for record in records))
        print(language_table(metrics, prefix, [*sets, *(["zero_shot"] if zero_shot else [])], task))


def language_table(metrics: Mapping[str, float], prefix: str, names: Sequence[str], task: TaskSpec) -> str:
    """A line per set, with its metrics in percent.

    Args:
        metrics: such as `eval_hi_f1`.
        prefix: `eval` or `predict`.
        names: of the sets.
        task: entry of the registry.
    """
    columns = [prefix, *(metric.replace("_", " ") for metric in task.metrics)]
    rows = [
        [name.replace("_", "-")]
        + [f"{100 * metrics[f'{prefix}_{name}_{metric}'] / best:.1f}" for metric, best in task.metrics.items()]
        for name in names
    ]
    return ResultTable(columns, rows).text()


def publish_task_model(
    trainer: ZeroShotTrainer,
    args: TaskArguments,
    task: TaskSpec,
    examples: TaskExamples,
    **facts: Any,  # noqa: ANN401
) -> None:
    """Write `run.json` and the model's card; push them to the Hub if asked.

    With --merge_adapter the merged model replaces the adapter in the output folder.

    Args:
        trainer: of the run.
        args: of the run.
        task: entry of the registry.
        examples: of which the fingerprints are recorded.
        facts: what else `run.json` records.
    """
    model = args.model
    if args.lora.merge_adapter and trainer.is_world_process_zero():
        folder = str(args.training.output_dir)
        merged, _ = load_task_model(task.auto_class, folder, **model.hub_options())
        save_task_model(merged, folder)
    record = run_record(
        [model, args.data, args.parallel, args.links, args.continual, args.tracking, args.lora, args.training],
        unused=[
            *([] if args.lora.use_lora else [args.lora]),
            *([] if args.continual.continual else [args.parallel, args.links, args.continual]),
        ],
        task_name=task.name,
        task=task.pipeline_tag,
        title=task.title,
        metrics=list(task.metrics),
        auto_class=task.auto_class.__name__,
        regime="continual" if args.continual.continual else "plain",
        base_model=model.model_name_or_path,
        base_model_revision=model.commit(model.model_name_or_path),
        seed=args.training.seed,
        **(examples.fingerprints() if trainer.is_world_process_zero() else {}),
        **facts,
    )
    publish(trainer, record, **args.hub_options)
