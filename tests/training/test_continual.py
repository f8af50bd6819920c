"""ContinualTrainer: the loss, the draw of pairs, what must not change it, and that it is a plain Trainer without them."""

import os
import random
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from transformers import (
    AutoModelForTokenClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)

from helpers import tiny
from helpers.pairs import TOKENIZER
from helpers.paths import REFERENCE
from helpers.reference import batch_of
from helpers.trainers import (
    StopAt,
    alignment_for,
    assert_same_weights,
    continual_trainer_for,
    model_for,
    rows_for,
    weights_of,
)
from utils.alignment.losses import AlignmentLoss
from utils.alignment.objectives import ADJUSTMENT, ContrastiveObjective, LossWeights, MeanSquaredError
from utils.core.errors import Interrupted
from utils.training.continual_trainer import ContinualTrainer, _first_rows
from utils.training.interruption import SaveWhenInterrupted, train_and_save


pytestmark = pytest.mark.slow  # together more than a few seconds


HEADS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMaskedLM")


def logged(trainer, name: str) -> list[float]:
    return [log[name] for log in trainer.state.log_history if name in log]


def test_the_loss_is_the_recorded_one(tmp_path, kept, expected):  # noqa: F811
    """task + 0.01 · alignment + 1 · regularization, the latter two as the paper's code computes them."""
    recorded = next(
        b for b in expected["batches"] if b["size"] == 47 and b["include_special_tokens"] and b["pooling"] == "avg"
    )
    model = AutoModelForTokenClassification.from_pretrained(REFERENCE / "model", num_labels=3)
    reference = transformers.AutoModel.from_pretrained(REFERENCE / "reference_model")
    alignment = alignment_for()
    alignment.loss = AlignmentLoss(MeanSquaredError(), reference, weights=alignment.loss.weights)
    trainer = continual_trainer_for(tmp_path, model=model, alignment=alignment)
    task = trainer.data_collator(
        [
            {name: row[name] for name in ("input_ids", "labels")}
            for row in rows_for("ForTokenClassification").select(range(4))
        ]
    )
    task["input_ids"] %= model.config.vocab_size
    pairs = batch_of(kept, "avg", True, 0, 47)
    counts = torch.tensor(
        [task["labels"].ne(-100).sum(), len(pairs["links"]), len(pairs["english_word_lengths"])]
    ).float()
    model.train()  # (without dropout)
    task_loss = model(**task).loss.item()
    loss = trainer.compute_loss(model, {**task, "parallel_pairs": pairs}, num_items_in_batch=counts)
    wanted = task_loss + 0.01 * recorded["alignment_loss"] + recorded["regularization_loss"]
    assert loss.item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_the_first_rows_of_a_batch_give_their_loss_and_none_gives_none(tmp_path, head):
    model = model_for(head).train()
    trainer = continual_trainer_for(tmp_path, head=head, model=model, alignment=None)
    batch = next(iter(trainer.get_train_dataloader()))
    for n_rows in range(1, len(batch["input_ids"]) + 1):
        first = _first_rows(batch, n_rows)
        assert all(torch.equal(first[name], tensor[:n_rows]) for name, tensor in batch.items())
    none = _first_rows(batch, 0)
    loss = trainer.compute_loss(model, none, num_items_in_batch=torch.ones(4))
    loss.backward()
    assert loss.item() == 0
    assert not any(p.grad is not None and p.grad.any() for p in model.parameters())


def state_of_chance() -> list:
    return [random.getstate(), *(str(part) for part in np.random.get_state()), torch.get_rng_state().tolist()]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("alignment", [None, {"weights": LossWeights(0, 0)}])
