"""Layers: which are aligned, which are needed, and which parameters are frozen."""

import re
from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import tiny
from utils.core.errors import InputError
from utils.models.adapters import LoraArguments, with_lora
from utils.models.encoders import load_task_model
from utils.models.layers import aligned_layers, freeze_layers, freeze_unused_parameters, parse_frozen_layers


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize("layer", [-1, 1])
def test_only_what_matters_is_trainable(architecture, layer):
    encoder = tiny.model(architecture, head="")
    freeze_unused_parameters(encoder, layer)
    tokens = torch.tensor([[2, 7, 8, 3]])
    states = encoder(input_ids=tokens, output_hidden_states=True).hidden_states
    states[layer].square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    assert not [n for n, p in encoder.named_parameters() if "pooler" in n and p.requires_grad]


@pytest.mark.parametrize(
    ("given", "expected"), [([-1], [-1]), ([12], [-1]), ([-1, 4], [4, -1]), ([12, 0, -1, 4], [0, 4, -1]), ([-2], [11])]
)
def test_aligned_layers(given, expected):
    assert aligned_layers(given, 12) == expected
    for unknown in (13, -14):
        with pytest.raises(InputError, match=f"--alignment_layer {unknown}"):
            aligned_layers([*given, unknown], 12)


@pytest.mark.parametrize(
    ("words", "n_layers", "expected"),
    [("0", 12, []), ("3", 12, [0, 1, 2]), ("0-2", 12, [0, 1, 2]), ("3-3", 12, [3]), ("2 3 7", 12, [2, 3, 7]),
     ("0-1 1-2 11", 12, [0, 1, 2, 11]), ("front", 5, [0, 1]), ("back", 5, [2, 3, 4]), ("front", 4, [0, 1]), ("5", 5, range(5))],
)  # fmt: skip
def test_names_of_frozen_layers(words, n_layers, expected):
    assert parse_frozen_layers(words.split(), n_layers) == set(expected)
    assert parse_frozen_layers([words], n_layers) == set(expected)


@pytest.mark.parametrize(
    "words", ["13", "12-12", "0-12", "5-2", "-1", "-3", "all", "front back", "0 front", "1,2", "1-2-3", "x"]
)
def test_names_of_layers_that_do_not_exist(words):
    with pytest.raises(InputError, match="--freeze_layers .* 0 to 11"):
        parse_frozen_layers(words.split(), 12)


N_LAYERS = 4


def small(architecture, head=""):
    return tiny.model(
        architecture, head, seed=1, **{"n_layers" if architecture == "DistilBert" else "num_hidden_layers": N_LAYERS}
    )


def layer_of(name):
    """The layer that a parameter belongs to, by its name; -1 for the embeddings; 9 for a pooler or a head."""
    if found := re.search(r"layers?\.(\d+)\.", name):
        return int(found[1])
    if "embeddings" in name and "rel_embeddings" not in name:
        return -1
    if "final_norm" in name:
        return N_LAYERS - 1
    return 0 if re.search("encoder.(rel_embeddings|LayerNorm)", name) else 9


def moved_by_training(model):
    """The names of the parameters that two steps change, of those that are trained or not."""
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for seed in (1, 2):
        ids = torch.randint(5, 60, (2, 6), generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        out = model.train()(input_ids=ids, output_hidden_states=True)
        (out.hidden_states[-1].square().sum() + (out.logits.square().sum() if "logits" in out else 0)).backward()
        optimizer.step()
    return {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(tiny.ARCHITECTURES), st.sampled_from([None, False, True]),
    st.one_of(st.sampled_from([["0"], ["2"], ["front"], ["back"], ["1-2"]]),
              st.sets(st.integers(0, N_LAYERS - 1), min_size=2, max_size=3).map(lambda chosen: [*map(str, sorted(chosen))])),
)  # fmt: skip
def test_exactly_the_named_tensors_stay(architecture, embeddings, words):
    encoder = small(architecture)
    freeze_unused_parameters(encoder)
    trained = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    chosen = parse_frozen_layers(words, N_LAYERS)
    chosen |= {-1} if (0 in chosen if embeddings is None else embeddings) else set()
    freeze_layers(encoder, words, embeddings)
    assert moved_by_training(encoder) == {name for name in trained if layer_of(name) not in chosen}


@pytest.mark.parametrize("words", ["front", "1-2", "back"])
def test_frozen_layers_get_no_adapter(tmp_path, words):
    model = small("Bert", "ForTokenClassification")
    model.save_pretrained(tmp_path / "base")
    model, _ = load_task_model(type(model), str(tmp_path / "base"))
    chosen = parse_frozen_layers([words], N_LAYERS)
    freeze_layers(model.base_model, [words], embeddings=False)
    adapted = with_lora(model, "base", LoraArguments(use_lora=True, lora_rank=2))
    changed = moved_by_training(adapted)
    assert {layer_of(name) for name in changed if ".lora_" in name} == set(range(N_LAYERS)) - chosen
    assert {name for name in changed if ".lora_" not in name} == {
        f"base_model.model.classifier.modules_to_save.default.{kind}" for kind in ("weight", "bias")
    }


@pytest.mark.parametrize(
    ("words", "embeddings", "aligned", "why"),
    [("4", None, -1, "nothing to train"), ("2", None, 2, "nothing to train"), ("0-3", True, -1, "nothing to train"),
     ("0", True, 0, "nothing to train"), ("2-3", None, 2, "not trained anyway")],
)  # fmt: skip
def test_what_cannot_be_frozen(words, embeddings, aligned, why):
    encoder = small("Bert")
    freeze_unused_parameters(encoder, aligned)
    with pytest.raises(InputError, match=why):
        freeze_layers(encoder, [words], embeddings, aligned)


def test_an_adapter_needs_a_layer_that_is_not_frozen():
    encoder = small("Bert")
    freeze_layers(encoder, ["4"], embeddings=False)
    with pytest.raises(InputError, match="--use_lora finds no linear module"):
        with_lora(encoder, "base", LoraArguments(use_lora=True))


@pytest.mark.parametrize(("layers", "works"), [([-1], True), ([1, -1], True), ([0], False), ([0, -1], False)])
def test_an_aligned_layer_without_an_adapter_below_it_is_refused(layers, works):
    encoder = small("Bert")
    with nullcontext() if works else pytest.raises(InputError):
        with_lora(encoder, "base", LoraArguments(use_lora=True, lora_rank=2), layers=layers)
