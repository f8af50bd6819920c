"""Parallel text in files: sentence pairs of every format, split into words.

A bitext is a `datasets.Dataset` with the columns `source` and `english`, both lists of words, `checksum`, that of the
English sentence, and, once linked, `links`: lists of `[i, j]`, source word i with English word j.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice, zip_longest
from typing import Any

from datasets import Dataset, Features, List, Value

from utils.core.cache import cache_key, dataset_from_files
from utils.core.errors import InputError, shown
from utils.core.tables import READERS, Rows, read_csv, read_rows, read_tsv, table_among
from utils.core.text_files import bare_path, read_lines, split_member, zip_members
from utils.parallel.sides import (
    ENGLISH,
    SAMPLE,
    SentenceColumns,
    check_english,
    check_not_exchanged,
    in_order,
    language_of_file,
    same_language,
)


# Suffixes of files with lines `source ||| English`, as Moses and fast_align read them.
MOSES = (".moses", ".txt", ".fastalign")
SIDES = Features({"source": List(Value("string")), "english": List(Value("string"))})
BITEXT_FEATURES = Features({**SIDES, "checksum": Value("uint32")})
LINKS = List(List(Value("int32")))
Text = str | list[str]
Split = Callable[[str], list[str]]


def read_bitext(
    paths: Sequence[str],
    language: str,
    split: Split,
    splitting: str,
    source_column: str | None = None,
    english_column: str | None = None,
    anchor: str = ENGLISH,
) -> Dataset:
    """Read all pairs of a parallel corpus, also empty ones, from one file, or from two line-aligned files.

    Args:
        paths: one file in a format of `READERS` or with lines `source ||| English` (`MOSES`); or two text files of any
            name, in the order of `in_order`; or a `.zip` of OPUS with two such files. Each may be compressed.
        language: code of the source language.
        split: splits a sentence into words.
        splitting: a name for `split`, for the cache; see `words_of`.
        source_column, english_column: names of the columns, if they are not the usual ones.
        anchor: code of the language that takes the place of English.
    """
    columns = SentenceColumns(language, source_column, english_column, anchor)
    paths = pair_files(paths, columns)

    def rows() -> Iterator[dict[str, Any]]:
        return (split_pair(*pair, split, splitting) for pair in read_pairs(paths, columns))

    key = cache_key(read_bitext, split, columns=columns, splitting=splitting)
    bitext = dataset_from_files(paths, rows, BITEXT_FEATURES, key)
    if not len(bitext):
        raise InputError(f"The file {paths[0]} is empty; give one with parallel sentences.")
    return bitext


def pair_files(paths: Sequence[str], columns: SentenceColumns) -> Sequence[str]:
    """The one or two files that hold the pairs: those of both languages in an archive of OPUS, else `paths`."""
    if len(paths) == 1 and paths[0].endswith(".zip"):
        paths = _sides_of_zip(paths[0], columns.language, columns.anchor)
    if len(paths) > 2:
        raise InputError(
            f"{' '.join(paths)} are {len(paths)} files for {columns.language}; give one, or two that are aligned."
        )
    if len(paths) == 2 and (table := table_among(paths)):
        raise InputError(
            f"{table} is a table, which holds both sides; give one such file for {columns.language}, or two text files that are aligned."
        )
    return paths


def read_pairs(paths: Sequence[str], columns: SentenceColumns) -> Iterator[tuple[Text, Text]]:
    """The source and the English sentence of every pair, also empty ones, in `pair_files`."""
    if len(paths) == 2:
        return _read_two_files(paths[0], paths[1], columns.language, columns.anchor)
    return _read_table(paths[0], columns)


def split_pair(source: object, english: object, split: Split, splitting: str) -> dict[str, Any]:
    """A row of a bitext, made of the two sentences of a pair."""
    words = {"source": words_of(source, split, splitting), "english": words_of(english, split, splitting)}
    return {**words, "checksum": checksum(english)}


def checksum(text: object) -> int:
    """A checksum of a sentence, or of its words, that does not depend on how it is split: white space does not count."""
    characters = "".join("".join(text if isinstance(text, list) else [str(text or "")]).split())
    return zlib.crc32(characters.encode())


def words_of(text: object, split: Split, splitting: str) -> list[str]:
    """The words of a sentence (none of None), or of a list of words, which is split further only into subwords."""
    if isinstance(text, list):
        _check_words(text, "A row of the data set")
        return split(" ".join(text)) if splitting.startswith("subword") else text
    if text is not None and not isinstance(text, str):
        raise InputError(f"The data set has {text!r:.40} where a sentence should be; name the columns of sentences.")
    return split(text or "")


def _sides_of_zip(path: str, language: str, anchor: str) -> list[str]:
    """The files of both languages in an archive of OPUS; the archive if it has one of another kind."""
    members = zip_members(path)
    # (Beside `W.en-hi.hi` there may be `W.en-hi.ids` and `W.en-hi.xml`.)
    codes = [bare_path(member).suffix.removeprefix(".") for member in members]
    named = [
        member for member, code in zip(members, codes) if any(same_language(code, one) for one in (language, anchor))
    ]
    sides = named if len(named) > 1 else [member for member in members if language_of_file(member, language, anchor)]
    if len(sides) > 1:
        return sides
    if len(members) > 1 and bare_path(path).suffix not in (*READERS, *MOSES):
        names = ", ".join(split_member(member)[1] for member in members[:5])
        raise InputError(
            f"The archive {path} has no two files for {language} and {anchor}, only {names}; choose another archive or "
            "--language, or unpack it and name the files."
        )
    return [path]


def _read_table(path: str, columns: SentenceColumns) -> Iterator[tuple[Text, Text]]:
    readers: dict[str, Callable[[str], Rows]] = {
        **READERS,
        ".csv": partial(read_csv, keep_blank=True),
        ".tsv": partial(_read_tsv, columns=columns),
        **dict.fromkeys(MOSES, _read_moses),
    }
    rows = ((where, flat_row(row)) for where, row in read_rows(path, readers))
    first = list(islice(rows, SAMPLE))
    if not first:
        return
    if len(first) == 1:
        _check_no_column(first[0][1], path)
    names = columns.find([row for _, row in first], path)
    for where, row in chain(first, rows):
        yield _text(row, names[0], where), _text(row, names[1], where)


def _read_two_files(first: str, second: str, language: str, anchor: str) -> Iterator[tuple[str, str]]:
    lines = read_aligned_lines(*in_order(first, second, language, anchor), anchor)
    return ((source, english) for _, source, english in lines)


def read_aligned_lines(source_path: str, english_path: str, anchor: str = ENGLISH) -> Iterator[tuple[int, str, str]]:
    """The number, from 1, and both lines of two text files.

    Raises `InputError` for files of different length, and if the English one is not in Latin letters.
    """
    if anchor == ENGLISH:
        first = [[line for _, line in islice(read_lines(path), SAMPLE)] for path in (source_path, english_path)]
        check_english(first[1], f"The file {english_path}")
        check_not_exchanged(first[0], first[1], f"The files {source_path} and {english_path}")
    for number, pair in enumerate(zip_longest(read_lines(source_path), read_lines(english_path)), 1):
        if None in pair:
            n_source, n_english = (sum(1 for _ in read_lines(path)) for path in (source_path, english_path))
            raise InputError(
                f"{source_path} has {n_source} lines and {english_path} has {n_english}; line i of one must translate "
                "line i of the other."
            )
        (_, source), (_, english) = pair
        yield number, source, english


def _read_moses(path: str) -> Rows:
    for number, line in read_lines(path):
        parts = line.split(" ||| ") if line.strip() else ["", ""]
        if len(parts) != 2:
            raise InputError(
                f"Line {number} of {path} has {len(parts) - 1} separators ' ||| ' instead of one; write each pair as "
                f"'source ||| English', or give the file the suffix of its format ({', '.join(READERS)})."
            )
        yield f"Line {number} of {path}", dict(zip("12", parts))


def _read_tsv(path: str, columns: SentenceColumns) -> Rows:
    """The rows of a table with tabs; if it has no header, its columns are called 1, 2, …"""
    lines = (line.split("\t") for _, line in read_lines(path) if line)
    first, second = next(lines, []), next(lines, [])
    if not first:
        raise InputError(f"The file {path} is empty, or has only blank lines; give one with parallel sentences.")
    header = columns.are_in(first, second)
    if len(first) == 1:
        raise InputError(f"The first line of {path} has no tab; write every pair as source, tab, English.")
    return read_tsv(path, keep_blank=True, names=None if header else [str(k + 1) for k in range(len(first))])


def _text(row: Mapping[str, Any], name: str, where: str) -> Text:
    text = row.get(name)
    if isinstance(text, str):
        return text
    if isinstance(text, list) and all(isinstance(word, str) for word in text):
        _check_words(text, where)
        return text
    found = shown(row[name]) if name in row else "nothing"
    raise InputError(f"{where} has {found} in column {name}; it needs a sentence, or a list of words.")


def _check_words(words: Sequence[str], where: str) -> None:
    """Raise `InputError` if a list has sentences instead of words. (Vietnamese words have a space or two.)"""
    if words and sum(len(word.split()) for word in words) >= 3 * len(words):
        raise InputError(
            f"{where} has a list of sentences, which begins with {words[0][:40]!r}; it needs one sentence, or a list of its "
            "words. Write one pair per line."
        )


def _check_no_column(row: Mapping[str, Any], path: str) -> None:
    """Raise `InputError` for a file of one object with a list of all sentences per column, as pandas writes them."""
    lists = [value for value in row.values() if isinstance(value, list) and all(isinstance(one, str) for one in value)]
    if any(" " in text.strip() for texts in lists for text in texts):
        raise InputError(
            f"The file {path} has whole columns in one object; write one object per pair (pandas: to_json(orient='records', "
            "lines=True))."
        )


def flat_row(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """OPUS data sets keep both sides in one column `translation`."""
    return {**row, **row["translation"]} if isinstance(row.get("translation"), dict) else row
