"""The vectors of sentences at several layers of an encoder."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from utils.core.errors import InputError
from utils.evaluation.encoding import encode_batch, longest_first
from utils.evaluation.neighbours import slices
from utils.models.layers import only_layers_below
from utils.models.tokenizers import encoder_max_length


# Batches that are tokenised ahead, sorted by length, and fetched from the device together.
_BATCHES_OF_CHUNK = 64
# Vectors checked for nan and inf at once.
_CHECKED_AT_ONCE = 65_536
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def mean_of_tokens(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean of all tokens, special ones included (Efimov et al., ECIR 2023)."""
    # Sums over half-precision states lose digits, and padding may hold anything.
    return states.float().masked_fill(~mask[..., None], 0).sum(dim=1) / mask.sum(dim=1, keepdim=True)


def first_token(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The first token."""
    return states[:, 0].float()


# Hidden states [batch, length, dimensions] and mask [batch, length] → vectors [batch, dimensions], fp32.
SENTENCE_POOLINGS = {"mean": mean_of_tokens, "cls": first_token}


def encode_sentences(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sentences: Sequence[str],
    layers: Sequence[int],
    pooling: str = "mean",
    batch_size: int = 64,
    max_length: int | None = None,
    description: str | None = None,
) -> torch.Tensor:
    """The vectors [layers, N, dimensions] of N sentences in one pass of the encoder; fp32, on the CPU.

    The encoder is put into evaluation mode. A repeated sentence is encoded once. Several processes (`accelerate launch`)
    share the work, and each returns the whole result.

    Args:
        model: an encoder, on the device that does the work.
        layers: indices into `hidden_states`: 0 the embeddings, -1 the last layer.
        pooling: a name in `SENTENCE_POOLINGS`.
        batch_size: sentences encoded at once per process.
        max_length: in tokens; longer sentences are truncated. By default the encoder's longest input.
        description: text of the progress bar.

    Raises:
        InputError: for an unknown pooling or an unusable `max_length`, or if vectors contain nan or inf.
    """
    if pooling not in SENTENCE_POOLINGS:
        raise InputError(f"The pooling {pooling} is unknown; choose one of {', '.join(SENTENCE_POOLINGS)}.")
    pool, state = SENTENCE_POOLINGS[pooling], PartialState()
    distinct = list(dict.fromkeys(sentences))
    share = longest_first([len(text) for text in distinct])[state.process_index :: state.num_processes]
    tokenize = _tokenize_chunks(model, tokenizer, distinct, max_length)
    chunks = [share[rows] for rows in slices(len(share), batch_size * _BATCHES_OF_CHUNK)]
    progress = logging.tqdm(total=len(share), desc=description, unit="sentence", disable=not state.is_main_process)
    model.eval()
    vectors = torch.zeros(len(layers), len(distinct), model.config.hidden_size)
    with only_layers_below(model, layers) as needed, torch.inference_mode():
        for chunk in _one_ahead(tokenize, chunks):
            parts = []
            for rows in slices(len(chunk), batch_size):
                ids = [tokens for _, tokens in chunk[rows]]
                states, mask = encode_batch(model, ids, needed, tokenizer.pad_token_id)
                parts.append(torch.stack([pool(layer, mask) for layer in states]))
                progress.update(len(ids))
            # This waits for the device, so it is not done for every batch.
            vectors[:, [i for i, _ in chunk]] = torch.cat(parts, dim=1).cpu()
    progress.close()
    if state.num_processes > 1:
        for others, theirs in gather_object([(share, vectors[:, share])]):
            vectors[:, others] = theirs
    if not all(block.isfinite().all() for block in vectors.flatten(0, 1).split(_CHECKED_AT_ONCE)):
        raise InputError(f"{model.name_or_path} gives vectors with nan or inf; check how it was trained.")
    if len(distinct) == len(sentences):
        return vectors
    row_of = {sentence: row for row, sentence in enumerate(distinct)}
    return vectors[:, [row_of[sentence] for sentence in sentences]]


def _tokenize_chunks(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int | None
) -> Callable[[list[int]], list[tuple[int, list[int]]]]:
    """A function from indices of texts to pairs of index and token ids, the longest first."""
    limit, special = encoder_max_length(tokenizer, model), tokenizer.num_special_tokens_to_add()
    if max_length is not None and not special < max_length <= limit:
        raise InputError(
            f"--max_seq_length {max_length} does not suit {model.name_or_path}; choose one from {special + 1} to {limit}."
        )

    def tokenize(chunk: list[int]) -> list[tuple[int, list[int]]]:
        ids = tokenizer(
            [texts[i] for i in chunk],
            truncation=True,
            max_length=max_length or limit,
            verbose=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
        return sorted(zip(chunk, ids), key=lambda sentence: -len(sentence[1]))

    return tokenize


def _one_ahead(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """`map`, but the next result is computed in a thread while the caller works on this one."""
    with ThreadPoolExecutor(1) as worker:
        ahead: Future[_Result] | None = None
        for item in items:
            ready, ahead = ahead, worker.submit(function, item)
            if ready:
                yield ready.result()
        if ahead:
            yield ahead.result()
