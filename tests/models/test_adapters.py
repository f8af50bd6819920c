"""Adapters: trained in the place of a model's weights, and read wherever a model is."""

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from helpers import tiny
from utils.core.errors import InputError
from utils.models.adapters import LoraArguments, adapter_config, save_adapter, with_lora, without_adapter
from utils.models.encoders import layout_of, load_encoder, load_task_model, save_encoder
from utils.models.layers import encoder_of
from utils.models.loading import load_config
from utils.models.tokenizers import load_tokenizer


pytestmark = pytest.mark.slow  # together more than a few seconds


TOKENS = {"input_ids": torch.tensor([[2, 11, 12, 13, 3]]), "attention_mask": torch.ones(1, 5, dtype=torch.long)}
LABELS = ["entailment", "neutral", "contradiction"]


def moved(model: PeftModel, seed: int = 1) -> PeftModel:
    """Every trained weight moved at random, as by training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def rank_2(**how) -> LoraArguments:
    return LoraArguments(use_lora=True, lora_rank=2, lora_alpha=4, **how)


def adjustment(base: str, folder: Path, seed: int = 1) -> PeftModel:
    """An adapter on the encoder of a checkpoint, saved."""
    model = moved(with_lora(load_encoder(base), base, rank_2()), seed)
    save_adapter(model, folder)
    return model


def states(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(**TOKENS).last_hidden_state


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_an_adjusted_encoder_comes_back(tmp_path, architecture):
    base = tiny.checkpoint(tmp_path / "base", architecture)
    trained = adjustment(base, tmp_path / "adapter")
    loaded = load_encoder(str(tmp_path / "adapter"))
    assert not torch.allclose(states(loaded), states(load_encoder(base)), atol=0.01)
    torch.testing.assert_close(states(loaded), states(trained), rtol=1e-4, atol=1e-5)
    assert loaded.name_or_path == str(tmp_path / "adapter")
    # It is a plain model now, and can be saved as one, with everything that the base came with.
    assert type(loaded) is type(load_encoder(base))
    save_encoder(loaded, tmp_path / "plain")
    assert (
        load_file(tmp_path / "plain" / "model.safetensors").keys() == load_file(Path(base, "model.safetensors")).keys()
    )
    torch.testing.assert_close(states(AutoModel.from_pretrained(tmp_path / "plain")), states(loaded))


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize(
    "auto_class",
    [AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoModelForQuestionAnswering],
)
def test_adapters_stack(tmp_path, architecture, auto_class):
    """original → adjustment → task → another task: each is trained on top of the one before, merged."""
    base = tiny.checkpoint(tmp_path / "base", architecture)
    adjusted = str(tmp_path / "adjusted")
    adjustment(base, tmp_path / "adjusted")
    labels = None if auto_class is AutoModelForQuestionAnswering else LABELS
    torch.manual_seed(0)
    model, new = load_task_model(auto_class, adjusted, labels)
    assert new, "a head is not in an adjustment"
    torch.testing.assert_close(states(encoder_of(model).eval()), states(load_encoder(adjusted)))
    model = moved(with_lora(model, adjusted, rank_2()), seed=2)
    save_adapter(model, tmp_path / "task")

    torch.manual_seed(99)  # another random head to begin with
    loaded, new = load_task_model(auto_class, str(tmp_path / "task"))
    assert not new
    with torch.no_grad():
        for output, expected in zip(loaded.eval()(**TOKENS).to_tuple(), model(**TOKENS).to_tuple()):
            torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
    if labels:
        assert list(loaded.config.id2label.values()) == LABELS
        assert list(load_config(str(tmp_path / "task")).id2label.values()) == LABELS
    # As a bare encoder, for retrieval or for another adjustment; its checkpoint keeps the head.
    encoder = load_encoder(str(tmp_path / "task"))
    torch.testing.assert_close(states(encoder), states(encoder_of(loaded)))
    save_encoder(encoder, tmp_path / "plain")
    plain, report = auto_class.from_pretrained(tmp_path / "plain", output_loading_info=True)
    assert not report["missing_keys"]
    with torch.no_grad():
        torch.testing.assert_close(plain(**TOKENS).to_tuple()[0], loaded(**TOKENS).to_tuple()[0])
    # And as what another adjustment stands on, which keeps the task.
    adjustment(str(tmp_path / "task"), tmp_path / "again", seed=3)
    again, new = load_task_model(auto_class, str(tmp_path / "again"), labels)
    assert not new
    assert not torch.allclose(states(encoder_of(again.eval())), states(encoder), atol=0.01)


def test_only_what_is_trained_is_saved(tmp_path):
    base = tiny.checkpoint(tmp_path / "base")
    model, _ = load_task_model(AutoModelForSequenceClassification, base, LABELS)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    adapted = moved(with_lora(model, base, rank_2()))
    save_adapter(adapted, tmp_path / "task")
    saved = load_file(tmp_path / "task" / "adapter_model.safetensors")
    linear = {"query", "key", "value", "dense"}
    lora = {name for name in saved if ".lora_" in name}
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in lora} == linear
    # (The masked-LM checkpoint has no pooler: it is random, so it belongs to the head.)
    head = {"classifier.weight", "classifier.bias", "bert.pooler.dense.weight", "bert.pooler.dense.bias"}
    assert {name.removeprefix("base_model.model.") for name in saved if name not in lora} == head
    for name, weight in adapted.get_base_model().named_parameters():
        plain = name.replace(".base_layer", "").replace(".original_module", "")
        if ".lora_" not in name and ".modules_to_save" not in name:
            assert weight.equal(before[plain]), name
    files = {file.name for file in (tmp_path / "task").iterdir()}
    assert files == {"adapter_model.safetensors", "adapter_config.json", "config.json"}


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_the_pooler_is_no_target_of_an_adjustment(tmp_path, architecture):
    base = tiny.checkpoint(tmp_path / "base", architecture)
    model = with_lora(load_encoder(base), base, LoraArguments(use_lora=True))
    adapted = {name.split(".lora_A")[0] for name, _ in model.named_modules() if ".lora_A" in name}
    assert adapted
    assert not any("pooler" in name for name in adapted)
    model(**TOKENS).last_hidden_state.sum().backward()
    unused = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not unused, "distributed training would wait for them"


def test_layers_above_the_aligned_one_get_no_adapter(tmp_path):
    base = tiny.checkpoint(tmp_path / "base")
    model = with_lora(load_encoder(base), base, rank_2(), layers=[1])
    adapted = [name for name, _ in model.named_modules() if name.endswith(".lora_A")]
    assert adapted
    assert all("layer.0." in name for name in adapted)


def test_chosen_target_modules(tmp_path):
    base = tiny.checkpoint(tmp_path / "base")
    model = with_lora(load_encoder(base), base, rank_2(lora_target_modules=["query", "output.dense"]))
    adapted = {
        name.partition(".layer.0.")[2]
        for name, _ in model.named_modules()
        if ".0." in name and name.endswith("lora_A")
    }
    assert adapted == {"attention.self.query.lora_A", "attention.output.dense.lora_A", "output.dense.lora_A"}
    with pytest.raises(InputError, match="--lora_target_modules q_proj: .* it has dense, key, query, value"):
        with_lora(load_encoder(base), base, rank_2(lora_target_modules=["q_proj"]))


def test_the_model_with_its_adapter_off_is_the_original(tmp_path):
    base = tiny.checkpoint(tmp_path / "base")
    model = moved(with_lora(load_encoder(base), base, LoraArguments(use_lora=True))).train()
    off = without_adapter(model)
    original = states(load_encoder(base))
    after_forward = model(**TOKENS).last_hidden_state  # a graph that must survive what happens in between
    with torch.no_grad():
        assert off(**TOKENS).last_hidden_state.equal(original), "to the last bit, and without dropout"
    assert encoder_of(model).training
    after_forward.sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert not torch.allclose(states(model.eval()), original, atol=0.01), "and it is on again"


def test_an_error_switches_the_adapter_on_again(tmp_path):
    base = tiny.checkpoint(tmp_path / "base")
    model = moved(with_lora(load_encoder(base), base, LoraArguments(use_lora=True)))
    adapted = states(model)
    with pytest.raises(ValueError, match="input_ids"):
        without_adapter(model)(nonsense=1)
    assert states(model).equal(adapted)


def test_an_adapter_made_by_peft_alone(tmp_path):
    """As others publish them: no config.json, no tokenizer, a masked-LM model underneath."""
    base = tiny.checkpoint(tmp_path / "base")
    masked_lm = AutoModelForMaskedLM.from_pretrained(base)
    config = LoraConfig(r=3, target_modules=["query", "value"], base_model_name_or_path=base, use_rslora=True)
    model = moved(get_peft_model(masked_lm, config))
    model.save_pretrained(tmp_path / "adapter")
    name = str(tmp_path / "adapter")
    torch.testing.assert_close(states(load_encoder(name)), states(encoder_of(model)), rtol=1e-4, atol=1e-5)
    assert load_config(name).num_hidden_layers == 2
    assert load_tokenizer(name)("Anna")["input_ids"] == tiny.tokenizer()("Anna")["input_ids"]


# --- What can be wrong -------------------------------------------------------------------------------------------


def change(folder: Path, **settings: object) -> str:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    return str(folder)


def test_a_plain_model_is_no_adapter(tmp_path):
    assert adapter_config(tiny.checkpoint(tmp_path / "base")) is None
    assert adapter_config(str(tmp_path / "nothing")) is None


def test_no_base(tmp_path):
    base = tiny.checkpoint(tmp_path / "base")
    adjustment(base, tmp_path / "adapter")
    name = change(tmp_path / "adapter", base_model_name_or_path=None)
    with pytest.raises(InputError, match="base_model_name_or_path"):
        load_encoder(name)
    name = change(tmp_path / "adapter", base_model_name_or_path=str(tmp_path / "moved"))
    with pytest.raises(InputError, match="moved"):
        load_encoder(name)


def test_other_kinds_of_adapters(tmp_path):
    base = tiny.checkpoint(tmp_path / "base")
    prompts = PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2)
    model = AutoModelForSequenceClassification.from_pretrained(base)
    get_peft_model(model, prompts).save_pretrained(tmp_path / "prompts")
    with pytest.raises(InputError, match="PROMPT_TUNING; only LoRA"):
        load_encoder(str(tmp_path / "prompts"))


def test_an_adapter_of_another_model(tmp_path):
    base = tiny.checkpoint(tmp_path / "base")
    adjustment(base, tmp_path / "adapter")
    wider = tiny.checkpoint(tmp_path / "wider", hidden_size=32)
    with pytest.raises(InputError, match="does not fit its base model .*wider"):
        load_encoder(change(tmp_path / "adapter", base_model_name_or_path=wider))
    other = tiny.checkpoint(tmp_path / "other", "DistilBert")
    with pytest.raises(InputError, match="encoder.layer"):
        load_encoder(change(tmp_path / "adapter", base_model_name_or_path=other))


def test_broken_weights(tmp_path):
    base = tiny.checkpoint(tmp_path / "base")
    adjustment(base, tmp_path / "adapter")
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"weights of the adapter .* cannot be read .* download it again"):
        load_encoder(str(tmp_path / "adapter"))
    weights.unlink()
    with pytest.raises(InputError, match=r"has no weights \(adapter_model.safetensors\)"):
        load_encoder(str(tmp_path / "adapter"))
    torch.save({"weight": torch.ones(1)}, tmp_path / "adapter" / "adapter_model.bin")
    with pytest.raises(InputError, match=r"pickle \(adapter_model.bin\)"):
        load_encoder(str(tmp_path / "adapter"))
    save_file({"base_model.model.encoder.layer.0.attention.self.query.lora_A.weight": torch.ones(2, 16)}, weights)
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="adapter_config.json"):
        load_encoder(str(tmp_path / "adapter"))


def test_an_adapter_and_a_plain_model_take_each_others_place(tmp_path):
    base = tiny.checkpoint(tmp_path / "base")
    save_encoder(load_encoder(base), tmp_path / "output")
    adjustment(base, tmp_path / "output")
    assert not (tmp_path / "output" / "model.safetensors").exists()
    save_encoder(load_encoder(str(tmp_path / "output")), tmp_path / "output")
    assert adapter_config(str(tmp_path / "output")) is None
    assert not (tmp_path / "output" / "adapter_model.safetensors").exists()


# --- Every tensor of an adapter is used, or it is an error ---


def peft_adapter(base: str, folder: Path, auto_class=AutoModel, seed: int = 1, **settings: object) -> PeftModel:
    """An adapter made by PEFT alone, with every trained weight moved, saved."""
    model = auto_class.from_pretrained(base)
    config = LoraConfig(
        **{"r": 2, "lora_alpha": 8, "target_modules": ["query", "value"], "base_model_name_or_path": base, **settings}
    )
    model = moved(get_peft_model(model, config), seed)
    model.save_pretrained(folder, save_embedding_layers=False)
    return model


SETTINGS = {
    "plain": {},
    "bias of all modules": {"bias": "all"},
    "bias of adapted modules": {"bias": "lora_only"},
    "rows of the embeddings": {"trainable_token_indices": [11, 12, 400]},
    "rows of named embeddings": {"trainable_token_indices": {"word_embeddings": [11, 13], "position_embeddings": [1]}},
    "bias and rows": {"bias": "all", "trainable_token_indices": [11]},
    "bias of B": {"lora_bias": True},
    "magnitudes": {"use_dora": True},
    "stable rank": {"use_rslora": True},
    "whole modules": {"modules_to_save": ["LayerNorm"]},
    "embeddings": {"target_modules": ["query", "word_embeddings"]},
    "ranks by module": {"rank_pattern": {"encoder.layer.0.attention.self.query": 3}, "alpha_pattern": {"layer.1.attention.self.value": 32}},
    "some layers": {"layers_to_transform": [1], "layers_pattern": "layer"},
    "initialized by PiSSA": {"init_lora_weights": "pissa"},
}  # fmt: skip


@pytest.mark.parametrize("auto_class", [AutoModel, AutoModelForMaskedLM, AutoModelForTokenClassification])
@pytest.mark.parametrize("setting", SETTINGS)
def test_every_tensor_of_an_adapter_counts(tmp_path, setting, auto_class):
    base = tiny.checkpoint(tmp_path / "base")
    torch.manual_seed(0)
    trained = peft_adapter(base, tmp_path / "adapter", auto_class, **SETTINGS[setting])
    expected = states(encoder_of(trained))
    loaded = load_encoder(str(tmp_path / "adapter"))
    torch.testing.assert_close(states(loaded), expected, rtol=1e-4, atol=1e-4)
    model, _ = load_task_model(AutoModelForTokenClassification, str(tmp_path / "adapter"), ["LABEL_0", "LABEL_1"])
    torch.testing.assert_close(states(encoder_of(model.eval())), expected, rtol=1e-4, atol=1e-4)
    # Any other value of any of its tensors makes another model.
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    whole, before = load_file(path), all_weights(loaded)
    for name in whole:
        save_file({other: tensor * (2 if other == name else 1) for other, tensor in whole.items()}, path)
        after = all_weights(load_encoder(str(tmp_path / "adapter")))
        assert any(not weight.equal(before[key]) for key, weight in after.items()), name


def all_weights(encoder: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What `save_encoder` writes: the encoder, and a head."""
    return {**encoder.state_dict(), **layout_of(encoder).carried}


