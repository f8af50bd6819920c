"""An adjusted checkpoint is the original one in everything but the weights that were trained."""

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForTokenClassification,
    BertForPreTraining,
    BertModel,
)

from helpers import tiny
from helpers.checkpoints import load_report
from utils.core.errors import InputError
from utils.models.adapters import LoraArguments, save_adapter, with_lora
from utils.models.encoders import (
    layout_of,
    load_encoder,
    load_encoder_weights,
    load_task_model,
    save_encoder,
    save_task_model,
    weights_checksum,
)
from utils.models.layers import (
    hidden_states_at,
    is_causal,
    only_layers_below,
)
from utils.models.loading import load_config
from utils.models.tokenizers import load_tokenizer


def adjusted(folder, output, **options):
    """Load, move every trained weight, save."""
    encoder = load_encoder(folder, **options)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(1.0)
    save_encoder(encoder, output)
    return encoder


@pytest.mark.parametrize("head", ["", "ForMaskedLM", "ForSequenceClassification"])
@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_every_tensor_is_kept(tmp_path, architecture, head):
    folder = tiny.checkpoint(tmp_path / "original", architecture, head)
    adjusted(folder, tmp_path / "adjusted")
    before = load_file(f"{folder}/model.safetensors")
    after = load_file(tmp_path / "adjusted" / "model.safetensors")
    assert set(before) == set(after)
    encoder_names = set(AutoModel.from_pretrained(folder).state_dict())
    prefix = AutoModel.from_pretrained(folder).base_model_prefix + "."
    for name, tensor in before.items():
        moved = 1.0 if name.removeprefix(prefix) in encoder_names else 0.0
        torch.testing.assert_close(after[name], tensor + moved)
    config, original = (AutoConfig.from_pretrained(f) for f in (tmp_path / "adjusted", folder))
    assert config.architectures == original.architectures


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_masked_lm_head_follows_the_embeddings(tmp_path, architecture):
    folder = tiny.checkpoint(tmp_path / "original", architecture)
    adjusted(folder, tmp_path / "adjusted")
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "adjusted")
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for name, parameter in AutoModelForMaskedLM.from_pretrained(folder).named_parameters():
        is_encoder = name.startswith(model.base_model_prefix + ".")
        if not is_encoder and model.get_parameter(name) is not model.get_output_embeddings().weight:
            torch.testing.assert_close(model.get_parameter(name), parameter)


def test_output_matrix_stored_twice_stays_tied(tmp_path):
    """mBERT's own checkpoint stores the tied matrix twice, and names layer norms as TensorFlow did."""
    folder = tmp_path / "original"
    model = BertForPreTraining(tiny.config())
    model.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"].clone()
    old_names = {".LayerNorm.weight": ".LayerNorm.gamma", ".LayerNorm.bias": ".LayerNorm.beta"}
    for new, old in old_names.items():
        tensors = {k.replace(new, old): v for k, v in tensors.items()}
    save_torch_state_dict(tensors, folder, metadata={"format": "pt"})
    adjusted(str(folder), tmp_path / "adjusted")
    after = BertForPreTraining.from_pretrained(tmp_path / "adjusted")
    assert after.cls.predictions.decoder.weight is after.bert.embeddings.word_embeddings.weight
    for name, parameter in model.cls.named_parameters():
        if "decoder.weight" not in name:
            torch.testing.assert_close(after.cls.get_parameter(name), parameter)
    torch.testing.assert_close(after.bert.pooler.dense.weight, model.bert.pooler.dense.weight + 1)


@pytest.mark.parametrize("head", ["", "ForMaskedLM"])
def test_fine_tuning_starts_from_the_same_head(tmp_path, head, caplog):
    """The same message about newly initialized weights, and the same random head."""
    folder = tiny.checkpoint(tmp_path / "original", "Bert", head)
    adjusted(folder, tmp_path / "adjusted")
    assert load_report(folder, caplog) == load_report(tmp_path / "adjusted", caplog)


def test_a_missing_pooler_is_not_invented(tmp_path):
    folder = tmp_path / "original"
    BertModel(tiny.config(), add_pooling_layer=False).save_pretrained(folder)
    adjusted(str(folder), tmp_path / "adjusted")
    assert not [k for k in load_file(tmp_path / "adjusted" / "model.safetensors") if "pooler" in k]


