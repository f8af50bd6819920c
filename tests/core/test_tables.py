"""Tables in files: one dispatcher by suffix."""

import gzip
import io
import json

import pytest
from datasets import Dataset

from utils.core.errors import InputError
from utils.core.tables import READERS, one_path_each, paths_by_language, read_csv, read_lines, read_rows


ROWS = [{"id": "1", "text": 'a "b", c'}, {"id": "2", "text": "ठीक है।"}]


def content(suffix: str) -> bytes:
    if suffix == ".parquet":
        file = io.BytesIO()
        Dataset.from_list(ROWS).to_parquet(file)
        return file.getvalue()
    if suffix in (".json", ".jsonl"):
        return "\n\n".join(json.dumps(row) for row in ROWS).encode()
    mark = "\t" if suffix == ".tsv" else ","
    return f'id{mark}text\n1{mark}"a ""b"", c"\n\n2{mark}ठीक है।\n'.encode()


@pytest.mark.parametrize("suffix", READERS)
def test_every_format_gives_the_same_rows_compressed_or_not(tmp_path, suffix):
    plain, compressed = tmp_path / f"a.b{suffix}", tmp_path / f"a.b{suffix}.gz"
    plain.write_bytes(content(suffix))
    compressed.write_bytes(gzip.compress(content(suffix)))
    for path in (plain, compressed):
        assert [row for _, row in read_rows(str(path))] == ROWS
        places = [where for where, _ in read_rows(str(path))]
        assert all(where.endswith(f" of {path}") for where in places)
        assert len(set(places)) == 2


@pytest.mark.parametrize("name", ["a.xlsx", "a", "a.gz", "a.jsonl.zip"])
def test_an_unknown_suffix_is_refused(tmp_path, name):
    with pytest.raises(InputError) as error:
        read_rows(str(tmp_path / name))
    assert all(part in str(error.value) for part in (name, *READERS, ".gz"))


def test_a_kind_of_file_may_have_formats_of_its_own(tmp_path):
    (tmp_path / "a.words").write_text("uno\ndos")
    read_words = lambda path: ((f"{number}", {"word": line}) for number, line in read_lines(path))  # noqa: E731
    rows = read_rows(str(tmp_path / "a.words"), {**READERS, ".words": read_words})
    assert list(rows) == [("1", {"word": "uno"}), ("2", {"word": "dos"})]


def test_blank_lines_of_a_table(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("x,y\n\n1,2\n,\n")
    assert [row for _, row in read_csv(path)] == [{"x": "1", "y": "2"}, {"x": "", "y": ""}]
    blank = {"x": "", "y": ""}
    assert [row for _, row in read_csv(path, keep_blank=True)] == [blank, {"x": "1", "y": "2"}, blank]


@pytest.mark.parametrize(
    ("name", "raw", "part"),
    [
        ("a.csv", b"x,y\n1\n", "Line 2"),
        ("a.csv", b'x,y\n1,"' + b"2" * 200_000, "quotation mark"),
        ("a.jsonl", b"{}\n{", "Line 2"),
        ("a.jsonl", b"[1]", "Line 1"),
        ("a.parquet", b"x", "a.parquet"),
        ("a.parquet.gz", b"x", "a.parquet.gz"),
        ("a.tsv.gz", b"x", "a.tsv.gz"),
    ],
)
def test_bad_files(tmp_path, name, raw, part):
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(InputError) as error:
        list(read_rows(str(tmp_path / name)))
    assert part in str(error.value)
    assert name in str(error.value)


def test_paths_by_language(tmp_path):
    with_sign = tmp_path / "run=1"
    with_sign.write_text("")
    assert paths_by_language([str(with_sign)], ["hi"], "--f") == {"hi": [str(with_sign)]}
    assert paths_by_language(["a.hi", "a.en"], ["hi"], "--f") == {"hi": ["a.hi", "a.en"]}
    assert paths_by_language(["hi=a", "ru=b,c"], ["hi", "ru"], "--f") == {"hi": ["a"], "ru": ["b", "c"]}
    for values in (["a"], ["es=a"]):
        with pytest.raises(InputError, match="--f .* languages hi ru"):
            paths_by_language(values, ["hi", "ru"], "--f")
    assert one_path_each(["hi=a", "ru=b"], ["hi", "ru"], "--f") == {"hi": "a", "ru": "b"}
    with pytest.raises(InputError, match="--f .* hi"):
        one_path_each(["a", "b"], ["hi"], "--f")


def test_lines_are_numbered_from_one(tmp_path):
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfuno\r\n\xe2\x80\xa8dos\n")
    assert list(read_lines(tmp_path / "a")) == [(1, "uno"), (2, "\u2028dos")]
