"""The vectors of sentences, and of words in their sentences, at several layers of an encoder."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from utils.alignment.sentences import mean_of_tokens
from utils.alignment.words import WordTokenizer, pool_words, special_tokens_around
from utils.core.errors import InputError, look_up
from utils.core.progress import progress
from utils.evaluation.neighbors import slices
from utils.models.layers import hidden_states_at, only_layers_below
from utils.models.tokenizers import encoder_max_length


# Batches that are tokenized ahead, sorted by length, and fetched from the device together.
_BATCHES_OF_CHUNK = 64
# Vectors checked for nan and inf at once.
_CHECKED_AT_ONCE = 65_536
# Indices of sentences with their token ids.
_Chunk = list[tuple[int, list[int]]]
# Makes the context of a model's passes (mixed precision), as `Accelerator.autocast` does.
Autocast = Callable[[], AbstractContextManager]


def longest_first(lengths: Sequence[int]) -> list[int]:
    """Indices by descending length: batches need little padding, and if memory runs out, the first one tells."""
    return sorted(range(len(lengths)), key=lambda k: -lengths[k])


def encode_batch(
    model: nn.Module, ids: Sequence[Sequence[int]], layers: Sequence[int], pad_token_id: int | None
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Hidden states [batch, length, dimensions] at each layer, and the mask [batch, length], True for tokens.

    The sentences are given as token ids. The device is not waited for.
    """
    device = next(model.parameters()).device
    input_ids = pad_sequence([torch.tensor(s) for s in ids], batch_first=True, padding_value=pad_token_id or 0)
    lengths = to_device(torch.tensor([len(sentence) for sentence in ids]), device)
    mask = torch.arange(input_ids.shape[1], device=device) < lengths[:, None]
    return hidden_states_at(model, to_device(input_ids, device), mask.long(), layers), mask


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor of the CPU to a device, without waiting for the device where that is possible."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def first_token(states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """The first token."""
    return states[torch.arange(len(states), device=states.device), tokens.byte().argmax(dim=1)].float()


def last_token(states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """The last token."""
    last = tokens.shape[1] - 1 - tokens.flip(1).byte().argmax(dim=1)
    return states[torch.arange(len(states), device=states.device), last].float()


def weighted_mean(states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """The mean in which token i of n counts i times (Muennighoff, 2022): a causal model has read more at later tokens."""
    weights = (tokens.cumsum(dim=1) * tokens).float()
    weights /= weights.sum(dim=1, keepdim=True)
    return (states.float().masked_fill(~tokens[..., None], 0) * weights[..., None]).sum(dim=1)


def without_special_tokens(tokens: torch.Tensor, n_before: int, n_after: int) -> torch.Tensor:
    """The mask [batch, length] of tokens without the first and last ones, which are special; all if there are no others."""
    position = tokens.cumsum(dim=1)
    own = tokens & (position > n_before) & (position <= position[:, -1:] - n_after)
    return torch.where(own.any(dim=1, keepdim=True), own, tokens)


# Hidden states [batch, length, dimensions] and a mask [batch, length] of tokens → vectors [batch, dimensions], fp32.
SENTENCE_POOLINGS = {"mean": mean_of_tokens, "cls": first_token, "weighted": weighted_mean, "last": last_token}
# The poolings that ignore special tokens.
_WITHOUT_SPECIAL = ("weighted", "last")


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
        description: text of the progress bar; None for no bar.

    Raises:
        InputError: for an unknown pooling or an unusable `max_length`, or if vectors contain nan or inf.
    """
    pool, state = look_up(SENTENCE_POOLINGS, pooling, "The pooling"), PartialState()
    around = [len(ids) for ids in special_tokens_around(tokenizer)] if pooling in _WITHOUT_SPECIAL else [0, 0]
    distinct = list(dict.fromkeys(sentences))
    share = longest_first([len(text) for text in distinct])[state.process_index :: state.num_processes]
    tokenize = _tokenize_chunks(model, tokenizer, distinct, max_length)
    chunks = [share[rows] for rows in slices(len(share), batch_size * _BATCHES_OF_CHUNK)]
    model.eval()
    vectors = torch.zeros(len(layers), len(distinct), model.config.hidden_size)
    n_characters = sum(
        len(distinct[i]) for i in share
    )  # (the time that is left depends on them: the longest come first)
    bar = progress(description=description, total=n_characters, unit="characters", unit_scale=True)
    with only_layers_below(model, layers) as needed, torch.inference_mode(), bar:
        for chunk in _one_ahead(tokenize, chunks):
            parts = []
            for rows in slices(len(chunk), batch_size):
                ids = [tokens for _, tokens in chunk[rows]]
                states, mask = encode_batch(model, ids, needed, tokenizer.pad_token_id)
                tokens = without_special_tokens(mask, *around)
                parts.append(torch.stack([pool(layer, tokens) for layer in states]))
                bar.update(sum(len(distinct[i]) for i, _ in chunk[rows]))
            # This waits for the device, so it is not done for every batch.
            vectors[:, [i for i, _ in chunk]] = torch.cat(parts, dim=1).cpu()
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
) -> Callable[[list[int]], _Chunk]:
    """A function from indices of texts to a `_Chunk`, the longest first."""
    limit, special = encoder_max_length(tokenizer, model), tokenizer.num_special_tokens_to_add()
    if max_length is not None and not special < max_length <= limit:
        allowed = f"choose one from {special + 1} to {limit}"
        raise InputError(f"--max_seq_length {max_length} does not suit {model.name_or_path}; {allowed}.")

    def tokenize(chunk: list[int]) -> _Chunk:
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


