"""Parallel text with its source side in Latin letters: in place, or beside the original as another language."""

import json

import pytest
from datasets import Dataset

from helpers import tiny
from helpers.paths import DATA
from utils.core.errors import InputError
from utils.core.romanization import romanize
from utils.parallel.aligners.registry import AlignerArguments
from utils.parallel.arguments import ParallelDataArguments
from utils.parallel.corpus import ParallelCorpus


BOTH = {"languages": ["hi", "hi-Latn"], "romanize": ["hi-Latn"]}


def rows_of(bitext) -> list[dict]:
    return (bitext if isinstance(bitext, Dataset) else bitext.select(range(50))).to_list()


def read(files=None, links=None, **settings) -> dict[str, list[dict]]:
    data = ParallelDataArguments(**settings)
    corpus = ParallelCorpus.read(data, tiny.tokenizer(), "avg", files, links)
    return {language: rows_of(bitext) for language, bitext in corpus.pairs.items()}


@pytest.mark.parametrize("source", ["file", "folder", "stream"])
def test_the_words_are_the_same_ones(source):
    files = [f"hi={DATA}/parallel/hi.jsonl"] if source == "file" else None
    where = {} if files else {"parallel_dataset": f"{DATA}/parallel", "streaming": source == "stream"}
    found = read(files, **BOTH, **where)
    assert found["hi"][0]["source"] != found["hi-Latn"][0]["source"]
    assert found["hi-Latn"] == [{**row, "source": romanize(row["source"], "hi")} for row in found["hi"]]
    in_place = read(files, languages=["hi"], romanize=["hi"], **where)
    assert in_place["hi"] == found["hi-Latn"]
    assert read(files, languages=["hi"], **where)["hi"] == found["hi"]  # (no cache mixes them up)


def test_links_and_held_out_pairs_stay(tmp_path):
    texts, links = tmp_path / "pairs.jsonl", tmp_path / "pairs.links"
    pairs = [{"hi": f"नदी शांत {k}", "en": f"quiet river {k}"} for k in range(100)]
    texts.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    links.write_text("0-1 1-0 2-2\n" * 100)
    arguments = AlignerArguments(links_file=[f"hi={links}"])
    corpus = ParallelCorpus.read(
        ParallelDataArguments(**BOTH), tiny.tokenizer(), "avg", [f"hi={texts}"], [f"hi={links}"]
    )
    parts = corpus.linkable(arguments, None, None).split(0.3)
    for part in parts:
        native, latin = (part.pairs[language].to_list() for language in ("hi", "hi-Latn"))
        assert [row["english"] for row in native] == [row["english"] for row in latin]
        assert all(row["links"] == [[0, 1], [1, 0], [2, 2]] for row in latin)
        assert latin[0]["source"][:2] == ["nadii", "shaamt"]
    assert len(parts[1].pairs["hi"]) not in (0, 100)


def test_subwords_cannot_be_romanized():
    data = ParallelDataArguments(languages=["hi"], romanize=["hi"])
    with pytest.raises(InputError, match="--word_pooling token"):
        ParallelCorpus.read(data, tiny.tokenizer(), "token", [f"{DATA}/parallel/hi.jsonl"], None)
