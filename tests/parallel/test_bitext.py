"""Reading parallel corpora in every form, and choosing what is learned from."""

import csv
import gzip
import io
import json

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.alignment.words import split_on_punctuation, split_on_spaces
from utils.core.columns import content_fingerprint
from utils.core.errors import InputError
from utils.parallel.arguments import ParallelDataArguments
from utils.parallel.choosing import choose_pairs, informative_links, one_to_one, sample_pairs
from utils.parallel.data_sets import load_bitext
from utils.parallel.formats import read_bitext


SOURCE = ["El gato duerme", 'La "casa, es roja', "ठीक है ।"]
ENGLISH = ["The cat sleeps", 'The "house, is red', "All right ."]
PAIRS = list(zip(SOURCE, ENGLISH))


def rows(bitext: datasets.Dataset) -> list[tuple[str, str]]:
    return [(" ".join(s), " ".join(e)) for s, e in zip(bitext["source"], bitext["english"])]


def read(*paths: object, language: str = "es", **columns: str) -> datasets.Dataset:
    return read_bitext([str(path) for path in paths], language, split_on_spaces, "space", **columns)


def table(rows_, delimiter) -> str:
    if delimiter == "\t":
        return "".join("\t".join(row) + "\n" for row in rows_)
    text = io.StringIO()
    csv.writer(text).writerows(rows_)
    return text.getvalue()


def content(name: str) -> bytes:
    """The same pairs in the format that a file's name stands for."""
    bare = name.removesuffix(".gz")
    texts = {
        "moses.txt": "".join(f"{s} ||| {e}\n" for s, e in PAIRS),
        "bare.tsv": table(PAIRS, "\t"),
        "header.tsv": table([("id", "en", "es")] + [(str(k), e, s) for k, (s, e) in enumerate(PAIRS)], "\t"),
        "header.csv": table([("es", "en")] + PAIRS, ","),
        "named.jsonl": "".join(json.dumps({"en": e, "es": s}) + "\n" for s, e in PAIRS),
        "opus.jsonl": "".join(json.dumps({"translation": {"en": e, "es": s}}) + "\n" for s, e in PAIRS),
        "split.jsonl": "".join(json.dumps({"en": e.split(), "es": s.split()}) + "\n" for s, e in PAIRS),
        "wikimatrix.jsonl": "".join(json.dumps({"english": e, "non_english": s}) + "\n" for s, e in PAIRS),
    }
    if bare == "table.parquet":
        file = io.BytesIO()
        datasets.Dataset.from_dict({"es": SOURCE, "en": ENGLISH}).to_parquet(file)
        raw = file.getvalue()
    else:
        raw = texts[bare].encode()
    return gzip.compress(raw) if name.endswith(".gz") else raw


FORMATS = [
    "moses.txt",
    "bare.tsv",
    "header.tsv",
    "header.csv",
    "named.jsonl",
    "opus.jsonl",
    "split.jsonl",
    "wikimatrix.jsonl",
    "table.parquet",
]


@pytest.mark.parametrize("name", FORMATS + [f"{name}.gz" for name in FORMATS])
def test_every_format_gives_the_same_pairs(tmp_path, name):
    (tmp_path / name).write_bytes(content(name))
    assert rows(read(tmp_path / name)) == PAIRS


def test_two_files_in_either_order(tmp_path):
    source, english = tmp_path / "corpus.es", tmp_path / "corpus.en.gz"
    source.write_text("\r\n".join(SOURCE) + "\r\n", encoding="utf-8-sig", newline="")
    english.write_bytes(gzip.compress("\n".join(ENGLISH).encode()))
    assert rows(read(source, english)) == PAIRS
    assert rows(read(english, source)) == PAIRS


def test_named_columns(tmp_path):
    (tmp_path / "a.tsv").write_text("x\ty\nuno\tone\n")
    assert rows(read(tmp_path / "a.tsv", source_column="x", english_column="y")) == [("uno", "one")]


def test_empty_lines_keep_their_place(tmp_path):
    (tmp_path / "a.txt").write_text("uno ||| one\n\ndos ||| two\n")
    assert rows(read(tmp_path / "a.txt")) == [("uno", "one"), ("", ""), ("dos", "two")]


