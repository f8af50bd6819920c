"""What this project uses of other libraries besides their public interface. An upgrade that takes one away fails here.

docs/architecture.md lists them, and says what each is used for.
"""

import inspect

import pytest
from torch import nn
from transformers import Trainer, TrainingArguments
from transformers.utils.hub import cached_file

from helpers import tiny
from helpers.paths import PROJECT
from utils.models.files import file_of


SIGNATURES = {
    "_get_train_sampler": ["self", "train_dataset"],
    "_get_eval_sampler": ["self", "eval_dataset"],
    "_save": ["self", "output_dir", "state_dict"],
    "_load_from_checkpoint": ["self", "resume_from_checkpoint", "model"],
    "_load_best_model": ["self"],
    "_get_grad_norm": ["self", "model", "grad_norm"],
    "save_model": ["self", "output_dir", "_internal_call"],
}


@pytest.mark.parametrize("method", SIGNATURES)
def test_trainer_has_the_methods_that_are_overridden_or_called(method):
    assert list(inspect.signature(getattr(Trainer, method)).parameters) == SIGNATURES[method]


@pytest.mark.parametrize(
    ("caller", "method"),
    [
        ("get_train_dataloader", "_get_train_sampler"),
        ("get_eval_dataloader", "_get_eval_sampler"),
        ("save_model", "_save"),
        ("train", "_load_from_checkpoint"),
        ("_run_epoch", "_get_grad_norm"),
    ],
)
def test_trainer_still_calls_what_is_overridden(caller, method):
    assert f"self.{method}" in inspect.getsource(getattr(Trainer, caller))


def test_trainer_loads_the_best_model_by_the_method_that_is_overridden():
    assert "self._load_best_model()" in inspect.getsource(Trainer)


ATTRIBUTES = (
    "loss_is_scaled_for_ga",
    "model_accepts_loss_kwargs",
    "can_return_loss",
    "_total_loss_scalar",
    "_tr_loss",
)


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_trainer_reads_the_attributes_that_are_set(attribute):
    assert f"self.{attribute}" in inspect.getsource(Trainer)


@pytest.mark.parametrize("name", [*SIGNATURES, *ATTRIBUTES])
def test_the_list_in_the_docs_is_complete(name):
    text = (PROJECT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert name in text.partition("## Private access")[2].partition("## ")[0]


def test_trainer_does_not_push_in_an_internal_call(tmp_path):
    pushed = []
    trainer = Trainer(tiny.model(head=""), TrainingArguments(str(tmp_path), use_cpu=True, report_to="none"))
    trainer.push_to_hub = lambda **options: pushed.append(options)
    trainer.args.push_to_hub = True
    trainer.save_model(_internal_call=True)
    assert not pushed


def test_a_file_that_a_model_lacks_is_no_error(tmp_path):
    assert "_raise_exceptions_for_missing_entries" in inspect.getsource(inspect.getmodule(cached_file))
    (tmp_path / "config.json").write_text("{}")
    assert file_of(str(tmp_path), "config.json") == str(tmp_path / "config.json")
    assert file_of(str(tmp_path), "adapter_config.json") is None


def test_modules_have_public_hooks_for_state_dicts():
    """`UsedEmbedding` needs them; before torch 2.6 they were private."""
    assert hasattr(nn.Module, "register_state_dict_post_hook")
    assert hasattr(nn.Module, "register_load_state_dict_pre_hook")
