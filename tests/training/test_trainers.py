"""AlignmentTrainer: global means, logs, evaluation, checkpoints."""

import copy
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard, DataLoaderShard, skip_first_batches
from accelerate.state import GradientState
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler

from helpers.pairs import COLLATOR, WORD_TOKENIZER, some_pairs
from helpers.trainers import StopAt, alignment_trainer_for, assert_same_weights, trained_weights_of
from utils.alignment.objectives import ContrastiveObjective, LossWeights, MeanSquaredError
from utils.alignment.pairs import encode_pairs
from utils.alignment.sampler import LengthGroupedBatches
from utils.alignment.words import word_vectors
from utils.evaluation.neighbors import Retrieval
from utils.training.alignment_trainer import _by_pair
from utils.training.base_trainer import ComponentTrainer


def test_two_half_batches_equal_one_whole(tmp_path):
    """The means are over the links of the global batch, however unevenly its parts have links."""
    # Adam hides a wrong scale and turns rounding error into steps; plain gradient descent does neither.
    descent = {"optim": "sgd", "learning_rate": 0.1}
    whole = alignment_trainer_for(tmp_path, per_device_train_batch_size=8, **descent)
    whole.train()
    for size, accumulated in ((4, 2), (2, 4), (1, 8)):
        parts = alignment_trainer_for(
            tmp_path, per_device_train_batch_size=size, gradient_accumulation_steps=accumulated, **descent
        )
        parts.train()
        assert_same_weights(trained_weights_of(whole), trained_weights_of(parts), rtol=1e-4, atol=1e-5)
        for name in ("loss", "alignment_loss", "regularization_loss"):
            logged = [[log[name] for log in t.state.log_history if name in log] for t in (whole, parts)]
            assert len(logged[0]) == 3
            assert logged[0] == pytest.approx(logged[1], rel=1e-4)


@pytest.mark.parametrize("split", [False, True])
@given(n_rows=st.integers(1, 40), size=st.integers(1, 5), n_processes=st.integers(1, 4), n_skipped=st.integers(0, 9))
def test_processes_together_keep_each_row_of_an_epoch_once(split, n_rows, size, n_processes, n_skipped):
    """Accelerate fills the last batches with rows from the epoch's beginning; an epoch may be resumed in its middle."""
    kept = {}
    for process in range(n_processes):
        batches = BatchSampler(range(n_rows), size * (n_processes if split else 1), drop_last=False)
        if n_processes > 1:
            batches = BatchSamplerShard(batches, n_processes, process, split_batches=split)
        loader = DataLoaderShard(list(range(n_rows)), batch_sampler=batches)
        assume(n_skipped < len(loader))
        loader = skip_first_batches(loader, n_skipped) if n_skipped else loader
        accelerator = SimpleNamespace(gradient_state=GradientState(), num_processes=n_processes, process_index=process)
        for number, batch in enumerate(loader):
            n_own = ComponentTrainer._n_own_rows(SimpleNamespace(accelerator=accelerator))
            assert len(batch) == size or n_processes == 1
            kept[number, process] = batch.tolist()[:n_own]
    rows = list(range(n_rows))[n_skipped * size * n_processes :]
    assert [row for place in sorted(kept) for row in kept[place]] == rows


@pytest.mark.parametrize("options", [{"drop_last": True}, {"even_batches": False}])
@given(n_rows=st.integers(1, 40), size=st.integers(1, 5), n_skipped=st.integers(0, 9))
def test_where_no_rows_are_appended_none_is_taken_away(options, n_rows, size, n_skipped):
    for process in range(2):
        batches = BatchSampler(range(n_rows), size, drop_last=options.get("drop_last", False))
        shard = BatchSamplerShard(batches, 2, process, even_batches=options.get("even_batches", True))
        loader = skip_first_batches(DataLoaderShard(list(range(n_rows)), batch_sampler=shard), n_skipped)
        accelerator = SimpleNamespace(gradient_state=GradientState(), num_processes=2, process_index=process)
        for _ in loader:
            assert ComponentTrainer._n_own_rows(SimpleNamespace(accelerator=accelerator)) is None


