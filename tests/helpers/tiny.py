"""Tiny tokenizers and checkpoints, made on the fly: every family of subword tokenizer, every encoder architecture."""

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from utils.alignment.words import split_on_punctuation


TEXT = [
    "The river was quiet, and nobody crossed the old bridge before 7 o'clock.",
    "El río estaba tranquilo; ¿quién cruzó el puente viejo antes de las 7?",
    "Река была тихой, и никто не переходил старый мост до семи часов.",
    "Dòng sông yên tĩnh, không ai qua cây cầu cũ trước 7 giờ.",
    "नदी शांत थी, और सात बजे से पहले किसी ने पुराना पुल पार नहीं किया।",
    "Anna's sister reads newspapers; she doesn't watch television.",
]
_WORDS = sorted({word for text in TEXT for word in split_on_punctuation(text)})
_LETTERS = sorted(set("".join(_WORDS)) | set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"))
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def tokenizer(kind: str = "wordpiece", begin: str | None = "[CLS]", end: str | None = "[SEP]"):
    """A fast tokenizer: `wordpiece` (BERT), `unigram` (XLM-R), `bytes` (RoBERTa, ModernBERT) or `gemma` (mmBERT).

    `begin` and `end` are the special tokens put around a sentence, None for none.
    """
    common = {"special_tokens": SPECIAL, "show_progress": False}
    # (The trainers of WordPiece and Unigram give another vocabulary in every process.)
    if kind == "wordpiece":
        pieces = [*_LETTERS, *(f"##{letter}" for letter in _LETTERS), *(word[:3] for word in _WORDS)]
        pieces += [f"##{word[3:6]}" for word in _WORDS if len(word) > 3]
        vocabulary = {piece: k for k, piece in enumerate(dict.fromkeys([*SPECIAL, *pieces]))}
        made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
        made.normalizer = normalizers.BertNormalizer(lowercase=False)
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        made.decoder = decoders.WordPiece()
        trainer = None
    elif kind == "unigram":
        pieces = ["▁", *_LETTERS, *(f"▁{word[:3]}" for word in _WORDS), *(word[3:6] for word in _WORDS)]
        pieces = [piece for piece in dict.fromkeys([*SPECIAL, *pieces]) if piece]
        made = Tokenizer(models.Unigram([(piece, -10.0 + len(piece)) for piece in pieces], unk_id=1))
        made.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()])
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = None
    elif kind == "bytes":
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **common)
    else:  # one long "word": spaces become ▁ and the sentence is merged as a whole
        made = Tokenizer(models.BPE(unk_token="[UNK]", byte_fallback=False))
        made.normalizer = normalizers.Replace(" ", "▁")
        made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        trainer = trainers.BpeTrainer(vocab_size=300, **common)
    if trainer:
        made.train_from_iterator(TEXT, trainer)
    around = " ".join([*([begin] if begin else []), "$A", *([end] if end else [])])
    tokens = [(token, made.token_to_id(token)) for token in (begin, end) if token]
    made.post_processor = processors.TemplateProcessing(single=around, special_tokens=tokens)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=64, model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


def pair_tokenizer(kind: str = "wordpiece"):
    """The same for pairs of sentences: [CLS] first [SEP] second [SEP]."""
    made = tokenizer(kind)
    special = [(token, made.convert_tokens_to_ids(token)) for token in ("[CLS]", "[SEP]")]
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=special
    )
    return made


TOKENIZERS = ("wordpiece", "unigram", "bytes", "gemma")

_SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
_ARCHITECTURES = {
    "Bert": _SIZES,
    "XLMRoberta": {**_SIZES, "max_position_embeddings": 66, "pad_token_id": 0},
    "DistilBert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24},
    "DebertaV2": {**_SIZES, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False},
    "ModernBert": {**_SIZES, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2,
                   "sep_token_id": 3},
}  # fmt: skip
ARCHITECTURES = tuple(_ARCHITECTURES)
_CAUSAL = {
    "Llama": {**_SIZES, "num_key_value_heads": 1},
    "Qwen2": {**_SIZES, "num_key_value_heads": 1},
    "Gemma": {**_SIZES, "num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0},
}
CAUSAL_ARCHITECTURES = tuple(_CAUSAL)
_BART = {"d_model": 16, "pad_token_id": 0, "decoder_start_token_id": 3} | {
    f"{side}_{size}": number
    for side in ("encoder", "decoder")
    for size, number in {"layers": 2, "attention_heads": 2, "ffn_dim": 24}.items()
}
_SEQ2SEQ = {
    "T5": {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0},
    "MT5": {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0},
    "MBart": _BART,
    "M2M100": _BART,  # NLLB's
}
SEQ2SEQ_ARCHITECTURES = tuple(_SEQ2SEQ)


def config(architecture: str = "Bert", **changes: object):
    sizes = {
        "vocab_size": 500,
        "max_position_embeddings": 64,
        **(_ARCHITECTURES | _CAUSAL | _SEQ2SEQ)[architecture],
        **changes,
    }
    return getattr(transformers, f"{architecture}Config")(**sizes)


def model(architecture: str = "Bert", head: str = "ForMaskedLM", seed: int = 0, **changes: object):
    """A model with random weights; `head` is the end of its class name, empty for the bare encoder."""
    torch.manual_seed(seed)
    made = getattr(transformers, architecture + (head or "Model"))(config(architecture, **changes))
    with torch.no_grad():  # the usual initialization is too small for tests to tell layers apart
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    made.tie_weights()
    return made.eval()


def checkpoint(
    folder: Path, architecture: str = "Bert", head: str = "ForMaskedLM", kind: str = "wordpiece", **changes: object
) -> str:
    """A folder with a model and its tokenizer."""
    model(architecture, head, **changes).save_pretrained(folder)
    tokenizer(kind).save_pretrained(folder)
    return str(folder)


def decoder(folder: Path, architecture: str = "Llama") -> str:
    """A folder with a causal model, whose tokenizer has neither special tokens around a sentence nor a pad token."""
    model(architecture, "ForCausalLM", vocab_size=512).save_pretrained(folder)
    made = tokenizer("bytes", begin=None, end=None)
    made.pad_token, made.eos_token = None, "[SEP]"
    made.save_pretrained(folder)
    return str(folder)
