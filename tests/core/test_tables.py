"""Tables in files: one dispatcher by suffix."""

import bz2
import contextlib
import gzip
import io
import json
import lzma
import os
import random
import zipfile

import pyarrow.parquet
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from utils.core import tables, text_files
from utils.core.errors import InputError
from utils.core.tables import READERS, languages_of_files, one_path_each, paths_by_language, read_csv, read_rows
from utils.core.text_files import ARCHIVES, check_file, read_lines, zip_members


ROWS = [{"id": "1", "text": 'a "b", c'}, {"id": "2", "text": "ठीक है।"}]


def content(suffix: str) -> bytes:
    if suffix == ".parquet":
        file = io.BytesIO()
        Dataset.from_list(ROWS).to_parquet(file)
        return file.getvalue()
    if suffix in (".json", ".jsonl"):
        return "\n\n".join(json.dumps(row) for row in ROWS).encode()
    mark, first = ("\t", 'a "b", c') if suffix == ".tsv" else (",", '"a ""b"", c"')
    return f"id{mark}text\n1{mark}{first}\n\n2{mark}ठीक है।\n".encode()


def zipped(raw: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/", b"")
        archive.writestr("folder/data", raw)
    return file.getvalue()


PACK = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zip": zipped}


@pytest.mark.parametrize("archive", ["", *ARCHIVES])
@pytest.mark.parametrize("suffix", READERS)
def test_every_format_gives_the_same_rows_in_every_archive(tmp_path, suffix, archive):
    path = tmp_path / f"a.b{suffix}{archive}"
    path.write_bytes(PACK.get(archive, bytes)(content(suffix)))
    assert [row for _, row in read_rows(str(path))] == ROWS
    places = [where for where, _ in read_rows(str(path))]
    assert all(where.endswith(f" of {path}") for where in places)
    assert len(set(places)) == 2


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("suffix", [suffix for suffix in READERS if suffix != ".parquet"])
def test_what_other_programs_write(tmp_path, suffix, end, encoding):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content(suffix).decode().replace("\n", end).encode(encoding))
    assert [row for _, row in read_rows(str(path))] == ROWS


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("inside", [lambda rows: rows, lambda rows: {"version": 1, "data": rows}])
def test_json_lists(tmp_path, suffix, indent, inside):
    path = tmp_path / f"a{suffix}"
    for rows in (ROWS, ROWS[:1], []):
        path.write_text(json.dumps(inside(rows), indent=indent))
        assert [row for _, row in read_rows(str(path))] == rows
    path.write_text(json.dumps(inside([ROWS[0], 1]), indent=indent))
    with pytest.raises(InputError, match="Row 2 of"):
        list(read_rows(str(path)))
    # A list among the columns is a column.
    path.write_text('{"data": [1]}\n{"data": []}\n')
    assert [row for _, row in read_rows(str(path))] == [{"data": [1]}, {"data": []}]


def test_the_members_of_an_archive(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.en", "one\n")
        archive.writestr("b/x.hi", "ek\n")
    assert zip_members(path) == [f"{path}/x.en", f"{path}/b/x.hi"]
    assert [list(read_lines(member)) for member in zip_members(path)] == [[(1, "one")], [(1, "ek")]]
    with pytest.raises(InputError, match="2 files"):
        list(read_lines(path))
    (tmp_path / "b.zip").write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match="b.zip"):
        zip_members(tmp_path / "b.zip")
    with pytest.raises(InputError, match="no file y"):
        list(read_lines(f"{path}/y"))


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_headers(tmp_path, suffix):
    mark, path = "\t" if suffix == ".tsv" else ",", tmp_path / f"a{suffix}"
    path.write_text("\n".join(["", "text", "label"][k] + mark + f"x{k}" for k in range(3)))
    assert [row for _, row in read_rows(str(path))] == [{"": "text", "x0": "x1"}, {"": "label", "x0": "x2"}]
    path.write_text(mark.join(["text", "label", "text"]) + "\n" + mark.join("123"))
    with pytest.raises(InputError, match="two columns 'text'"):
        list(read_rows(str(path)))


