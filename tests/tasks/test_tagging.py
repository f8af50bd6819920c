"""Tagged sentences: CoNLL-U files, examples, configurations of XTREME."""

import gzip
import re

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from hypothesis import assume, given
from hypothesis import strategies as st

import run_ner
import run_pos
from utils.core.errors import InputError
from utils.core.tables import READERS, read_rows
from utils.tasks.data_arguments import TaskDataArguments
from utils.tasks.reader import TaskReader
from utils.tasks.tagging import read_conllu, read_tagged, readers_of_tags, tagged_features


CONLLU = """# newdoc
# sent_id = es-1
# text = Vámonos al mar
1-2\tVámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tVamos\tir\tVERB\t_\t_\t0\troot\t_\t_
2\tnos\tyo\tPRON\t_\t_\t1\tobj\t_\t_
3-4\tal\t_\t_\t_\t_\t_\t_\t_\t_
3\ta\ta\tADP\t_\t_\t5\tcase\t_\t_
4\tel\tel\tDET\t_\t_\t5\tdet\t_\t_
5\tmar\tmar\tNOUN\t_\t_\t1\tobl\t_\t_
5.1\tir\tir\tVERB\t_\t_\t_\t_\t_\t_

# text = quen quen
1\tquen quen\t_\tVERB\t_\t_\t0\troot\t_\t_"""
SENTENCES = [
    {"id": "es-1", "tokens": ["Vamos", "nos", "a", "el", "mar"], "pos_tags": ["VERB", "PRON", "ADP", "DET", "NOUN"]},
    {"tokens": ["quen quen"], "pos_tags": ["VERB"]},
]


@pytest.mark.parametrize("name", ["a.conllu", "a.conllu.gz"])
def test_conllu(tmp_path, name):
    """Multiword tokens and empty nodes are skipped; the last sentence needs no blank line."""
    path = tmp_path / name
    path.write_bytes(gzip.compress(CONLLU.encode()) if name.endswith(".gz") else CONLLU.encode())
    found = list(read_rows(str(path), {**READERS, ".conllu": read_conllu}))
    assert [row for _, row in found] == SENTENCES
    assert [where.split(" of ")[0] for where, _ in found] == ["The sentence at line 1", "The sentence at line 13"]


WORDS = [[("Anna", "B-PER"), ("in", "O"), ("New", "B-LOC"), ("York", "I-LOC"), (".", "O")], [("नदी", "O")]]


def lines_of(sentences, line) -> str:
    return "\n".join("".join(line(*word) + "\n" for word in words) for words in sentences)


@pytest.mark.parametrize("suffix", ["tsv", "txt", "conll", "tsv.gz"])
@pytest.mark.parametrize(
    "line",
    [
        "{0}\t{1}",
        "{0} {1}",
        "{0} NN B-NP {1}",
        "{0}\tNN\t_\t{1}",
        "en:{0}\t{1}",
        "zh-min-nan:{0}\t{1}",
        "{0}  {1}  \r",
    ],
)
@pytest.mark.parametrize("begin", ["", "\n\n", "-DOCSTART- -X- -X- O\n\n", "-DOCSTART-\n\n"])
def test_a_word_and_its_tag_per_line(tmp_path, suffix, line, begin):
    """CoNLL-2003, PAN-X (with the language before every word) and XTREME."""
    path = tmp_path / f"a.{suffix}"
    text = (begin + lines_of(WORDS, line.format) + "\n\n").encode()
    path.write_bytes(gzip.compress(text) if suffix.endswith("gz") else text)
    found = [run_ner.read_sentence(row, where) for where, row in read_rows(str(path), readers_of_tags("ner_tags"))]
    assert [list(zip(row["tokens"], row["ner_tags"])) for row in found] == WORDS


def words_of(path, *sentences) -> list[list[str]]:
    """The words that are read of a file with these sentences."""
    path.write_text(lines_of([[(word, "O") for word in words] for words in sentences], "{0}\t{1}".format))
    return [row["tokens"] for _, row in read_rows(str(path), readers_of_tags("ner_tags"))]


@pytest.mark.parametrize("prefix", ["en:", "zh-min-nan:", "sr-latn:", "simple:"])
@given(st.lists(st.lists(st.sampled_from(["Anna", ":", "10:30", "en:", "ftp:x", "a b"]), min_size=1), min_size=1))
def test_the_language_before_every_word_of_a_file_is_dropped(tmp_path_factory, prefix, sentences):
    assume(len({word for words in sentences for word in words}) > 1)
    path = tmp_path_factory.getbasetemp() / "pan-x.tsv"
    assert words_of(path, *([prefix + word for word in words] for words in sentences)) == sentences


