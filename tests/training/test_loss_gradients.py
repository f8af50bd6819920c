"""Norms and cosines of the gradients of several losses: literal tensors, naive passes, and training that stays the same."""

from itertools import combinations

import pytest
import torch
from accelerate import Accelerator

from helpers.trainers import alignment_for, assert_same_weights, continual_trainer_for, rows_for, weights_of
from utils.alignment.objectives import LossWeights
from utils.core.errors import InputError
from utils.training.loss_gradients import LossGradients


def test_literal_gradients():
    w, v = torch.nn.Parameter(torch.tensor([1.0, 2.0])), torch.nn.Parameter(torch.tensor([5.0]))
    gradients = LossGradients(["task_loss", "alignment_loss", "other"], [w, v], n_batches=2)
    gradients.add({"task_loss": w[0] + 2 * v.sum(), "alignment_loss": 3 * w.sum(), "other": torch.zeros(())})
    gradients.add({"task_loss": w[0]})
    assert gradients.n_missing == 0
    assert gradients.read(Accelerator(cpu=True)) == pytest.approx(
        {
            "gradient_norm_task": 8**0.5,
            "gradient_norm_alignment": 18**0.5,
            "gradient_norm_other": 0.0,
            "gradient_cosine_task_alignment": 6 / (8 * 18) ** 0.5,
        }
    )
    assert w.grad is None


def measured(trainer) -> list[tuple[int, dict[str, float]]]:
    return [
        (log["step"], {name: value for name, value in log.items() if name.startswith("gradient_")})
        for log in trainer.state.log_history
        if "gradient_norm_task" in log
    ]


def test_they_equal_separate_backward_passes_over_the_whole_batch(tmp_path):
    head = "ForTokenClassification"
    arguments = {"train_sampling_strategy": "sequential", "optim": "sgd", "learning_rate": 0.1}
    arguments |= {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "max_steps": 3}
    alignment = alignment_for(weights=LossWeights(0.5, 0.3), gradients_every=2)
    trainer = continual_trainer_for(tmp_path, head=head, alignment=alignment, **arguments)
    model = trainer.model
    names = ("task", "alignment", "regularization")
    batch = trainer.data_collator(list(rows_for(head).select(range(8))))
    terms = alignment.loss(model.base_model, alignment.batches(0, 1, [0])[0])
    losses = (model(**batch).loss, terms.alignment / terms.counts[0], terms.regularization / terms.counts[1])
    vectors = {}
    for name, loss in zip(names, losses):
        model.zero_grad()
        loss.backward(retain_graph=True)
        parts = [(n, p) for n, p in model.base_model.named_parameters() if "pooler" not in n]
        vectors[name] = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for _, p in parts])
    expected = {f"gradient_norm_{name}": vectors[name].norm().item() for name in names}
    for one, other in combinations(names, 2):
        cosine = torch.cosine_similarity(vectors[one], vectors[other], dim=0).item()
        expected[f"gradient_cosine_{one}_{other}"] = cosine
    model.zero_grad()
    trainer.train()
    (step, first), *later = measured(trainer)
    assert step == 0
    assert first == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert [step for step, _ in later] == [2]


def test_training_is_the_same_bit_for_bit(tmp_path):
    runs = []
    for every in (None, 1):
        alignment = alignment_for(gradients_every=every)
        trainer = continual_trainer_for(
            tmp_path, alignment=alignment, dropout=0.3, gradient_accumulation_steps=2, max_steps=2
        )
        trainer.train()
        logs = [
            {k: v for k, v in log.items() if k in ("loss", "grad_norm", "step")} for log in trainer.state.log_history
        ]
        runs.append((weights_of(trainer), [log for log in logs if "loss" in log], torch.get_rng_state().tolist()))
        assert len(measured(trainer)) == (trainer.state.max_steps if every else 0)
    assert_same_weights(runs[0][0], runs[1][0], rtol=0, atol=0)
    assert runs[0][1:] == runs[1][1:]


def test_only_steps_with_pairs_are_measured(tmp_path):
    trainer = continual_trainer_for(
        tmp_path,
        alignment=alignment_for(weights=LossWeights(1, 0), every=2, gradients_every=3),
        max_steps=7,
        per_device_train_batch_size=1,
    )
    trainer.train()
    assert [step for step, _ in measured(trainer)] == [0, 6]
    assert measured(trainer)[0][1].keys() == {
        "gradient_norm_task", "gradient_norm_alignment", "gradient_cosine_task_alignment"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("weights", "arguments", "named"),
    [
        (LossWeights(0, 0), {}, "weights of 0"),
        (LossWeights(1, 1), {"torch_compile": True}, "--torch_compile"),
        (LossWeights(1, 1), {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": True}}, "checkpointing"),
    ],
)  # fmt: skip
def test_what_they_cannot_be_measured_with(tmp_path, weights, arguments, named):
    with pytest.raises(InputError, match=f"--log_gradient_cosine .*{named}"):
        continual_trainer_for(tmp_path, alignment=alignment_for(weights=weights, gradients_every=1), **arguments)


def test_they_cannot_be_measured_in_a_divided_model(tmp_path):
    trainer = continual_trainer_for(tmp_path, alignment=alignment_for(gradients_every=1))
    trainer.is_fsdp_enabled = True
    with pytest.raises(InputError, match="FSDP"):
        trainer._check_that_gradients_can_be_measured(trainer.alignment)
