"""Checkpoints whose weights are not the model's: put right, or refused; never replaced by random ones."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from helpers import tiny
from utils.core.errors import InputError
from utils.models.encoders import load_encoder, load_task_model, save_encoder
from utils.models.layers import encoder_of
from utils.models.loading import load_config


pytestmark = pytest.mark.slow  # together more than a few seconds


LABELS = ["entailment", "neutral", "contradiction"]
LOADERS = {
    "encoder": load_encoder,
    "nli": lambda name, **options: load_task_model(AutoModelForSequenceClassification, name, LABELS, **options)[0],
    "ner": lambda name, **options: load_task_model(AutoModelForTokenClassification, name, LABELS, **options)[0],
    "qa": lambda name, **options: load_task_model(AutoModelForQuestionAnswering, name, **options)[0],
}
SOME_LOADERS = ("encoder", "nli")


def rename(folder: str, change) -> dict[str, torch.Tensor]:
    """Replace the names of a checkpoint's tensors; None drops one."""
    path = f"{folder}/model.safetensors"
    tensors = {change(name): tensor for name, tensor in load_file(path).items()}
    tensors.pop(None, None)
    save_file(tensors, path, metadata={"format": "pt"})
    return tensors


def same_encoder(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    others = dict(other.named_parameters())
    return all(weight.equal(others[name]) for name, weight in one.named_parameters() if "pooler" not in name)


# --- Names that a wrapper has changed ---

WRAPPERS = {
    "compile": lambda name: f"_orig_mod.{name}",
    "ddp": lambda name: f"module.{name}",
    "ddp of compile": lambda name: f"module._orig_mod.{name}",
    "compile of ddp": lambda name: f"_orig_mod.module.{name}",
    "fsdp": lambda name: f"_fsdp_wrapped_module.{name}",
    "compiled layers": lambda name: re.sub(r"(\.\d+\.)", r"\1_orig_mod.", name),
    "fsdp layers": lambda name: re.sub(r"(\.\d+\.)", r"\1_fsdp_wrapped_module._checkpoint_wrapped_module.", name),
}


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_the_names_of_a_wrapper_are_removed(tmp_path, caplog, wrapper, loader):
    folder = tiny.checkpoint(tmp_path)
    plain = LOADERS[loader](folder)
    rename(folder, WRAPPERS[wrapper])
    with caplog.at_level("INFO"):
        loaded = LOADERS[loader](folder)
    assert same_encoder(encoder_of(plain), encoder_of(loaded))
    assert sum("wrapper" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize("wrapper", ["compile of ddp", "compiled layers"])
@pytest.mark.parametrize("head", ["", "ForMaskedLM"])
def test_what_was_trained_is_what_is_saved(tmp_path, architecture, wrapper, head):
    """Under the model's own names, with the rest of the checkpoint unchanged."""
    folder = tiny.checkpoint(tmp_path / "original", architecture, head)
    before = load_file(f"{folder}/model.safetensors")
    rename(folder, WRAPPERS[wrapper])
    encoder = load_encoder(folder)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(1)
    save_encoder(encoder, tmp_path / "adjusted")
    after = load_file(tmp_path / "adjusted" / "model.safetensors")
    assert after.keys() == before.keys()
    assert same_encoder(encoder, load_encoder(str(tmp_path / "adjusted")))
    own = {f"{encoder.base_model_prefix}.{name}" if head else name for name, _ in encoder.named_parameters()}
    assert all(after[name].equal(tensor + 1 if name in own else tensor) for name, tensor in before.items())


# --- Weights that are not those of the config ---


def layers_of(architecture: str, head: str) -> list[str]:
    """The names of the encoder's modules that have weights, without the pooler, as they are stored."""
    made = tiny.model(architecture, head)
    prefix = f"{made.base_model_prefix}." if head else ""
    names = [name for name, _ in made.named_parameters() if name.startswith(prefix) and "pooler" not in name]
    return sorted({name.rpartition(".")[0] for name in names})


@pytest.mark.parametrize(
    ("architecture", "head", "layer"),
    [(a, head, layer) for a in ("Bert", "ModernBert") for head in ("", "ForMaskedLM") for layer in layers_of(a, head)],
)
def test_no_layer_may_be_missing(tmp_path, architecture, head, layer):
    folder = tiny.checkpoint(tmp_path, architecture, head)
    rename(folder, lambda name: None if name.rpartition(".")[0] == layer else name)
    for loader in SOME_LOADERS:
        with pytest.raises(InputError, match=re.escape(layer.rpartition(".")[2])):
            LOADERS[loader](folder)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize("loader", LOADERS)
def test_weights_and_config_fit(tmp_path, architecture, loader):
    """Weights of another architecture, of more layers, with biases that the config does without, of another size."""
    layers = "n_layers" if architecture == "DistilBert" else "num_hidden_layers"
    other = "DistilBert" if architecture == "Bert" else "Bert"
    for number, (model, changes) in enumerate(
        [(other, {}), (architecture, {layers: 3}), (architecture, {"vocab_size": 490})]
    ):
        folder = tiny.checkpoint(tmp_path / str(number), model, **changes)
        tiny.config(architecture).save_pretrained(folder)
        with pytest.raises(InputError):
            LOADERS[loader](folder)
    folder = tiny.checkpoint(tmp_path / "bias", "ModernBert", attention_bias=True)
    tiny.config("ModernBert").save_pretrained(folder)
    with pytest.raises(InputError, match="no place"):
        LOADERS[loader](folder)


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", ["bert.embeddings.word_embeddings.weight", "bert.encoder.layer.1.output.dense.bias"])
def test_weights_are_finite(tmp_path, loader, value, where):
    folder = tiny.checkpoint(tmp_path)
    tensors = load_file(f"{folder}/model.safetensors")
    tensors[where].view(-1)[3] = value
    save_file(tensors, f"{folder}/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="NaN or infinity"):
        LOADERS[loader](folder)


# --- Files that are not what they should be ---


def test_an_index_names_no_pickle(tmp_path):
    folder = tmp_path / "model"
    model = tiny.model()
    model.save_pretrained(folder, max_shard_size="20KB")
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    content["weight_map"] = dict.fromkeys(content["weight_map"], "pytorch_model.bin")
    index.write_text(json.dumps(content))
    for loader in LOADERS.values():
        for options in ({}, {"allow_pickled_weights": True}):
            with pytest.raises(InputError, match="pytorch_model.bin"):
                loader(str(folder), **options)


NO_OBJECTS = ["[1]", "5", "null", '"text"', "{", ""]


@pytest.mark.parametrize("content", NO_OBJECTS)
@pytest.mark.parametrize("file", ["config.json", "model.safetensors.index.json"])
def test_json_of_a_model_is_an_object(tmp_path, file, content):
    folder = Path(tiny.checkpoint(tmp_path))
    if file.endswith(".index.json"):
        (folder / "model.safetensors").unlink()
    (folder / file).write_text(content)
    for loader in LOADERS.values():
        with pytest.raises(InputError):
            loader(str(folder))


BAD_CONFIGS = {
    "hidden_size": ["16", None, 0, -16, 15, 1.5, [16]],
    "num_hidden_layers": ["2", None, 0, -1, [2]],
    "vocab_size": ["500", None, 0, -1, 12],
    "num_attention_heads": [0, -1, "2", 3],
    "hidden_act": ["none", 5, None],
    "model_type": ["no_such", 5, None, "distilbert"],
    "max_position_embeddings": [0, -1, "64", 7],
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in BAD_CONFIGS.items() for value in values]
)
def test_a_config_that_does_not_fit_is_refused(tmp_path, field, value):
    folder = Path(tiny.checkpoint(tmp_path))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, field: value}))
    for loader in SOME_LOADERS:
        with pytest.raises(InputError):
            LOADERS[loader](str(folder))


@pytest.mark.parametrize("architecture", tiny.SEQ2SEQ_ARCHITECTURES)
def test_an_encoder_with_a_decoder_is_not_fine_tuned(tmp_path, architecture):
    tiny.model(architecture, "ForConditionalGeneration").save_pretrained(tmp_path)
    with pytest.raises(InputError, match="decoder"):
        LOADERS["nli"](str(tmp_path))


def test_an_encoder_of_speech_is_refused(tmp_path):
    from transformers import WhisperConfig, WhisperModel

    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = WhisperConfig(vocab_size=500, d_model=16, encoder_ffn_dim=8, decoder_ffn_dim=8, pad_token_id=0, **sizes)
    WhisperModel(config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="text"):
        load_encoder(str(tmp_path))


def test_a_config_of_no_text_encoder_is_refused(tmp_path):
    from transformers import CLIPConfig

    CLIPConfig().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="text encoder"):
        load_config(str(tmp_path))
