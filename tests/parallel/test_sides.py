"""Which side of parallel text is which: by name, by file name, by the sentences."""

import csv
import gzip
import io
import itertools
import json
import zipfile
from pathlib import Path

import datasets
import pytest

from utils.alignment.words import split_on_spaces
from utils.core.errors import InputError
from utils.parallel.arguments import ParallelDataArguments
from utils.parallel.data_sets import load_bitext
from utils.parallel.formats import read_bitext
from utils.parallel.sides import same_language


ENGLISH = [
    "The cat sleeps on the roof and does not move.", "Who painted this strange blue horse for you?",
    "They have not seen my sister for two years.", "What is the name of that river in your country?",
]  # fmt: skip
FOREIGN = {
    "es": [
        "El gato duerme en el tejado y no se mueve.", "¿Quién pintó este extraño caballo azul para ti?",
        "No han visto a mi hermana desde hace dos años.", "¿Cómo se llama ese río de tu país?",
    ],
    "hi": ["बिल्ली छत पर सो रही है।", "यह अजीब नीला घोड़ा किसने बनाया?", "उन्होंने मेरी बहन को नहीं देखा।", "उस नदी का क्या नाम है?"],
    "ru": ["Кошка спит на крыше.", "Кто нарисовал эту синюю лошадь?", "Они не видели мою сестру.", "Как зовут эту реку?"],
    "zh": ["猫在屋顶上睡觉。", "谁画了这匹蓝色的马？", "他们没有见过我的妹妹。", "那条河叫什么名字？"],
}  # fmt: skip
LANGUAGES = list(FOREIGN)


def pairs_of(language: str) -> list[tuple[str, str]]:
    return list(zip(FOREIGN[language], ENGLISH))


def read(*paths: object, language: str, **columns: str) -> list[tuple[str, str]]:
    bitext = read_bitext([str(path) for path in paths], language, split_on_spaces, "space", **columns)
    return [(" ".join(source), " ".join(english)) for source, english in zip(bitext["source"], bitext["english"])]


# Columns besides the sentences, as WikiMatrix, Tatoeba, ParaCrawl and data frames have them.
OTHERS = {
    "score": ["1.2041", "1.1", "1.05", "1"],
    "id": ["1276", "1277", "1280", "1283"],
    "code": ["doc-001", "doc-002", "doc-003", "doc-004"],
    "address": [f"https://example.org/the-{k}" for k in range(4)],
    "language": ["eng"] * 4,
}
LAYOUTS = [["E", "F"], ["F", "E"]] + [
    list(order)
    for others in (["score"], ["id", "id"], ["language", "id"], ["address", "code", "score"])
    for order in itertools.islice(itertools.permutations(["E", "F", *others]), None, None, 3)
]


def columns(language: str, layout: list[str]) -> list[list[str]]:
    sides = {"E": ENGLISH, "F": FOREIGN[language]}
    return [{**OTHERS, **sides}[name] for name in layout]


