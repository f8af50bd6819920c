"""Checkpoints belong to one run; what earlier runs have left is moved aside; a run that diverges saves nothing."""

import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from huggingface_hub.utils import filter_repo_objects

from helpers.pairs import WORD_TOKENIZER, some_pairs
from helpers.trainers import (
    StopAt,
    alignment_for,
    alignment_trainer_for,
    assert_same_weights,
    continual_trainer_for,
    encoder_from,
    trained_weights_of,
)
from utils.alignment.losses import AlignmentLoss
from utils.alignment.objectives import ContrastiveObjective, LossWeights
from utils.alignment.pairs import encode_pairs
from utils.core.errors import InputError
from utils.models.adapters import LoraArguments, with_lora
from utils.training.alignment_trainer import AlignmentTrainer
from utils.training.arguments import AlignTrainingArguments
from utils.training.checkpoints import (
    RUN_FILE,
    checkpoint_to_resume,
    loss_identity,
    own_checkpoint,
    rows_hash,
)
from utils.training.interruption import train_and_save
from utils.training.whole_checkpoints import is_whole


pytestmark = pytest.mark.slow  # together more than a few seconds


SCHEDULE = {"num_train_epochs": 2, "save_strategy": "steps", "save_steps": 2, "logging_steps": 4}


def aligned(tmp_path, output="run", **changes):
    return alignment_trainer_for(tmp_path, output, **{**SCHEDULE, **changes})


def continued(tmp_path, output="run", **changes):
    settings = {name: changes.pop(name) for name in ("batch_size", "every", "seed_of_pairs") if name in changes}
    settings = {name.removesuffix("_of_pairs"): value for name, value in settings.items()}
    return continual_trainer_for(tmp_path, output, alignment=alignment_for(**settings), **{**SCHEDULE, **changes})


@pytest.fixture
def stopped(tmp_path):
    """The folder of a run that was stopped after step 4 of 6, with a checkpoint every two steps."""
    trainer = aligned(tmp_path)
    trainer.add_callback(StopAt(4))
    trainer.train()
    return tmp_path / "run"


# --- Which run a checkpoint belongs to ---


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"learning_rate": 2e-3}, "learning_rate 0.001, now 0.002"),
        ({"num_train_epochs": 3}, "num_train_epochs"),
        ({"per_device_train_batch_size": 4}, "per_device_train_batch_size"),
        ({"seed": 7}, "seed 42, now 7"),
        ({"lr_scheduler_type": "linear"}, "lr_scheduler_type constant_with_warmup, now linear"),
        ({"train_sampling_strategy": "random"}, "train_sampling_strategy"),
        ({"n_pairs": 23}, r"\(another training data\)"),
        ({"objective": ContrastiveObjective()}, "alignment_objective MeanSquaredError"),
        ({"weights": LossWeights(0.5, 1)}, "alignment_weight 1.0, now 0.5"),
        ({"weights": LossWeights(1, 1, 1)}, "sentence_weight 0.0, now 1"),
    ],
)
def test_another_adjustment_is_refused(tmp_path, stopped, changes, difference):
    trainer = aligned(tmp_path, **changes)
    with pytest.raises(InputError, match=f"belongs to another run .*{difference}"):
        train_and_save(trainer, str(stopped / "checkpoint-4"))
    assert not (stopped / "model.safetensors").exists()


def test_negatives_count():
    """Other negatives are another run; so is another temperature."""
    objectives = [ContrastiveObjective(), ContrastiveObjective(0.2), ContrastiveObjective(0.1, "both")]
    identities = [loss_identity(AlignmentLoss(objective, lambda: None)) for objective in objectives]
    assert len({json.dumps(identity) for identity in identities}) == 3


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"batch_size": 3}, "alignment_batch_size 4, now 3"),
        ({"every": 2}, "alignment_every"),
        ({"seed_of_pairs": 5}, "alignment_seed"),
        ({"weight_decay": 0.1}, "weight_decay"),
        ({"head": "ForSequenceClassification"}, "another base model"),
    ],
)
def test_another_continual_run_is_refused(tmp_path, changes, difference):
    continued(tmp_path, max_steps=2).train()
    with pytest.raises(InputError, match=difference):
        continued(tmp_path, max_steps=2, **changes).train(
            resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2")
        )