def _strange_tensors(tensors: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    low_rank = next(name for name in tensors if ".lora_A" in name)
    module = low_rank.partition(".lora_")[0]
    embedding = "base_model.model.embeddings.word_embeddings"
    return {
        "half of a pair": {name: tensor for name, tensor in tensors.items() if name != low_rank},
        "another module": {**tensors, low_rank.replace("query", "output").replace("value", "output"): tensors[low_rank].clone()},
        "another kind": {**tensors, f"{module}.lora_E.weight": torch.ones(2)},
        "a layer too many": {**tensors, "base_model.model.encoder.layer.7.output.dense.bias": torch.ones(16)},
        "another size": {**tensors, "base_model.model.encoder.layer.0.output.dense.bias": torch.ones(17)},
        "more embeddings": {**tensors, f"{embedding}.weight": torch.ones(510, 16)},
        "rows that the settings do not name": {**tensors, f"{embedding}.token_adapter.trainable_tokens_delta": torch.ones(2, 16)},
        "not a number": {**tensors, low_rank: tensors[low_rank] * float("nan")},
        "infinity": {**tensors, f"{module}.bias": torch.full((16,), float("inf"))},
    }  # fmt: skip


@pytest.mark.parametrize("what", _strange_tensors({"x.query.lora_A.weight": torch.ones(1)}))
def test_a_tensor_without_a_place_is_an_error(tmp_path, what):
    base = tiny.checkpoint(tmp_path / "base")
    peft_adapter(base, tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file(_strange_tensors(load_file(path))[what], path)
    with pytest.raises(InputError):
        load_encoder(str(tmp_path / "adapter"))
    with pytest.raises(InputError):
        load_task_model(AutoModelForTokenClassification, str(tmp_path / "adapter"), LABELS)


@pytest.mark.parametrize("content", ["[1]", "5", "null", '"lora"', "{", "", '{"peft_type": "LORA", "r": []}'])
def test_settings_that_are_no_object(tmp_path, content):
    base = tiny.checkpoint(tmp_path / "base")
    adjustment(base, tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_config.json").write_text(content)
    with pytest.raises(InputError):
        load_encoder(str(tmp_path / "adapter"))


@pytest.mark.parametrize("setting", [{"alora_invocation_tokens": [5]}, {"layer_replication": [[0, 2], [1, 2]]}])
def test_what_cannot_be_merged(tmp_path, setting):
    base = tiny.checkpoint(tmp_path / "base")
    peft_adapter(base, tmp_path / "adapter")
    with pytest.raises(InputError, match=next(iter(setting))):
        load_encoder(change(tmp_path / "adapter", **setting))