def test_without_weights_it_is_a_plain_trainer(tmp_path, head, alignment):
    """Bit by bit: weights, losses, and the state of every random number generator."""
    outcomes = []
    for kind in (Trainer, ContinualTrainer):
        settings = {"alignment": alignment_for(**alignment)} if alignment and kind is ContinualTrainer else {}
        trainer = continual_trainer_for(tmp_path, head=head, kind=kind, dropout=0.3, num_train_epochs=2, **settings)
        trainer.train()
        outcomes.append(
            (weights_of(trainer), logged(trainer, "loss"), logged(trainer, "grad_norm"), state_of_chance())
        )
    assert_same_weights(outcomes[0][0], outcomes[1][0], rtol=0, atol=0)
    assert outcomes[0][1:] == outcomes[1][1:]


@pytest.mark.parametrize("head", HEADS)
def test_parts_of_a_batch_equal_the_whole(tmp_path, head):
    """However unevenly its parts have labels and links."""
    descent = {"optim": "sgd", "learning_rate": 0.1, "num_train_epochs": 2, "train_sampling_strategy": "sequential"}
    weights = {"weights": LossWeights(0.5, 0.3)}
    whole = continual_trainer_for(tmp_path, head=head, alignment=alignment_for(**weights), **descent)
    whole.train()
    for size, accumulated in ((4, 2), (1, 8)):
        sizes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulated}
        parts = continual_trainer_for(tmp_path, head=head, alignment=alignment_for(**weights), **sizes, **descent)
        parts.train()
        assert_same_weights(weights_of(whole), weights_of(parts), rtol=1e-4, atol=1e-5)
        for name in ("loss", "task_loss", "alignment_loss", "regularization_loss"):
            assert len(logged(whole, name)) == 6
            assert logged(whole, name) == pytest.approx(logged(parts, name), rel=1e-4)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize("head", HEADS)
def test_any_head_on_any_encoder(tmp_path, architecture, head):
    """Each loss stands in the log, the total is their weighted sum, and pairs come closer."""
    model, alignment = model_for(head, architecture), alignment_for(architecture, LossWeights(2.0, 1.0))
    trainer = continual_trainer_for(
        tmp_path, head=head, model=model, alignment=alignment, num_train_epochs=6, learning_rate=3e-3
    )
    trainer.train()
    task, aligned, kept_there = (logged(trainer, f"{name}_loss") for name in ("task", "alignment", "regularization"))
    totals = [t + 2 * a + r for t, a, r in zip(task, aligned, kept_there, strict=True)]
    assert logged(trainer, "loss") == pytest.approx(totals, rel=1e-4)
    assert np.mean(aligned[-3:]) < np.mean(aligned[:3])


def test_the_weights_turn_losses_off(tmp_path):
    for weights, names in (((0.0, 1.0), ["regularization_loss"]), ((1.0, 0.0), ["alignment_loss"])):
        alignment = alignment_for(weights=LossWeights(*weights))
        trainer = continual_trainer_for(tmp_path, alignment=alignment)
        trainer.train()
        found = [name for name in ("alignment_loss", "regularization_loss") if logged(trainer, name)]
        assert found == names
        total = [t + o for t, o in zip(logged(trainer, "task_loss"), logged(trainer, names[0]))]
        assert logged(trainer, "loss") == pytest.approx(total, rel=1e-4)


def test_alignment_every_so_many_steps(tmp_path):
    trainer = continual_trainer_for(tmp_path, alignment=alignment_for(every=3), num_train_epochs=3)
    trainer.train()
    steps = [log["step"] for log in trainer.state.log_history if "alignment_loss" in log]
    assert steps == [1, 4, 7]
    assert len(logged(trainer, "task_loss")) == 9


def test_means_over_steps_that_had_pairs(tmp_path):
    """A log over several steps averages each loss over the steps that had it."""
    runs = [
        continual_trainer_for(tmp_path, alignment=alignment_for(every=2), max_steps=4, logging_steps=n) for n in (1, 4)
    ]
    for trainer in runs:
        trainer.train()
    for name in ("task_loss", "alignment_loss", "regularization_loss"):
        each, mean = (logged(trainer, name) for trainer in runs)
        assert mean == [pytest.approx(np.mean(each), rel=1e-4)]