def test_the_base_model_and_the_code_of_the_objective_count(tmp_path, stopped, monkeypatch):
    checkpoint = stopped / "checkpoint-4"
    trainer = aligned(tmp_path)
    with torch.no_grad():
        trainer.model.encoder.layer[1].output.dense.weight += 1
    with pytest.raises(InputError, match="another base model"):
        trainer.train(resume_from_checkpoint=str(checkpoint))
    trainer = aligned(tmp_path)
    with torch.no_grad():
        trainer.alignment_loss.reference_model.encoder.layer[1].output.dense.weight += 1
    with pytest.raises(InputError, match="another reference model"):
        trainer.train(resume_from_checkpoint=str(checkpoint))
    monkeypatch.setattr("inspect.getsource", lambda one: f"edited {one}")
    with pytest.raises(InputError, match="another code of the objective"):
        aligned(tmp_path).train(resume_from_checkpoint=str(checkpoint))


def test_the_adapter_counts(tmp_path):
    def adapter(**settings):
        trainer = aligned(tmp_path)
        lora = LoraArguments(use_lora=True, **settings)
        model = with_lora(encoder_from(tmp_path), str(tmp_path / "original"), lora)
        return AlignmentTrainer(
            model=model, args=trainer.args, alignment_loss=trainer.alignment_loss, data_collator=trainer.data_collator,
            train_dataset=trainer.train_dataset,
        )  # fmt: skip

    adapter(lora_rank=2).train()
    for settings in (
        {"lora_rank": 4},
        {"lora_rank": 2, "lora_alpha": 9},
        {"lora_rank": 2, "lora_target_modules": ["query"]},
    ):
        name = "set of trained parameters" if "lora_target_modules" in settings else list(settings)[-1]
        with pytest.raises(InputError, match=name):
            adapter(**settings).train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    adapter(lora_rank=2).train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))


def test_what_changes_nothing_is_not_compared(tmp_path, stopped):
    trainer = aligned(tmp_path, output="elsewhere", logging_steps=1, per_device_eval_batch_size=3, save_steps=100)
    trainer.train(resume_from_checkpoint=str(stopped / "checkpoint-4"))
    assert trainer.state.global_step == 6


def selecting(tmp_path, n_rows=6, **changes):
    """A run that keeps the best of its checkpoints."""
    rows = encode_pairs(some_pairs(n_rows), WORD_TOKENIZER)
    how = {
        "load_best_model_at_end": True,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "metric_for_best_model": "alignment_loss",
    }
    return aligned(tmp_path, eval_dataset={"hi": rows}, **{**how, **changes})


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"metric_for_best_model": "word_retrieval_accuracy"}, "metric_for_best_model eval_alignment_loss, now"),
        ({"metric_for_best_model": "hi-en_word_retrieval_accuracy"}, "metric_for_best_model"),
        ({"greater_is_better": True}, "greater_is_better False, now True"),
        ({"n_rows": 5}, "another evaluation data"),
    ],
    ids=str,
)
def test_what_the_best_checkpoint_is_found_by_counts(tmp_path, changes, difference):
    trainer = selecting(tmp_path)
    trainer.add_callback(StopAt(4))
    trainer.train()
    checkpoint = tmp_path / "run" / "checkpoint-4"
    with pytest.raises(InputError, match=difference):
        selecting(tmp_path, **changes).train(resume_from_checkpoint=str(checkpoint))
    state = json.loads((checkpoint / RUN_FILE).read_text())
    for name in ("metric_for_best_model", "greater_is_better", "evaluation data"):
        del state["run"][name]
    (checkpoint / RUN_FILE).write_text(json.dumps(state))  # as before these were kept
    selecting(tmp_path, **changes).train(resume_from_checkpoint=str(checkpoint))