def test_the_step_is_the_paper_s(tmp_path):
    """One epoch equals a plain loop with Adam, over the same batches."""
    trainer = alignment_trainer_for(
        tmp_path, train_sampling_strategy="sequential", lr_scheduler_type="constant", warmup_steps=0
    )
    model = copy.deepcopy(trainer.model).train()
    loss = trainer.alignment_loss
    rows = list(trainer.train_dataset)
    optimizer = torch.optim.Adam(
        [p for p in model.parameters() if p.requires_grad], lr=1e-3, betas=(0.9, 0.98), eps=1e-9
    )
    for first in range(0, len(rows), 8):
        terms = loss(model, COLLATOR(rows[first : first + 8]))
        optimizer.zero_grad()
        (terms.alignment / terms.counts[0] + terms.regularization / terms.counts[1]).backward()
        optimizer.step()
    trainer.train()
    plain = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    assert_same_weights(plain, trained_weights_of(trainer), rtol=1e-4, atol=1e-5)


def test_warm_up_over_a_tenth_of_the_pairs_then_constant(tmp_path):
    trainer = alignment_trainer_for(tmp_path, n_pairs=160, learning_rate=5e-5)
    trainer.train()
    rates = [log["learning_rate"] for log in trainer.state.log_history if "learning_rate" in log]
    assert rates == pytest.approx([0, *[5e-5 * k / 2 for k in range(1, 2)], *[5e-5] * 18])


def test_weights_of_the_two_losses(tmp_path):
    trainer = alignment_trainer_for(tmp_path, weights=LossWeights(0.25, 3.0))
    trainer.train()
    log = trainer.state.log_history[0]
    assert log["loss"] == pytest.approx(0.25 * log["alignment_loss"] + 3 * log["regularization_loss"], rel=1e-5)
    assert log["pairs_per_second"] > 0


@pytest.mark.parametrize("weights", [LossWeights(0, 1), LossWeights(1, 0)])
def test_a_loss_of_weight_0_is_not_computed(tmp_path, weights):
    trainer = alignment_trainer_for(tmp_path, weights=weights, max_steps=2)
    calls = []
    for side, model in (("f", trainer.model), ("f0", trainer.alignment_loss.reference_model)):
        model.register_forward_hook(lambda *arguments, side=side: calls.append(side))
    trainer.train()
    assert calls == (["f", "f0"] if weights.regularization else ["f", "f"]) * 2
    assert set(trainer.state.log_history[0]) >= set(weights.losses())
    assert not {"alignment_loss", "regularization_loss"} - set(weights.losses()) & set(trainer.state.log_history[0])


def test_the_reference_model_stays(tmp_path):
    trainer = alignment_trainer_for(tmp_path, dropout=0.3)
    before = copy.deepcopy(trainer.alignment_loss.reference_model)
    trainer.train()
    after = trainer.alignment_loss.reference_model
    assert not after.training
    assert_same_weights(dict(before.named_parameters()), dict(after.named_parameters()), rtol=0, atol=0)
    assert not [name for name, _ in trainer.model.named_modules() if "reference" in name]


@pytest.mark.parametrize("objective", [MeanSquaredError(), ContrastiveObjective()])
def test_training_brings_linked_words_together(tmp_path, objective):
    held_out = encode_pairs(some_pairs(6), WORD_TOKENIZER)
    trainer = alignment_trainer_for(tmp_path, objective=objective, eval_dataset={"hi": held_out}, num_train_epochs=5)
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_alignment_loss"] < 0.8 * before["eval_alignment_loss"]