def test_the_draw_is_random_and_depends_on_seed_and_step_alone():
    alignment = alignment_for(batch_size=200)
    alignment.collator = lambda rows: [row["length"] for row in rows]
    whole = alignment.batches(3, 1, [0])[0]
    assert len(whole) == 200
    parts = alignment.batches(3, 4, [0, 1, 2, 3])
    assert sorted(length for part in parts for length in part) == sorted(whole)
    assert alignment.batches(4, 1, [0])[0] != whole
    other = alignment_for(batch_size=200, seed=7)
    other.collator = alignment.collator
    assert other.batches(3, 1, [0])[0] != whole
    few = alignment_for(batch_size=2).batches(0, 4, [0, 1, 2, 3])
    assert [batch is None for batch in few] == [False, False, True, True]


@pytest.mark.parametrize(
    "how",
    [
        {"gradient_checkpointing": True},
        {"torch_compile": True, "torch_compile_backend": "aot_eager"},
    ],
)
def test_ways_of_computing_that_change_nothing(tmp_path, how):
    how = {
        "activation_checkpointing" if name == "gradient_checkpointing" else name: value for name, value in how.items()
    }
    runs = [
        continual_trainer_for(tmp_path, alignment=alignment_for(weights=ADJUSTMENT), optim="sgd", **given)
        for given in ({}, how)
    ]
    for trainer in runs:
        trainer.train()
    assert logged(runs[0], "loss") == pytest.approx(logged(runs[1], "loss"), rel=1e-4)
    assert_same_weights(weights_of(runs[0]), weights_of(runs[1]), rtol=1e-4, atol=1e-5)


def test_mixed_precision_reaches_the_pairs(tmp_path):
    """Their passes are in bfloat16 like the task's, their losses in fp32."""
    trainer = continual_trainer_for(tmp_path, alignment=alignment_for(), bf16=True)
    seen = set()
    layer = trainer.model.base_model.encoder.layer[0].intermediate.dense
    layer.register_forward_hook(lambda module, given, made: seen.add(made.dtype))
    losses = []
    loss = trainer.alignment.loss
    compare = loss.compare
    loss.compare = lambda *given: losses.append(compare(*given)) or losses[-1]
    trainer.train()
    assert seen == {torch.bfloat16}
    assert losses[0].alignment.dtype == losses[0].regularization.dtype == torch.float32
    assert all(np.isfinite(logged(trainer, "loss")))