@pytest.mark.parametrize("language", LANGUAGES)
def test_columns_without_names_in_any_order(tmp_path, language):
    for number, layout in enumerate(LAYOUTS):
        path = tmp_path / f"{number}.tsv"
        path.write_text("".join("\t".join(row) + "\n" for row in zip(*columns(language, layout))))
        assert read(path, language=language) == pairs_of(language), layout


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("names", [("source", "target"), ("sentence1", "sentence2"), ("src", "trg"), ("a", "b")])
def test_columns_whose_names_do_not_say_the_language(tmp_path, language, names):
    for layout in (["F", "E"], ["E", "F"]):
        rows = [dict(zip(("lp", *names), ("en-xx", *row))) for row in zip(*columns(language, layout))]
        (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
        datasets.Dataset.from_list(rows).to_parquet(tmp_path / "a.parquet")
        text = io.StringIO()
        csv.writer(text).writerows([rows[0], *(row.values() for row in rows)])
        (tmp_path / "a.csv").write_text(text.getvalue())
        for name in ("a.jsonl", "a.parquet", "a.csv"):
            assert read(tmp_path / name, language=language) == pairs_of(language)
        folder = tmp_path / "-".join(layout)
        folder.mkdir()
        (folder / "train.jsonl").write_text((tmp_path / "a.jsonl").read_text())
        for streaming in (False, True):
            data = ParallelDataArguments(parallel_dataset=str(folder), streaming=streaming)
            bitext = load_bitext(data, language, split_on_spaces)
            bitext = bitext.select(range(4))
            assert [" ".join(words) for words in bitext["source"]] == FOREIGN[language]


@pytest.mark.parametrize(
    ("source", "english"), [("hi", "en"), ("hin", "eng"), ("hi_IN", "en_XX"), ("hin_Deva", "eng_Latn"), ("HI", "EN")]
)
def test_columns_with_names_of_languages(tmp_path, source, english):
    for first, second in ((source, english), (english, source)):
        for header in (True, False):
            rows = [{first: FOREIGN["hi"][k] if first == source else ENGLISH[k], "n": k} for k in range(4)]
            for k, row in enumerate(rows):
                row[second] = FOREIGN["hi"][k] if second == source else ENGLISH[k]
            lines = [rows[0].keys()] * header + [map(str, row.values()) for row in rows]
            path = tmp_path / f"a{header}.tsv"
            path.write_text("\n".join("\t".join(line) for line in lines))
            assert read(path, language="hi") == pairs_of("hi")


@pytest.mark.parametrize(
    ("name", "language", "same"),
    [("hin", "hi", True), ("zh-CN", "zh", True), ("cmn_Hans", "zh-TW", True), ("es-419", "es", True), ("xx", "xx", True),
     ("text", "te", False), ("id", "hi", False), ("en", "eng", True), ("sentence", "se", False), ("fr", "es", False)],
)  # fmt: skip
def test_codes_of_languages(name, language, same):
    assert same_language(name, language) is same


def test_a_column_called_source_may_be_where_a_pair_is_from(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [
        {"en": english, "es": spanish, "source": f"web {k}"} for k, (spanish, english) in enumerate(pairs_of("es"))
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert read(path, language="es") == pairs_of("es")
    with pytest.raises(InputError, match="no column de"):
        read(path, language="de")
    assert read(path, language="de", source_column="es") == pairs_of("es")


def test_numbers_are_no_sentences(tmp_path):
    rows = [{"id": k, "en": english, "non_english": f"kucing {k}"} for k, english in enumerate(ENGLISH)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert read(tmp_path / "a.jsonl", language="id") == [(row["non_english"], row["en"]) for row in rows]
    for line in ("the cat\t0.9\n", "0.9\tel gato\n", "1\t2\n"):
        (tmp_path / "a.tsv").write_text(line * 9)
        with pytest.raises(InputError, match="--source_column"):
            read(tmp_path / "a.tsv", language="es")
    # Too little to see which is English: the second one.
    (tmp_path / "a.tsv").write_text("0.9\tuno\tone\n0.8\tdos\ttwo\n")
    assert read(tmp_path / "a.tsv", language="es") == [("uno", "one"), ("dos", "two")]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_table_with_commas_needs_a_header(tmp_path, language):
    """Its first pair would be lost as names of columns."""
    path = tmp_path / "a.csv"
    lines = [",".join(json.dumps(text, ensure_ascii=False) for text in pair) for pair in pairs_of(language)]
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(InputError, match=r"a\.csv"):
        read(path, language=language)
    path.write_text("\n".join([f"{language},en", *lines]), encoding="utf-8")
    assert read(path, language=language) == pairs_of(language)


def write_sides(paths: list[Path], language: str) -> None:
    """The sentences of a language and of English in a file each."""
    for path, lines in zip(paths, (FOREIGN[language], ENGLISH)):
        path.parent.mkdir(exist_ok=True)
        raw = "".join(line + "\n" for line in lines).encode()
        path.write_bytes(raw if path.suffix != ".gz" else gzip.compress(raw))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    "names",
    ["c.{}", "c.{}.txt", "c-{}.txt", "c.en-{x}.{}", "{}/c.txt", "{}.gz", "a_{}"],
)
def test_two_files_in_either_order(tmp_path, language, names):
    for code in (language, {"es": "spa", "hi": "hin", "ru": "rus", "zh": "cmn"}[language]):
        paths = [tmp_path / names.format(side, x=code) for side in (code, "en" if len(code) == 2 else "eng")]
        write_sides(paths, language)
        for order in (paths, reversed(paths)):
            assert read(*order, language=language) == pairs_of(language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_two_files_whose_names_do_not_say_the_language(tmp_path, language):
    for name, lines in (("a", FOREIGN[language]), ("b", ENGLISH)):
        (tmp_path / name).write_text("\n".join(lines))
    for order in ("ab", "ba"):
        assert read(*(tmp_path / name for name in order), language=language) == pairs_of(language)


def test_an_archive_with_two_files(tmp_path):
    path = tmp_path / "en-hi.txt.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("README", "?")
        archive.writestr("Books.en-hi.en", "\n".join(ENGLISH))
        archive.writestr("Books.en-hi.hi", "\n".join(FOREIGN["hi"]))
    assert read(path, language="hi") == pairs_of("hi")


def test_what_is_unclear_is_refused(tmp_path):
    path = tmp_path / "a.tsv"
    two = FOREIGN["es"], FOREIGN["ru"]
    path.write_text("".join("\t".join(row) + "\n" for row in zip(*two, ENGLISH)))
    with pytest.raises(InputError, match="1, 2, 3.*--source_column.*El gato") as error:
        read(path, language="ru")
    assert len(str(error.value)) < 300 + len(str(path))
    assert read(path, language="ru", source_column="2", english_column="3") == pairs_of("ru")
    path.write_text("".join("\t".join(row) + "\n" for row in zip(ENGLISH, ENGLISH, FOREIGN["es"])))
    with pytest.raises(InputError, match="--source_column"):
        read(path, language="es")


@pytest.mark.parametrize("name", ["a.jsonl", "a.en"])
def test_english_sentences_of_another_script_are_refused(tmp_path, name):
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"en": f, "hi": e}) for f, e in pairs_of("hi")))
    (tmp_path / "a.en").write_text("\n".join(FOREIGN["hi"]))
    (tmp_path / "a.hi").write_text("\n".join(ENGLISH))
    with pytest.raises(InputError, match="English sentences, but begins with 'बिल्ली"):
        read(*[tmp_path / name] + [tmp_path / "a.hi"] * (name == "a.en"), language="hi")


