"""Rows that are cached are made again when a file, the code or a fact that they depend on has changed."""

import inspect
import zipfile
from functools import partial

import pytest
from datasets import Features, Value

from helpers import tiny
from utils.alignment.pairs import encode_pairs
from utils.alignment.words import WordTokenizer, split_on_punctuation
from utils.core.cache import cache_key, dataset_from_files, dataset_from_rows
from utils.core.errors import InputError
from utils.core.tables import read_rows
from utils.models.tokenizers import tokenizer_fingerprint
from utils.parallel.arguments import ParallelDataArguments
from utils.parallel.choosing import choose_pairs
from utils.parallel.corpus import ParallelCorpus
from utils.parallel.formats import read_bitext
from utils.tasks.examples import encoded
from utils.tasks.question_answering import FEATURES as QUESTIONS
from utils.tasks.question_answering import read_question, read_squad
from utils.tasks.reader import TaskReader
from utils.tasks.windows import encode_windows


FEATURES = Features({"number": Value("int64")})


def edit(monkeypatch, module: str) -> None:
    """As if the source of a module were another one."""
    getsource = inspect.getsource
    added = lambda one: getsource(one) + ("# edited" if one.__name__ == module else "")  # noqa: E731
    monkeypatch.setattr(inspect, "getsource", added)


@pytest.mark.parametrize(
    ("function", "module"),
    [
        (encode_windows, "utils.tasks.windows"),
        (read_question, "utils.tasks.question_answering"),
        (read_squad, "utils.core.tables"),
        (encoded, "utils.tasks.examples"),
        (TaskReader, "utils.core.tables"),
        (read_bitext, "utils.core.tables"),
        (read_bitext, "utils.parallel.formats"),
        (choose_pairs, "utils.parallel.choosing"),
        (encode_pairs, "utils.alignment.pairs"),
        (WordTokenizer(tiny.tokenizer()), "utils.alignment.words"),
    ],
)
def test_the_key_covers_the_code_that_makes_the_rows(monkeypatch, function, module):
    """Whether it is wrapped in a partial or not, and the modules that it imports."""
    before = cache_key(function), cache_key(partial(partial(function, 1), stride=2))
    assert before == (cache_key(function), cache_key(partial(function)))
    edit(monkeypatch, "utils.core.no_such_module")
    assert cache_key(function) == before[0]
    edit(monkeypatch, module)
    assert cache_key(function) != before[0]
    assert cache_key(partial(function, 1)) != before[1]


def test_the_key_covers_facts():
    assert cache_key(read_rows, a=1, b=[2]) == cache_key(read_rows, b=[2], a=1)
    assert len({cache_key(read_rows, a=1), cache_key(read_rows, a=2), cache_key(read_rows, b=1), cache_key(a=1)}) == 4


def test_edited_windows_are_encoded_again(monkeypatch):
    """The encoding of questions comes to the cache as a partial."""
    question = {"id": "1", "context": "a b", "question": "a?", "answers": {"text": ["a"], "answer_start": [0]}}
    examples = dataset_from_rows(lambda: iter([question]), QUESTIONS, "questions")
    options = {"tokenizer": tiny.pair_tokenizer(), "max_length": 16, "stride": 2, "max_question_length": 4}
    encode = partial(partial(encode_windows, **options), keep_offsets=True)

    def file() -> str:
        return encoded(examples, encode).rows.cache_files[0]["filename"]

    before = file()
    assert file() == before
    edit(monkeypatch, "utils.tasks.windows")
    assert file() != before


def test_files_are_read_again_when_they_change(tmp_path):
    path = tmp_path / "numbers"
    reads = []

    def read(path):
        reads.append(path)
        yield from ({"number": int(line)} for line in path.read_text().split())

    def numbers(key: str = "key") -> list[int]:
        return list(dataset_from_files([str(path)], read, FEATURES, key, path=path)["number"])

    path.write_text("1 2")
    assert numbers() == numbers() == [1, 2]
    assert len(reads) == 1
    assert numbers("other key") == [1, 2]
    assert len(reads) == 2
    path.write_text("3")
    assert numbers() == [3]
    path.write_text("")
    assert numbers() == []
    path.unlink()
    with pytest.raises(InputError, match="numbers"):
        numbers()


def test_errors_of_the_reader_are_its_own():
    def bad():
        yield {"number": 1}
        raise InputError("Line 2 is wrong.")

    with pytest.raises(InputError, match="Line 2 is wrong"):
        dataset_from_rows(bad, FEATURES, "bad")
    with pytest.raises(Exception, match="generating"):
        dataset_from_rows(lambda: iter([{"number": "x"}]), FEATURES, "worse")


def test_files_of_one_archive_are_read_each_for_itself(tmp_path):
    """Also under the same name in another folder, and again when the archive changes."""
    archive, members = tmp_path / "corpus.zip", {"train.tsv": 3, "dev.tsv": 1, "old/dev.tsv": 2}

    def write(more: int) -> None:
        with zipfile.ZipFile(archive, "w") as folder:
            for name, n_rows in members.items():
                folder.writestr(name, "".join(f"{name}{k}\twords{k}\n" for k in range(n_rows + more)))

    for more in (0, 1):
        write(more)
        for name, n_rows in members.items():
            words = [split_on_punctuation(f"{name}{k}") for k in range(n_rows + more)]
            assert read_bitext([f"{archive}/{name}"], "hi", split_on_punctuation, "punctuation")["source"][:] == words
    with pytest.raises(InputError, match=r"no file nothing\.tsv"):
        read_bitext([f"{archive}/nothing.tsv"], "hi", split_on_punctuation, "punctuation")


def test_another_tokenizer_of_the_same_name_splits_anew(tmp_path):
    path = tmp_path / "corpus.tsv"
    path.write_text("".join(f"{source}\t{english}\n" for source, english in zip(tiny.TEXT[::2], tiny.TEXT[1::2])))
    for kind in ("wordpiece", "bpe"):
        tokenizer = tiny.tokenizer(kind)
        tokenizer.name_or_path = "same"
        data = ParallelDataArguments(languages=["hi"])
        read = ParallelCorpus.read(data, tokenizer, "token", [str(path)], None).pairs["hi"]
        assert read["english"][:] == [tokenizer.tokenize(text) for text in tiny.TEXT[1::2]]


def test_what_a_tokenizer_makes_of_text_is_its_fingerprint():
    kinds = ("wordpiece", "bpe", "unigram")
    found = [tokenizer_fingerprint(tiny.tokenizer(kind)) for kind in kinds]
    assert len(set(found)) == len(kinds)
    for kind, fingerprint in zip(kinds, found):
        tokenizer = tiny.tokenizer(kind)
        tokenizer.name_or_path = "other"
        tokenizer(tiny.TEXT, padding=True, truncation=True, max_length=8)
        assert tokenizer_fingerprint(tokenizer) == fingerprint
        tokenizer.add_tokens(["<new>"])
        assert tokenizer_fingerprint(tokenizer) != fingerprint