WITH_COLONS = ["ftp:x", "to:", "at:", "en:Anna", "de:b", "10:30", "http://a", ":", "a:", "mailto:me", "cf-also:x"]


@pytest.mark.parametrize("word", WITH_COLONS)
def test_a_sentence_with_a_colon_stays(tmp_path, word):
    """Alone in its sentence, alone in its file, and twice."""
    for sentences in ([[word], ["swims"]], [["swims"], [word, word]], [[word]], [[word], [word]]):
        assert words_of(tmp_path / "a.conll", *sentences) == sentences


@given(st.lists(st.lists(st.sampled_from([*WITH_COLONS, "Anna"]), min_size=1, max_size=3), min_size=1, max_size=4))
def test_words_that_do_not_all_have_the_same_prefix_stay(tmp_path_factory, sentences):
    first, *others = (word.partition(":") for words in sentences for word in words)
    assume(any(parts[:2] != first[:2] for parts in others) or not first[1])
    assert words_of(tmp_path_factory.getbasetemp() / "a.txt", *sentences) == sentences


@pytest.mark.parametrize("words", [["en:Anna", "en:swims"], ["ftp:x"], ["to:"]])
def test_other_formats_hold_words_as_they_are(tmp_path, words):
    """Rows of JSON and of data sets, and CoNLL-U."""
    assert read_tagged({"tokens": words, "ner_tags": ["O"] * len(words)}, "Row 1", "ner_tags")["tokens"] == words
    path = tmp_path / "a.conllu"
    path.write_text("".join(f"{k}\t{word}\t_\tNOUN\n" for k, word in enumerate(words, start=1)))
    assert [read_tagged(row, where, "pos_tags")["tokens"] for where, row in read_conllu(str(path))] == [words]


# --- Sentences without blank lines between them ---

SHORT = st.lists(
    st.lists(st.sampled_from(["a", "#", "1", "en:b", "नदी"]), min_size=1, max_size=4), min_size=1, max_size=5
)
MARKS = {
    "id 1": "",
    "sent_id": "# sent_id = s\n",
    "text": "# text = a b\n",
    "all": "# newdoc\n# sent_id = s\n# text = 1\n# note\n",
    "text first": "#text=a b\n#sent_id=s\n",
}


def conllu(sentences, mark="", end="", counts_on=False, ranges=False) -> str:
    """CoNLL-U with this before, and that after, each sentence; IDs may count on from one sentence to the next."""
    text, n_words = "", 0
    for words in sentences:
        n_words = n_words if counts_on else 0
        text += mark + f"{n_words + 1}-{n_words + 2}\tx\t_\t_\n" * ranges
        text += "".join(f"{k}\t{word}\t_\tNOUN\n" for k, word in enumerate(words, start=n_words + 1)) + end
        n_words += len(words)
    return text


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("end", ["", "\n", " \r\n\n"])
@given(sentences=SHORT, ranges=st.booleans())
def test_sentences_of_conllu_by_their_marks(tmp_path_factory, mark, end, sentences, ranges):
    path = tmp_path_factory.getbasetemp() / "marks.conllu"
    for counts_on in (False, True) if mark != "id 1" else (False,):
        path.write_text(conllu(sentences, MARKS[mark], end, counts_on, ranges), encoding="utf-8", newline="")
        found = [row for _, row in read_conllu(str(path))]
        assert [row["tokens"] for row in found] == sentences
        assert [row.get("id") for row in found] == [("s" if "sent_id" in MARKS[mark] else None)] * len(sentences)


@pytest.mark.parametrize("ids", ["1 2 2", "1 3 2", "2 3 2", "1 2 0", "5 4"])
def test_ids_that_do_not_count_up(tmp_path, ids):
    path = tmp_path / "a.conllu"
    path.write_text("".join(f"{number}\tx\t_\tX\n" for number in ids.split()))
    with pytest.raises(InputError, match=f"Line {len(ids.split())} of {path}"):
        list(read_conllu(str(path)))


@pytest.mark.parametrize("mark", ["-DOCSTART-\n", "-DOCSTART- -X- O O\n", "# sent_id = s\n# text = a B-PER\n", "\n"])
@given(sentences=SHORT)
def test_sentences_with_a_word_per_line_by_their_marks(tmp_path_factory, mark, sentences):
    path = tmp_path_factory.getbasetemp() / "marks.conll"
    text = "".join(mark + "".join(f"{word}\tNN\tB-PER\n" for word in words) for words in sentences)
    path.write_text(text, encoding="utf-8")
    found = [row for _, row in read_rows(str(path), readers_of_tags("ner_tags"))]
    assert found == [{"tokens": words, "ner_tags": ["B-PER"] * len(words)} for words in sentences]


