"""Which columns or files hold the sentences of a language, and which the English ones.

They are found by their names; where these do not say it, by the sentences: English ones are in Latin letters and have
frequent English words. With another `--anchor_language` names and order alone decide. Its sentences are called `english`
everywhere in the code: what is pulled to an anchor, and how, does not depend on the language of the anchor.
"""

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from utils.core.errors import InputError
from utils.core.text_files import bare_path, read_lines


logger = logging.getLogger(__name__)

ENGLISH = "en"
# `--anchor_language each`: every language is pulled to every other one.
EACH = "each"
# Rows at the beginning of a corpus by which its columns are chosen.
SAMPLE = 100
# What run_align.py and the scripts with --continual call the arguments about a corpus.
PARALLEL = {
    "config": "--parallel_config",
    "split": "--parallel_split",
    "source": "--source_column",
    "english": "--english_column",
}
# Tatoeba names languages by three letters: the 36 of XTREME (Artetxe and Schwenk, TACL 2019; Hu et al., ICML 2020).
THREE_LETTERS = {
    "af": "afr", "ar": "ara", "bg": "bul", "bn": "ben", "de": "deu", "el": "ell", "es": "spa", "et": "est",
    "eu": "eus", "fa": "pes", "fi": "fin", "fr": "fra", "he": "heb", "hi": "hin", "hu": "hun", "id": "ind",
    "it": "ita", "ja": "jpn", "jv": "jav", "ka": "kat", "kk": "kaz", "ko": "kor", "ml": "mal", "mr": "mar",
    "nl": "nld", "pt": "por", "ru": "rus", "sw": "swh", "ta": "tam", "te": "tel", "th": "tha", "tl": "tgl",
    "tr": "tur", "ur": "urd", "vi": "vie", "zh": "cmn",
}  # fmt: skip
_TWO_LETTERS = {**{three: two for two, three in THREE_LETTERS.items()}, "eng": ENGLISH, "zho": "zh", "fas": "fa"}
# A code with a script or a region: hi, hin_Deva, zh-CN, es-419.
_CODE = re.compile(r"([a-z]{2,3})([-_]([a-z]{2}|[a-z]{4}|\d{3}))*", re.IGNORECASE)
# Codes for one language, or for its standards that share corpora.
_RELATED = (
    {"no", "nb", "nn"}, {"sr", "hr", "bs", "sh"}, {"tl", "fil"}, {"he", "iw"}, {"id", "in"}, {"yi", "ji"}, {"jv", "jw"},
    {"zh", "yue", "wuu"},
)  # fmt: skip
# Names of the two columns in sentence-transformers' sets, in Tatoeba (XTREME, MTEB), and in others. Those after the first
# do not say which side is English; mostly it is the second.
_USUAL = [
    ("non_english", "english"), ("source_sentence", "target_sentence"), ("sentence1", "sentence2"), ("source", "target"),
    ("src", "tgt"), ("src", "trg"),
]  # fmt: skip
# Frequent English words that are not frequent in other languages with Latin letters.
_FREQUENT = frozenset((
    "the", "and", "of", "to", "that", "you", "with", "for", "this", "have", "from", "they", "are", "not", "what",
    "your", "which", "there", "their", "would", "when", "who", "she", "his", "were", "been", "is", "it", "my",
    "how"
))  # fmt: skip


def same_language(name: str, language: str) -> bool:
    """Whether two codes name one language, by two or three letters: `hi`, `hin`, `hi_IN`, `hin_Deva`."""
    codes = [match[1].lower() if (match := _CODE.fullmatch(code)) else code for code in (name, language)]
    return len({_TWO_LETTERS.get(code, code) for code in codes}) == 1


