"""Training the rows of the embedding table that occur: the same weights, less work."""

import copy

import pytest
import torch
from torch import nn

import utils.training.used_embeddings
from helpers.pairs import WORD_TOKENIZER, some_pairs
from helpers.trainers import alignment_trainer_for, assert_same_weights, trained_weights_of
from utils.alignment.pairs import encode_pairs
from utils.models.encoders import load_encoder
from utils.training.used_embeddings import UsedEmbedding, used_rows_only


TABLE = nn.Embedding(10, 4, padding_idx=0)
USED = torch.tensor([0, 2, 3, 7])


@pytest.fixture
def compact() -> UsedEmbedding:
    return UsedEmbedding(copy.deepcopy(TABLE), USED)


def test_it_looks_up_what_the_table_does(compact):
    ids = torch.tensor([[0, 1, 2], [7, 9, 3]])
    assert compact(ids).equal(TABLE(ids))
    assert compact.state_dict()["weight"].equal(TABLE.weight)
    assert compact.weight.shape == (3, 4), "the padding row is not trained"


def test_its_gradient_is_the_table_s(compact):
    table = copy.deepcopy(TABLE)
    ids, weights = torch.tensor([[0, 2, 2], [7, 3, 0]]), torch.randn(2, 3, 4)
    for module in (table, compact):
        (module(ids) * weights).sum().backward()
    assert compact.weight.grad.equal(table.weight.grad[[2, 3, 7]])
    assert not table.weight.grad[[0, 1, 4, 5, 6, 8, 9]].any()


def test_state_dicts_hold_the_whole(compact):
    with torch.no_grad():
        compact.weight.add_(1)
    whole = compact.state_dict()["weight"]
    changed = (whole != TABLE.weight).any(dim=1)
    assert changed.nonzero().flatten().tolist() == [2, 3, 7]
    other = UsedEmbedding(copy.deepcopy(TABLE), USED)
    other.load_state_dict({"weight": whole})
    assert other.weight.equal(compact.weight)
    assert other(torch.arange(10)).equal(compact(torch.arange(10)))


@pytest.fixture
def whole_table(monkeypatch):
    """A switch that makes every table too full to be divided."""
    return lambda: monkeypatch.setattr(utils.training.used_embeddings, "_TOO_MANY", -1)


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused", "sgd"])
def test_training_gives_the_same_weights(tmp_path, optim, whole_table):
    weights, shapes = [], []
    for is_compact in (True, False):
        if not is_compact:
            whole_table()
        trainer = alignment_trainer_for(tmp_path, optim=optim, num_train_epochs=2, dropout=0.1, max_grad_norm=0.5)
        trainer.create_optimizer = spied(trainer, shapes)
        before = trainer.model.get_input_embeddings().weight.clone()
        trainer.train()
        weights.append(trained_weights_of(trainer))
        assert type(trainer.model.get_input_embeddings()) is nn.Embedding
        moved = (trainer.model.get_input_embeddings().weight != before).any(dim=1).sum()
        assert 0 < moved < len(before)
    assert_same_weights(*weights, rtol=1e-5, atol=1e-7)
    assert shapes[0][0] < shapes[1][0] == 500


def spied(trainer, shapes):
    create = trainer.create_optimizer

    def create_and_look(*arguments):
        shapes.append(trainer.model.get_input_embeddings().weight.shape)
        return create(*arguments)

    return create_and_look


def test_a_checkpoint_is_whole_and_goes_on(tmp_path):
    whole = alignment_trainer_for(tmp_path, "whole", num_train_epochs=3, save_strategy="steps", save_steps=4)
    whole.train()
    encoder = load_encoder(str(tmp_path / "whole" / "checkpoint-4"))
    assert encoder.get_input_embeddings().weight.shape[0] == 500
    resumed = alignment_trainer_for(tmp_path, "whole", num_train_epochs=3)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    assert_same_weights(trained_weights_of(whole), trained_weights_of(resumed), rtol=0, atol=0)


@pytest.mark.parametrize("arguments", [{"weight_decay": 0.1}, {"optim": "adafactor"}])
def test_what_would_not_be_exact_is_left_alone(tmp_path, arguments):
    trainer = alignment_trainer_for(tmp_path, **arguments)
    with used_rows_only(trainer, encode_pairs(some_pairs(2), WORD_TOKENIZER)):
        assert type(trainer.model.get_input_embeddings()) is nn.Embedding


def test_an_error_leaves_the_model_whole(tmp_path):
    trainer = alignment_trainer_for(tmp_path)

    def interrupt(*arguments):
        assert type(trainer.model.get_input_embeddings()) is UsedEmbedding
        raise KeyboardInterrupt

    trainer.create_optimizer = interrupt
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert type(trainer.model.get_input_embeddings()) is nn.Embedding