# What begins a sentence, the number of its first word, and a line.
NUMBERED = {
    "Universal NER": (
        "# sent_id = s\n# text = words\n",
        1,
        lambda k, word, tag: f"{k}\t{word}\t{tag}" + "\t-\tann" * (tag != "O"),
    ),
    "WikiNEuRal": ("", 0, lambda k, word, tag: f"{k}\t{word}\t{tag}"),
    "GermEval": ("#\thttp://example.org [2009-10-17]\n", 1, lambda k, word, tag: f"{k}\t{word}\t{tag}\tO"),
    "documents": ("-DOCSTART- -X- O\n", 0, lambda k, word, tag: f"{k}\t{word}\t{tag}"),
    "blanks": ("", 1, lambda k, word, tag: f"{k} {word} {tag} O"),
}


@pytest.mark.parametrize("how", NUMBERED)
@pytest.mark.parametrize("end", ["\n", ""])
@given(
    st.sampled_from(["iob2", "conllu", "tsv"]),
    st.lists(
        st.lists(
            st.tuples(st.sampled_from(["Anna", "1", "2", "#", "-", "en:x"]), st.sampled_from(["O", "B-PER"])),
            min_size=1,
        ),
        min_size=1,
    ),
)
def test_a_column_that_numbers_the_words(tmp_path_factory, how, end, suffix, sentences):
    """Also where no blank line separates the sentences. (A file of single words may be a text of ones.)"""
    assume(any(len(words) > 1 for words in sentences))
    begin, first, line = NUMBERED[how]
    path = tmp_path_factory.getbasetemp() / f"numbered.{suffix}"
    for counts_on in (False, True) if end or begin else (False,):
        path.write_text(numbered(sentences, begin, first, line, end, counts_on), encoding="utf-8")
        found = [run_ner.read_sentence(row, where) for where, row in read_rows(str(path), readers_of_tags("ner_tags"))]
        assert [list(zip(row["tokens"], row["ner_tags"])) for row in found] == sentences


def numbered(sentences, begin, first, line, end="\n", counts_on=False) -> str:
    text, number = "", first
    for words in sentences:
        number = number if counts_on else first
        text += begin + "".join(line(k, *word) + "\n" for k, word in enumerate(words, start=number)) + end
        number += len(words)
    return text


@pytest.mark.parametrize("how", NUMBERED)
@pytest.mark.parametrize("wrong", ["twice", "left out", "no number", "no tag", "begins with 2"])
@given(st.lists(st.integers(4, 6), min_size=3, max_size=4), st.data())
def test_a_column_that_numbers_most_words_is_refused(tmp_path_factory, how, wrong, lengths, data):
    """Its numbers would be read as words."""
    begin, first, line = NUMBERED[how]
    sentences = [[("Anna", "B-PER")] * length for length in lengths]
    lines = numbered(sentences, begin, first, line).splitlines(keepends=True)
    of_words = [k for k, text in enumerate(lines) if text[0].isdigit()]
    inner = [k for k in of_words if int(lines[k].split()[0]) > first]
    place = data.draw(st.sampled_from([k for k in inner if k + 1 in inner]))
    if wrong == "twice":
        lines.insert(place, lines[place])
    elif wrong == "left out":
        del lines[place]
    elif wrong == "no number":
        lines[place] = "Anna\tNN\tO\n"
    elif wrong == "no tag":
        lines[place] = " ".join(lines[place].split()[:2]) + "\n"
    else:
        lines = numbered([sentences[0]] * 3, begin, 2, line).splitlines(keepends=True)
    path = tmp_path_factory.getbasetemp() / "misnumbered.conllu"
    path.write_text("".join(lines), encoding="utf-8")
    with pytest.raises(InputError) as refused:
        list(read_rows(str(path), readers_of_tags("ner_tags")))
    assert str(path) in str(refused.value)
    assert re.search(r"line \d", str(refused.value))


@pytest.mark.parametrize(
    "sentences",
    [[["1"], ["1"]], [["1"], ["2"], ["3"]], [["1", "2"], ["Anna"]], [["1", "3"]], [["2", "3"]], [["0", "0"]]],
)
def test_words_that_are_numbers(tmp_path, sentences):
    assert words_of(tmp_path / "a.conll", *sentences) == sentences
    path = tmp_path / "b.conll"
    path.write_text(lines_of([[(word, "O") for word in words] for words in sentences], "{0}\tNN\t{1}".format))
    assert [row["tokens"] for _, row in read_rows(str(path), readers_of_tags("ner_tags"))] == sentences