@pytest.mark.parametrize("of_links", [[0, 0, 2], [1], [], [0, 1, 2], [3, 3]])
def test_pairs_without_links_have_their_place(of_links):
    gold = torch.tensor([1, 0, 1][: len(of_links)])
    found = Retrieval(torch.ones_like(gold), torch.ones_like(gold), torch.ones(len(gold)), gold)
    rows = _by_pair(found, np.array(of_links, dtype=int), 4)
    assert [row["id"] for row in rows] == [0, 1, 2, 3]
    assert [row["gold"] for row in rows] == [of_links.count(k) for k in range(4)]
    assert sum(row["prediction"] for row in rows) == [0, 1, 1, 2][len(of_links)]


def test_evaluation_equals_a_loop(tmp_path):
    data = {"hi": encode_pairs(some_pairs(7), WORD_TOKENIZER), "ru": encode_pairs(some_pairs(5), WORD_TOKENIZER)}
    trainer = alignment_trainer_for(tmp_path, eval_dataset=data, per_device_eval_batch_size=3)
    trainer.eval_layers = (1,)
    metrics = trainer.evaluate()
    sums, accuracies = torch.zeros(4, dtype=torch.float64), {}
    for language, rows in data.items():
        batch = COLLATOR(list(rows))
        with torch.no_grad():
            terms = trainer.alignment_loss(trainer.model, batch)
            sums += torch.tensor([terms.alignment, terms.regularization, terms.counts[0], terms.counts[1]])
            for layer in (-1, 1):
                real = batch["source_spelling"] != -1
                source = word_vectors(trainer.model, batch, "source", [layer])[0][batch["links"][real, 0]]
                english = word_vectors(trainer.model, batch, "english", [layer])[0][batch["links"][real, 1]]
                similarity = torch.nn.functional.cosine_similarity(source[:, None], english[None], dim=-1)
                right = torch.arange(len(source))
                accuracies[language, layer] = (
                    (similarity.argmax(1) == right).float().mean().item(),
                    (similarity.argmax(0) == right).float().mean().item(),
                )
    assert metrics["eval_alignment_loss"] == pytest.approx((sums[0] / sums[2]).item(), rel=1e-5)
    assert metrics["eval_regularization_loss"] == pytest.approx((sums[1] / sums[3]).item(), rel=1e-5)
    for language in data:
        for layer, label in ((-1, ""), (1, "layer1_")):
            # Two links of the same word have the same vector: which of the two is nearest is a matter of rounding.
            for query, accuracy in zip((f"{language}-en", f"en-{language}"), accuracies[language, layer]):
                name = f"eval_{query}_{label}word_retrieval_accuracy"
                assert metrics[name] == pytest.approx(accuracy, abs=0.1)
    for direction, found in trainer.word_predictions.items():
        rows = data[direction.replace("-en", "").replace("en-", "")]
        assert [row["id"] for row in found] == list(range(len(rows)))
        assert [row["gold"] for row in found] == [sum(word != -1 for word in row["source_spelling"]) for row in rows]
        share = sum(row["prediction"] for row in found) / sum(row["gold"] for row in found)
        assert metrics[f"eval_{direction}_word_retrieval_accuracy"] == pytest.approx(share)
    assert len(trainer.word_predictions) == 4
    means = [metrics[f"eval_{a}-{b}_word_retrieval_accuracy"] for a, b in
             (("hi", "en"), ("en", "hi"), ("ru", "en"), ("en", "ru"))]  # fmt: skip
    assert metrics["eval_word_retrieval_accuracy"] == pytest.approx(sum(means) / 4)


def test_a_model_measured_against_itself_is_not_run_twice(tmp_path):
    trainer = alignment_trainer_for(tmp_path, eval_dataset=encode_pairs(some_pairs(6), WORD_TOKENIZER))
    passes, found = [], []
    trainer.model.embeddings.register_forward_hook(lambda *_: passes.append(1))
    for reference in (copy.deepcopy(trainer.model), trainer.model):
        trainer.alignment_loss.reference_model = reference
        passes.clear()
        metrics = trainer.evaluate()
        found.append(
            (
                len(passes),
                {name: value for name, value in metrics.items() if "second" not in name and "time" not in name},
            )
        )
    (n_separate, separate), (n_shared, shared) = found
    assert (n_separate, n_shared) == (3, 2)  # (a copy has the hook as well)
    assert shared == separate