def test_where_none_is_the_best_it_does_not(tmp_path, stopped):
    """A checkpoint of a run that looked for no best one has no best value either, and a run that looks for none needs none."""
    selecting(tmp_path).train(resume_from_checkpoint=str(stopped / "checkpoint-4"))
    checkpoint = str(tmp_path / "run" / "checkpoint-6")
    selecting(tmp_path, metric_for_best_model="eval_alignment_loss").train(resume_from_checkpoint=checkpoint)
    aligned(tmp_path).train(resume_from_checkpoint=checkpoint)


def test_true_takes_the_last_one_of_this_run_and_says_what_it_passes_over(tmp_path, stopped, caplog):
    identity = json.loads((stopped / "checkpoint-2" / RUN_FILE).read_text())["run"]
    (stopped / "checkpoint-4" / RUN_FILE).unlink()
    shutil.copytree(stopped / "checkpoint-2", stopped / "checkpoint-10")
    other = json.loads((stopped / "checkpoint-10" / RUN_FILE).read_text())
    other["run"]["seed"] = 1
    (stopped / "checkpoint-10" / RUN_FILE).write_text(json.dumps(other))
    args = AlignTrainingArguments(output_dir=str(stopped), resume_from_checkpoint="true")
    with caplog.at_level(logging.WARNING, "utils"):
        found = own_checkpoint(checkpoint_to_resume(args, False), args, identity)
    assert found == str(stopped / "checkpoint-2")
    assert "checkpoint-10 is passed over: it belongs to another run (seed 1, now 42)" in caplog.text
    assert f"checkpoint-4 is passed over: it belongs to another run (it has no {RUN_FILE})" in caplog.text
    with pytest.raises(InputError, match="seed 42, now 3"):
        own_checkpoint(str(stopped / "checkpoint-10"), args, {**identity, "seed": 3})


PARTS = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "model.safetensors")


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_checkpoint_without_one_of_its_parts_is_not_whole(stopped, name, damage):
    checkpoint = stopped / "checkpoint-4"
    assert is_whole(checkpoint)
    part = checkpoint / name
    part.unlink() if damage == "missing" else part.write_bytes(part.read_bytes()[:-10])
    assert not is_whole(checkpoint)
    args = AlignTrainingArguments(output_dir=str(stopped), resume_from_checkpoint=str(checkpoint))
    with pytest.raises(InputError, match="incomplete"):
        checkpoint_to_resume(args, False)
    args.resume_from_checkpoint = "true"
    assert checkpoint_to_resume(args, False) == str(stopped / "checkpoint-2")


DAMAGES = [("steps", None), ("steps", "many"), ("loss", "low"), ("loss", []), ("by_language", [[1.0, 2.0]]),
           ("by_language", "x"), ("by_language", {}), ("run", [])]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [*DAMAGES, (None, "{"), (None, "[]")])
def test_a_damaged_state_is_refused_in_a_sentence(tmp_path, stopped, name, value):
    file = stopped / "checkpoint-4" / RUN_FILE
    file.write_text(value if name is None else json.dumps({**json.loads(file.read_text()), name: value}))
    with pytest.raises(InputError, match=RUN_FILE):
        train_and_save(aligned(tmp_path), str(stopped / "checkpoint-4"))


def test_rows_are_known_by_their_content():
    rows = Dataset.from_dict({"a": [[1, 2], [3]], "b": ["x", None], "c": [[[1]], []]})
    assert (
        rows_hash(rows) == rows_hash(Dataset.from_list(list(rows))) == rows_hash(rows.select([0, 1]).flatten_indices())
    )
    others = [
        rows.select([1, 0]),
        rows.select([0]),
        rows.remove_columns("b"),
        rows.map(lambda row: {"a": [1, *row["a"]]}),
    ]
    assert len({rows_hash(rows), *map(rows_hash, others)}) == 5


# --- The mean loss ---