def test_equal_names_in_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table([[1], [2]], names=["x", "x"]), path)
    with pytest.raises(InputError, match="two columns 'x'"):
        list(read_rows(str(path)))


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\t\r\n\0"), min_size=1)))
def test_quotation_marks_in_a_tsv_are_text(tmp_path_factory, texts):
    texts = ['"', '"a', 'a"', '"a"', '""a""', '"a" b', *texts]
    path = tmp_path_factory.mktemp("tsv") / "a.tsv"
    path.write_bytes("".join(f"{text}\t{text}\n" for text in ["x", *texts]).replace("x\tx", "x\ty").encode())
    assert [row for _, row in read_rows(str(path))] == [{"x": text, "y": text} for text in texts]


def test_long_lines_and_bombs(tmp_path, monkeypatch):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"a" * 99 + b"\n" + b"b" * 101))
    with pytest.raises(InputError, match="Line 2 of .* longer than 100"):
        list(read_lines(path, longest=100))
    monkeypatch.setattr(text_files, "_SMALL", 10_000)
    for suffix, raw in ((".tsv.gz", b"x\ty\n" + b"1\t1\n" * 10**6), (".parquet.xz", bytes(10**6))):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(PACK[path.suffix](raw))
        with pytest.raises(InputError, match="grows by more than"):
            list(read_rows(str(path)))


@pytest.mark.parametrize("name", ["a.xlsx", "a", "a.gz", "a.zip"])
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
        ("a.csv", b'x,y\n1,"2\n3,4\n', "quotation mark"),
        ("a.csv", b"x\ry,z\r1,2\r", "line"),
        ("a.jsonl", b"[1]", "Row 1"),
        ("a.jsonl", b"[" * 100_000, "not JSON"),
        ("a.jsonl", b'{"x": ' * 100_000, "Line 1"),
        ("a.jsonl", b"{}\n" + b'{"x": ' + b"9" * 5000 + b"}", "Line 2"),
        ("a.jsonl", b'{"x": "\\ud800"}', "Line 1"),
        ("a.json", b'[{"x": "\\uDFFF"}]', "surrogate"),
        ("a.jsonl", b"\0", "Line 1"),
        ("a.tsv", "é".encode("utf-16-le"), "Line 1"),
        ("a.tsv.gz", gzip.compress(b"x\n" * 5000, mtime=0)[:-9], "damaged"),
        ("a.tsv.bz2", bz2.compress(b"x\n" * 5000)[:-9], "damaged"),
        ("a.tsv.bz2", b"x", "damaged"),
        ("a.tsv.xz", lzma.compress(b"x\n" * 5000)[:-9], "damaged"),
        ("a.tsv.xz", b"x", "damaged"),
        ("a.tsv.zip", zipped(b"x\n" * 5000)[:-9], "damaged"),
        ("a.tsv.zip", zipped(b"x")[:40] + b"!" + zipped(b"x")[41:], "damaged"),
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


def test_large_values_in_parquet(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"x": ["a" * 10_000] * 3 + ["b"] * 50}), path)
    assert len(list(read_rows(str(path)))) == 53
    monkeypatch.setattr(tables, "LARGEST_FILE", 20_000)
    with pytest.raises(InputError, match="too large"):
        list(read_rows(str(path)))
    monkeypatch.setattr(tables, "LONGEST_LINE", 10)
    with pytest.raises(InputError, match="column x"):
        list(read_rows(str(path)))


def test_paths_by_language(tmp_path):
    with_sign = tmp_path / "run=1"
    with_sign.write_text("")
    assert paths_by_language([str(with_sign)], ["hi"], "--f") == {"hi": [str(with_sign)]}
    assert paths_by_language(["a.hi", "a.en"], ["hi"], "--f") == {"hi": ["a.hi", "a.en"]}
    assert paths_by_language(["hi=a", "ru=b,c"], ["hi", "ru"], "--f") == {"hi": ["a"], "ru": ["b", "c"]}
    for values in (["a"], ["es=a"]):
        with pytest.raises(InputError, match="--f .* languages hi ru.* LANGUAGE=FILE") as error:
            paths_by_language(values, ["hi", "ru"], "--f")
        assert "hi=" not in str(error.value)  # (whose file it is, is not known)
    assert one_path_each(["hi=a", "ru=b"], ["hi", "ru"], "--f") == {"hi": "a", "ru": "b"}
    with pytest.raises(InputError, match="--f .* hi"):
        one_path_each(["a", "b"], ["hi"], "--f")