@dataclass(frozen=True)
class SentenceColumns:
    """Which columns hold the source and the English sentences."""

    language: str  # code of the source language
    source: str | None = None  # the name of the column, if the user has given it
    english: str | None = None
    anchor: str = ENGLISH  # code of the language that takes the place of English

    def _named(self, present: Sequence[str]) -> tuple[str | None, str | None]:
        """The columns with the given names, or else named after the languages; None for those that are not there."""
        named = []
        for name, language in ((self.source, self.language), (self.english, self.anchor)):
            fitting = sorted((n for n in present if same_language(n, language)), key=language.__ne__)
            named.append(name if name in present else None if name else next(iter(fitting), None))
        return named[0], named[1]

    @property
    def _usual(self) -> list[tuple[str, str]]:
        return _USUAL if self.anchor == ENGLISH else _USUAL[1:]

    def are_in(self, first: Sequence[str], second: Sequence[str]) -> bool:
        """Whether the first line of a table, of which the cells of the second are also given, is a header."""
        usual = [] if self.source or self.english else [name for pair in self._usual for name in pair]
        found = {name for name in (*self._named(first), *usual) if name in first}
        # Where every line names the languages, the first one is not a header.
        return bool(found) and not found <= {one for one, two in zip(first, second) if one == two}

    def find(self, rows: Sequence[Mapping], where: str, arguments: Mapping[str, str] = PARALLEL) -> tuple[str, str]:
        """The names of both columns of a table `where`, by its first rows.

        Raises `InputError`, which names one of the arguments, if it is unclear which they are, or if the English
        sentences are not in Latin letters.
        """
        present = list(rows[0])
        texts = {name: [_text(row.get(name)) for row in rows] for name in present}
        # Numbers and ids are not sentences, whatever the column is called (`id` is also the code of Indonesian).
        worded = [name for name in present if not any(texts[name]) or any(map(str.isalpha, "".join(texts[name])))]
        sentences = [name for name in worded if not _is_id(texts[name])]
        worded = sentences if any(any(texts[name]) for name in sentences) else worded
        source, english = self._named(present if self.source or self.english else worded)
        if not (source or english or self.source or self.english):
            usual = next((pair for pair in self._usual if set(pair) <= set(worded)), None)
            pool = {name: texts[name] for name in usual} if usual else texts
            by_sentences = usual if usual == _USUAL[0] else sides_of(pool) if self.anchor == ENGLISH else None
            without_header = present == [str(k + 1) for k in range(len(present))]
            in_order = worded if without_header and len(worded) == 2 else (None, None)
            source, english = by_sentences or usual or in_order
            if by_sentences and not without_header and any(len(name.split()) > 2 for name in by_sentences):
                raise InputError(
                    f"{where} has no header, but begins with {' | '.join(present)[:80]!r}; add a first line with the names of "
                    f"its columns, such as {self.language} and {self.anchor}."
                )
        # (Beside a column `en`, one called `source` may say where a pair is from.)
        usual_names = self._usual if self.source or self.english else self._usual[: self.anchor == ENGLISH]
        source = source or (None if self.source else next((s for s, _ in usual_names if s in worded), None))
        english = english or (None if self.english else next((e for _, e in usual_names if e in worded), None))
        if source is None or english is None:
            side, language, name = ("english", anchor_name(self.anchor), self.english or self.anchor)
            if source is None:
                side, language, name = ("source", self.language, self.source or self.language)
            line = " | ".join(column[0] for column in texts.values())
            found = "numbers or codes in" if name in present else "no"
            raise InputError(
                f"{where} has {found} column {name} for the {language} sentences, only {', '.join(map(str, present))[:80]}; name "
                f"the right one with {arguments[side]} (the first row is {line[:80]!r})."
            )
        if self.anchor == ENGLISH:
            check_english(texts[english], f"{where}, column {english},")
            check_not_exchanged(texts[source], texts[english], f"{where}, columns {source} and {english},")
        return source, english


def sides_of(texts: Mapping[str, Sequence[str]]) -> tuple[str, str] | None:
    """The names of the source and of the English column, by their sentences; None if that is unclear."""
    columns = {name: column for name, column in texts.items() if not _is_code(column)}
    latin = [name for name, column in columns.items() if _latin_share(column) > 0.5]
    english = latin[0] if len(latin) == 1 < len(columns) else None
    if len(latin) > 1:
        scores = {name: _english_words(columns[name]) for name in latin}
        best, second, *_ = sorted(latin, key=lambda name: scores[name][0], reverse=True)
        if scores[best][0] >= 2 * scores[second][0] and scores[best][1] >= 3:
            english = best
    others = [name for name in columns if name != english]
    return (others[0], english) if english is not None and len(others) == 1 else None


def check_english(sentences: Sequence[str], where: str) -> None:
    """Raise `InputError` if sentences are not in Latin letters."""
    if _latin_share(sentences) < 0.5:
        first = next(text for text in sentences if text.strip())
        raise InputError(
            f"{where} should have English sentences, but begins with {first[:40]!r}; exchange the two sides or name them."
        )


def check_not_exchanged(source: Sequence[str], english: Sequence[str], where: str) -> None:
    """Raise `InputError` if the source sentences are English, and the English ones are not.

    Frequent English words are a fifth of English text and at most a twentieth of text in other languages. (Text that is in
    part English, or in a creole of English, does not have twice as many of them as its translation.)
    """
    (share, n_different), (of_english, _) = _english_words(source), _english_words(english)
    if share >= 0.1 and n_different >= 3 and share >= 2 * of_english:
        first = next(text for text in source if _english_words([text])[1])
        raise InputError(
            f"{where} seem to be exchanged: {first[:40]!r} is on the side of the source and looks English; exchange the "
            "two sides or their names."
        )


def check_different(pairs: Iterable[tuple[Any, Any]], language: str) -> None:
    """Raise `InputError` if both sides of all pairs that have any are the same, which teaches and measures nothing."""
    are_same = [source == english for source, english in pairs if source or english]
    if are_same and all(are_same):
        raise InputError(
            f"The sentences of {language} and their translations are the same; check the files, or name the columns."
        )


