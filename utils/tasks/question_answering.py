"""Extractive question answering: examples, also with questions and contexts in different languages."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset, Features, List, Value
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from utils.core.errors import InputError
from utils.core.tables import READERS, Rows, read_lines
from utils.tasks.examples import Readers, TaskReader, identity_of, text_in


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
CONFIGS = ("plain_text", "{language}", "xquad.{language}", "XQuAD.{language}", "MLQA.{language}.{language}",
           "secondary_task", "squad_v2")  # fmt: skip


def read_squad(path: str) -> Rows:
    """The questions of a file in SQuAD's own JSON; raises `InputError` for another format."""
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


def read_question(row: Mapping[str, Any], where: str, unanswerable: bool = False) -> dict[str, Any]:
    """An example of a row. If an answer is not at its `answer_start`, the nearest place where it is replaces it.

    The row has `context`, `question`, `answers` with `text` and `answer_start`, and possibly `id`. A question without
    answer raises `InputError` if not `unanswerable` (SQuAD v2), as does an answer that is not in its context.
    """
    context, question = text_in(row, "context", where), text_in(row, "question", where)
    answers = row.get("answers")
    if not isinstance(answers, Mapping) or not {"text", "answer_start"} <= set(answers):
        raise InputError(f"{where} has {answers!r} in column answers; it needs lists `text` and `answer_start`.")
    if not answers["text"] and not unanswerable:
        raise InputError(f"{where} has no answer; add --version_2_with_negative if some questions have none.")
    starts = [_locate(context, *answer, where) for answer in zip(answers["text"], answers["answer_start"])]
    answers = {"text": list(answers["text"]), "answer_start": starts}
    return {**identity_of(row), "context": context, "question": question, "answers": answers}


def _locate(context: str, answer: str, start: int, where: str) -> int:
    """Where an answer begins: at `start`, or else at the nearest place where the answer is."""
    if answer and start >= 0 and context.startswith(answer, start):
        return start
    before, after = context.rfind(answer, 0, max(start, 0) + len(answer)), context.find(answer, max(start, 0))
    found = [place for place in (before, after) if place >= 0]
    if not found or not answer:
        raise InputError(
            f"{where} has the answer {answer!r}, which is not in its context; correct it or omit the row."
        )
    return min(found, key=lambda place: abs(place - start))


def only_tydi_language(rows: Dataset, language: str) -> Dataset:
    """The rows of a language, if the ids begin with the language's name as in TyDi QA; all rows of other data sets."""
    if "id" not in rows.column_names or str(rows[0]["id"]).split("-")[0] not in LANGUAGES.values():
        return rows
    prefix = f"{LANGUAGES.get(language, language)}-"
    return rows.filter(lambda identity: identity.startswith(prefix), input_columns=["id"])


def pair_name(question_language: str, context_language: str) -> str:
    """The name of a set: its language, or `hi-en` for questions in Hindi about contexts in English."""
    return question_language if question_language == context_language else f"{question_language}-{context_language}"


@dataclass
class CrossLingualReader(TaskReader):
    """Reads questions; in a set, questions and contexts may be in different languages."""

    configs: Sequence[str] = CONFIGS
    readers: Readers = field(default_factory=lambda: {**READERS, ".json": read_squad})
    select_language: Callable[[Dataset, str], Dataset] | None = only_tydi_language
    pairs: Sequence[tuple[str, str]] = ()  # question and context language of every set

    def evaluation_sets(self, purpose: str, labels: Sequence[str] | None = None) -> dict[str, Dataset]:
        """The examples of all pairs of languages.

        Where the configuration names both languages (`MLQA.{context_language}.{question_language}`), a pair is read from
        it. Else questions and contexts are joined by their ids (XQuAD is parallel, MLQA in part).
        """
        template = self.arguments.eval_dataset_config_name or ""
        names_both = "{question_language}" in template
        sets = {}
        for question, context in self.pairs:
            name = pair_name(question, context)
            config = template.replace("{question_language}", question).replace("{context_language}", context)
            sets[name] = self.evaluation(purpose, context, config=config if names_both else None)
            if question != context and not names_both:
                sets[name] = _with_questions_of(self.evaluation(purpose, question), sets[name], name)
        return sets


def _with_questions_of(questions: Dataset, contexts: Dataset, name: str) -> Dataset:
    """The contexts and answers of one set with the questions of another, joined by id."""
    position = {identity: number for number, identity in enumerate(questions["id"])}
    ids = contexts["id"]
    common = [number for number, identity in enumerate(ids) if identity in position]
    if not common:
        raise InputError(f"Questions and contexts of {name} have no id in common; use parallel data, such as XQuAD.")
    if len(common) < len(ids):
        logger.info(f"{name}: {len(common):,} of {len(ids):,} questions are in both languages.")
    asked = questions.select([position[ids[number]] for number in common])["question"]
    return contexts.select(common).remove_columns("question").add_column("question", list(asked))