def test_languages_of_files(tmp_path):
    assert languages_of_files(["hi=a", "en=b", "hi=c", "d"]) == ["hi", "en"]
    assert languages_of_files(["data/run=1/a.tsv"]) == languages_of_files(None) == []
    (tmp_path / "run=1").write_text("")
    assert languages_of_files([str(tmp_path / "run=1")]) == []


def test_paths_with_commas(tmp_path):
    for name in ("a,b", "a", "b,c,d"):
        (tmp_path / name).write_text("")
    a, commas = f"{tmp_path}/a", [f"{tmp_path}/a,b", f"{tmp_path}/b,c,d"]
    for value, paths in ((commas[0], [commas[0]]), (",".join(commas), commas), (f"{a},{commas[1]}", [a, commas[1]])):
        assert paths_by_language([value], ["hi"], "--f") == {"hi": paths}
        assert paths_by_language([f"hi={value}"], ["hi", "ru"], "--f") == {"hi": paths}


def test_parquet_files_that_are_damaged(tmp_path):
    """Whatever is damaged, the rows are those of the file or it is an `InputError`."""
    raw, random_ = content(".parquet"), random.Random(0)
    path = tmp_path / "a.parquet"
    for _ in range(300):
        damaged = bytearray(raw)
        for _ in range(random_.choice([1, 2, 4])):
            damaged[random_.randrange(len(raw))] = random_.choice([0, 127, 128, 255, random_.randrange(256)])
        path.write_bytes(damaged)
        with contextlib.suppress(InputError):
            assert all(isinstance(row, dict) for _, row in read_rows(str(path)))


def test_lines_are_numbered_from_one(tmp_path):
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfuno\r\n\xe2\x80\xa8dos\n")
    assert list(read_lines(tmp_path / "a")) == [(1, "uno"), (2, "\u2028dos")]


@pytest.mark.parametrize("text", ['{"a": 1, "b": 2, "a": 3}', '{"b": {"c": 1, "c": 1}}', '[{"a": 1, "a": 2}]'])
def test_a_name_that_stands_twice_in_an_object(tmp_path, text):
    for name in ("a.jsonl", "a.json"):
        (tmp_path / name).write_text('{"a": 1}\n' * (name == "a.jsonl" and text[0] == "{") + text)
        with pytest.raises(InputError, match=r"a\.json.* has '[ac]' twice"):
            list(read_rows(str(tmp_path / name)))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("inside", [lambda rows: rows, lambda rows: {"data": rows}])
def test_a_file_that_was_cut_off(tmp_path, share, indent, inside):
    text = json.dumps(inside(ROWS), indent=indent)
    (tmp_path / "a.json").write_text(text[: int(share * len(text))])
    with pytest.raises(InputError, match=r"a\.json is not JSON .*cut off"):
        list(read_rows(str(tmp_path / "a.json")))


def test_what_cannot_be_read_twice(tmp_path):
    check_file(__file__)
    os.mkfifo(tmp_path / "pipe") if hasattr(os, "mkfifo") else None
    for path in filter(os.path.exists, (os.devnull, tmp_path / "pipe")):
        with pytest.raises(InputError, match="cannot be read twice; write its content into a file"):
            check_file(path)
    for path, problem in ((tmp_path, "is a folder"), (tmp_path / "x", "There is no file")):
        with pytest.raises(InputError, match=problem):
            check_file(path)


@pytest.mark.parametrize("values", [["x.tsv"], ["hi=x.tsv"], ["x=y", "z"]])
def test_files_of_languages_without_a_language(values):
    with pytest.raises(InputError, match="--language"):
        paths_by_language(values, [], "--write_links")
    assert paths_by_language(None, [], "--write_links") == {}
