"""Extractive question answering: examples, windows over long contexts, and the answers that a model's logits point at.

A context that is too long for the model becomes several rows that overlap (*windows*). An answer is the span of a
window with the highest sum of start and end logit.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset, Features, List, Value
from numpy.lib.stride_tricks import sliding_window_view
from transformers import PreTrainedTokenizerBase

from utils.errors import InputError
from utils.tables import read_lines, read_rows
from utils.task_data import LanguageData, TaskReader, identity_of, text_in


logger = logging.getLogger("utils.question_answering")

FEATURES = Features(
    {
        "id": Value("string"),
        "context": Value("string"),
        "question": Value("string"),
        "answers": {"text": List(Value("string")), "answer_start": List(Value("int32"))},
    }
)
# Of SQuAD, XQuAD, the copies of XQuAD and MLQA in XTREME, TyDi QA (GoldP), and of folders with a configuration each.
CONFIGS = (
    "plain_text",
    "{language}",
    "xquad.{language}",
    "XQuAD.{language}",
    "MLQA.{language}.{language}",
    "secondary_task",
    "squad_v2",
)
# TyDi QA has all languages in one configuration, and says by the beginning of the id which one a question is in.
_TYDI = {
    "ar": "arabic",
    "bn": "bengali",
    "en": "english",
    "fi": "finnish",
    "id": "indonesian",
    "ko": "korean",
    "ru": "russian",
    "sw": "swahili",
    "te": "telugu",
}


# --- Examples ----------------------------------------------------------------------------------------------------


def read_questions(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The questions of a file: SQuAD's own JSON (`.json`), or a table (see `read_rows`); each also `.gz`.

    Raises:
        InputError: naming the file, the line or the question, and the remedy.
    """
    if not path.removesuffix(".gz").endswith(".json"):
        yield from read_rows(path)
        return
    try:
        content = json.loads("\n".join(line for _, line in read_lines(path)))
    except json.JSONDecodeError as error:
        raise InputError(
            f"The file {path} is no JSON ({error}); tables with a row a line are called .jsonl."
        ) from None
    try:
        for article in content["data"]:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    where = f"Question {question.get('id')} of {path}"
                    answers = question.get("answers", [])
                    columns = {name: [answer[name] for answer in answers] for name in ("text", "answer_start")}
                    yield where, {**question, "context": paragraph["context"], "answers": columns}
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"The file {path} is not in the format of SQuAD ({error!r}); it needs data → paragraphs → context, qas → id, "
            "question, answers → text, answer_start."
        ) from None


def read_question(row: Mapping[str, Any], where: str, unanswerable: bool = False) -> dict[str, Any]:
    """An example of a row.

    An answer that does not stand where `answer_start` says is moved to the nearest place where it does.

    Args:
        row: `context`, `question`, `answers` with `text` and `answer_start`, perhaps `id`.
        where: its place.
        unanswerable: questions without answer are allowed (SQuAD v2).

    Raises:
        InputError: for a question without answer, or an answer that is not in its context.
    """
    context, question = text_in(row, "context", where), text_in(row, "question", where)
    answers = row.get("answers")
    if not isinstance(answers, Mapping) or not {"text", "answer_start"} <= set(answers):
        raise InputError(f"{where} has {answers!r} in column answers; it needs lists `text` and `answer_start`.")
    if not answers["text"] and not unanswerable:
        raise InputError(f"{where} has no answer; add --version_2_with_negative if some questions have none.")
    starts = [_locate(context, *answer, where) for answer in zip(answers["text"], answers["answer_start"])]
    return {
        **identity_of(row),
        "context": context,
        "question": question,
        "answers": {"text": list(answers["text"]), "answer_start": starts},
    }


def _locate(context: str, answer: str, start: int, where: str) -> int:
    """Where an answer begins: at `start`, or else as near to it as it is found."""
    if answer and start >= 0 and context.startswith(answer, start):
        return start
    before, after = context.rfind(answer, 0, max(start, 0) + len(answer)), context.find(answer, max(start, 0))
    found = [place for place in (before, after) if place >= 0]
    if not found or not answer:
        raise InputError(
            f"{where} has the answer {answer!r}, which is not in its context; correct it, or leave it out."
        )
    return min(found, key=lambda place: abs(place - start))


def only_tydi_language(rows: Dataset, language: str) -> Dataset:
    """The rows of a language, where they are told apart by their ids as in TyDi QA; other data sets as they are."""
    if "id" not in rows.column_names or rows[0]["id"].split("-")[0] not in _TYDI.values():
        return rows
    prefix = f"{_TYDI.get(language, language)}-"
    return rows.filter(lambda identity: identity.startswith(prefix), input_columns=["id"])


