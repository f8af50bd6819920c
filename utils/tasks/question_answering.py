"""Extractive question answering: examples, also with questions and contexts in different languages."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from datasets import Dataset, Features, List, Value
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from utils.core.errors import InputError, shown
from utils.core.tables import READERS, Rows, read_json
from utils.tasks.examples import identity_of, text_in, unlabeled, value_in
from utils.tasks.reader import Readers, TaskReader


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


# With these begin the ids of TyDi QA, whose files and configurations hold all languages.
TYDI = {
    "arabic",
    "bengali",
    "english",
    "finnish",
    "indonesian",
    "japanese",
    "korean",
    "russian",
    "swahili",
    "telugu",
    "thai",
}


def read_squad(path: str) -> Rows:
    """The questions of a JSON file: articles as in SQuAD, or rows with a context each.

    Raises `InputError` for another format.
    """
    for where, article in read_json(path):
        if "paragraphs" not in article:
            yield where, article
            continue
        for of_paragraph, paragraph in _objects_in(article, "paragraphs", "Paragraph", where):
            context = text_in(paragraph, "context", of_paragraph)
            for of_question, question in _objects_in(paragraph, "qas", "Question", of_paragraph):
                named = identity_of(question, of_question)
                place = f"Question {named['id']} of {path}" if named else of_question
                yield place, {"answers": None, **question, "context": context}


def _objects_in(parent: Mapping[str, Any], name: str, kind: str, where: str) -> Rows:
    """The objects in a list, each with its place; `InputError` for anything else."""
    items = value_in(parent, name, where)
    if not isinstance(items, list):
        raise InputError(f"{where} has {shown(items)} as {name}, which should be a list; correct it.")
    for number, item in enumerate(items, start=1):
        place = f"{kind} {number} of {where[0].lower()}{where[1:]}"
        if not isinstance(item, dict):
            raise InputError(f"{place} is {shown(item)}, which should be an object; correct it.")
        yield place, item


def read_question(row: Mapping[str, Any], where: str, unanswerable: bool = False) -> dict[str, Any]:
    """An example of a row. If an answer is not at its `answer_start`, the nearest place where it is replaces it.

    The row has `context`, `question`, `answers` and possibly `id`. Answers are lists `text` and `answer_start`, or one of
    each, or a list of pairs of them; a start that is null stands for the first place. A question without answer raises
    `UnlabeledError` if not `unanswerable` (SQuAD v2); an answer that is not in its context raises `InputError`.
    """
    context, question = text_in(row, "context", where), text_in(row, "question", where)
    answers = _answers(value_in(row, "answers", where), where)
    if not answers and not unanswerable:
        raise unlabeled(
            f"{where} has no answer", "add --version_2_with_negative to learn that some questions have none"
        )
    starts = [_locate(context, text, start, where) for text, start in answers]
    answered = {"text": [text for text, _ in answers], "answer_start": starts}
    return {**identity_of(row, where), "context": context, "question": question, "answers": answered}


def _answers(answers: Any, where: str) -> list[tuple[str, int]]:
    """Text and start of every answer, in any of the usual layouts."""
    pairs = [answers] if isinstance(answers, Mapping) else [] if answers is None else answers
    found: list[tuple[Any, Any]] = []
    for pair in pairs if isinstance(pairs, list) else [pairs]:
        if not isinstance(pair, Mapping) or not {"text", "answer_start"} <= set(pair):
            given = (
                f"an answer without {min({'text', 'answer_start'} - set(pair))}"
                if isinstance(pair, Mapping)
                else shown(pair)
            )
            raise InputError(f"{where} has {given} in column answers; it needs `text` and `answer_start`.")
        texts, starts = (
            value if isinstance(value, list) else [] if value is None else [value]
            for value in (pair["text"], pair["answer_start"])
        )
        if pair["answer_start"] is None:
            starts = [None] * len(texts)
        if len(texts) != len(starts):
            raise InputError(
                f"{where} has {len(texts)} answers in `text`, {len(starts)} in `answer_start`; add the others."
            )
        found += zip(texts, starts)
    for text, start in found:
        if not isinstance(text, str):
            raise InputError(f"{where} has an answer whose `text` is {shown(text)}; write text.")
        if start is not None and not re.fullmatch(r"-?\d{1,9}(\.0*)?", str(start).strip()):
            raise InputError(f"{where} has an answer whose `answer_start` is {shown(start)}; write a number, or null.")
    return [(text, 0 if start is None else int(float(start))) for text, start in found]


def _locate(context: str, answer: str, start: int, where: str) -> int:
    """Where an answer begins: at `start`, or else at the nearest place where the answer is."""
    if answer and start >= 0 and context.startswith(answer, start):
        return start
    before, after = context.rfind(answer, 0, max(start, 0) + len(answer)), context.find(answer, max(start, 0))
    found = [place for place in (before, after) if place >= 0]
    if not found or not answer:
        raise InputError(
            f"{where} has the answer {shown(answer)}, which is not in its context; correct it or omit the row."
        )
    return min(found, key=lambda place: abs(place - start))


def only_tydi_language(rows: Dataset, language: str) -> Dataset:
    """The rows of a language, if all ids begin with the name of a language as in TyDi QA; all rows of other data sets."""
    names = {str(identity).partition("-")[0] for identity in rows["id"]} if "id" in rows.column_names else set()
    if not names or not names <= TYDI:
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
        data = self.arguments
        if (
            purpose == "test"
            and data.eval_dataset_name
            and not data.test_file
            and data.test_split == data.validation_split
        ):
            logger.info(f"{data.eval_dataset_name} has no test split: --do_predict measures {data.test_split}.")
        template = self.arguments.eval_dataset_config_name or ""
        names_both = "{question_language}" in template

        def read(question: str, context: str) -> Dataset:
            config = template.replace("{question_language}", question).replace("{context_language}", context)
            if question == context or names_both:
                return self.evaluation(purpose, context, config=config if names_both else None)
            # (Limited after they are joined: the first questions of one set need not be among the first of the other.)
            contexts, questions = (self.evaluation(purpose, one, limited=False) for one in (context, question))
            joined = _with_questions_of(questions, contexts, pair_name(question, context))
            return joined.select(range(min(data.limit(purpose) or len(joined), len(joined))))

        return self._offered({pair_name(*pair): partial(read, *pair) for pair in self.pairs})


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
