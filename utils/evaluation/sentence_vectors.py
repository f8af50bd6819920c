"""The vectors of sentences at several layers of an encoder."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from utils.core.errors import InputError
from utils.evaluation.neighbours import slices
from utils.models.layers import hidden_states_at, only_layers_below
from utils.models.tokenizers import encoder_max_length


POOLINGS = ("mean", "cls")
# As many batches are tokenised ahead, sorted by length, and fetched from the device at once.
_BATCHES_OF_CHUNK = 64
# Vectors are looked at for numbers that are none.
_CHECKED_AT_ONCE = 65_536
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


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
    """The vectors of sentences at several layers, in one pass of the encoder, which is put into evaluation mode.

    A sentence that repeats is encoded once. Several processes (`accelerate launch`) share the work, and each gets
    the whole result.

    Args:
        model: an encoder, on the device that is to do the work.
        tokenizer: its tokenizer.
        sentences: N texts.
        layers: indices into `hidden_states`: 0 the embeddings, -1 the last layer.
        pooling: `mean` over all tokens, special ones included (Efimov et al., ECIR 2023), or `cls`, the first token.
        batch_size: sentences encoded at once per process.
        max_length: cut sentences after this many tokens; by default, what the encoder can take.
        description: what the progress bar says.

    Returns:
        [layers, N, dimensions], fp32, on the CPU, in the order of `sentences`.

    Raises:
        InputError: if `max_length` leaves no room or is more than the encoder takes, or if vectors are not numbers.
    """
    limit, special = encoder_max_length(tokenizer, model), tokenizer.num_special_tokens_to_add()
    if max_length is not None and not special < max_length <= limit:
        raise InputError(
            f"A maximum length of {max_length} tokens does not suit {model.name_or_path}; choose one from {special + 1} "
            f"to {limit} (--max_seq_length)."
        )
    state = PartialState()
    distinct = list(dict.fromkeys(sentences))
    # Like lengths together, for little padding; the longest first, so that memory runs out at once or never.
    by_length = sorted(range(len(distinct)), key=lambda i: -len(distinct[i]))
    share = by_length[state.process_index :: state.num_processes]
    chunks = [share[rows] for rows in slices(len(share), batch_size * _BATCHES_OF_CHUNK)]
    progress = logging.tqdm(total=len(share), desc=description, unit="sentence", disable=not state.is_main_process)

    def tokenize(chunk: list[int]) -> list[tuple[int, list[int]]]:
        texts, unused = [distinct[i] for i in chunk], {"return_attention_mask": False, "return_token_type_ids": False}
        ids = tokenizer(texts, truncation=True, max_length=max_length or limit, verbose=False, **unused)["input_ids"]
        return sorted(zip(chunk, ids), key=lambda sentence: -len(sentence[1]))

    model.eval()
    vectors = torch.zeros(len(layers), len(distinct), model.config.hidden_size)
    with only_layers_below(model, layers) as needed:
        for chunk in _one_ahead(tokenize, chunks):
            parts = []
            for rows in slices(len(chunk), batch_size):
                ids = [sentence for _, sentence in chunk[rows]]
                parts.append(_encode_batch(model, ids, needed, pooling, tokenizer.pad_token_id or 0))
                progress.update(len(ids))
            # This waits for the device, so it is not done for every batch.
            vectors[:, [i for i, _ in chunk]] = torch.cat(parts, dim=1).cpu()
    progress.close()
    if state.num_processes > 1:
        for others, theirs in gather_object([(share, vectors[:, share])]):
            vectors[:, others] = theirs
    if not all(block.isfinite().all() for block in vectors.flatten(0, 1).split(_CHECKED_AT_ONCE)):
        raise InputError(f"{model.name_or_path} gives vectors that are not numbers (nan or inf); was it trained well?")
    if len(distinct) == len(sentences):
        return vectors
    row_of = {sentence: row for row, sentence in enumerate(distinct)}
    return vectors[:, [row_of[sentence] for sentence in sentences]]


def _one_ahead(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """`map`, but the next result is computed in a thread while the caller is busy with this one."""
    with ThreadPoolExecutor(1) as worker:
        pending = deque()
        for item in items:
            pending.append(worker.submit(function, item))
            if len(pending) > 1:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


@torch.inference_mode()
def _encode_batch(
    model: PreTrainedModel, ids: Sequence[Sequence[int]], layers: Sequence[int], pooling: str, pad_token_id: int
) -> torch.Tensor:
    """Vectors [layers, batch, dimensions] of tokenised sentences, fp32, on the model's device, which is not waited for."""
    input_ids = pad_sequence([torch.tensor(s) for s in ids], batch_first=True, padding_value=pad_token_id)
    lengths = _sent_to(torch.tensor([len(sentence) for sentence in ids]), model.device)
    mask = torch.arange(input_ids.shape[1], device=model.device) < lengths[:, None]
    states = hidden_states_at(model, _sent_to(input_ids, model.device), mask.long(), layers)
    if pooling == "cls":
        return torch.stack([state[:, 0].float() for state in states])
    # Sums over half-precision states lose digits, and padding may hold anything.
    sums = [state.float().masked_fill(~mask[..., None], 0).sum(dim=1) for state in states]
    return torch.stack(sums) / lengths[:, None]


def _sent_to(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the CPU on a device, without waiting for what the device is doing where that can be had."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