def pair_name(question_language: str, context_language: str) -> str:
    """What a set is called: by its language, or `hi-en` for questions in Hindi about contexts in English."""
    return question_language if question_language == context_language else f"{question_language}-{context_language}"


class CrossLingualReader(TaskReader):
    """Reads sets whose questions and contexts may be in different languages.

    Args:
        pairs: question and context language of every set.
        args, kwargs: as for `TaskReader`.
    """

    def __init__(self, *args: Any, pairs: Sequence[tuple[str, str]], **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **kwargs)
        self.pairs = pairs

    def evaluation_sets(self, purpose: str, **options: Any) -> dict[str, Dataset]:  # noqa: ANN401
        """The examples of all pairs of languages.

        Where the configuration names both languages (`MLQA.{context_language}.{question_language}`), a pair is read as it
        stands. Else questions and contexts are joined by the ids that they share (XQuAD is parallel, MLQA in part).
        """
        template = self.arguments.eval_dataset_config_name or ""
        sets = {}
        for question, context in self.pairs:
            if "{question_language}" in template:
                config = template.replace("{question_language}", question).replace("{context_language}", context)
                sets[pair_name(question, context)] = self.evaluation(purpose, context, config, **options)
            elif question == context:
                sets[question] = self.evaluation(purpose, context, **options)
            else:
                sides = (self.evaluation(purpose, language, **options) for language in (question, context))
                sets[pair_name(question, context)] = _joined(*sides, (question, context))
        return sets


def _joined(questions: Dataset, contexts: Dataset, languages: tuple[str, str]) -> Dataset:
    """The questions of one set with the contexts and answers of another, by id."""
    ids = contexts["id"]
    position = {identity: number for number, identity in enumerate(questions["id"])}
    common = [number for number, identity in enumerate(ids) if identity in position]
    if not common:
        raise InputError(
            f"The questions in {languages[0]} and the contexts in {languages[1]} have no id in common, so they cannot be "
            "paired; use parallel data, such as XQuAD."
        )
    if len(common) < len(ids):
        logger.info(f"{pair_name(*languages)}: {len(common):,} of {len(ids):,} questions are in both languages.")
    asked = questions.select([position[ids[number]] for number in common])["question"]
    return contexts.select(common).remove_columns("question").add_column("question", list(asked))


# --- Windows -----------------------------------------------------------------------------------------------------


