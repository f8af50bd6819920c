"""Question answering over long contexts: overlapping windows, and the answers with the highest logits.

A context that is too long for the model becomes several rows that overlap (*windows*). An answer is the span of a
window with the highest sum of start and end logit.
"""

import logging
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from transformers import PreTrainedTokenizerBase

from utils.core.errors import InputError
from utils.core.progress import progress
from utils.tasks.examples import LanguageData


logger = logging.getLogger(__name__)


_Span = tuple[int, int]  # first character, and the one after the last


def window_sizes(
    tokenizer: PreTrainedTokenizerBase, max_length: int, stride: int, max_question_length: int
) -> tuple[int, int]:
    """Tokens that neighboring windows share, and tokens of the longest question: as given, or what leaves room.

    A question takes at most half of a window. Where windows would share everything, they share half of their contexts.

    Raises:
        InputError: if windows of `max_length` tokens are too short for a question and a context.
    """
    room = max_length - tokenizer.num_special_tokens_to_add(pair=True)
    if room < 2:
        raise InputError(f"--max_seq_length {max_length} leaves no room for a question and a context; raise it by 10.")
    question = min(max_question_length, room // 2)
    shared = stride if stride < room - question else (room - question) // 2
    if (shared, question) != (stride, max_question_length):
        logger.warning(
            f"With --max_seq_length {max_length}, questions are truncated to {question} tokens and neighboring windows "
            f"share {shared} (--max_question_length {max_question_length} --doc_stride {stride} leave no room)."
        )
    return shared, question


def encode_windows(
    batch: Mapping[str, list],
    positions: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    stride: int,
    max_question_length: int,
    keep_offsets: bool,
) -> dict[str, list]:
    """The rows of questions: question and a window of the context, as a pair. Lengths are in tokens.

    Args:
        positions: of the examples in their set.
        stride: tokens that neighboring windows share.
        max_question_length: longer questions are truncated.
        keep_offsets: for evaluation: where in the text the tokens are.

    Returns:
        What the tokenizer gives; `start_positions`, `end_positions`: the first and last token of the first answer, both
        0 where the window does not hold the whole of it; `example`; and, for evaluation, `first_context_token` with
        `begins` and `ends`: the characters that the tokens of the context stand for.
    """
    rows = tokenizer(
        _truncated(batch["question"], tokenizer, max_question_length),
        batch["context"],
        truncation="only_second",
        max_length=max_length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    columns: dict[str, list] = {name: rows[name] for name in rows if name in tokenizer.model_input_names}
    columns |= {"example": [positions[k] for k in rows["overflow_to_sample_mapping"]]}
    windows: list[dict[str, Any]] = []
    for number, sample in enumerate(rows["overflow_to_sample_mapping"]):
        of_context = np.array([side == 1 for side in rows.sequence_ids(number)])
        offsets = np.asarray(rows["offset_mapping"][number])[of_context]
        first = int(of_context.argmax())
        start, end = _tokens_of(batch["answers"][sample], offsets, first)
        windows.append({"start_positions": start, "end_positions": end})
        if keep_offsets:
            begins, ends = offsets.T.tolist()
            windows[-1] |= {"first_context_token": first, "begins": begins, "ends": ends}
    return columns | {name: [window[name] for window in windows] for name in windows[0]}


def _truncated(questions: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> list[str]:
    """Questions without surrounding blanks (some in SQuAD have many) and of limited length, to leave room for contexts."""
    questions = [question.strip() for question in questions]
    for n_kept in range(max_tokens, -1, -1):  # (the beginning of a question may have more tokens than it has in it)
        encoded = tokenizer(questions, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        if all(len(offsets) <= max_tokens for offsets in encoded["offset_mapping"]):
            break
        questions = [
            question[: offsets[n_kept - 1][1] if n_kept else 0] if len(offsets) > max_tokens else question
            for question, offsets in zip(questions, encoded["offset_mapping"])
        ]
    return questions


def _tokens_of(answers: Mapping[str, list], offsets: np.ndarray, first: int) -> tuple[int, int]:
    """The first and last token of the first answer; 0 and 0 if the window does not hold the whole of it.

    `offsets` [tokens, 2] are those of the context's tokens, the first of which is at position `first` of the row.
    """
    for begin, text in zip(answers["answer_start"][:1], answers["text"]):
        end = begin + len(text)
        if len(offsets) and begin >= offsets[0, 0] and end <= _after_marks(text, offsets[-1, 1], begin):
            start_token = int(np.searchsorted(offsets[:, 1], begin, side="right"))
            end_token = int(np.searchsorted(offsets[:, 0], end, side="left")) - 1
            if start_token <= end_token:
                return first + start_token, first + end_token
    return 0, 0


def _after_marks(text: str, end: int, shift: int = 0) -> int:
    """The end of a token, after the marks that follow it, in a text that begins at `shift`.

    Where a tokenizer takes the accent off a letter, what is left ends before the accent, if that is a character of its own.
    """
    while 0 <= end - shift < len(text) and _is_mark(text[end - shift]):
        end += 1
    return end


def _is_mark(character: str) -> bool:
    # (Not `combining`: vowel signs of Indic scripts are marks that do not combine.)
    return unicodedata.category(character).startswith("M")


@dataclass
class Answer:
    """A model's answer to a question."""

    text: str  # empty for no answer
    probability: float  # softmax of its logits over those of the best spans
    null_score_difference: float  # logits of no answer minus those of the best answer


def best_spans(
    starts: np.ndarray, ends: np.ndarray, n_tokens: np.ndarray, n_best: int, max_answer_length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The best spans of every window, among all spans and not only among the best starts and ends.

    Args:
        starts, ends: [windows, tokens], logits of the context's tokens.
        n_tokens: [windows], numbers of tokens.
        max_answer_length: tokens of the longest span.

    Returns:
        Three arrays [windows, n_best], the best span first: first token, last token, sum of both logits (-inf if a window
        has fewer spans).
    """
    n_windows, width = starts.shape
    max_answer_length = min(max_answer_length, width)
    real = np.arange(width) < n_tokens[:, None]
    starts, ends = (np.where(real, logits, -np.inf).astype(np.float32) for logits in (starts, ends))
    padded = np.pad(ends, ((0, 0), (0, max_answer_length - 1)), constant_values=-np.inf)
    found = []
    # Blocks of windows whose spans about fit into a processor's cache.
    for block in np.array_split(np.arange(n_windows), max(1, n_windows * width * max_answer_length // 2**22)):
        scores = starts[block, :, None] + sliding_window_view(padded[block], max_answer_length, axis=1)
        scores = scores.reshape(len(block), -1)
        n_kept = min(n_best, scores.shape[1])
        spans = np.argpartition(-scores, n_kept - 1, axis=1)[:, :n_kept]
        values = np.take_along_axis(scores, spans, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        found.append([np.take_along_axis(of_span, order, axis=1) for of_span in (spans, values)])
    spans, values = (np.concatenate(parts) for parts in zip(*found))
    first, length = np.divmod(spans, max_answer_length)
    return first, first + length, values


def find_answers(
    data: LanguageData,
    start_logits: np.ndarray,
    end_logits: np.ndarray,
    n_best: int = 20,
    max_answer_length: int = 30,
    null_score_diff_threshold: float | None = None,
) -> list[Answer]:
    """The answer to every question, from the logits of all windows of its context.

    Args:
        start_logits, end_logits: [windows, longest row], in the order of the rows.
        n_best: spans over which the probability is normalized.
        max_answer_length: tokens of the longest answer.
        null_score_diff_threshold: if given (SQuAD v2), there is no answer if the logits of the first token ([CLS]) exceed
            those of the best span by more than this.
    """
    example, first = (np.asarray(data.rows[column][:]) for column in ("example", "first_context_token"))
    begins, ends = data.rows["begins"][:], data.rows["ends"][:]
    n_tokens = np.fromiter(map(len, begins), np.int64, len(begins))
    # Position 0 is the first token of the context.
    shifted = np.minimum(first[:, None] + np.arange(max(1, n_tokens.max())), start_logits.shape[1] - 1)
    of_start, of_end = (np.take_along_axis(logits, shifted, axis=1) for logits in (start_logits, end_logits))
    start, last, values = best_spans(of_start, of_end, n_tokens, n_best, max_answer_length)
    # A question has no answer only if every window says so: the lowest of their logits counts.
    null = np.full(len(data.examples), np.inf)
    np.minimum.at(null, example, start_logits[:, 0] + end_logits[:, 0])
    found: list[dict[_Span, float]] = [{} for _ in data.examples]
    windows = zip((found[k] for k in example), begins, ends, start, last, values)
    for spans, begin, end, *of_window in progress(windows, "Finding answers", len(example), "windows", leave=False):
        for i, j, value in zip(*of_window):
            if value > -np.inf:
                span = begin[i], end[j]
                spans[span] = max(float(value), spans.get(span, -np.inf))  # neighboring windows share spans
    return [
        _answer(context, spans, n_best, none, null_score_diff_threshold)
        for context, spans, none in zip(data.examples["context"], found, null.tolist())
    ]


def _answer(context: str, spans: Mapping[_Span, float], n_best: int, null: float, threshold: float | None) -> Answer:
    """The best of some spans (with their logits), or no answer."""
    best = sorted(spans.items(), key=itemgetter(1), reverse=True)[:n_best]
    logits = np.array([*(value for _, value in best), *([null] if threshold is not None else [])])
    if not len(logits):
        return Answer("", 0.0, 0.0)
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    difference = null - best[0][1] if best else np.inf
    if not best or (threshold is not None and difference > threshold):
        return Answer("", float(shares[-1]), difference)
    begin, end = best[0][0]
    end = _after_marks(context, end)
    return Answer(context[begin:end].strip(), float(shares[0]), difference)
