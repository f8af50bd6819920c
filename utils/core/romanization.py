"""Text in Latin letters, by uroman (Hermjakob, May and Knight, ACL 2018), for scripts that a vocabulary does not know."""

import re
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

from datasets import Dataset

from utils.core.cache import cache_key
from utils.core.errors import InputError
from utils.core.tables import named_language


Text = TypeVar("Text", str, list[str])  # a sentence, or its words
# The end of a code that names a language in Latin letters, as in BCP 47: hi-Latn.
LATIN = "-Latn"
HELP = (
    "Write these languages in Latin letters, word by word (pip install uroman). `--romanize hi` replaces the text of "
    "hi; `--romanize hi-Latn` makes another language hi-Latn of the data of hi, for example beside it: `{example}`."
)
# Two-letter codes of the languages for which uroman has rules besides those of their script, and its own codes of them.
_RULES = {
    "ar": "ara", "as": "asm", "be": "bel", "bg": "bul", "bn": "ben", "de": "deu", "el": "ell", "fa": "fas",
    "gu": "guj", "kk": "kaz", "ks": "kas", "ky": "kir", "lt": "lit", "lv": "lav", "mk": "mkd", "os": "oss",
    "pa": "pan", "ps": "pus", "ru": "rus", "sa": "san", "sr": "srp", "tr": "tur", "ug": "uig", "uk": "ukr",
    "yi": "yid",
}  # fmt: skip


def in_place(romanized: Sequence[str]) -> str | None:
    """How runs are called of which these languages are romanized, without those that have a code of their own."""
    replaced = [language for language in romanized if not language.endswith(LATIN)]
    return f"romanized {' '.join(replaced)}" if replaced else None


def check_romanized(romanized: Sequence[str], languages: Collection[str]) -> None:
    """Raise `InputError` if uroman is missing, or if the values of `--romanize` are not among the languages of a run."""
    for language in romanized:
        if language in ("en", f"en{LATIN}"):
            raise InputError("--romanize en has no effect, since English has Latin letters; leave it out.")
        if language not in languages:
            named = " ".join(languages) or "none"
            raise InputError(f"--romanize {language} is not among the languages of this run ({named}); add it there.")
    if romanized:
        uroman_version()


def uroman_version() -> str:
    """The version of uroman, on which cached text depends; `InputError` if it is not installed."""
    try:
        return version("uroman")
    except PackageNotFoundError:
        raise InputError("--romanize needs the package uroman; run pip install uroman.") from None


def source_language(language: str, romanized: Collection[str]) -> str:
    """The language whose data is read: hi for hi-Latn, if that is romanized; else the language itself."""
    return language.removesuffix(LATIN) if language in romanized else language


def files_by_source(
    values: Sequence[str] | None, languages: Sequence[str], romanized: Collection[str]
) -> list[str] | None:
    """The values LANGUAGE=FILE of an argument, so that hi-Latn has the file of hi if it has none of its own."""
    if values is None:
        return None
    given = dict.fromkeys(map(named_language, values))
    found = list(values)
    for language in languages:
        source = source_language(language, romanized)
        if language not in given and source in given:
            found += [f"{language}={value.partition('=')[2]}" for value in values if named_language(value) == source]
    others = {source_language(language, romanized) for language in languages} - set(languages)
    return [value for value in found if named_language(value) not in others]


def romanize_columns(rows: Dataset, columns: Sequence[str], language: str, num_proc: int | None = None) -> Dataset:
    """The rows with the texts of these columns, sentences or lists of words, in Latin letters."""
    return rows.map(
        _romanize_batch,
        batched=True,
        features=rows.features,
        num_proc=num_proc,
        fn_kwargs={"columns": tuple(columns), "language": language, "code": romanization_key()},
        desc=f"Romanizing {language}",
    )


def _romanize_batch(batch: Mapping[str, list], columns: Sequence[str], language: str, code: str) -> dict[str, list]:
    """Rows are cached under `code`."""
    return {column: [romanize(text, language) for text in batch[column]] for column in columns}


def romanization_key() -> str:
    """The `cache_key` of romanized text."""
    return cache_key(romanize, uroman=uroman_version())


def romanize(text: Text, language: str) -> Text:
    """A sentence, or its words, in Latin letters; the number of words and the white space between them stay."""
    if isinstance(text, list):
        return [romanize_word(word, language) for word in text]
    return re.sub(r"\S+", lambda word: romanize_word(word[0], language), text)


@cache
def romanize_word(word: str, language: str) -> str:
    """A word in Latin letters, never empty (what uroman leaves out as a whole stays), and without space around it.

    It may have a space inside (9½ is 9 1/2), as words of Vietnamese treebanks have: it is one word all the same.

    Args:
        language: its code, of two or three letters, perhaps with a script or a region (`ru`, `rus`, `ru-RU`, `ru-Latn`).
    """
    code = re.split("[-_]", language)[0].lower()
    return _uroman().romanize_string(word, lcode=_RULES.get(code, code)).strip() or word


@cache
def _uroman() -> Any:  # (its class has no annotations; it takes 3 seconds to read its tables)
    uroman_version()
    from uroman import Uroman

    return Uroman()