THIRD = {"hi": "ru", "ru": "vi", "es": "hi", "zh": "ja"}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("names", ["c.{}", "c.{}.txt", "{}/c.txt", "c.en-{x}.{}", "a_{}.gz"])
def test_a_file_of_a_third_language_is_refused(tmp_path, language, names):
    """Nothing but its name says that Russian is not Hindi."""
    third = THIRD[language]
    for sides in ((third, "en"), (language, third), (third, {"hi": "bn"}.get(third, "hi"))):
        paths = [tmp_path / names.format(side, x=sides[0]) for side in sides]
        write_sides(paths, language)
        for order in (paths, reversed(paths)):
            with pytest.raises(InputError, match=rf"named after the language {third}|named after the language"):
                read(*order, language=language)


@pytest.mark.parametrize(
    ("language", "names"),
    [("nb", ("c.no", "c.en")), ("hr", ("c.sr", "c.en")), ("es", ("c.a", "c.b")), ("es", ("es.v1", "en.v2")), ("es", ("c.src", "c.trg")),
     ("xx", ("c.fr", "c.en")), ("es", ("is.good.es", "is.good.en")), ("es", ("c.spa", "c.eng")), ("es", ("ru.txt", "c.en"))],
)  # fmt: skip
def test_files_that_are_named_otherwise_are_read(tmp_path, language, names):
    for name, lines in zip(names, (FOREIGN["es"], ENGLISH)):
        (tmp_path / name).write_text("\n".join(lines))
    assert read(*(tmp_path / name for name in names), language=language) == pairs_of("es")


@pytest.mark.parametrize("ids", ["tatoeba.{}", "{}", "hi-{}-a", "x{}", "doc:{}"])
@pytest.mark.parametrize("language", ["id", "es"])
def test_a_column_of_ids_is_not_one_of_sentences(tmp_path, ids, language):
    rows = [{language: ids.format(k), "text": text, "en": english} for k, (text, english) in enumerate(pairs_of("es"))]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "a.tsv").write_text("\n".join("\t".join(line) for line in [rows[0], *(row.values() for row in rows)]))
    for name in ("a.jsonl", "a.tsv"):
        with pytest.raises(InputError, match=f"codes in column {language} .*--source_column"):
            read(tmp_path / name, language=language)
        assert read(tmp_path / name, language=language, source_column="text") == pairs_of("es")