@pytest.mark.parametrize("make", [aligned, continued])
@pytest.mark.parametrize("logging_steps", [1, 3, 100])
def test_after_a_resume_train_loss_is_the_mean_of_the_whole_run(tmp_path, make, logging_steps):
    whole = make(tmp_path, "whole", logging_steps=logging_steps)
    train_and_save(whole, None)
    results = json.loads((tmp_path / "whole" / "all_results.json").read_text())
    for step in (2, 6):
        resumed = make(tmp_path, f"resumed-{step}", logging_steps=logging_steps)
        train_and_save(resumed, str(tmp_path / "whole" / f"checkpoint-{step}"))
        found = json.loads((tmp_path / f"resumed-{step}" / "all_results.json").read_text())
        assert found["train_loss"] == pytest.approx(results["train_loss"], rel=1e-6)
        assert resumed.state.log_history[-1]["train_loss"] == found["train_loss"]


# --- What earlier runs have left ---


def test_earlier_results_are_moved_aside_when_there_are_new_ones(tmp_path, stopped):
    left = ("all_results.json", "eval_results.json", "run.json", "README.md", "predictions/hi.jsonl")
    for name in left:
        (stopped / name).parent.mkdir(exist_ok=True)
        (stopped / name).write_text("{}")
    args = AlignTrainingArguments(output_dir=str(stopped))
    with pytest.raises(InputError, match="not empty"):
        checkpoint_to_resume(args, overwrite_output_dir=False)
    assert checkpoint_to_resume(args, overwrite_output_dir=True) is None
    trainer = aligned(tmp_path, learning_rate=2e-3)
    assert all((stopped / name).exists() for name in left)
    trainer.add_callback(StopAt(1))
    trainer.train()
    assert (stopped / "checkpoint-4").exists()
    train_and_save(aligned(tmp_path, learning_rate=2e-3), None)
    earlier = {path.relative_to(stopped / folder).as_posix()
               for folder in ("_earlier-1", "_earlier-2") for path in (stopped / folder).rglob("*")}  # fmt: skip
    assert {*left, "checkpoint-2", "checkpoint-4"} <= earlier
    assert {path.name for path in stopped.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-4", "checkpoint-6"}
    assert "train_loss" in json.loads((stopped / "all_results.json").read_text())
    assert not (stopped / "eval_results.json").exists()


@pytest.fixture
def pushed(monkeypatch):
    """The names of the files of every push while a run trains, of a Hub that takes everything."""
    pushes = []

    class Api:
        def upload_folder(self, folder_path, ignore_patterns=None, **_):
            files = (
                file.relative_to(folder_path).as_posix() for file in Path(folder_path).rglob("*") if file.is_file()
            )
            pushes.append(set(filter_repo_objects(files, ignore_patterns=ignore_patterns)))
            return SimpleNamespace(is_done=lambda: True, done=lambda: True, result=lambda *_: None)

    monkeypatch.setattr("transformers.trainer.hf_api", Api)
    monkeypatch.setattr(
        "transformers.Trainer.init_hf_repo", lambda self, *_: vars(self).update(hub_model_id="me/mine")
    )
    return pushes


@pytest.mark.parametrize("resumes", [False, True])
def test_nothing_of_an_earlier_run_is_pushed_beside_new_weights(tmp_path, stopped, pushed, resumes):
    left = ("all_results.json", "run.json", "README.md", "report.html", "losses.png", "predictions/hi.jsonl")
    for name in left:
        (stopped / name).parent.mkdir(exist_ok=True)
        (stopped / name).write_text("{}")
    trainer = aligned(tmp_path, push_to_hub=True, hub_model_id="me/mine")
    trainer.push_in_progress = None
    trainer.train(resume_from_checkpoint=str(stopped / "checkpoint-4") if resumes else None)
    assert len(pushed) == (1 if resumes else 3)
    for files in pushed:
        assert "model.safetensors" in files
        assert not files & set(left)
    assert {path.name for path in (stopped / "_earlier-1").rglob("*.*")} >= {"report.html", "hi.jsonl"}


def test_a_resumed_run_keeps_its_checkpoints(tmp_path, stopped):
    train_and_save(aligned(tmp_path), str(stopped / "checkpoint-4"))
    assert {path.name for path in stopped.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-4", "checkpoint-6"}
    assert not list(stopped.glob("_earlier*"))


# --- Losses and gradients that are not finite ---


def break_at(trainer, step: int, where: str) -> None:
    """From this step on the loss, or only its gradient, is not finite."""
    compute = trainer.compute_loss

    def broken(model, inputs, *args, **kwargs):
        found = compute(model, inputs, *args, **kwargs)
        if trainer.state.global_step < step - 1:
            return found
        if where == "gradient":  # the square root at 0 has an infinite slope
            return found + (0 * next(p for p in model.parameters() if p.requires_grad).sum()).abs().sqrt()
        return found * float(where)

    trainer.compute_loss = broken


@pytest.mark.parametrize("make", [aligned, continued])
@pytest.mark.parametrize("where", ["nan", "inf", "gradient"])
def test_a_loss_or_gradient_that_is_not_finite_stops_the_run(tmp_path, make, where):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "all_results.json").write_text("{}")
    (folder / "model.safetensors").write_text("good")
    trainer = make(tmp_path)
    break_at(trainer, 4, where)
    with pytest.raises(InputError, match="Step 4: loss .*, norm of the gradient .*, learning rate 0.00") as caught:
        train_and_save(trainer, None)
    assert len(str(caught.value)) <= 300
    assert {path.name for path in folder.glob("checkpoint-*")} == {"checkpoint-2"}
    assert is_whole(folder / "checkpoint-2")
    assert (folder / "model.safetensors").read_text() == "good"
    assert (folder / "all_results.json").read_text() == "{}"
    assert all(weight.isfinite().all() for weight in trained_weights_of(trainer).values())
    # And nothing that went wrong is in the checkpoint.
    repaired = make(tmp_path)
    train_and_save(repaired, str(folder / "checkpoint-2"))
    whole = make(tmp_path, "whole")
    train_and_save(whole, None)
    assert_same_weights(trained_weights_of(whole), trained_weights_of(repaired), rtol=0, atol=0)


def test_with_warn_it_goes_on_and_the_json_is_valid(tmp_path, caplog):
    trainer = aligned(tmp_path, on_nonfinite="warn", logging_steps=1)
    break_at(trainer, 4, "nan")
    with caplog.at_level(logging.WARNING, "utils"):
        train_and_save(trainer, None)
    assert trainer.state.global_step == 6
    assert caplog.text.count("not finite") == 3
    for name in ("all_results.json", "train_results.json", "trainer_state.json"):
        assert "NaN" not in (tmp_path / "run" / name).read_text()
    assert json.loads((tmp_path / "run" / "all_results.json").read_text())["train_loss"] is None


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    trainer = aligned(tmp_path, save_strategy="no")
    trainer.train()
    with torch.no_grad():
        trainer.model.encoder.layer[0].output.dense.weight[0, 0] = float("inf")
    with pytest.raises(InputError, match="not finite"):
        trainer.save_model()
    assert not (tmp_path / "run" / "model.safetensors").exists()


# --- Arguments that contradict each other, or the data ---


def test_dropping_the_last_batch_must_leave_one(tmp_path):
    with pytest.raises(InputError, match="--dataloader_drop_last leaves nothing of 24 rows in batches of 32"):
        aligned(tmp_path, dataloader_drop_last=True, per_device_train_batch_size=32).train()


@pytest.mark.parametrize("name", ["foo", "hi_accuracy", "ru-en_word_retrieval_accuracy", "layer1_loss",
                                  "layer1_word_retrieval_accuracy", "en-hi_layer0_word_retrieval_accuracy"])  # fmt: skip
def test_an_unknown_metric_is_refused_before_the_training(tmp_path, name):
    with pytest.raises(InputError, match=f"--metric_for_best_model {name}"):
        aligned(tmp_path, eval_dataset={"hi": None}, metric_for_best_model=name, eval_layers=(1,))


@pytest.mark.parametrize(
    "name",
    ["eval_loss", "alignment_loss", "hi-en_word_retrieval_accuracy", "eval_en-hi_layer1_word_retrieval_accuracy"],
)
def test_known_metrics_are_not(tmp_path, name):
    aligned(tmp_path, eval_dataset={"hi": None}, metric_for_best_model=name, eval_layers=(1,))
