"""Classification of the words of a sentence: reading, features, predicted tags."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from datasets import Features, List, Value

from utils.alignment.words import WordTokenizer
from utils.core.errors import InputError, shown
from utils.core.tables import READERS, Rows, read_lines
from utils.tasks.examples import LanguageData, identity_of, is_missing, unlabeled, value_in
from utils.tasks.reader import Readers


# The loss ignores this label: of all tokens of a word but the first, and of special tokens.
IGNORED = -100
# Lines that begin a sentence and are no word: comments of CoNLL-U and MultiCoNER, and in files with a word per line also that of
# CoNLL-2003.
_COMMENT = r"#\s*(sent_id|text)\s*=|# id [0-9a-f]{8}-[0-9a-f-]+(\s|$)"
_DOCUMENT = r"-DOCSTART-(\s|$)"
_NO_WORD = rf"{_COMMENT}|{_DOCUMENT}"
# The same in a file whose words are numbered; also the ranges and empty nodes of CoNLL-U are no words there. (A no-break space is
# part of a word.)
_NUMBERED_NO_WORD = rf"#|{_DOCUMENT}|[0-9]+[-.][0-9]+[ \t]"
_NUMBERED_BEGIN = rf"#|{_DOCUMENT}|{{first}}[ \t]"
# Lines after which a file is no longer searched for numbers, if most of them have none.
_NUMBERS_SOUGHT = 1000
# Words of the longest sentence. (The models of the paper read 512 tokens.)
_LONGEST = 500
# What stands between the columns.
_BLANKS = " \t"


def tagged_features(column: str) -> Features:
    """The columns of an example: `id`, `tokens` (words) and the column of tags."""
    return Features({"id": Value("string"), "tokens": List(Value("string")), column: List(Value("string"))})


def read_tagged(
    row: Mapping[str, Any], where: str, column: str, labels: Collection[str] | None = None, bio: bool = False
) -> dict[str, Any]:
    """An example of a row of the source: `id`, `tokens` and the column of tags.

    Raises:
        InputError: for a missing column, lists of different lengths, or a tag that is not among `labels` (if given) or,
            with `bio`, not B-TYPE, I-TYPE or O; `UnlabeledError` for a word without a tag.
    """
    tokens, tags = (value_in(row, name, where) for name in ("tokens", column))
    if tags is None or (isinstance(tags, list) and any(map(is_missing, tags))):
        raise unlabeled(f"{where} has a word without a tag in column {column}")
    for name, values in (("tokens", tokens), (column, tags)):
        if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
            wrong = next(one for one in values if not isinstance(one, str)) if isinstance(values, list) else values
            raise InputError(f"{where} has {shown(wrong)} in column {name}; it needs a list of texts.")
    if len(tokens) != len(tags):
        raise InputError(f"{where} has {len(tokens)} tokens and {len(tags)} tags; every token needs one.")
    for tag in tags:
        if bio and not re.fullmatch("O|[BI]-.+", tag):
            raise InputError(f"{where} has the tag {shown(tag)}; tags are B-TYPE, I-TYPE and O (BIO): convert them.")
        if labels and tag not in labels:
            raise InputError(f"{where} has the tag {shown(tag)}, which is none of {', '.join(labels)}; correct it.")
    return {**identity_of(row, where), "tokens": tokens, column: tags}


def _blocks(path: str, begin: str, word: str) -> Iterator[list[tuple[int, str]]]:
    """The numbered lines of every sentence: up to a blank line, or to a `begin` that comes after a `word` (regular expressions)."""
    block: list[tuple[int, str]] = []
    has_words = False
    for number, line in read_lines(path):
        blank = not line.strip()
        if block and (blank or (has_words and re.match(begin, line))):
            yield block
            block, has_words = [], False
        if not blank:
            block.append((number, line))
            has_words = has_words or re.match(word, line) is not None
    if block:
        yield block


def _check_lengths(sentences: Rows, path: str) -> Rows:
    """The sentences; `InputError` after the last one if none was short enough to be one."""
    shortest = 0
    for where, row in sentences:
        shortest = min(shortest or len(row["tokens"]), len(row["tokens"]))
        yield where, row
    if shortest > _LONGEST:
        raise InputError(
            f"Every sentence of {path} has {shortest:,} words or more; write a blank line after every sentence."
        )


def read_conll(path: str, column: str) -> Rows:
    """The sentences of a file with a word per line: the word first, its tag last, between tabs or blanks.

    So are CoNLL-2003, PAN-X and the files of XTREME. If the first column numbers the words, the word is the second and its tag the
    third, as in Universal NER and GermEval 2014 (numbers from 1; the fourth column of GermEval is that of inner entities), and in
    WikiNEuRal (from 0). Sentences are separated by blank lines, or begin with `-DOCSTART-`, `# sent_id = …`, `# text = …`, the
    `# id …` of MultiCoNER, or with the first number. A line without a tag, or whose number does not fit, raises `InputError`.
    """
    return _check_lengths(_sentences_of_conll(path, column), path)


def _sentences_of_conll(path: str, column: str) -> Rows:
    begin, no_word, word, tag, prefix = _NO_WORD, _NO_WORD, 0, -1, _language_prefix(path)
    if first := _first_number(path):
        begin, no_word, word, tag = _NUMBERED_BEGIN.format(first=first), _NUMBERED_NO_WORD, 1, 2
    for block in _blocks(path, begin, rf"(?!{no_word})"):
        words = [(number, _fields(line)) for number, line in block if not re.match(no_word, line)]
        if untagged := [number for number, fields in words if len(fields) < 2]:
            raise InputError(f"Line {untagged[0]} of {path} has no tag; write word and tag, a tab between them.")
        if words:
            tokens = [fields[word].strip(_BLANKS).removeprefix(prefix) for _, fields in words]
            tags = [fields[tag].strip() for _, fields in words]
            yield f"The sentence at line {words[0][0]} of {path}", {"tokens": tokens, column: tags}


def _first_number(path: str) -> str:
    """0 or 1, if the first column numbers the words from there, before at least two others; an empty text if it does not.

    Every sentence begins with that number, or counts on from the one before it. A column that looks like that but for some lines
    raises `InputError`: its numbers would be taken for words.
    """
    lines = (line for _, line in read_lines(path) if line.strip() and not re.match(_NUMBERED_NO_WORD, line))
    first = "0" if _number(_fields(next(lines, ""))) == 0 else "1"
    n_lines = n_numbers = n_fitting = 0
    last, counts, misfit = int(first) - 1, False, ""
    for block in _blocks(path, _NUMBERED_BEGIN.format(first=first), rf"(?!{_NUMBERED_NO_WORD})"):
        words = [(number, _fields(line)) for number, line in block if not re.match(_NUMBERED_NO_WORD, line)]
        for k, (number, fields) in enumerate(words):
            found = _number(fields)
            fits = found == last + 1 or (k == 0 and found == int(first))
            counts = counts or (fits and k > 0)
            misfit = misfit or ("" if fits else f"line {number} begins with {shown(fields[0])}")
            n_lines, n_numbers, n_fitting = n_lines + 1, n_numbers + (found is not None), n_fitting + fits
            last = last + 1 if found is None else found
        # (Where a quarter of the words are none, numbers are those of the text.)
        if n_lines >= _NUMBERS_SOUGHT and 4 * n_numbers < 3 * n_lines:
            return ""
    if counts and misfit and 4 * n_numbers >= 3 * n_lines and 2 * n_fitting > n_lines:
        raise InputError(
            f"The first column of {path} seems to number the words, but {misfit}; number the words of every sentence from 0 or "
            "from 1, with word and tag in the next columns, or remove the numbers."
        )
    return first if counts and not misfit else ""


def _number(fields: Sequence[str]) -> int | None:
    """The number of a word, if a line has one, the word and its tag."""
    is_number = len(fields) > 2 and re.fullmatch("[0-9]{1,9}", fields[0])
    return int(fields[0]) if is_number else None


def _fields(line: str) -> list[str]:
    # (Not at every white space: a no-break space is part of a word.)
    return line.split("\t") if "\t" in line else re.split(" +", line.strip(" "))


def _language_prefix(path: str) -> str:
    """`en:` where that stands before every word of a file, of which at least two differ, as in PAN-X; else nothing.

    A sentence may consist of `to:` or `ftp:x`, but no text of such words alone.
    """
    prefix, distinct = "", set()
    for _, line in read_lines(path):
        if line.strip() and not re.match(_NO_WORD, line):
            word = _fields(line)[0].strip(_BLANKS)
            found = re.match("([a-z]{2,3}(-[a-z]+)*|simple):", word)
            if not found or found[0] != (prefix := prefix or found[0]):
                return ""
            distinct.add(word)
    return prefix if len(distinct) > 1 else ""


def readers_of_tags(column: str) -> Readers:
    """What reads files of tagged sentences: tables of `tokens` and this column, and files with a word per line."""
    return {
        **READERS,
        **dict.fromkeys((".tsv", ".txt", ".conll", ".conllu", ".iob2"), partial(read_conll, column=column)),
    }


def read_conllu(path: str) -> Rows:
    """The sentences of a CoNLL-U file, with `tokens`, `pos_tags` (UPOS) and, where there is one, `id`.

    Format: https://universaldependencies.org/format.html. Multiword tokens (`3-4`) and empty nodes (`5.1`) are skipped:
    the words are those of the treebank's syntax. A sentence ends with a blank line, or where the next one begins: with ID 1,
    `# sent_id = …` or `# text = …`. IDs that do not count up, and a line without UPOS, raise `InputError`.
    """
    return _check_lengths(_sentences_of_conllu(path), path)


def _sentences_of_conllu(path: str) -> Rows:
    for block in _blocks(path, rf"{_COMMENT}|1\t", r"\d+\t"):
        sentence: dict[str, Any] = {"tokens": [], "pos_tags": []}
        last = 0
        for number, line in block:
            fields = line.split("\t")
            if line.startswith("#"):
                key, _, value = line[1:].partition("=")
                if key.strip() == "sent_id":
                    sentence["id"] = value.strip()
            elif len(fields) < 4 or not re.fullmatch(r"[0-9]{1,9}([-.][0-9]{1,9})?", fields[0]):
                raise InputError(
                    f"Line {number} of {path} is not CoNLL-U (ID, FORM, LEMMA, UPOS between tabs); correct it."
                )
            elif fields[0].isdecimal():
                if int(fields[0]) <= last:
                    raise InputError(
                        f"Line {number} of {path} has the ID {fields[0]} after {last}; number the words of every sentence from 1."
                    )
                last = int(fields[0])
                sentence["tokens"].append(fields[1])
                sentence["pos_tags"].append(fields[3])
        if sentence["tokens"]:
            yield f"The sentence at line {block[0][0]} of {path}", sentence


def encode_tagged(
    batch: Mapping[str, list],
    positions: Sequence[int],
    column: str,
    word_tokenizer: WordTokenizer,
    label2id: Mapping[str, int],
) -> dict[str, list]:
    """One row per example. The first token of a word has its label, and its position in the sentence in `word`."""
    encoded = word_tokenizer(batch["tokens"])
    rows: dict[str, list] = {"input_ids": encoded["input_ids"], "labels": [], "word": [], "example": list(positions)}
    for word_ids, words, tags in zip(encoded["word_ids"], encoded["words"], batch[column]):
        # (Special tokens count as words too, with numbers outside of the sentence.)
        word = [words[k] if k >= 0 and 0 <= words[k] < len(tags) else IGNORED for k in word_ids]
        rows["word"].append(word)
        rows["labels"].append([label2id[tags[k]] if k != IGNORED else IGNORED for k in word])
    return rows


def predicted_tags(
    data: LanguageData, best: Sequence[np.ndarray], labels: Sequence[str], column: str, missing: str
) -> list[dict[str, Any]]:
    """The tag of every word.

    Args:
        data: examples and rows of a set.
        best: probabilities and numbers of the best classes, [rows, longest row] each.
        labels: names of the classes.
        column: the column of tags.
        missing: tag of a word that the model has not seen: beyond the length limit, or without tokens.

    Returns:
        Records with `id`, `gold` and `prediction` (tags), and `score` (mean probability of the predicted tags).
    """
    records: list[dict[str, Any]] = [{}] * len(data.examples)
    for row, chances, classes in zip(data.rows, *best):
        example = data.examples[row["example"]]
        word, tags = np.asarray(row["word"]), [missing] * len(example["tokens"])
        first = np.flatnonzero(word != IGNORED)
        for token in first:
            tags[word[token]] = labels[classes[token]]
        certainty = float(chances[first].mean()) if len(first) else 0.0
        records[row["example"]] = {
            "id": example["id"], "gold": example[column], "prediction": tags, "score": round(certainty, 6),
        }  # fmt: skip
    return records
