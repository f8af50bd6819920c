"""Tokenizers, and the longest input that a tokenizer and its encoder can take."""

from typing import Any

from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from utils.core.errors import InputError
from utils.models.adapters import adapter_config, base_of
from utils.models.loading import NOT_LOADED, not_found, without_permission


def load_tokenizer(model_name_or_path: str, **hub_options: Any) -> PreTrainedTokenizerBase:  # noqa: ANN401
    """The fast tokenizer of a Hub repository or a folder; that of its base model, if it is an adapter without one.

    Raises:
        InputError: if there is none.
    """
    options = without_permission(hub_options)
    try:
        return AutoTokenizer.from_pretrained(model_name_or_path, use_fast=True, **options)
    except NOT_LOADED as error:
        if adapter := adapter_config(model_name_or_path, **hub_options):
            base, options = base_of(adapter, hub_options)
            return load_tokenizer(base, **options)
        raise not_found(model_name_or_path, error) from error


# Tokenizers without a limit have a huge number as `model_max_length`.
_NO_LIMIT = 10**6


def encoder_max_length(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> int:
    """The longest input in tokens, special ones included, that both tokenizer and encoder can take.

    The tokenizer's own limit where it has one, and never more than the encoder has positions for. RoBERTa-like
    encoders number positions from `padding_idx + 1`, so as many rows of the position table are unused.
    """
    limits = [tokenizer.model_max_length] if tokenizer.model_max_length < _NO_LIMIT else []
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions and positions > 0:
        tables = [m for m in model.modules() if isinstance(m, nn.Embedding) and m.num_embeddings == positions]
        unused = max((t.padding_idx + 1 for t in tables if t.padding_idx is not None), default=0)
        limits.append(positions - unused)
    return min(limits, default=512)


def sentence_length_limit(wanted: int | None, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> int:
    """`--max_seq_length`, or by default `encoder_max_length`.

    Raises:
        InputError: if that is more than the encoder can take.
    """
    longest = encoder_max_length(tokenizer, model)
    if wanted is not None and not 0 < wanted <= longest:
        raise InputError(f"--max_seq_length {wanted} is more than this encoder can take; choose at most {longest}.")
    return wanted or longest