@pytest.mark.parametrize("suffix", [".conllu", ".conll", ".tsv", ".txt.gz"])
@pytest.mark.parametrize("n_parts", [1, 3])
def test_a_file_without_ends_of_sentences(tmp_path, suffix, n_parts):
    """Nothing but sentences that are too long for any model; one shorter sentence shows that the others are meant."""
    path = tmp_path / f"a{suffix}"
    many, few = [["x"] * 600] * n_parts, [["x"] * 600, ["x"] * 20]
    for sentences, refused in ((many, True), (few, False), ([["x"] * 300], False)):
        of_words = lines_of([[(word, "O") for word in words] for words in sentences], "{0}\t{1}".format)
        text = (conllu(sentences) if suffix == ".conllu" else of_words).encode()
        path.write_bytes(gzip.compress(text) if suffix.endswith("gz") else text)
        rows = read_rows(str(path), {**readers_of_tags("ner_tags"), ".conllu": read_conllu})
        if refused:
            with pytest.raises(InputError, match=str(path)):
                list(rows)
        else:
            assert [row["tokens"] for _, row in rows] == sentences


@pytest.mark.parametrize("space", ["\u00a0", "\u3000", "\u202f", "\x1f", "\x85"])
@pytest.mark.parametrize("between", ["\t", " ", "  "])
@given(st.lists(st.sampled_from(["{}", "10{}000", "1{}000", "{}a", "a{}"]), min_size=1), st.booleans())
def test_only_blanks_and_tabs_are_between_columns(tmp_path_factory, space, between, words, is_numbered):
    words = [word.format(space) for word in ["Anna", *words]]
    path = tmp_path_factory.getbasetemp() / "spaces.conll"
    lines = (f"{k}{between}" * is_numbered + f"{word}{between}O\n" for k, word in enumerate(words))
    path.write_text("".join(lines), encoding="utf-8", newline="")
    assert [row["tokens"] for _, row in read_rows(str(path), readers_of_tags("ner_tags"))] == [words]


def test_the_comments_of_multiconer(tmp_path):
    path = tmp_path / "a.conll"
    mark = "# id 5239d808-f300-46ea-aa3b-5093040213a3\tdomain=en\n"
    path.write_text(f"{mark}the _ _ O\nEU _ _ B-CORP\n\n\n{mark}# _ _ O\n{mark}# id O\n")
    found = [row for _, row in read_rows(str(path), readers_of_tags("ner_tags"))]
    assert [row["tokens"] for row in found] == [["the", "EU"], ["#"], ["#"]]
    assert [row["ner_tags"] for row in found] == [["O", "B-CORP"], ["O"], ["O"]]


@pytest.mark.parametrize("text", ["Anna B-PER\nswims\n", "tokens\n", "Anna B-PER\n\nswims\n"])
def test_a_line_without_a_tag(tmp_path, text):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(InputError, match=r"Line \d"):
        list(read_rows(str(tmp_path / "a.txt"), readers_of_tags("ner_tags")))


@pytest.mark.parametrize(
    "line",
    [
        "1\tword\t_",
        "word",
        "x\tword\t_\tNOUN",
        "²\tword\t_\tNOUN",
        "1-\tword\t_\tNOUN",
        "9" * 5000 + "\tword\t_\tNOUN",
    ],
)
def test_lines_that_are_not_conllu(tmp_path, line):
    path = tmp_path / "a.conllu"
    path.write_text(f"# text = word\n{line}\n")
    with pytest.raises(InputError, match=f"Line 2 of {path}"):
        list(read_conllu(str(path)))


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"tokens": ["a"], "pos_tags": ["_"]}, "without a tag"),
        ({"tokens": ["a", "b"], "pos_tags": ["X"]}, "2 tokens and 1 tags"),
        ({"tokens": ["a"]}, "pos_tags"),
    ],
)
def test_bad_sentences(row, named):
    with pytest.raises(InputError, match=named):
        read_tagged(row, "Row 1", "pos_tags", run_pos.LABELS)


def test_configurations_by_the_name_of_the_language(tmp_path):
    """As in google/xtreme: `udpos.Hindi`, class labels by number."""
    features = Features({"tokens": List(Value("string")), "pos_tags": List(ClassLabel(names=list(run_pos.LABELS)))})
    Dataset.from_list(SENTENCES[1:], features=features).to_parquet(str(tmp_path / "hi.parquet"))
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: udpos.Hindi\n  data_files:\n  - {split: train, path: hi.parquet}\n"
        "- config_name: udpos.English\n  data_files:\n  - {split: train, path: hi.parquet}\n---\n"
    )
    arguments = TaskDataArguments(dataset_name=str(tmp_path), validation_split="train")
    reader = TaskReader(
        arguments,
        tagged_features("pos_tags"),
        lambda row, where, labels: read_tagged(row, where, "pos_tags", labels),
        run_pos.CONFIGS,
        language_names=run_pos.LANGUAGE_NAMES,
    )
    assert reader.evaluation("validation", "hi", run_pos.LABELS).to_list() == [{"id": "0", **SENTENCES[1]}]
