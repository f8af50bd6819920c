"""Extractive question answering: examples, windows over long contexts, and the answers that a model's logits point at.

A context that is too long for the model becomes several rows that overlap (*windows*). An answer is the span of a
window with the highest sum of start and end logit.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from datasets import Dataset, Features, List, Value

from utils.core.errors import InputError
from utils.core.tables import READERS, read_lines, read_rows
from utils.tasks.examples import TaskReader, identity_of, text_in


logger = logging.getLogger(__name__)

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


def read_squad(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The questions of a file in SQuAD's own JSON.

    Raises:
        InputError: naming the file or the question, and the remedy.
    """
    try:
        content = json.loads("\n".join(line for _, line in read_lines(path)))
    except json.JSONDecodeError as error:
        raise InputError(f"The file {path} is not JSON ({error}); call a table with a row per line .jsonl.") from None
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


def read_questions(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The questions of a file: SQuAD's own JSON (`.json`), or a table (see `read_rows`); each also `.gz`."""
    return read_rows(path, {**READERS, ".json": read_squad})


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
