"""The arguments that all task scripts have, and the checks that need several of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from utils.alignment.language_sampling import LanguageSamplingArguments
from utils.alignment.objectives import CONTINUAL, AlignmentArguments
from utils.core.arguments import announce, arg, check_unused, is_given, parse_arguments, require
from utils.core.errors import InputError
from utils.core.romanization import check_romanized
from utils.models.adapters import LoraArguments
from utils.models.hub import MBERT, ModelArguments, nickname
from utils.models.lineage import adjusted_languages, lineage
from utils.parallel.aligners.registry import AlignerArguments
from utils.parallel.arguments import ParallelDataArguments
from utils.parallel.linking import check_links_to_write
from utils.tasks.data_arguments import TaskDataArguments
from utils.tasks.registry import TaskSpec, task_spec
from utils.training.arguments import ScriptTrainingArguments
from utils.training.checkpoints import checkpoint_to_resume
from utils.training.sharing import check_push
from utils.training.tracking import NEEDED_FOR_TRACKING, TrackingArguments


@dataclass
class FineTuningArguments(ScriptTrainingArguments):
    """Training on the task. Besides `TrainingArguments`: evaluation during training keeps the best checkpoint."""

    per_device_train_batch_size: int = arg(32, help="Examples per step and device.")
    per_device_eval_batch_size: int = arg(64, help="Examples per device in an evaluation batch.")
    load_best_model_at_end: bool | None = arg(  # type: ignore[assignment]  # (None until __post_init__)
        None, help="Keep the checkpoint that is best by --select_on. Default: whenever there is an --eval_strategy."
    )

    def __post_init__(self) -> None:
        if self.load_best_model_at_end is None:
            self.load_best_model_at_end = str(self.eval_strategy) != "no"
        if self.load_best_model_at_end and str(self.save_strategy) != "best":
            # Only a checkpoint that was both saved and evaluated can be the best one.
            self.save_strategy, self.save_steps = self.eval_strategy, self.eval_steps or self.logging_steps
        super().__post_init__()

    def actions(self, data: TaskDataArguments) -> list[str]:
        """Which of do_train, do_eval and do_predict the run does: all, if the command line does not say it.

        If it names files, and no data set, only what these are for: nobody asked for the usual data set.
        """
        files = {"do_train": data.train_file, "do_eval": data.validation_file, "do_predict": data.test_file}
        if given := [name for name in files if getattr(self, name)]:
            return given
        if is_given(data, "dataset_name") or is_given(data, "eval_dataset_name"):
            return list(files)
        return [name for name, of_name in files.items() if of_name] or list(files)

    def assume_actions(self, data: TaskDataArguments) -> dict[str, str]:
        """Set the `actions` if the command line does not say what to do; returns what was assumed."""
        if self.do_train or self.do_eval or self.do_predict:
            return {}
        self.do_train, self.do_eval, self.do_predict = (
            name in self.actions(data) for name in ("do_train", "do_eval", "do_predict")
        )
        return {" ".join(f"--{name}" for name in ("do_train", "do_eval", "do_predict") if getattr(self, name)): ""}


@dataclass
class ContinualDataArguments(ParallelDataArguments):
    """Parallel sentences for --continual."""

    max_train_pairs: int | None = arg(
        30_000, help="Pairs per language, drawn at random; the paper's number.", hyperparameter=True, at_least=1
    )
    preprocessing_num_workers: int | None = arg(
        None, help="Processes that prepare examples and pairs. Default: one.", at_least=1, at_most=256
    )


@dataclass
class ContinualArguments(AlignmentArguments, LanguageSamplingArguments):
    """Continual learning: the alignment loss beside the task loss."""

    continual: bool = arg(
        False,
        help="Continual learning: beside every batch of the task a batch of parallel pairs, so that fine-tuning "
        "does not undo the alignment. Needs --language and --parallel_dataset or --parallel_file.",
    )
    reference_model: str | None = arg(
        None,
        help="The frozen encoder f0 whose English vectors are kept: the one before any adjustment. Default: the "
        "original of --model, according to its run.json.",
    )
    alignment_weight: float = arg(
        CONTINUAL.alignment,
        help="Weight of the alignment loss.",
        hyperparameter=True,
        variant=lambda weight: None if weight else "alignment_weight 0",
        at_least=0,
    )
    alignment_batch_size: int = arg(
        16,
        help="Pairs beside every optimizer step, over all devices.",
        hyperparameter=True,
        at_least=1,
        at_most=100_000,
    )
    language_sampling: str = arg(
        "size",
        help="With several languages, how often each is drawn: in proportion to its pairs (`size`), all equally often "
        "(`uniform`), or by n^(1/T), T being --sampling_temperature (`temperature`).",
        choices=["size", "uniform", "temperature"],
        hyperparameter=True,
        variant=True,
    )
    alignment_every: int = arg(1, help="Use pairs at every N-th optimizer step only.", hyperparameter=True, at_least=1)
    alignment_seed: int | None = arg(None, help="Seed that draws the pairs. Default: --seed.", at_least=0)
    log_gradient_cosine: int | None = arg(
        None,
        help="Every N steps log the norms of the gradients of task, alignment and regularization loss with respect to the "
        "encoder, and their cosines: 0 if the losses do not touch each other, below 0 if they are in conflict.",
        at_least=1,
    )

    def __post_init__(self) -> None:
        if self.continual:
            super().__post_init__()


DataT = TypeVar("DataT", bound=TaskDataArguments)


@dataclass
class TaskArguments(Generic[DataT]):
    """A task, and all arguments of a run of its script, by group."""

    task: TaskSpec
    data: DataT
    model: ModelArguments
    continual: ContinualArguments
    parallel: ContinualDataArguments
    links: AlignerArguments
    tracking: TrackingArguments
    lora: LoraArguments
    training: FineTuningArguments
    checkpoint: str | None = None  # from which the training resumes
    # Of --baseline_run: by set, the records of its examples.
    baseline: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)

    @property
    def hub_options(self) -> dict[str, Any]:
        """`cache_dir` and `token`, for data sets."""
        return {"cache_dir": self.model.cache_dir, "token": self.model.token}

    @property
    def num_proc(self) -> int | None:
        """Number of processes that prepare the examples."""
        return self.parallel.preprocessing_num_workers

    @property
    def reader_options(self) -> dict[str, Any]:
        """How examples are read: arguments of `TaskReader`."""
        return {"hub_options": self.hub_options, "num_proc": self.num_proc, "romanized": self.parallel.romanize}

    @property
    def pair_seed(self) -> int:
        """The seed that draws parallel pairs."""
        return self.training.seed if self.continual.alignment_seed is None else self.continual.alignment_seed


def parse_task_arguments(
    task: str, data: type[DataT], training: type[FineTuningArguments], description: str | None
) -> TaskArguments[DataT]:
    """Parse and check the command line of a task script; resolve the names of models, and the checkpoint to resume from.

    Args:
        task: name in the registry.
        data, training: the script's own dataclasses.
        description: text that `--help` begins with.

    Raises:
        InputError: for arguments that contradict each other, or a model, checkpoint or repository that cannot be used.
    """
    shared = (ModelArguments, ContinualArguments, ContinualDataArguments, AlignerArguments, TrackingArguments)
    together = partial(TaskArguments[DataT], task_spec(task))
    groups = parse_arguments(
        data,
        *shared,
        LoraArguments,
        training,
        description=description,
        check=lambda *groups: _check_together(together(*groups)),
    )
    args = together(*groups)
    assumed = args.training.assume_actions(args.data)
    given = args.model.model_name_or_path
    args.model.model_name_or_path = args.model.find(given)
    if not args.training.do_train:
        model = lineage(args.model.model_name_or_path, **args.model.hub_options())[0]
        args.data.take_training_languages(model.record or {})
    if args.data.assumes_languages:
        args.data.assume_languages(adjusted_languages(args.model.model_name_or_path, **args.model.hub_options()))
        assumed["--eval_languages"] = " ".join(args.data.eval_languages)
    else:
        args.data.assume_languages([])
    check_romanized(
        args.parallel.romanize, [*args.data.trained_languages(), *args.data.languages(), *args.parallel.languages]
    )
    assumed |= args.training.assume_output_dir(f"{task}-{nickname(given)}")
    assumed |= {"--model": MBERT} if assumed and given == MBERT else {}
    announce(assumed)
    _choose_best_checkpoint_by(args.task, args.data, args.training)
    if args.continual.reference_model:
        args.continual.reference_model = args.model.find(args.continual.reference_model, "main")
    args.checkpoint = checkpoint_to_resume(args.training, args.data.overwrite_output_dir)
    check_push(args.training)
    return args


# Data that is only read with another argument. (Limits without data do no harm, and may stand in settings of many runs.)
_NEEDED = {"validation_file": "do_eval", "test_file": "do_predict"}


def _check_together(args: TaskArguments) -> None:
    """Raise `InputError` if arguments of different groups contradict each other."""
    actions = args.training.actions(args.data)
    do_train = "do_train" in actions
    of_training = {"continual": args.continual, "select_on": args.data, "few_shot": args.data, "use_lora": args.lora}
    for name, group in of_training.items() if not do_train else ():
        if getattr(group, name):
            raise InputError(f"--{name} has no effect without --do_train; add it or omit --{name}.")
    for name, action in _NEEDED.items():
        if getattr(args.data, name) and action not in actions:
            raise InputError(f"--{name} has no effect without --{action}; add it or omit --{name}.")
    if args.data.baseline_run and args.training.do_train and not (args.training.do_eval or args.training.do_predict):
        raise InputError("--baseline_run has no effect without --do_eval or --do_predict; add one of them.")
    _check_continual(args)
    args.lora.check_embeddings(args.continual.freeze_embeddings)
    args.tracking.check(args.parallel, do_train)


def _check_continual(args: TaskArguments) -> None:
    parallel = args.parallel
    if args.continual.continual:
        require(parallel.languages, ["--language"], "--continual needs a language to keep close to English")
        args.continual.check_sampling(list(parallel.directions), args.continual.weights.losses())
        given = parallel.parallel_dataset or parallel.parallel_file
        require(given, ["--parallel_dataset", "--parallel_file"], "--continual needs parallel sentences")
        if not (args.continual.needs_links or args.tracking.track_alignment_every):
            check_unused(args.links, "alignment_unit word")
        check_links_to_write(args.links, list(parallel.directions), args.data.overwrite_output_dir)
    else:
        used = NEEDED_FOR_TRACKING if args.tracking.track_alignment_every else ()
        for group in (parallel, args.links, args.continual):
            # (Workers also prepare examples, which may be romanized.)
            check_unused(group, "continual", but=["preprocessing_num_workers", "romanize", *used])
    learns_from_links = args.continual.continual and args.continual.needs_links
    args.links.check_links_files(args.tracking.tracking_links_file, learns_from_links)


def _choose_best_checkpoint_by(task: TaskSpec, data: TaskDataArguments, training: FineTuningArguments) -> None:
    """Set the metric, of one language, that selects the checkpoint which is kept."""
    language, names = data.select_on or data.train_language, ", ".join(data.set_names())
    if not training.load_best_model_at_end:
        if data.select_on:
            raise InputError("--select_on has no effect without --eval_strategy; add --eval_strategy steps.")
    elif training.metric_for_best_model in (None, "loss"):
        if language not in data.set_names():
            raise InputError(
                f"The best checkpoint is selected on {language}, which is not evaluated ({names}); "
                "add it to --eval_languages, or name another with --select_on."
            )
        training.metric_for_best_model = f"eval_{language}_{task.selection_metric}"
        training.greater_is_better = True
    elif data.select_on:
        raise InputError("--select_on and --metric_for_best_model both select the best checkpoint; omit one.")
    else:
        given = training.metric_for_best_model.removeprefix("eval_")
        metrics = [*task.metrics, *data.other_metrics()]
        if given not in {f"{name}_{metric}" for name in data.set_names() for metric in metrics}:
            raise InputError(
                f"--metric_for_best_model {given} is not measured; give LANGUAGE_METRIC, like {language}_{metrics[0]}, of "
                f"{names} and {', '.join(metrics)}."
            )