def _one_ahead(function: Callable[[list[int]], _Chunk], items: Iterable[list[int]]) -> Iterator[_Chunk]:
    """`map`, but the next result is computed in a thread while the caller works on this one."""
    with ThreadPoolExecutor(1) as worker:
        ahead: Future[_Chunk] | None = None
        for item in items:
            ready, ahead = ahead, worker.submit(function, item)
            if ready:
                yield ready.result()
        if ahead:
            yield ahead.result()


def encode_words(
    model: nn.Module,
    word_tokenizer: WordTokenizer,
    sentences: Sequence[Sequence[str]],
    words: np.ndarray,
    layers: Sequence[int] = (-1,),
    batch_size: int = 64,
    autocast: Autocast = nullcontext,
    state: PartialState | None = None,
    description: str | None = None,
) -> torch.Tensor:
    """The vectors [layers, N, dimensions] of words in sentences, in one pass of the encoder; fp32, on the CPU.

    Args (`layers` and `batch_size` as of `encode_sentences`):
        model: an encoder in evaluation mode, on the device that does the work.
        sentences: lists of words.
        words: [N, 2], sentence and position of every wanted word; each must have a vector (`with_vectors`).
        state: the processes that share the work; each returns the whole result. None: this process works alone.
        description: text of the progress bar; None for no bar.
    """
    if not len(words):
        config: Any = model.config
        return torch.zeros(len(layers), 0, config.hidden_size)
    # A word that is wanted twice is encoded once; sorted, the words of a sentence stand together.
    wanted, row_of = np.unique(words, axis=0, return_inverse=True)
    numbers, begins = np.unique(wanted[:, 0], return_index=True)
    positions = np.split(wanted[:, 1], begins[1:])
    tokens = word_tokenizer([sentences[k] for k in numbers])
    order = longest_first([len(ids) for ids in tokens["input_ids"]])
    batches = [order[rows] for rows in slices(len(order), batch_size)]
    share = batches[state.process_index :: state.num_processes] if state else batches
    n_tokens = sum(len(tokens["input_ids"][k]) for batch in share for k in batch)
    parts = []
    with progress(description=description, total=n_tokens, unit="tokens") as bar:
        for batch in share:
            ids = [tokens["input_ids"][k] for k in batch]
            places = [_places(tokens["word_ids"][k], tokens["words"][k], positions[k]) for k in batch]
            with torch.no_grad(), autocast():
                states, _ = encode_batch(model, ids, layers, word_tokenizer.tokenizer.pad_token_id)
                vectors = _pool(states, places)
            parts.append((np.concatenate([begins[k] + np.arange(len(positions[k])) for k in batch]), vectors))
            bar.update(sum(map(len, ids)))
    parts = gather_object(parts) if state and state.num_processes > 1 else parts
    vectors = torch.empty(len(layers), len(wanted), parts[0][1].shape[-1])
    for rows, of_batch in parts:
        vectors[:, rows] = of_batch
    return vectors[:, row_of.reshape(-1)]


def _places(word_ids: Sequence[int], words: Sequence[int], wanted: np.ndarray) -> np.ndarray:
    """For every token of a sentence the index of the wanted word that it represents, -1 for none."""
    place_of = {position: place for place, position in enumerate(wanted.tolist())}
    place_of_word = np.array([place_of.get(position, -1) for position in words] + [-1])
    return place_of_word[np.asarray(word_ids)]  # (-1, a token of no word, is the last one)


def _pool(states: Sequence[torch.Tensor], places: Sequence[np.ndarray]) -> torch.Tensor:
    """The vectors [layers, words, dimensions], on the CPU, of the words that `places` numbers in each sentence."""
    n_words = np.array([int(place.max()) + 1 for place in places])
    first = np.cumsum(n_words) - n_words
    numbered = [torch.from_numpy(np.where(place < 0, -1, place + k)) for place, k in zip(places, first)]
    word_ids = pad_sequence(numbered, batch_first=True, padding_value=-1)
    lengths = torch.bincount(word_ids[word_ids >= 0], minlength=int(n_words.sum())).float()
    word_ids, lengths = (to_device(tensor, states[0].device) for tensor in (word_ids, lengths))
    return torch.stack([pool_words(state, word_ids, lengths) for state in states]).cpu()
