"""Words of text with unusual spaces and marks, and of scripts without spaces."""

import sys
import unicodedata

import pytest

from helpers.tiny import TOKENIZERS, tokenizer
from utils.alignment.words import WordTokenizer, split_by_icu, split_on_punctuation, split_on_spaces
from utils.core.errors import InputError


# No-break, narrow, figure and ideographic spaces, zero-width ones, a soft hyphen, a line separator.
INSIDE = "\u00a0\u202f\u2007\u3000\u200b\u200c\u200d\u2060\ufeff\u00ad\u2028\u0085\x0b\x0c"
MARKED = [
    *(f"1{mark}0" for mark in INSIDE), *INSIDE,
    unicodedata.normalize("NFD", "tiếng"), "e\u0301\u0323", "\u0301", "محـــمد", "क्ष", "क\u093c", "ﬁn",
]  # fmt: skip


@pytest.mark.parametrize("word", MARKED)
def test_only_ordinary_spaces_count_in_tokenized_text(word):
    assert split_on_spaces(f" one  {word}\ttwo ") == ["one", word, "two"]


# (Gemma's tokenizer merges the end of a word with the space after it.)
@pytest.mark.parametrize("kind", [kind for kind in TOKENIZERS if kind != "gemma"])
def test_unusual_words_leave_their_neighbors_alone(kind):
    """The tokens of the words around them, to which links refer, are the same as around any other word."""
    word_tokenizer = WordTokenizer(tokenizer(kind))
    for word in MARKED:
        rows = word_tokenizer([["river", word, "bridge"], ["river", "quiet", "bridge"]])
        first, last = [], []
        for ids, places, words in zip(*rows.values()):
            of_word = [[i for i, place in zip(ids, places) if place == words.index(k)] for k in (0, 2)]
            first.append(of_word[0])
            last.append(of_word[1])
        assert first[0] == first[1], ascii(word)
        assert last[0] == last[1], ascii(word)


@pytest.mark.parametrize(
    "text",
    [unicodedata.normalize(form, "Dòng sông yên tĩnh") for form in ("NFC", "NFD")] + ["محـــمد هنا", "किताब पढ़ी"],
)
def test_marks_stay_in_their_words(text):
    assert split_on_punctuation(text) == text.split()
    assert split_by_icu(text) == text.split()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("他昨天去北京。", "他 昨天 去 北京 。"),
        ("私はりんごを食べる。", "私 は りんご を 食べる 。"),
        ("เขาไปตลาด", "เขา ไป ตลาด"),
        ("เขา\u200bไปตลาด 7 ครั้ง", "เขา ไป ตลาด 7 ครั้ง"),
        ("ខ្ញុំចូលចិត្តញ៉ាំ", "ខ្ញុំ ចូលចិត្ត ញ៉ាំ"),
        ("ຂ້ອຍມັກກິນ", "ຂ້ອຍ ມັກ ກິນ"),
        ("ပန်းသီးစား", "ပန်းသီး စား"),
        ("The cat's 3.5 苹果, no?", "The cat ' s 3 . 5 苹果 , no ?"),
    ],
)
def test_words_of_scripts_without_spaces(text, words):
    pytest.importorskip("icu4py")
    assert split_by_icu(text) == words.split()
    assert "".join(split_by_icu(text)) == "".join(text.replace("\u200b", "").split())


def test_without_icu(monkeypatch):
    monkeypatch.setitem(sys.modules, "icu4py.breakers", None)
    with pytest.raises(InputError, match="pip install icu4py"):
        split_by_icu("他昨天去北京。")