def test_shards_and_pickled_weights(tmp_path):
    model = tiny.model("Bert")
    sharded, pickled = tmp_path / "sharded", tmp_path / "pickled"
    model.save_pretrained(sharded, max_shard_size="20KB")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    pickled.mkdir()
    model.config.save_pretrained(pickled)
    torch.save(model.state_dict(), pickled / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pickled are a pickle \(pytorch_model.bin\).* add --allow_pickled_weights"):
        load_encoder(str(pickled))
    with pytest.raises(InputError, match="add --allow_pickled_weights"):
        load_task_model(AutoModelForMaskedLM, str(pickled))
    load_task_model(AutoModelForMaskedLM, str(pickled), allow_pickled_weights=True)
    for folder in (sharded, pickled):
        adjusted(str(folder), tmp_path / "adjusted", allow_pickled_weights=folder == pickled)
        after = AutoModelForMaskedLM.from_pretrained(tmp_path / "adjusted")
        torch.testing.assert_close(after.cls.predictions.bias, model.cls.predictions.bias)
        assert after.bert.embeddings.word_embeddings.weight.equal(model.bert.embeddings.word_embeddings.weight + 1)


def test_half_precision_checkpoints_are_adjusted_in_full(tmp_path):
    model = tiny.model("Bert").half()
    model.save_pretrained(tmp_path / "original")
    encoder = adjusted(str(tmp_path / "original"), tmp_path / "adjusted")
    assert encoder.dtype == torch.float32
    saved = load_file(tmp_path / "adjusted" / "model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    assert AutoModel.from_pretrained(tmp_path / "adjusted").dtype == torch.float32


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_weights_come_back(tmp_path, architecture):
    folder = tiny.checkpoint(tmp_path / "original", architecture)
    trained = adjusted(folder, tmp_path / "adjusted")
    encoder = load_encoder(folder)
    load_encoder_weights(encoder, tmp_path / "adjusted")
    for name, tensor in trained.state_dict().items():
        if name not in layout_of(trained).missing:
            assert torch.equal(encoder.state_dict()[name], tensor)


def test_sentence_transformers_loads_it(tmp_path):
    from sentence_transformers import SentenceTransformer

    folder = tiny.checkpoint(tmp_path / "original")
    adjusted(folder, tmp_path / "adjusted")
    load_tokenizer(folder).save_pretrained(tmp_path / "adjusted")
    vectors = SentenceTransformer(str(tmp_path / "adjusted"), device="cpu").encode(["The quiet river"])
    encoder, tokenizer = load_encoder(str(tmp_path / "adjusted")), load_tokenizer(folder)
    state = encoder(**tokenizer("The quiet river", return_tensors="pt")).last_hidden_state
    torch.testing.assert_close(torch.tensor(vectors), state.mean(dim=1).detach(), rtol=1e-4, atol=1e-4)


def test_what_cannot_be_loaded(tmp_path):
    with pytest.raises(InputError, match="There is no model no/where: neither a folder"):
        load_encoder("no/where")
    with pytest.raises(InputError, match="There is no model no/where"):
        load_tokenizer("no/where")
    (tmp_path / "empty").mkdir()
    for load in (load_encoder, load_tokenizer, load_config):
        with pytest.raises(
            InputError, match="empty holds no model that can be loaded: it has no config.json.* resume"
        ):
            load(str(tmp_path / "empty"))


def test_a_failed_save_leaves_the_good_one(tmp_path, monkeypatch):
    folder = tiny.checkpoint(tmp_path / "original")
    encoder = adjusted(folder, tmp_path / "adjusted")
    good = load_file(tmp_path / "adjusted" / "model.safetensors")

    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("utils.models.encoders.save_torch_state_dict", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_encoder(encoder, tmp_path / "adjusted")
    after = load_file(tmp_path / "adjusted" / "model.safetensors")
    assert all(torch.equal(after[k], v) for k, v in good.items())
    assert sorted(p.name for p in (tmp_path / "adjusted").iterdir()) == ["config.json", "model.safetensors"]


def test_what_a_killed_save_has_left_goes_with_the_next_one(tmp_path):
    """It would fill the disk, and be pushed to the Hub with the rest of the folder."""
    folder = tiny.checkpoint(tmp_path / "original")
    (tmp_path / "adjusted" / ".writing-abc").mkdir(parents=True)
    (tmp_path / "adjusted" / ".writing-abc" / "model.safetensors").write_bytes(b"half")
    save_encoder(load_encoder(folder), tmp_path / "adjusted")
    assert sorted(p.name for p in (tmp_path / "adjusted").iterdir()) == ["config.json", "model.safetensors"]


def test_links_of_an_encoder_are_found_again_whatever_the_seed(tmp_path):
    """A pooler that the checkpoint lacks is random; links do not depend on it, so neither does what they are kept under."""
    tiny.model().save_pretrained(tmp_path)  # with a masked-LM head: without a pooler
    sums = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        sums.append(weights_checksum(load_encoder(str(tmp_path))))
    assert sums[0] == sums[1]
    tiny.model(seed=3).save_pretrained(tmp_path)
    assert weights_checksum(load_encoder(str(tmp_path))) != sums[0]


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_layers_that_are_not_needed_are_left_out(architecture):
    sizes = {"n_layers": 6} if architecture == "DistilBert" else {"num_hidden_layers": 6}
    encoder = tiny.model(architecture, "", **sizes)
    ids = torch.tensor([[2, 11, 12, 13, 3]])
    counted = []
    stack = next(part for part in encoder.modules() if isinstance(part, torch.nn.ModuleList) and len(part) == 6)
    for layer in stack:
        layer.register_forward_hook(lambda *_: counted.append(1))
    for layers, n_run in (([2], 3), ([0, 3], 4), ([-5], 3), ([5], 6), ([-1], 6), ([1, 6], 6)):
        with torch.no_grad():
            whole = hidden_states_at(encoder, ids, torch.ones_like(ids), layers)
            with only_layers_below(encoder, layers) as needed:
                counted.clear()
                found = hidden_states_at(encoder, ids, torch.ones_like(ids), needed)
        assert len(counted) == n_run
        for state, expected in zip(found, whole):
            assert state.equal(expected)
    with pytest.raises(KeyError), only_layers_below(encoder, [1]):
        raise KeyError
    assert len(encoder(ids, output_hidden_states=True).hidden_states) == 7


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_an_encoder_that_is_first_run_without_its_upper_layers_has_them_afterwards(architecture):
    sizes = {"n_layers": 4} if architecture == "DistilBert" else {"num_hidden_layers": 4}
    ids = torch.tensor([[2, 11, 12, 13, 3]])
    states = []
    for first in ([1], [4]):
        encoder = tiny.model(architecture, "", **sizes)
        with torch.no_grad():
            with only_layers_below(encoder, first) as needed:
                hidden_states_at(encoder, ids, torch.ones_like(ids), needed)
            states.append(hidden_states_at(encoder, ids, torch.ones_like(ids), range(5)))
    for state, expected in zip(*states, strict=True):
        assert state.equal(expected)


@pytest.mark.parametrize("architecture", [*tiny.ARCHITECTURES, *tiny.CAUSAL_ARCHITECTURES])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_causal_models_are_recognized(architecture, dtype):
    encoder = tiny.model(architecture, "").to(dtype)
    assert is_causal(encoder) == (architecture in tiny.CAUSAL_ARCHITECTURES)


def test_weights_in_bfloat16(tmp_path):
    folder = tiny.checkpoint(tmp_path / "model", "Llama", "ForCausalLM", "bytes")
    encoder, whole = load_encoder(folder, torch.bfloat16), load_encoder(folder)
    assert {weight.dtype for weight in encoder.parameters()} == {torch.bfloat16}
    assert encoder.rotary_emb.inv_freq.dtype == torch.float32
    for name, weight in whole.named_parameters():
        assert torch.equal(encoder.get_parameter(name), weight.bfloat16())
    tokens = torch.arange(6).view(1, 6)
    adapted = with_lora(encoder, folder, LoraArguments(use_lora=True))
    assert {weight.dtype for weight in adapted.parameters() if weight.requires_grad} == {torch.float32}
    hidden_states_at(adapted, tokens, torch.ones_like(tokens), [1])[0].float().sum().backward()
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.add_(0.1)
    save_adapter(adapted, tmp_path / "adapter")
    merged, rounded = (load_encoder(str(tmp_path / "adapter"), dtype) for dtype in (torch.float32, torch.bfloat16))
    assert rounded.rotary_emb.inv_freq.dtype == torch.float32
    for name, weight in merged.named_parameters():
        assert torch.equal(rounded.get_parameter(name), weight.bfloat16())


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("architecture", tiny.SEQ2SEQ_ARCHITECTURES)
def test_the_encoder_of_a_model_with_a_decoder(tmp_path, architecture, older):
    """It is what the whole model computes; saved, it is the whole model again, with the adjusted encoder."""
    original = tiny.model(architecture, "ForConditionalGeneration")
    original.save_pretrained(tmp_path / "original")
    if older:  # with a copy of the embeddings on each side
        path = tmp_path / "original" / "model.safetensors"
        tensors = load_file(path)
        shared = next(name for name in tensors if name.endswith("shared.weight"))
        sides = [shared.replace("shared", f"{side}.embed_tokens") for side in ("encoder", "decoder")]
        save_file(tensors | {name: tensors[shared].clone() for name in sides}, path, metadata={"format": "pt"})
    tokens = torch.arange(4, 10).view(2, 3)
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    encoder = load_encoder(str(tmp_path / "original"))
    with torch.no_grad():
        whole = original(**inputs, decoder_input_ids=tokens).encoder_last_hidden_state
        torch.testing.assert_close(encoder(**inputs).last_hidden_state, whole)
    adjusted(str(tmp_path / "original"), tmp_path / "adjusted")
    after = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "adjusted")
    assert type(after) is type(original)
    encoder_weights = {id(weight) for weight in after.get_encoder().parameters()}
    for name, weight in after.named_parameters():
        moved = 1.0 if id(weight) in encoder_weights else 0.0
        torch.testing.assert_close(weight, original.get_parameter(name) + moved, msg=name)
    again = load_encoder(str(tmp_path / "adjusted"))
    assert torch.equal(again.get_input_embeddings().weight, after.get_input_embeddings().weight)


@pytest.mark.parametrize("architecture", ["MT5", "M2M100"])
def test_an_adapter_on_the_encoder_of_a_model_with_a_decoder(tmp_path, architecture):
    tiny.model(architecture, "ForConditionalGeneration").save_pretrained(tmp_path / "original")
    encoder = load_encoder(str(tmp_path / "original"))
    adapted = with_lora(encoder, str(tmp_path / "original"), LoraArguments(use_lora=True))
    with torch.no_grad():
        for weight in adapted.parameters():
            weight.add_(0.1 * weight.requires_grad)
    save_adapter(adapted, tmp_path / "adapter")
    tokens = torch.arange(4, 10).view(2, 3)
    states = hidden_states_at(adapted.eval(), tokens, torch.ones_like(tokens), [1, 2])
    merged = load_encoder(str(tmp_path / "adapter"))
    for state, other in zip(states, hidden_states_at(merged, tokens, torch.ones_like(tokens), [1, 2])):
        torch.testing.assert_close(other, state, rtol=1e-4, atol=1e-5)
    save_encoder(merged, tmp_path / "merged")
    AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "merged")


# --- Models that bring their own code ---


@pytest.fixture
def with_code(tmp_path):
    """A folder with a model whose classes are in modules of their own, one for each head."""
    folder = Path(tiny.checkpoint(tmp_path / "original"))
    (folder / "configuration_x.py").write_text(
        "from transformers import BertConfig\nclass XConfig(BertConfig):\n    model_type = 'xbert'\n"
    )
    (folder / "parts_x.py").write_text("from .configuration_x import XConfig\n")
    for head in ("Model", "ForTokenClassification"):
        code = f"from transformers import Bert{head}\nfrom .parts_x import XConfig\n"
        code += f"class X{head}(Bert{head}):\n    config_class = XConfig\n"
        (folder / f"modeling_{head.lower()}.py").write_text(code)
    config = json.loads((folder / "config.json").read_text())
    names = {"AutoModel": "Model", "AutoModelForTokenClassification": "ForTokenClassification"}
    code = {name: f"modeling_{head.lower()}.X{head}" for name, head in names.items()}
    config |= {"model_type": "xbert", "auto_map": {"AutoConfig": "configuration_x.XConfig", **code}}
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.mark.parametrize("adjusts", [True, False])
def test_the_code_of_a_model_is_saved_with_it(tmp_path, with_code, adjusts):
    """All of it: an adjusted encoder is fine-tuned, and the encoder of a task model is measured."""
    if adjusts:
        save_encoder(load_encoder(with_code, trust_remote_code=True), tmp_path / "saved")
    else:
        made, _ = load_task_model(AutoModelForTokenClassification, with_code, ["a", "b"], trust_remote_code=True)
        save_task_model(made, tmp_path / "saved")
    saved = str(tmp_path / "saved")
    for kind, name in ((AutoModel, "XModel"), (AutoModelForTokenClassification, "XForTokenClassification")):
        assert type(kind.from_pretrained(saved, trust_remote_code=True)).__name__ == name
    assert type(load_encoder(saved, trust_remote_code=True)).__name__ == "XModel"


def test_its_weights_come_back_without_its_code(tmp_path, with_code):
    """A checkpoint of a run needs no permission for code: its model is there already."""
    encoder = load_encoder(with_code, trust_remote_code=True)
    save_encoder(encoder, tmp_path / "saved")
    before = {name: weight.clone() for name, weight in encoder.state_dict().items() if "pooler" not in name}
    for weight in encoder.parameters():
        weight.data += 1
    load_encoder_weights(encoder, tmp_path / "saved")
    assert all(torch.equal(encoder.state_dict()[name], weight) for name, weight in before.items())


@pytest.mark.parametrize(("damage", "message"), [("lacks", "lack encoder"), ("nan", "NaN")])
def test_damaged_weights_do_not_come_back(tmp_path, damage, message):
    encoder = load_encoder(tiny.checkpoint(tmp_path / "original"))
    save_encoder(encoder, tmp_path / "saved")
    stored = load_file(tmp_path / "saved" / "model.safetensors")
    name = next(name for name in stored if "encoder.layer.1" in name)
    stored.update({name: stored.pop(name) * float("nan")} if damage == "nan" else {name: None})
    save_file({k: v for k, v in stored.items() if v is not None}, tmp_path / "saved" / "model.safetensors")
    with pytest.raises(InputError, match=message):
        load_encoder_weights(encoder, tmp_path / "saved")