def test_a_changed_file_is_read_again(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("uno ||| one\n")
    assert rows(read(path)) == [("uno", "one")]
    path.write_text("dos ||| two\ntres ||| three\n")
    assert rows(read(path)) == [("dos", "two"), ("tres", "three")]


def test_words_of_ordinary_text():
    assert split_on_punctuation("मैं (कल) आऊँगा। Nhà 3,5 triệu!") == [
        "मैं", "(", "कल", ")", "आऊँगा", "।", "Nhà", "3", ",", "5", "triệu", "!",
    ]  # fmt: skip


@pytest.mark.parametrize("config", [None, "en-{language}"])
def test_local_data_set(tmp_path, config):
    folder = tmp_path / "corpus"
    folder.mkdir()
    for language in ("es", "hi"):
        lines = [json.dumps({"en": e, language: s}) for s, e in PAIRS]
        (folder / f"{language}.jsonl").write_text("\n".join(lines))
    (folder / "README.md").write_text(
        "---\nconfigs:\n"
        + "".join(f"- config_name: en-{c}\n  data_files: {c}.jsonl\n" for c in ("es", "hi"))
        + "---\n"
    )
    data = ParallelDataArguments(parallel_dataset=str(folder), parallel_config=config)
    assert rows(load_bitext(data, "hi", split_on_spaces)) == PAIRS
    data = ParallelDataArguments(parallel_dataset=str(folder))
    with pytest.raises(InputError, match="has no configuration en-ru or ru-en or ru, only en-es, en-hi"):
        load_bitext(data, "ru", split_on_spaces)
    with pytest.raises(InputError, match="has no split test, only train"):
        load_bitext(data, "hi", split_on_spaces, dataset_split="test")


BAD = {
    "no-separator.txt": (b"uno ||| one\ndos two\n", r"Line 2 of .*no-separator.txt has 0 separators.*write"),
    "empty.txt": (b"", r"The file .*empty.txt is empty; give"),
    "latin1.txt": ("uno ||| one\nañ ||| year\n".encode("latin-1"), r"Line 2 of .*latin1.txt is not UTF-8; convert"),
    "column.csv": (b"en,fr\none,un\n", r"column.csv has no column es .*only en, fr; name the right one with --source"),
    "english.jsonl": (b'{"es": "uno", "de": "eins"}\n', r"has no column en .*only es, de;.*--english_column"),
    "ragged.tsv": (b"es\ten\nuno\tone\ndos\n", r"Line 3 of .*ragged.tsv has 1; every line needs 2 columns"),
    "broken.jsonl": (b'{"es": "uno", "en": "one"}\n{"es": \n', r"Line 2 of .*broken.jsonl is not JSON .*write one"),
    "list.jsonl": (b"[1]\n", r"Row 1 of .*list.jsonl is not a JSON object; write"),
    "null.jsonl": (
        b'{"es": null, "en": "one"}\n',
        r"Line 1 of .*null.jsonl has null in column es; it needs",
    ),
    "fake.parquet": (b"es en", r"fake.parquet is not a Parquet file or is damaged .*write it again"),
    "cut.txt.gz": (
        gzip.compress(b"uno ||| one\n" * 50, mtime=0)[:-20],
        r"The archive .*cut.txt.gz is damaged after line \d+",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(tmp_path, name):
    raw, message = BAD[name]
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(InputError, match=message) as error:
        read(tmp_path / name)
    assert "\n" not in str(error.value)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"There is no file .*nowhere.tsv; check the path"):
        read(tmp_path / "nowhere.tsv")


@pytest.mark.parametrize(("n_source", "n_english"), [(3, 2), (2, 3), (1, 5)])
def test_files_of_different_length(tmp_path, n_source, n_english):
    (tmp_path / "a.es").write_text("uno\n" * n_source)
    (tmp_path / "a.en").write_text("one\n" * n_english)
    with pytest.raises(InputError, match=rf"a.es has {n_source} lines and .*a.en has {n_english}; line i of one"):
        read(tmp_path / "a.es", tmp_path / "a.en")


@pytest.mark.parametrize("suffix", [".moses", ".txt", ".fastalign", ".txt.gz"])
def test_suffixes_of_moses_files(tmp_path, suffix):
    raw = b"uno ||| one\n"
    (tmp_path / f"a{suffix}").write_bytes(gzip.compress(raw) if suffix.endswith(".gz") else raw)
    assert rows(read(tmp_path / f"a{suffix}")) == [("uno", "one")]


@pytest.mark.parametrize("name", ["a", "a.xlsx", "a.tmx.gz", "a.es"])
def test_unknown_suffixes_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"uno ||| one\n")
    with pytest.raises(InputError) as error:
        read(tmp_path / name)
    assert all(part in str(error.value) for part in (name, ".tsv", ".moses"))


# --- Choosing ---


links = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)))


@given(links)
def test_one_to_one_leaves_exactly_the_unambiguous_links(links):
    kept = one_to_one(links)
    for link in set(links):
        alone = sum(link[0] == i or link[1] == j for i, j in set(links)) == 1
        assert (link in kept) == alone
    assert len(kept) == len(set(kept))


def test_identical_words_count_before_they_are_dropped():
    # 0-0 links identical words; it still makes 0-1 ambiguous.
    assert informative_links(["Madrid", "es"], ["Madrid", "is"], [[0, 0], [0, 1], [1, 1]]) == []
    assert informative_links(["Madrid", "es"], ["madrid", "is"], [[0, 0], [1, 1]]) == [(0, 0), (1, 1)]


def test_choose_pairs():
    pairs = datasets.Dataset.from_dict(
        {
            "source": [["a"] * 65, ["a"] * 64, ["same"], ["x"]],
            "english": [["b"], ["b"] * 64, ["same"], ["y"]],
            "links": [[[0, 0]], [[63, 63]], [[0, 0]], []],
        }
    )
    assert list(choose_pairs(pairs, max_words=64)["links"]) == [[[63, 63]]]


def test_sampling_is_exact_random_and_repeatable():
    pairs = datasets.Dataset.from_dict({"source": [[str(k)] for k in range(50)]})
    first, again, other = (sample_pairs(pairs, 20, seed)["source"] for seed in (1, 1, 2))
    assert list(first) == list(again) != list(other)
    assert len({s[0] for s in first}) == 20
    assert len(sample_pairs(pairs, None, 1)) == len(sample_pairs(pairs, 99, 1)) == 50


def test_fingerprint_tells_content_apart():
    one, same, other = (datasets.Dataset.from_dict({"source": [["a", w]]}) for w in ("b", "b", "c"))
    assert content_fingerprint(one) == content_fingerprint(same) != content_fingerprint(other)


@pytest.mark.parametrize(
    "names", [("one.tsv", "two.tsv"), ("one.jsonl", "two.jsonl"), ("one.csv.gz", "two.txt"), ("es.txt", "two.parquet")]
)
def test_two_tables_are_not_two_sides(tmp_path, names):
    """Line by line their columns would be words: shards of equal length were read so, without an error."""
    for name in names:
        (tmp_path / name).write_bytes(b"es\ten\nuno\tone\n")
    with pytest.raises(InputError, match="is a table"):
        read(*(tmp_path / name for name in names))
