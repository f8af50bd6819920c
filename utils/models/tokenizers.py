"""Tokenizers, and the longest input that a tokenizer and its encoder can take."""

import hashlib
import logging
from typing import Any

from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from utils.core.errors import InputError
from utils.models.loading import load_or_base


logger = logging.getLogger(__name__)

# Tokenizers without a limit have a huge number as `model_max_length`.
_NO_LIMIT = 10**6


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of what a fast tokenizer makes of text: vocabulary and rules, without name, truncation and padding."""
    _, _, rules = tokenizer.backend_tokenizer.to_str().partition('"added_tokens":')
    return hashlib.sha256(rules.encode()).hexdigest()[:16]


def load_tokenizer(name: str, **hub_options: Any) -> PreTrainedTokenizerBase:
    """The fast tokenizer of a model, or that of its base model if it is an adapter without one.

    It pads and truncates on the right, with a token that it knows: the positions of words are counted from the left.

    Raises:
        InputError: if there is none, or it has no vocabulary.
    """
    tokenizer = load_or_base(_with_vocabulary, name, hub_options)
    sides = {side: getattr(tokenizer, side) for side in ("padding_side", "truncation_side")}
    if changed := [side for side, value in sides.items() if value != "right"]:
        logger.info(f"The tokenizer of {name} has {' and '.join(changed)} left; right is used.")
        tokenizer.padding_side = tokenizer.truncation_side = "right"
    if tokenizer.pad_token is None:
        known = (tokenizer.eos_token, tokenizer.sep_token, tokenizer.unk_token)
        tokenizer.pad_token = next(filter(None, known), None)
        if tokenizer.pad_token is None:
            raise InputError(f"The tokenizer of {name} has no pad_token; add one to its tokenizer_config.json.")
        logger.info(f"The tokenizer of {name} has no pad_token; {tokenizer.pad_token} is used.")
    return tokenizer


def _with_vocabulary(name: str, **hub_options: Any) -> PreTrainedTokenizerBase:
    """A tokenizer that knows a letter; without files, transformers makes one that knows special tokens only."""
    tokenizer = AutoTokenizer.from_pretrained(name, **hub_options)
    if not any(any(map(str.isalnum, token)) for token in tokenizer.get_vocab().keys() - tokenizer.all_special_tokens):
        raise InputError(
            f"The model {name} has no tokenizer (tokenizer.json, vocab.txt, sentencepiece.bpe.model, ...); copy the files "
            "of the model that it was made from."
        )
    return tokenizer


def encoder_max_length(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> int:
    """The longest input in tokens, special ones included, that both tokenizer and encoder can take.

    RoBERTa-like encoders number positions from `padding_idx + 1`: the rows of the position table before it are unused.

    Raises:
        InputError: if the tokenizer has a token for which the encoder has no embedding.
    """
    rows, largest = getattr(model.get_input_embeddings(), "num_embeddings", None), max(tokenizer.get_vocab().values())
    if rows and largest >= rows:
        raise InputError(
            f"The tokenizer {tokenizer.name_or_path} has ids up to {largest}, but the model {model.name_or_path} has only "
            f"{rows} embeddings (0 to {rows - 1}); use the tokenizer that the model was trained with."
        )
    limits = [tokenizer.model_max_length] if tokenizer.model_max_length < _NO_LIMIT else []
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions and positions > 0:
        tables = [m for m in model.modules() if isinstance(m, nn.Embedding) and m.num_embeddings == positions]
        unused = max((t.padding_idx + 1 for t in tables if t.padding_idx is not None), default=0)
        limits.append(positions - unused)
    return min(limits, default=512)


def sentence_length_limit(wanted: int | None, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> int:
    """`--max_seq_length`, or by default `encoder_max_length`; `InputError` if the encoder cannot take as many tokens."""
    longest = encoder_max_length(tokenizer, model)
    if wanted is not None and not 0 < wanted <= longest:
        raise InputError(f"--max_seq_length {wanted} is more than this encoder can take; choose at most {longest}.")
    return wanted or longest