@pytest.mark.parametrize("n", [2, 3, 4])
def test_exchanged_sides_are_refused(tmp_path, n):
    """Spanish under `en` and English under `es`: the wrong language would be pulled to the wrong one."""
    pairs = pairs_of("es")[:n]
    rows = [{"es": english, "en": spanish} for spanish, english in pairs]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "a.tsv").write_text("\n".join("\t".join(line) for line in [rows[0], *(row.values() for row in rows)]))
    (tmp_path / "c.es").write_text("\n".join(row["es"] for row in rows))
    (tmp_path / "c.en").write_text("\n".join(row["en"] for row in rows))
    for names in (["a.jsonl"], ["a.tsv"], ["c.es", "c.en"]):
        with pytest.raises(InputError, match="exchanged"):
            read(*(tmp_path / name for name in names), language="es")
    # Sides in one language, and languages with English words, are not exchanged.
    for source, english in (
        (ENGLISH, ENGLISH),
        (FOREIGN["es"], FOREIGN["es"]),
        (["the " + t for t in FOREIGN["es"]], ENGLISH),
    ):
        (tmp_path / "c.es").write_text("\n".join(source))
        (tmp_path / "c.en").write_text("\n".join(english))
        assert read(tmp_path / "c.es", tmp_path / "c.en", language="es") == list(zip(source, english))


@pytest.mark.parametrize(
    "members", [["c.ru", "c.en"], ["c.ru", "c.en", "README"], ["ru.tsv", "LICENSE"], ["c.hi", "README"]]
)
def test_an_archive_without_the_language(tmp_path, members):
    path = tmp_path / "o2.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            archive.writestr(member, "\n".join(ENGLISH))
    with pytest.raises(InputError, match=f"no two files for hi and en, only {members[0]}"):
        read(path, language="hi")


@pytest.mark.parametrize("n", [1, 2, 10])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_columns_in_one_object_are_not_a_pair(tmp_path, n, name):
    """As pandas writes them; each sentence would be a word of one pair."""
    columns = {"hi": (FOREIGN["hi"] * 3)[:n], "en": (ENGLISH * 3)[:n]}
    (tmp_path / name).write_text(json.dumps(columns))
    with pytest.raises(InputError, match=r"a\.json.*one object per pair"):
        read(tmp_path / name, language="hi")
    (tmp_path / name).write_text("\n".join([json.dumps(columns)] * 2))
    with pytest.raises(InputError, match=r"Line 1 of .*list of sentences"):
        read(tmp_path / name, language="hi")
    # Words may have spaces in them.
    words = {"vi": ["học sinh", "nghèo"], "en": ["poor", "pupils"]}
    (tmp_path / name).write_text("\n".join([json.dumps(words)] * 2))
    assert read(tmp_path / name, language="vi") == [("học sinh nghèo", "poor pupils")] * 2


@pytest.mark.parametrize("text", ["\n", "\n\n\n", ""])
def test_a_table_of_blank_lines_is_empty(tmp_path, text):
    (tmp_path / "a.tsv").write_text(text)
    with pytest.raises(InputError, match="blank lines|is empty"):
        read(tmp_path / "a.tsv", language="hi")


@pytest.mark.parametrize("others", [["ids"], ["xml"], ["scores", "ids"], ["README"], []])
@pytest.mark.parametrize("names", ["W.en-es.{}", "x/W.v1.es-en.{}", "es/{}.{}"])
def test_an_archive_with_more_than_both_sides(tmp_path, others, names):
    """OPUS puts the alignment of the documents beside them."""
    files = {"en": ENGLISH, "es": FOREIGN["es"], **{other: ["en/1.xml es/1.xml"] for other in others}}
    for order in (list(files), list(files)[::-1]):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            for code in order:
                archive.writestr(names.replace("{}.{}", f"{code}.{code}").format(code), "\n".join(files[code]))
        found = read_bitext([str(tmp_path / "a.zip")], "es", split_on_spaces, "space")
        assert [" ".join(words) for words in found["english"]] == ENGLISH
        assert [" ".join(words) for words in found["source"]] == FOREIGN["es"]
