"""What the task scripts share: their arguments, and the steps of a run that are the same for every task."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, concatenate_datasets
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from utils.alignment.continual import ContinualAlignment
from utils.alignment.losses import AlignmentLoss
from utils.alignment.objectives import CONTINUAL, AlignmentArguments
from utils.alignment.pairs import AlignmentCollator
from utils.alignment.words import WordTokenizer
from utils.core.arguments import arg, at_least, check_unused, parse_arguments, require
from utils.core.errors import InputError
from utils.core.files import write_json_lines
from utils.core.records import run_record
from utils.models.adapters import AdapterOff, LoraArguments, with_lora
from utils.models.encoders import check_same_kind, load_encoder, load_task_model, save_task_model
from utils.models.hub import ModelArguments
from utils.models.layers import encoder_of
from utils.models.lineage import original_model
from utils.models.loading import load_config
from utils.models.tokenizers import encoder_max_length, load_tokenizer, sentence_length_limit
from utils.parallel.aligners.registry import AlignerArguments
from utils.parallel.corpus import ParallelCorpus, ParallelDataArguments, check_links_to_write
from utils.tasks.examples import LanguageData, TaskDataArguments, TaskExamples, TaskReader, TaskRows, encoded
from utils.tasks.registry import TaskSpec, task_spec
from utils.tasks.zero_shot_trainer import ZeroShotTrainer
from utils.training.arguments import ScriptTrainingArguments, checkpoint_to_resume
from utils.training.sharing import check_push, publish
from utils.training.steps import train_and_save
from utils.training.tracking import NEEDED_FOR_TRACKING, AlignmentTracker, TrackingArguments, read_tracked_pairs


@dataclass
class FineTuningArguments(ScriptTrainingArguments):
    """How a task is trained. Beside `TrainingArguments`: evaluating during training keeps the best checkpoint."""

    per_device_train_batch_size: int = arg(32, help="Examples per step and device.")
    per_device_eval_batch_size: int = arg(64, help="Examples evaluated at once per device.")
    load_best_model_at_end: bool | None = arg(
        None, help="Keep the checkpoint that is best by --select_on. Default: whenever there is an --eval_strategy."
    )

    def __post_init__(self) -> None:
        if self.load_best_model_at_end is None:
            self.load_best_model_at_end = str(self.eval_strategy) != "no"
        if self.load_best_model_at_end and str(self.save_strategy) != "best":
            # A checkpoint that was not evaluated cannot be the best one, nor one that was not saved.
            self.save_strategy, self.save_steps = self.eval_strategy, self.eval_steps or self.logging_steps
        super().__post_init__()


@dataclass
class ContinualDataArguments(ParallelDataArguments):
    """With --continual: where the parallel sentences come from."""

    max_train_pairs: int | None = arg(
        30_000,
        help="Pairs per language that batches are drawn from, themselves drawn at random; the paper's number.",
        hyperparameter=True,
    )
    preprocessing_num_workers: int | None = arg(
        None, help="Processes that prepare the examples, and the pairs. Default: one."
    )


@dataclass
class ContinualArguments(AlignmentArguments):
    """Keeping the alignment loss beside the task loss."""

    continual: bool = arg(
        False,
        help="Continual learning: beside every batch of the task a batch of parallel pairs, so that fine-tuning "
        "does not undo the alignment. Needs --language and --parallel_dataset or --parallel_file.",
    )
    reference_model: str | None = arg(
        None,
        help="The frozen encoder f0 whose English is kept: the one before any adjustment. Default: where --model "
        "came from, by its own record (run.json).",
    )
    alignment_weight: float = arg(
        CONTINUAL.alignment, help="Weight of the alignment loss (0: an ablation).", hyperparameter=True, at_least=0
    )
    alignment_batch_size: int = arg(
        16,
        help="Pairs beside every optimizer step, over all devices and accumulated batches.",
        hyperparameter=True,
    )
    alignment_every: int = arg(1, help="Have pairs beside every N-th optimizer step only.", hyperparameter=True)
    alignment_seed: int | None = arg(None, help="Seed of the draw of pairs, apart from all others. Default: --seed.")

    def __post_init__(self) -> None:
        at_least(1, self, "alignment_batch_size")
        at_least(1, self, "alignment_every")


@dataclass
class FineTuning:
    """A run of a task script: the user's arguments, and the steps that are the same for every task.

    Attributes:
        task: its entry in the registry.
        model, data, parallel, links, continual, tracking, lora, training: the arguments.
        checkpoint: what the training goes on from, if anything.
    """

    task: TaskSpec
    model: ModelArguments
    data: TaskDataArguments
    parallel: ContinualDataArguments
    links: AlignerArguments
    continual: ContinualArguments
    tracking: TrackingArguments
    lora: LoraArguments
    training: FineTuningArguments
    checkpoint: str | None = None
    _auto_class: type | None = None
    _facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_command_line(
        cls,
        task: str,
        data: type[TaskDataArguments],
        training: type[FineTuningArguments],
        description: str | None,
    ) -> "FineTuning":
        """Parse the arguments, and stop if they contradict each other or the output folder.

        Args:
            task: its name in the registry.
            data, training: the script's own argument dataclasses.
            description: what `--help` begins with.
        """
        alignment = (ContinualDataArguments, AlignerArguments, ContinualArguments, TrackingArguments)
        groups = (ModelArguments, data, *alignment, LoraArguments, training)
        run = cls(task_spec(task), *parse_arguments(*groups, description=description))
        run._check()
        run.model.model_name_or_path = run.model.find(run.model.model_name_or_path)
        if run.continual.reference_model:
            run.continual.reference_model = run.model.find(run.continual.reference_model, "main")
        run.checkpoint = checkpoint_to_resume(run.training, run.data.overwrite_output_dir)
        check_push(run.training)
        return run

    def _check(self) -> None:
        training, data = self.training, self.data
        wanted = [training.do_train, training.do_eval, training.do_predict]
        require(any(wanted), ["--do_train", "--do_eval", "--do_predict"], "say what is to be done")
        if not training.do_train:
            switches = {
                "--continual": self.continual.continual,
                "--select_on": data.select_on,
                "--use_lora": self.lora.use_lora,
            }
            for name, given in switches.items():
                if given:
                    raise InputError(f"{name} does nothing without --do_train; add it or leave {name} out.")
        if self.continual.continual:
            require(
                self.parallel.languages, ["--language"], "--continual needs a language that is kept close to English"
            )
            data_given = self.parallel.parallel_dataset or self.parallel.parallel_file
            require(data_given, ["--parallel_dataset", "--parallel_file"], "--continual needs parallel sentences")
            check_links_to_write(self.links, self.parallel.languages, data.overwrite_output_dir)
        else:
            used = NEEDED_FOR_TRACKING if self.tracking.track_alignment_every else ()
            for group in (self.parallel, self.links, self.continual):
                # (The workers prepare the examples, too.)
                check_unused(group, "continual", but=["preprocessing_num_workers", *used])
        self.tracking.check(self.parallel, training.do_train)
        self._choose_best_by()

    def _choose_best_by(self) -> None:
        """Which metric of which language chooses the checkpoint that is kept."""
        training, language = self.training, self.data.select_on or self.data.train_language
        if not training.load_best_model_at_end:
            if self.data.select_on:
                raise InputError("--select_on does nothing without --eval_strategy; add --eval_strategy steps.")
        elif training.metric_for_best_model in (None, "loss"):
            if language not in self.data.set_names():
                raise InputError(
                    f"The best checkpoint is chosen on {language}, which is not among what is evaluated "
                    f"({', '.join(self.data.set_names())}); add it to --eval_languages, or name another with --select_on."
                )
            training.metric_for_best_model = f"eval_{language}_{self.task.selection_metric}"
            training.greater_is_better = True
        elif self.data.select_on:
            raise InputError("--select_on and --metric_for_best_model both choose the best checkpoint; leave one out.")

    @property
    def reading(self) -> dict[str, Any]:
        """What a `TaskReader` wants to know beside the task."""
        return {"hub_options": self._hub_options, "num_proc": self.parallel.preprocessing_num_workers}

    @property
    def _hub_options(self) -> dict[str, Any]:
        return {"cache_dir": self.model.cache_dir, "token": self.model.token}

    # --- Data ---

    def read(
        self, reader: TaskReader, name_labels: Callable[[Dataset], list[str]] | None = None
    ) -> tuple[TaskExamples, list[str] | None]:
        """The examples that the run needs, and the names of the task's labels.

        Args:
            reader: of the task.
            name_labels: the labels of training examples, in their order; without it the task has none. When nothing is
                trained, the labels are the model's. Reading for evaluation stops at a label that is not among them.
        """
        with self.training.main_process_first(desc="reading the data"):
            train = reader.train() if self.training.do_train else None
            labels = self._known_labels(train and name_labels(train)) if name_labels else None
            options = {"labels": labels} if labels else {}
            return TaskExamples(
                train,
                reader.evaluation_sets("validation", **options) if self.training.do_eval else {},
                reader.evaluation_sets("test", **options) if self.training.do_predict else {},
            ), labels

    def _known_labels(self, in_training: list[str] | None) -> list[str]:
        """The labels in the order of the model if it knows them, else as they are in the training data."""
        name = self.model.model_name_or_path
        config = load_config(name, **self.model.hub_options())
        of_model = [label for _, label in sorted(config.id2label.items())]
        if in_training is None and all(label.startswith("LABEL_") for label in of_model):
            raise InputError(
                f"The model {name} is not fine-tuned for {self.task.pipeline_tag}; add --do_train, or name one that is."
            )
        if in_training is not None and set(in_training) != set(of_model):
            return in_training
        return of_model

    def encoded(
        self,
        examples: TaskExamples,
        encode: Callable[..., dict[str, list]],
        encode_training: Callable[..., dict[str, list]] | None = None,
        **options: Any,  # noqa: ANN401
    ) -> TaskRows:
        """The rows that the model is given for all examples (see `utils.tasks.examples.encoded`).

        Args:
            examples: of the task.
            encode: makes rows of a batch of examples.
            encode_training: the same for training, if that needs other columns.
            options: for both.
        """
        options["num_proc"] = self.parallel.preprocessing_num_workers
        with self.training.main_process_first(desc="tokenising"):
            return TaskRows(
                encoded(examples.train, encode_training or encode, **options).rows if examples.train else None,
                {
                    name: encoded(these, encode, **options).longest_first()
                    for name, these in examples.validation.items()
                },
                {name: encoded(these, encode, **options).longest_first() for name, these in examples.test.items()},
            )

    # --- Model ---

    def load_model(
        self, auto_class: type, labels: Sequence[str] | None = None
    ) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
        """The task model, in fp32, and its tokenizer. A head that the checkpoint lacks is new, by `--seed`.

        With --use_lora there is an adapter on the model.

        Args:
            auto_class: `AutoModelFor…`.
            labels: names of the classes.

        Raises:
            InputError: if there is no such model, or it lacks a head and is not to be trained.
        """
        name, options = self.model.model_name_or_path, self.model.hub_options()
        set_seed(self.training.seed)
        model, new = load_task_model(auto_class, name, labels, **options)
        if new and not self.training.do_train:
            raise InputError(
                f"The model {name} is not fine-tuned for {self.task.pipeline_tag} (it lacks {min(new)}); add --do_train, or name one "
                "that is."
            )
        self._auto_class = auto_class
        if self.lora.use_lora:
            how = (self.lora.lora_rank, self.lora.lora_alpha, self.lora.lora_target_modules)
            model = with_lora(model, name, self.model.commit(name), *how)
        return model, load_tokenizer(name, **options)

    def length_limit(self, usual: int, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
        """Tokens of the longest input: `--max_seq_length`, or by default what is usual for the task."""
        longest = encoder_max_length(tokenizer, model)
        return sentence_length_limit(self.data.max_seq_length or min(usual, longest), tokenizer, model)

    def alignment(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> ContinualAlignment | None:
        """With --continual, the parallel pairs and the frozen original model; else None.

        Raises:
            InputError: for bad pairs, or an original model that cannot be found or does not fit.
        """
        if not self.continual.continual:
            return None
        encoder, how = encoder_of(model), self.continual
        reference = self._reference_model()
        check_same_kind(encoder, reference)
        reference.to(self.training.device)
        how.check_layer(encoder.config.num_hidden_layers)
        words = WordTokenizer(tokenizer, how.word_pooling, encoder_max_length(tokenizer, encoder))
        with self.training.main_process_first(desc="preparing the pairs"):
            files = ("--parallel_file", self.parallel.parallel_file), ("--links_file", self.links.links_file)
            read = ParallelCorpus.read(
                self.parallel, tokenizer, how.word_pooling, *files, hub_options=self._hub_options
            )
            corpus = read.linked(self.links, reference, words)
            if self.links.write_links and self.training.should_save:
                corpus.write_links(self.links)
            if self.tracking.held_out_share:
                corpus, _ = corpus.split(self.tracking.held_out_share)
            corpus = corpus.sampled(self.parallel.max_words, self.parallel.max_train_pairs, self._pair_seed)
            rows = corpus.encoded(words, how.include_special_tokens)
        self._facts |= {"reference_model": reference.name_or_path, "parallel_data": corpus.fingerprints()}
        if self.lora.use_lora and reference.name_or_path == self.model.model_name_or_path:
            reference = AdapterOff(model)  # (the copy that linked the words is given back)
        return ContinualAlignment(
            concatenate_datasets(list(rows.values())),
            AlignmentLoss(how.objective(), reference, how.alignment_layer, how.weights),
            AlignmentCollator(tokenizer.pad_token_id or 0, pad_to_multiple_of=8 if self.training.bf16 else None),
            how.alignment_batch_size,
            how.alignment_every,
            self._pair_seed,
        )

    @property
    def _pair_seed(self) -> int:
        return self.training.seed if self.continual.alignment_seed is None else self.continual.alignment_seed

    def _reference_model(self) -> PreTrainedModel:
        options = self.model.hub_options()
        if self.continual.reference_model:
            return load_encoder(self.continual.reference_model, **{**options, "revision": "main"})
        name, revision = original_model(self.model.model_name_or_path, **options)
        try:
            return load_encoder(name, **{**options, "revision": revision})
        except InputError as error:
            if name == self.model.model_name_or_path:
                raise
            raise InputError(
                f"{self.model.model_name_or_path} was made from {name}, which cannot be loaded now; say where it is with "
                f"--reference_model. ({error})"
            ) from None

    # --- Train, evaluate, share ---

    def trainer(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        rows: TaskRows,
        data_collator: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]],
        score: Callable[[str, LanguageData, Any], tuple[list[dict[str, Any]], dict[str, float]]],
    ) -> ZeroShotTrainer:
        """The trainer of the task: with --continual the alignment loss is kept beside the task loss.

        Args:
            model, tokenizer, rows: of the task.
            data_collator: makes batches of rows.
            score: judges the model's outputs for a set (see `ZeroShotTrainer`).
        """
        # Whatever loads a model draws random numbers, so it comes before the trainer, which sets the seed.
        tracker = self._tracker(model, tokenizer) if self.tracking.track_alignment_every else None
        trainer = ZeroShotTrainer(
            model=model,
            args=self.training,
            train_dataset=rows.train,
            eval_sets=rows.validation,
            score=score,
            data_collator=data_collator,
            processing_class=tokenizer,
            alignment=self.alignment(model, tokenizer),
        )
        if tracker:
            tracker.watch(trainer)
        return trainer

    def _tracker(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> AlignmentTracker:
        """What watches the alignment of held-out pairs during training."""
        encoder = encoder_of(model)
        self.continual.check_layer(encoder.config.num_hidden_layers)
        words = WordTokenizer(tokenizer, self.continual.word_pooling, encoder_max_length(tokenizer, encoder))

        def reference() -> PreTrainedModel:
            check_same_kind(encoder, original := self._reference_model())
            return original.to(self.training.device)

        with self.training.main_process_first(desc="preparing the pairs that are tracked"):
            corpus = read_tracked_pairs(self.tracking, self.parallel, self.links, words, reference, self._hub_options)
        self._facts["tracking_data"] = corpus.fingerprints()
        every, layer = self.tracking.track_alignment_every, self.continual.alignment_layer
        return AlignmentTracker(corpus.pairs, words, every, layer)

    def train(self, trainer: ZeroShotTrainer) -> None:
        """With --do_train: train, from a checkpoint if there is one, and save the model."""
        if self.training.do_train:
            train_and_save(trainer, self.checkpoint)

    def evaluate(self, trainer: ZeroShotTrainer, rows: TaskRows) -> None:
        """Measure all languages, and keep metrics and predictions; print a table.

        `predictions/LANGUAGE.jsonl` are those of --do_predict, or without it of --do_eval; every line says its split.
        """
        for prefix, sets, split in (
            ("eval", rows.validation, self.data.validation_split),
            ("predict", rows.test, self.data.test_split),
        ):
            if not sets:
                continue
            metrics = trainer.evaluate_sets(sets, prefix)
            foreign = [name for name in sets if name != self.data.train_language]
            for metric in self.task.metrics if foreign else ():
                mean = sum(metrics[f"{prefix}_{name}_{metric}"] for name in foreign) / len(foreign)
                metrics[f"{prefix}_zero_shot_{metric}"] = mean
            trainer.log_metrics(prefix, metrics)
            trainer.save_metrics(prefix, metrics)
            if trainer.is_world_process_zero():
                for name, records in trainer.records.items():
                    path = Path(self.training.output_dir, "predictions", f"{name}.jsonl")
                    write_json_lines(path, ({**record, "split": split} for record in records))
                print(language_table(metrics, prefix, list(sets), self.task.metrics))

    def share(self, trainer: ZeroShotTrainer, examples: TaskExamples) -> None:
        """Write how the run came about and the model's card; push them to the Hub if asked.

        With --merge_adapter the adapter in the output folder gives place to the whole model.
        """
        if self.lora.merge_adapter and trainer.is_world_process_zero():
            merged, _ = load_task_model(self._auto_class, self.training.output_dir, **self.model.hub_options())
            save_task_model(merged, self.training.output_dir)
        record = run_record(
            [
                self.model,
                self.data,
                self.parallel,
                self.links,
                self.continual,
                self.tracking,
                self.lora,
                self.training,
            ],  # fmt: skip
            unused=[
                *([] if self.lora.use_lora else [self.lora]),
                *([] if self.continual.continual else [self.parallel, self.links, self.continual]),
            ],
            task_name=self.task.name,
            task=self.task.pipeline_tag,
            title=self.task.title,
            metrics=list(self.task.metrics),
            auto_class=self.task.auto_class.__name__,
            regime="continual" if self.continual.continual else "plain",
            base_model=self.model.model_name_or_path,
            base_model_revision=self.model.commit(self.model.model_name_or_path),
            seed=self.training.seed,
            **(examples.fingerprints() if trainer.is_world_process_zero() else {}),
            **self._facts,
        )
        publish(trainer, record, **self._hub_options)


def language_table(
    metrics: Mapping[str, float], prefix: str, names: Sequence[str], columns: Mapping[str, float]
) -> str:
    """A line per language and one for the mean of those that were not trained on, in per cent.

    Args:
        metrics: such as `eval_hi_f1`.
        prefix: `eval` or `predict`.
        names: of the sets.
        columns: metric → its value when everything is right.
    """
    lines = [f"{prefix:12}" + "".join(f"{column.replace('_', ' '):>14}" for column in columns)]
    for name in [*names, "zero_shot"]:
        values = {column: metrics.get(f"{prefix}_{name}_{column}") for column in columns}
        if None not in values.values():
            cells = (f"{100 * value / columns[column]:14.1f}" for column, value in values.items())
            lines.append(f"{name.replace('_', '-'):12}" + "".join(cells))
    return "\n".join(lines)
