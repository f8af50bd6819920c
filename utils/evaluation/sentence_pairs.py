"""Pairs of sentences for cross-lingual sentence retrieval."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from utils.core.errors import InputError
from utils.core.romanization import romanize
from utils.core.tables import table_among
from utils.core.text_files import check_file
from utils.parallel.data_sets import load_sentences
from utils.parallel.formats import pair_files, read_aligned_lines, read_pairs
from utils.parallel.sides import THREE_LETTERS, SentenceColumns, directions


# What run_xsr.py calls the parts of a data set.
_ARGUMENTS = {
    "config": "--dataset_config_name",
    "split": "--dataset_split",
    "source": "--source_column",
    "english": "--target_column",
}
# Configurations of google/xtreme, of mteb/tatoeba-bitext-mining, of data/xsr, of OPUS-100 and its like.
_CONFIGS = ("tatoeba.{code}", "{code}-eng", "{language}", "{language}-en", "en-{language}")


@dataclass(frozen=True)
class SentencePairs:
    """Sentences of a language and their English translations, `english[i]` of `source[i]`."""

    language: str
    source: list[str]
    english: list[str]
    dataset: str  # data set and configuration, or the two files
    split: str | None = None  # None for files

    @property
    def directions(self) -> tuple[str, ...]:
        """The language of the queries comes first."""
        return directions(self.language)

    @property
    def facts(self) -> dict[str, Any]:
        """Origin and number of the sentences, recorded with every result."""
        return {"dataset": self.dataset, "split": self.split, "sentences": len(self.source)}

    @property
    def sha256(self) -> str:
        """Checksum of the sentences, equal for two runs on the same data."""
        return hashlib.sha256(json.dumps([self.source, self.english]).encode()).hexdigest()

    def first(self, n: int | None) -> "SentencePairs":
        """The first n pairs; all for None."""
        return replace(self, source=self.source[:n], english=self.english[:n])

    def romanized(self, language: str) -> "SentencePairs":
        """The same pairs with the source sentences in Latin letters, as those of another language."""
        return replace(self, language=language, source=[romanize(text, language) for text in self.source])


def read_sentence_files(language: str, source_path: str, english_path: str) -> SentencePairs:
    """Read two text files, gzipped or not: line i of one translates line i of the other."""
    paths = source_path, english_path
    if table := table_among(paths):
        raise InputError(f"{table} is a table, not one sentence per line; give it with --parallel_file.")
    for path in paths:
        check_file(path)
    pairs = [
        [_sentence(line, f"Line {number} of {path}") for line, path in zip(lines, paths)]
        for number, *lines in read_aligned_lines(*paths)
    ]
    if not pairs:
        raise InputError(f"The file {source_path} is empty; give one with a sentence on every line.")
    source, english = map(list, zip(*pairs))
    return SentencePairs(language, source, english, f"{source_path} {english_path}")


def read_pairs_file(paths: Sequence[str], columns: SentenceColumns) -> SentencePairs:
    """Read the pairs of a parallel corpus in a file, or in two, in every format of `read_bitext`."""
    paths = pair_files(paths, columns)
    for path in paths:
        check_file(path)
    read: tuple[list[str], list[str]] = ([], [])
    for number, pair in enumerate(read_pairs(paths, columns), 1):
        for side, text in zip(read, pair):
            words = " ".join(text) if isinstance(text, list) else text
            side.append(_sentence(words, f"Pair {number} of {' '.join(paths)}"))
    if not read[0]:
        raise InputError(f"The file {paths[0]} is empty; give one with parallel sentences.")
    return SentencePairs(columns.language, *read, " ".join(paths))


def load_sentence_pairs(
    dataset_name: str,
    language: str,
    config_name: str | None = None,
    split: str | None = None,
    source_column: str | None = None,
    english_column: str | None = None,
    **hub_options: Any,
) -> SentencePairs:
    """Read the pairs of a language from a data set on the Hub or in a local folder.

    Args:
        config_name: in it `{language}` stands for the language; by default the first that exists of `tatoeba.hin`
            (google/xtreme), `hin-eng` (mteb/tatoeba-bitext-mining), `hi`, `hi-en`, `en-hi`.
        split: by default the first that exists of `test`, `validation`, `train`.
        source_column, english_column: by default the usual names (`utils.parallel.sides`).
        hub_options: `cache_dir`, `token`.

    Raises:
        InputError: naming what the data set offers instead.
    """
    code = THREE_LETTERS.get(language, language)
    configs = [config_name] if config_name else [name.replace("{code}", code) for name in _CONFIGS]
    splits = [split] if split else ["test", "validation", "train"]
    columns = SentenceColumns(language, source_column, english_column)
    rows, _, config, split = load_sentences(dataset_name, configs, splits, columns, _ARGUMENTS, **hub_options)
    where = f"the data set {dataset_name} ({config})"
    source, english = (
        [_sentence(text, f"Row {n} of {where}") for n, text in enumerate(rows[side], 1)]
        for side in ("source", "english")
    )
    return SentencePairs(language, source, english, f"{dataset_name} {config}", split)


def _sentence(text: object, where: str) -> str:
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{where} has no sentence; remove it, together with its translation.")
    return text.strip()  # (XTREME's end in a line break)
