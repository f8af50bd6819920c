"""What Trainer would refuse only after the data are read, or what would fail in training, is refused at once."""

import importlib

import pytest

from utils.core.arguments import parse_arguments
from utils.core.errors import InputError
from utils.core.records import run_record
from utils.models.hub import ModelArguments
from utils.tasks.arguments import FineTuningArguments
from utils.training.arguments import AlignTrainingArguments


@pytest.fixture
def parse(run, tmp_path):
    words = ["--use_cpu", "--output_dir", tmp_path / "out"]
    return lambda *more: run(lambda: parse_arguments(AlignTrainingArguments)[0], *words, *more)


@pytest.mark.parametrize(
    "words",
    [
        ["--report_to", "nosuch"], ["--report_to", "tensorboard", "nosuch"], ["--optim", "nosuch"],
        ["--optim_args", "no-equals-sign"], ["--lr_scheduler_type", "cosine_with_min_lr"],
        ["--lr_scheduler_type", "warmup_stable_decay"], ["--lr_scheduler_type", "linear", "--lr_scheduler_kwargs", '{"foo": 1}'],
        ["--lr_scheduler_type", "polynomial", "--learning_rate", "1e-9"], ["--lr_scheduler_type", "reduce_lr_on_plateau"],
        ["--fsdp", "full_shard"], ["--fsdp", "nosuch"], ["--deepspeed", "nosuch.json"], ["--bf16", "true", "--fp16", "true"],
        ["--activation_checkpointing_kwargs", '{"foo": 1}'], ["--accelerator_config", '{"foo": 1}'],
        ["--accelerator_config", "nosuch.json"], ["--batch_eval_metrics", "true"], ["--prediction_loss_only", "true"],
        ["--label_names", "foo"], ["--eval_do_concat_batches", "false"], ["--dataloader_prefetch_factor", "2"],
        ["--learning_rate", "nan"], ["--learning_rate", "-1"], ["--hub_strategy", "nosuch"], ["--on_nonfinite", "nosuch"],
        ["--label_smoothing_factor", "0.1"], ["--auto_find_batch_size", "true"], ["--include_num_input_tokens_seen", "true"],
        ["--include_num_input_tokens_seen", "non_padding"], ["--bf16_full_eval", "true"], ["--fp16_full_eval", "true"],
        ["--eval_accumulation_steps", "2"], ["--eval_use_gather_object", "true"], ["--include_for_metrics", "inputs"],
        ["--length_column_name", "size"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_cannot_work_is_refused_before_any_work(parse, words, tmp_path):
    with pytest.raises(InputError) as caught:
        parse(*words)
    assert len(str(caught.value)) <= 300
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("wandb", "wandb"),
        ("mlflow", "mlflow"),
        ("clearml", "clearml"),
        ("swanlab", "swanlab"),
        ("codecarbon", "codecarbon"),
    ],
)
def test_reports_to_what_is_not_installed(parse, monkeypatch, name, package):
    for availability in (f"is_{name}_available",):
        monkeypatch.setattr(f"transformers.integrations.integration_utils.{availability}", lambda: False)
    with pytest.raises(InputError, match=package):
        parse("--report_to", name)


@pytest.mark.parametrize("name", ["optim adamw_bnb_8bit", "optim lomo", "optim galore_adamw", "use_liger_kernel true"])
def test_optimizers_that_are_not_installed(parse, monkeypatch, name):
    for availability in ("is_bitsandbytes_available", "is_lomo_available", "is_galore_torch_available"):
        monkeypatch.setattr(f"transformers.trainer_optimizer.{availability}", lambda: False)
    monkeypatch.setattr("utils.training.arguments.is_liger_kernel_available", lambda: False)
    with pytest.raises(InputError, match="install"):
        parse(*f"--{name}".split())


@pytest.mark.parametrize(
    "words",
    [
        [], ["--report_to", "none"], ["--report_to", "tensorboard"], ["--report_to", "all"], ["--optim", "sgd"],
        ["--lr_scheduler_type", "cosine_with_min_lr", "--lr_scheduler_kwargs", '{"min_lr": 1e-6}'],
        ["--activation_checkpointing", "--activation_checkpointing_kwargs", '{"use_reentrant": false}'],
        ["--length_column_name", "length"], ["--auto_find_batch_size", "false"], ["--include_num_input_tokens_seen", "false"],
        ["--learning_rate", "0"], ["--max_steps", "-1"], ["--warmup_steps", "0.1"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_works_is_accepted(parse, words):
    parse(*words)


@pytest.mark.parametrize("kind", [AlignTrainingArguments, FineTuningArguments])
@pytest.mark.parametrize("launched", [None, "no", "bf16"])
@pytest.mark.parametrize("flag", [False, True])
def test_the_precision_is_recorded_whoever_sets_it(tmp_path, monkeypatch, kind, launched, flag):
    """By `accelerate launch --mixed_precision`, through the environment, or by the flag."""
    if launched:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launched)
    args = kind(output_dir=str(tmp_path), use_cpu=True, report_to="none", bf16=flag)
    recorded = run_record([args])["hyperparameters"]
    assert recorded["bf16"] == args.bf16 == (args.mixed_precision == "bf16") == (flag or launched == "bf16")
    assert recorded["fp16"] is False


@pytest.mark.parametrize(("processes", "size", "accumulated"), [(1, 8, 1), (4, 8, 1), (4, 2, 3)])
def test_the_batch_of_all_processes_is_recorded(tmp_path, monkeypatch, processes, size, accumulated):
    monkeypatch.setattr(AlignTrainingArguments, "world_size", processes)
    sizes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulated}
    args = AlignTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", **sizes)
    assert run_record([args])["hyperparameters"]["total_train_batch_size"] == processes * size * accumulated


@pytest.mark.parametrize("prefix", ["", "eval_"])
@pytest.mark.parametrize("language", ["", "_hi", "_hi-Latn"])
@pytest.mark.parametrize("metric", ["loss", "alignment_loss", "regularization_loss", "sentence_loss"])
def test_the_best_loss_is_the_lowest_also_of_one_language(parse, prefix, language, metric):
    name = f"{prefix}{metric}{language}"
    assert parse("--metric_for_best_model", name).greater_is_better is False
    assert parse("--metric_for_best_model", name, "--greater_is_better", "true").greater_is_better is True


@pytest.mark.parametrize(
    "metric", ["accuracy", "eval_hi_f1", "word_retrieval_accuracy", "hi-en_word_retrieval_accuracy"]
)
def test_the_best_score_is_the_highest(parse, metric):
    assert parse("--metric_for_best_model", metric).greater_is_better is True


@pytest.mark.parametrize(
    ("script", "kind", "works"),
    [("run_qa", "QaTrainingArguments", False), ("run_ner", "NerTrainingArguments", True), ("run_nli", "NliTrainingArguments", True)],
)  # fmt: skip
def test_labels_are_smoothed_where_there_are_some(tmp_path, script, kind, works):
    arguments = getattr(importlib.import_module(script), kind)
    how = {"output_dir": str(tmp_path), "use_cpu": True, "report_to": "none", "label_smoothing_factor": 0.1}
    if works:
        assert arguments(**how).label_smoothing_factor == 0.1
    else:
        with pytest.raises(InputError, match="--label_smoothing_factor"):
            arguments(**how)


@pytest.mark.parametrize("words", ["auto_find_batch_size true", "include_for_metrics loss", "length_column_name size"])
def test_what_cannot_work_in_tasks(run, tmp_path, words):
    with pytest.raises(InputError, match=words.split()[0]):
        run(lambda: parse_arguments(FineTuningArguments), "--output_dir", tmp_path / "out", *f"--{words}".split())


@pytest.mark.parametrize("kind", [AlignTrainingArguments, FineTuningArguments])
@pytest.mark.parametrize("do_train", [False, True])
@pytest.mark.parametrize("do_eval", [False, True])
@pytest.mark.parametrize("strategy", ["no", "epoch"])
def test_nothing_is_written_over_the_model_not_even_a_measurement(tmp_path, run, kind, do_train, do_eval, strategy):
    """Its record says how it was made, which later runs follow."""
    tiny_model = tmp_path / "model"
    tiny_model.mkdir()
    words = ["--use_cpu", "--report_to", "none", "--eval_strategy", strategy, "--eval_steps", 1]
    words += ["--do_train"] * do_train + ["--do_eval"] * do_eval
    model = ["--model", tiny_model]
    run(lambda: parse_arguments(ModelArguments, kind), *words, *model, "--output_dir", tmp_path / "out")
    with pytest.raises(InputError, match="would overwrite"):
        run(lambda: parse_arguments(ModelArguments, kind), *words, *model, "--output_dir", tiny_model)