def anchor_name(anchor: str) -> str:
    """What the anchor's side is called in text."""
    return "English" if anchor == ENGLISH else anchor


def directions(language: str, anchor: str = ENGLISH) -> tuple[str, ...]:
    """The names of what is measured from a language to the anchor, and back: `hi-en`, `en-hi`.

    If each language is an anchor there is only the way to it, since others go back: its name is the language's.
    """
    return (language,) if anchor == EACH else (f"{language}-{anchor}", f"{anchor}-{language}")


def log_pair(language: str, source: str, english: str, anchor: str = ENGLISH, of: str = "") -> None:
    """Show a pair as it was read, `of` which data, so that a user sees what was taken for which side."""
    logger.info(f"{language}{of}: {source[:200]}")
    logger.info(f"{anchor}{of}: {english[:200]}")


def in_order(first: str, second: str, language: str, anchor: str = ENGLISH) -> tuple[str, str]:
    """Two files as source and English: by their names, else by their sentences, else as they are given."""
    _check_names(first, second, language, anchor)
    sides = [language_of_file(path, language, anchor) for path in (first, second)]
    if sides[0] == sides[1]:
        if anchor != ENGLISH:
            return first, second
        texts = {path: [line for _, line in islice(read_lines(path), SAMPLE)] for path in (first, second)}
        return sides_of(texts) or (first, second)
    return (second, first) if sides[0] == anchor or sides[1] == language else (first, second)


def language_of_file(path: str, language: str, anchor: str = ENGLISH) -> str | None:
    """The language, or the anchor, whose code stands last in a file's name (`train.en-hi.en.gz`) or is the name of its folder."""
    bare = bare_path(path)
    for part in [*reversed(re.split(r"[._-]", bare.name)), bare.parent.name]:
        for code in (anchor, language):
            if same_language(part, code):
                return code
    return None


def _check_names(first: str, second: str, language: str, anchor: str) -> None:
    """Raise `InputError` if the names of two files differ in the code of a language only, and one is of a third language.

    (Whoever gives a code that is in no list may call the files as they like.)
    """
    parts = [[*re.split(r"[._-]", bare_path(path).name), bare_path(path).parent.name] for path in (first, second)]
    if len(parts[0]) != len(parts[1]) or not _is_known(language):
        return
    differing = [pair for pair in zip(*parts) if pair[0] != pair[1]]
    if len(differing) != 1 or not all(map(_is_known, differing[0])):
        return
    for code, path in zip(differing[0], (first, second)):
        if not any(_are_related(code, known) for known in (language, anchor)):
            raise InputError(
                f"The file {path} is named after the language {code.lower()}, not {language} or {anchor}; give the right "
                "--language, or rename the file."
            )


def _is_known(code: str) -> bool:
    """Whether a text is the code of a language with many speakers."""
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    match = _CODE.fullmatch(code)
    two = _TWO_LETTERS.get(match[1].lower(), match[1].lower()) if match else ""
    return two in LANGUAGES or two in THREE_LETTERS or any(two in related for related in _RELATED)


def _are_related(one: str, other: str) -> bool:
    codes = {match[1].lower() for code in (one, other) if (match := _CODE.fullmatch(code))}
    return same_language(one, other) or any(codes <= related for related in _RELATED)


def _text(value: Any) -> str:
    words = value if isinstance(value, list) else [str(value) if isinstance(value, int | float) else value]
    return " ".join(words) if all(isinstance(word, str) for word in words) else ""


def _is_code(column: Sequence[str]) -> bool:
    """Whether a column has numbers, codes, addresses or the same in every row, rather than sentences."""
    words = [re.fullmatch(r"[!-~]*[\d:/_.-][!-~]*", text.strip()) for text in column if text.strip()]
    return sum(map(bool, words)) >= 0.8 * len(words) or (len(column) > 3 and len(set(column)) == 1)


def _is_id(column: Sequence[str]) -> bool:
    """Whether a column has one word with a digit in (almost) every row, such as `tatoeba.7`."""
    texts = [text.strip() for text in column if text.strip()]
    ids = [text for text in texts if re.fullmatch(r"[!-~]*\d[!-~]*", text)]
    return bool(texts) and len(ids) >= 0.8 * len(texts)


def _latin_share(sentences: Sequence[str]) -> float:
    """The share of Latin letters among all letters; 1 if there are none."""
    letters = Counter(character for text in sentences for character in text if character.isalpha())
    latin = sum(n for letter, n in letters.items() if "LATIN" in unicodedata.name(letter, ""))
    return latin / letters.total() if letters else 1.0


def _english_words(sentences: Sequence[str]) -> tuple[float, int]:
    """The share of frequent English words among all words, and how many different ones there are."""
    words = Counter(word for text in sentences for word in re.findall(r"[^\W\d_]+", text.lower()))
    found = _FREQUENT & words.keys()
    return sum(words[word] for word in found) / max(1, words.total()), len(found)