@pytest.mark.parametrize("objective", [None, MeanSquaredError, ContrastiveObjective])
@pytest.mark.parametrize("n_accumulated", [1, 2])
def test_resume_in_the_middle_of_the_second_epoch_is_exact(tmp_path, objective, n_accumulated):
    """(With accumulated batches, pairs of the contrastive objective are first passed without gradient, with the same dropout.)"""
    arguments = {"num_train_epochs": 3, "save_strategy": "steps", "save_steps": 4, "dropout": 0.2}
    arguments |= {"per_device_train_batch_size": 8 // n_accumulated, "gradient_accumulation_steps": n_accumulated}

    def fresh(output):
        return continual_trainer_for(
            tmp_path,
            output,
            alignment=alignment_for(batch_size=3, objective=objective()) if objective else None,
            **arguments,
        )

    whole = fresh("whole")
    whole.train()
    stopped = fresh("stopped")
    stopped.add_callback(StopAt(4))
    stopped.train()
    resumed = fresh("stopped")
    resumed.train(resume_from_checkpoint=str(tmp_path / "stopped" / "checkpoint-4"))
    assert resumed.state.global_step == whole.state.global_step == 9
    assert_same_weights(weights_of(whole), weights_of(resumed), rtol=0, atol=0)
    assert logged(whole, "loss") == logged(resumed, "loss")


@pytest.mark.parametrize("size", [8, 2])
def test_a_batch_without_labels_has_no_loss(tmp_path, size):
    """Alone, and among others of the same step: a mean over nothing is not a number."""
    trainer = continual_trainer_for(
        tmp_path, alignment=alignment_for(), per_device_train_batch_size=size, gradient_accumulation_steps=8 // size,
        train_sampling_strategy="sequential", max_steps=2,
    )  # fmt: skip
    trainer.train_dataset = trainer.train_dataset.map(
        lambda row, k: {"labels": [-100] * len(row["labels"]) if k < 8 or k == 10 else row["labels"]},
        with_indices=True,
    )
    trainer.train()
    losses = logged(trainer, "task_loss")
    assert losses[0] == 0
    assert 0 < losses[1] < 5
    assert np.isfinite(trainer.evaluate(trainer.train_dataset)["eval_loss"])


class SignalAt(TrainerCallback):
    def __init__(self, step, number):
        self.step, self.number = step, number

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_goes_on_where_it_was(tmp_path, number):
    arguments = {"num_train_epochs": 3, "dropout": 0.2}
    handlers = [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)]
    whole = continual_trainer_for(tmp_path, "whole", alignment=alignment_for(), **arguments)
    train_and_save(whole, None)
    stopped = continual_trainer_for(tmp_path, "stopped", alignment=alignment_for(), **arguments)
    stopped.add_callback(SignalAt(4, number))
    with pytest.raises(Interrupted, match="after step 5 of 9.*--resume_from_checkpoint true") as caught:
        train_and_save(stopped, None)
    assert caught.value.signal == number
    assert not (tmp_path / "stopped" / "model.safetensors").exists()
    assert [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)] == handlers
    resumed = continual_trainer_for(tmp_path, "stopped", alignment=alignment_for(), **arguments)
    train_and_save(resumed, str(tmp_path / "stopped" / "checkpoint-5"))
    assert_same_weights(weights_of(whole), weights_of(resumed), rtol=0, atol=0)


def test_a_signal_during_the_agreement_is_kept(monkeypatch):
    """One that reaches a process between asking the others and hearing from them stops the run after the next step."""
    before = signal.getsignal(signal.SIGTERM)
    callback, control, state = SaveWhenInterrupted(), TrainerControl(), TrainerState()
    args = SimpleNamespace(world_size=2, device="cpu")
    try:
        callback.on_train_begin(args, state, control)
        monkeypatch.setattr(torch.distributed, "all_reduce", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        callback.on_step_end(args, state, control)
        assert not control.should_save
        monkeypatch.setattr(torch.distributed, "all_reduce", lambda *_: None)
        callback.on_step_end(args, state, control)
    finally:
        callback.restore()
    assert control.should_save
    assert callback.signal == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before


def test_evaluation_has_no_pairs(tmp_path):
    trainer = continual_trainer_for(tmp_path, head="ForSequenceClassification", alignment=alignment_for())
    trainer.train()
    loss = trainer.evaluate(trainer.train_dataset)["eval_loss"]
    model = trainer.model.eval()
    with torch.no_grad():
        losses = [
            model(**DataCollatorWithPadding(TOKENIZER)([row])).loss.item()
            for row in rows_for("ForSequenceClassification")
        ]
    assert loss == pytest.approx(np.mean(losses), rel=1e-4)


def test_the_reference_model_stays_and_is_not_saved(tmp_path):
    trainer = continual_trainer_for(tmp_path, alignment=alignment_for())
    reference = trainer.alignment.loss.reference_model
    before = {name: value.clone() for name, value in reference.state_dict().items()}
    trainer.train()
    trainer.save_model()
    assert all(torch.equal(value, before[name]) for name, value in reference.state_dict().items())
    assert not any(parameter.requires_grad for parameter in reference.parameters())
    saved = AutoModelForTokenClassification.from_pretrained(tmp_path / "run")
    assert {n for n, _ in saved.named_parameters()} == {n for n, _ in trainer.model.named_parameters()}
