"""The vectors of words in their sentences at several layers of an encoder."""

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers.utils import logging

from utils.alignment.words import WordTokenizer, pool_words
from utils.evaluation.encoding import Autocast, encode_batch, longest_first, to_device
from utils.evaluation.neighbours import slices


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

    Args:
        model: an encoder in evaluation mode, on the device that does the work.
        sentences: lists of words.
        words: [N, 2], sentence and position of every wanted word; each must have a vector (`with_vectors`).
        layers: indices into `hidden_states`: 0 the embeddings, -1 the last layer.
        batch_size: sentences encoded at once per process.
        state: the processes that share the work; each returns the whole result. None: this process works alone.
        description: text of the progress bar; None for no bar.
    """
    # A word that is wanted twice is encoded once; sorted, the words of a sentence stand together.
    wanted, row_of = np.unique(words, axis=0, return_inverse=True)
    numbers, begins = np.unique(wanted[:, 0], return_index=True)
    positions = np.split(wanted[:, 1], begins[1:])
    tokens = word_tokenizer([sentences[k] for k in numbers])
    order = longest_first([len(ids) for ids in tokens["input_ids"]])
    batches = [order[rows] for rows in slices(len(order), batch_size)]
    share = batches[state.process_index :: state.num_processes] if state else batches
    quiet = description is None or (state is not None and not state.is_main_process)
    parts = []
    for batch in logging.tqdm(share, desc=description, disable=quiet):
        ids = [tokens["input_ids"][k] for k in batch]
        places = [_places(tokens["word_ids"][k], tokens["words"][k], positions[k]) for k in batch]
        with torch.no_grad(), autocast():
            states, _ = encode_batch(model, ids, layers, word_tokenizer.tokenizer.pad_token_id)
            vectors = _pool(states, places)
        parts.append((np.concatenate([begins[k] + np.arange(len(positions[k])) for k in batch]), vectors))
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
