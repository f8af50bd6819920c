"""Tokenizers, and the longest input that a tokenizer and its encoder can take."""

from typing import Any

from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from utils.core.errors import InputError
from utils.models.loading import load_or_base


# Tokenizers without a limit have a huge number as `model_max_length`.
_NO_LIMIT = 10**6


def load_tokenizer(name: str, **hub_options: Any) -> PreTrainedTokenizerBase:
    """The fast tokenizer of a model, or that of its base model if it is an adapter without one.

    Raises:
        InputError: if there is none.
    """
    return load_or_base(AutoTokenizer.from_pretrained, name, hub_options)


def encoder_max_length(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> int:
    """The longest input in tokens, special ones included, that both tokenizer and encoder can take.

    RoBERTa-like encoders number positions from `padding_idx + 1`: the rows of the position table before it are unused.
    """
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