def test_every_aligned_layer_is_measured(tmp_path):
    trainer = alignment_trainer_for(tmp_path, eval_dataset={"hi": encode_pairs(some_pairs(6), WORD_TOKENIZER)})
    trainer.alignment_loss.layers, trainer.eval_layers = (1, -1), (0, 1)
    together = trainer.evaluate()
    trainer.alignment_loss.layers = (-1,)
    highest = trainer.evaluate()
    trainer.alignment_loss.layers = (1,)
    lower = trainer.evaluate()
    retrieval = [name for name in highest if "retrieval" in name]
    assert len(retrieval) == 1 + 2 * 3
    assert {name: together[name] for name in retrieval} == {name: highest[name] for name in retrieval}
    for name in ("eval_alignment_loss", "eval_regularization_loss", "eval_loss"):
        assert together[name] == pytest.approx((highest[name] + lower[name]) / 2, rel=1e-5)


@pytest.mark.parametrize("objective", [MeanSquaredError, ContrastiveObjective])
@pytest.mark.parametrize("sampling", ["random", "group_by_length"])
@pytest.mark.parametrize("n_accumulated", [1, 2])
def test_resume_in_the_middle_of_the_second_epoch_is_exact(tmp_path, sampling, objective, n_accumulated):
    """(With accumulated batches, those of the contrastive objective are first passed without gradient, with the same dropout.)"""
    arguments = {
        "num_train_epochs": 3,
        "save_strategy": "steps",
        "save_steps": 4,
        "dropout": 0.2,
        "objective": objective(),
    }
    arguments["train_sampling_strategy"] = sampling
    arguments |= {"per_device_train_batch_size": 8 // n_accumulated, "gradient_accumulation_steps": n_accumulated}
    whole = alignment_trainer_for(tmp_path, "whole", **arguments)
    whole.train()
    stopped = alignment_trainer_for(tmp_path, "stopped", **arguments)
    stopped.add_callback(StopAt(4))
    stopped.train()
    resumed = alignment_trainer_for(tmp_path, "stopped", **arguments)
    resumed.train(resume_from_checkpoint=str(tmp_path / "stopped" / "checkpoint-4"))
    assert resumed.state.global_step == whole.state.global_step == 9
    assert_same_weights(trained_weights_of(whole), trained_weights_of(resumed), rtol=0, atol=0)


def test_checkpoints_are_whole_models(tmp_path):
    from transformers import AutoModelForMaskedLM

    trainer = alignment_trainer_for(tmp_path, save_strategy="steps", save_steps=2)
    trainer.train()
    saved = AutoModelForMaskedLM.from_pretrained(tmp_path / "run" / "checkpoint-2")
    original = AutoModelForMaskedLM.from_pretrained(tmp_path / "original")
    assert torch.equal(saved.cls.predictions.transform.dense.weight, original.cls.predictions.transform.dense.weight)
    assert not torch.equal(
        saved.bert.encoder.layer[0].output.dense.weight, original.bert.encoder.layer[0].output.dense.weight
    )


def test_best_checkpoint_is_loaded(tmp_path):
    held_out = encode_pairs(some_pairs(6), WORD_TOKENIZER)
    trainer = alignment_trainer_for(
        tmp_path, eval_dataset=held_out, eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1,
        load_best_model_at_end=True, metric_for_best_model="eval_alignment_loss", num_train_epochs=2, learning_rate=0.2,
    )  # fmt: skip
    trainer.train()
    losses = {
        log["step"]: log["eval_alignment_loss"] for log in trainer.state.log_history if "eval_alignment_loss" in log
    }
    assert trainer.state.best_metric == pytest.approx(min(losses.values()))
    assert trainer.evaluate()["eval_alignment_loss"] == pytest.approx(min(losses.values()), rel=1e-5)


def test_tensorboard_gets_both_losses(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer = alignment_trainer_for(tmp_path, report_to="tensorboard")
    trainer.train()
    events = EventAccumulator(str(next((tmp_path / "run" / "runs").iterdir())))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert {"train/alignment_loss", "train/regularization_loss", "train/pairs_per_second", "train/loss"} <= set(tags)
    state = {log["step"]: log for log in trainer.state.log_history if "alignment_loss" in log}
    for event in events.Scalars("train/alignment_loss"):
        assert event.value == pytest.approx(state[event.step]["alignment_loss"], rel=1e-5)


def test_batches_of_like_length_are_the_default(tmp_path):
    grouped, mixed = (
        alignment_trainer_for(tmp_path, per_device_train_batch_size=4, **chosen)
        for chosen in ({}, {"train_sampling_strategy": "random"})
    )
    tokens = [
        sum(batch["english_input_ids"].numel() for batch in trainer.get_train_dataloader())
        for trainer in (grouped, mixed)
    ]
    assert tokens[0] < tokens[1]


@given(st.lists(st.integers(1, 99), max_size=200), st.integers(1, 9), st.integers(1, 5), st.integers(0, 9))
def test_the_grouped_order_is_a_shuffle(lengths, batch_size, batches_per_block, seed):
    sampler = LengthGroupedBatches(lengths, batch_size, seed, batches_per_block)
    first, again = list(sampler), list(sampler)
    assert sorted(first) == list(range(len(lengths)))
    assert first == again
    sampler.set_epoch(1)
    assert len(set(lengths)) < 20 or list(sampler) != first


@pytest.mark.parametrize("spread", [0.0, 0.13])
def test_grouping_leaves_little_padding(spread):
    """Of translations, too, whose lengths go together but are not the same (a spread of 0.13 is as in real corpora)."""
    generator = np.random.default_rng(0)
    sides = generator.lognormal(3.0, 0.5, 12_800)[:, None] * generator.lognormal(0, spread, (12_800, 2))
    lengths = np.clip(sides, 6, 128).astype(int)
    order = list(LengthGroupedBatches(lengths, 32, seed=0))
    batches = [lengths[order[k : k + 32]] for k in range(0, len(order), 32)]
    padded = sum(int(batch.max(axis=0).sum()) * len(batch) for batch in batches)
    assert 1 - lengths.sum() / padded < 0.05
    # And the order is random on the large scale: early and late halves are alike.
    first_block = order[:6400]
    halves = [lengths[first_block[:3200]].mean(), lengths[first_block[3200:]].mean()]
    assert halves[0] == pytest.approx(halves[1], rel=0.15)


def test_gradient_checkpointing_changes_nothing(tmp_path):
    plain = alignment_trainer_for(tmp_path)
    plain.train()
    saving = alignment_trainer_for(
        tmp_path, activation_checkpointing=True, activation_checkpointing_kwargs={"use_reentrant": False}
    )
    saving.train()
    assert_same_weights(trained_weights_of(plain), trained_weights_of(saving), rtol=1e-4, atol=1e-6)


def test_bf16(tmp_path):
    trainer = alignment_trainer_for(tmp_path, bf16=True, eval_dataset=encode_pairs(some_pairs(4), WORD_TOKENIZER))
    trainer.train()
    exact = alignment_trainer_for(tmp_path)
    exact.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(exact.state.log_history[0]["loss"], rel=0.05)
    assert trainer.model.dtype == torch.float32


def test_logs_are_json(tmp_path):
    trainer = alignment_trainer_for(tmp_path, eval_dataset=encode_pairs(some_pairs(4), WORD_TOKENIZER))
    trainer.train()
    json.dumps([trainer.evaluate(), trainer.state.log_history])