def encode_windows(
    batch: Mapping[str, list],
    positions: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    stride: int,
    max_question_length: int,
    keep_offsets: bool,
) -> dict[str, list]:
    """The rows of questions: question and a window of the context, as a pair.

    Args:
        batch: columns of examples.
        positions: of the examples.
        tokenizer: a fast one.
        max_length: tokens of a row.
        stride: tokens that neighbouring windows share.
        max_question_length: tokens after which a question is cut.
        keep_offsets: evaluation needs them, training does not.

    Returns:
        What the tokenizer gives; `start_positions`, `end_positions`: the first and last token of the first answer, both
        0 where the window does not hold the whole of it; `example`; and, for evaluation, `first_context_token` with
        `begins` and `ends`: the characters that the tokens of the context stand for.
    """
    rows = tokenizer(
        _cut(batch["question"], tokenizer, max_question_length),
        batch["context"],
        truncation="only_second",
        max_length=max_length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    columns: dict[str, list] = {name: rows[name] for name in rows if name in tokenizer.model_input_names}
    columns |= {"example": [positions[k] for k in rows["overflow_to_sample_mapping"]]}
    columns |= {"start_positions": [], "end_positions": []}
    columns |= {"first_context_token": [], "begins": [], "ends": []} if keep_offsets else {}
    for number, sample in enumerate(rows["overflow_to_sample_mapping"]):
        of_context = np.array([side == 1 for side in rows.sequence_ids(number)])
        offsets = np.asarray(rows["offset_mapping"][number])[of_context]
        first = int(of_context.argmax())
        answers = batch["answers"][sample]
        start, end = 0, 0
        if answers["text"]:
            begin = answers["answer_start"][0]
            start, end = _tokens_of(offsets, begin, begin + len(answers["text"][0]), first)
        columns["start_positions"].append(start)
        columns["end_positions"].append(end)
        if keep_offsets:
            columns["first_context_token"].append(first)
            columns["begins"].append(offsets[:, 0].tolist())
            columns["ends"].append(offsets[:, 1].tolist())
    return columns


def _cut(questions: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> list[str]:
    """Questions, some of which are a page of blanks in SQuAD, without what would leave no room for the context."""
    questions = [question.strip() for question in questions]
    offsets = tokenizer(questions, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return [
        question[: of_tokens[max_tokens - 1][1]] if len(of_tokens) > max_tokens else question
        for question, of_tokens in zip(questions, offsets["offset_mapping"])
    ]


def _tokens_of(offsets: np.ndarray, begin: int, end: int, first: int) -> tuple[int, int]:
    """The first and last token of a span of characters, 0 and 0 if it does not lie in the window as a whole.

    Args:
        offsets: [tokens, 2], of the window's context.
        begin, end: of the span.
        first: position of the window's first token in the row.
    """
    if not len(offsets) or begin < offsets[0, 0] or end > offsets[-1, 1]:
        return 0, 0
    start_token = int(np.searchsorted(offsets[:, 1], begin, side="right"))
    end_token = int(np.searchsorted(offsets[:, 0], end, side="left")) - 1
    return (first + start_token, first + end_token) if start_token <= end_token else (0, 0)


# --- Answers -----------------------------------------------------------------------------------------------------


@dataclass
class Answer:
    """What a model answers to a question.

    Attributes:
        text: the answer; empty if it says that there is none.
        probability: of this answer, among the best spans.
        null_score_difference: by how much the logits of no answer exceed those of the best answer.
    """

    text: str
    probability: float
    null_score_difference: float


def best_spans(
    starts: np.ndarray, ends: np.ndarray, n_tokens: np.ndarray, n_best: int, max_answer_length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The best spans of every window, exactly: among all, not only among the best starts and ends.

    Args:
        starts, ends: [windows, tokens], logits of the context's tokens.
        n_tokens: [windows], how many of them there are.
        n_best: how many spans.
        max_answer_length: tokens of the longest span.

    Returns:
        Three arrays [windows, n_best], the best span first: first token, last token, sum of both logits (-inf: there are
        no so many spans).
    """
    n_windows, width = starts.shape
    real = np.arange(width) < n_tokens[:, None]
    starts, ends = (np.where(real, logits, -np.inf).astype(np.float32) for logits in (starts, ends))
    padded = np.pad(ends, ((0, 0), (0, max_answer_length - 1)), constant_values=-np.inf)
    found = []
    # So many windows at a time that their spans fit into a processor's cache, or nearly.
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
        data: questions and their windows.
        start_logits, end_logits: [windows, longest row], in the order of the rows.
        n_best: spans among which the probability is shared out.
        max_answer_length: tokens of the longest answer.
        null_score_diff_threshold: if given, a question may have no answer: it has none if the logits of the first token
            ([CLS]) are higher by more than this (SQuAD v2).

    Returns:
        One answer per example.
    """
    example, first = (np.asarray(data.rows[column][:]) for column in ("example", "first_context_token"))
    begins, ends = data.rows["begins"][:], data.rows["ends"][:]
    n_tokens = np.fromiter(map(len, begins), np.int64, len(begins))
    # Shift every window's context to the left, so that position 0 is its first token.
    shifted = np.minimum(first[:, None] + np.arange(max(1, n_tokens.max())), start_logits.shape[1] - 1)
    contexts = (np.take_along_axis(logits, shifted, axis=1) for logits in (start_logits, end_logits))
    start, end, values = best_spans(*contexts, n_tokens, n_best, max_answer_length)
    # Of several windows the one that is least sure of having no answer decides.
    null = np.full(len(data.examples), np.inf)
    np.minimum.at(null, example, start_logits[:, 0] + end_logits[:, 0])
    n_kept = values.shape[1]
    window = np.repeat(np.arange(len(values)), n_kept)
    start, end, values = start.ravel(), end.ravel(), values.ravel()
    order = np.lexsort((-values, example[window]))
    limits = np.searchsorted(example[window][order], np.arange(len(data.examples) + 1))
    answers = []
    for number, context in enumerate(data.examples["context"]):
        best: dict[tuple[int, int], float] = {}  # neighbouring windows share spans
        for k in order[limits[number] : limits[number + 1]]:
            if len(best) == n_best or values[k] == -np.inf:
                break
            best.setdefault((begins[window[k]][start[k]], ends[window[k]][end[k]]), float(values[k]))
        answers.append(_answer(context, best, float(null[number]), null_score_diff_threshold))
    return answers


def _answer(context: str, best: Mapping[tuple[int, int], float], null: float, threshold: float | None) -> Answer:
    """The best of some spans (characters → logits), or that there is no answer."""
    logits = np.array([*best.values(), *([null] if threshold is not None else [])])
    if not len(logits):
        return Answer("", 0.0, 0.0)
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    difference = null - next(iter(best.values())) if best else np.inf
    if threshold is not None and difference > threshold:
        return Answer("", float(shares[-1]), difference)
    begin, end = next(iter(best), (0, 0))
    return Answer(context[begin:end].strip(), float(shares[0]), difference)
