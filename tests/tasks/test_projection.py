"""Labels projected along word links: the published rules on literal examples, and what holds for any links."""

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import run_ner
import run_pos
from utils.core.errors import InputError
from utils.evaluation.entities import entities
from utils.tasks import project_labels
from utils.tasks.data_arguments import TaskDataArguments
from utils.tasks.projection import project_entities, project_tags
from utils.tasks.reader import TaskReader
from utils.tasks.tagging import tagged_features


# --- Entities ---


@pytest.mark.parametrize(
    ("english", "links", "expected"),
    [
        # Anna lives in New York → न्यू यॉर्क में अन्ना रहती है
        ("B-PER O O B-LOC I-LOC", "3-0 4-1 2-2 0-3 1-4", "B-LOC I-LOC O B-PER O O"),
        ("B-LOC I-LOC", "0-0 2-1", "B-LOC I-LOC I-LOC"),  # a gap of one word is closed
        ("B-LOC I-LOC I-LOC", "0-0 3-1 4-2", "O O O B-LOC I-LOC"),  # of two parts the longest
        ("B-LOC I-LOC", "0-0 3-1", "B-LOC O O O"),  # the first of equal ones
        ("B-LOC", "", "O O"),  # no link
        ("O B-LOC", "0-0", "O O"),
        ("B-LOC I-LOC B-PER", "0-0 1-1 1-2", "B-LOC I-LOC"),  # the longer one stays
        ("B-PER B-LOC", "0-0 0-1", "B-PER"),  # the first of equal ones
        ("B-PER B-PER", "0-0 1-1", "B-PER B-PER"),  # two entities side by side are not merged
        ("I-PER I-PER", "0-0 1-1", "B-PER I-PER"),  # IOB1 becomes BIO
    ],
)
def test_entities(english, links, expected):
    pairs = [tuple(map(int, link.split("-"))) for link in links.split()]
    expected = expected.split()
    assert project_entities(english.split(), pairs, len(expected)) == expected


@given(st.data())
def test_projected_tags_are_always_valid(data):
    """BIO without an I- that begins an entity, at most the entities of the English sentence, each on linked words."""
    tags = data.draw(st.lists(st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]), min_size=1, max_size=8))
    n_words = data.draw(st.integers(1, 8))
    link = st.tuples(st.integers(0, n_words - 1), st.integers(0, len(tags) - 1))
    links = data.draw(st.lists(link, max_size=20))
    found = project_entities(tags, links, n_words)
    assert len(found) == n_words
    for before, tag in zip(["O", *found], found):
        assert not tag.startswith("I-") or before in (f"B-{tag[2:]}", tag)
    types = [entity_type for entity_type, *_ in entities(tags)]
    for entity_type, first, last in entities(found):
        types.remove(entity_type)
        assert {first, last} <= {word for word, english in links if tags[english][2:] == entity_type}
    same = project_entities(tags, [(k, k) for k in range(len(tags))], len(tags))
    assert entities(same) == entities(tags)


# --- Parts of speech ---


def test_parts_of_speech():
    words = ["नदी", "शांत", "थी", "।", "—", "न"]
    links = [(0, 1), (1, 3), (2, 2), (2, 1), (2, 2)]
    tags, share = project_tags(["DET", "NOUN", "AUX", "ADJ", "PUNCT"], links, words)
    assert tags == ["NOUN", "ADJ", "AUX", "PUNCT", "PUNCT", "X"]
    assert share == pytest.approx(5 / 6)
    assert project_tags(["NOUN"], [], []) == ([], 0)


# --- The command ---


@pytest.fixture
def files(tmp_path):
    english = [
        {"tokens": ["Anna", "lives", "in", "New", "York"], "ner_tags": ["B-PER", "O", "O", "B-LOC", "I-LOC"],
         "pos_tags": ["PROPN", "VERB", "ADP", "PROPN", "PROPN"]},
        {"tokens": ["Nothing", "."], "ner_tags": ["O", "O"], "pos_tags": ["PRON", "PUNCT"]},
        {"tokens": ["No", "translation"], "ner_tags": ["O", "O"], "pos_tags": ["DET", "NOUN"]},
    ]  # fmt: skip
    paths = {name: tmp_path / name for name in ("en.jsonl", "hi.txt", "links", "out.jsonl")}
    paths["en.jsonl"].write_text("".join(json.dumps(row) + "\n" for row in english))
    paths["hi.txt"].write_text("अन्ना न्यू यॉर्क में रहती है\nकुछ नहीं ।\n\n", encoding="utf-8")
    paths["links"].write_text("0-0 1-3 2-4 3-2 4-1\n0-0\n\n")
    return paths


def command(monkeypatch, files, task, *arguments):
    given = ["--task", task, "--language", "hi", "--tagged_file", files["en.jsonl"], "--translation_file", files["hi.txt"],
             "--write_tagged", files["out.jsonl"], *arguments]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["project_labels", *map(str, given)])
    project_labels.main()
    return [json.loads(line) for line in files["out.jsonl"].read_text().splitlines()]


def test_the_command(monkeypatch, files):
    """What is written is read as training data; sentences without words or with few links are left out."""
    links = ("--links_file", files["links"])
    found = command(monkeypatch, files, "ner", *links)
    assert [row["ner_tags"] for row in found] == [["B-PER", "B-LOC", "I-LOC", "O", "O", "O"], ["O", "O", "O"]]
    data = TaskDataArguments(train_file=str(files["out.jsonl"]), train_language="hi")
    assert TaskReader(data, tagged_features("ner_tags"), run_ner.read_sentence).train().to_list() == found
    found = command(monkeypatch, files, "pos", *links, "--overwrite")
    assert [row["pos_tags"] for row in found] == [["PROPN", "PROPN", "PROPN", "ADP", "VERB", "X"]]
    assert {tag for row in found for tag in row["pos_tags"]} <= set(run_pos.LABELS)
    assert len(command(monkeypatch, files, "pos", *links, "--overwrite", "--min_linked", 0.5)) == 2


def test_the_encoder_links(monkeypatch, files, model):
    found = command(monkeypatch, files, "ner", "--model", model)
    assert [len(row["tokens"]) for row in found] == [6, 3]


@pytest.mark.parametrize("what", ["exists", "suffix", "lines"])
def test_what_is_refused(monkeypatch, files, what):
    links = ("--links_file", files["links"])
    if what == "exists":
        files["out.jsonl"].write_text("")
    elif what == "suffix":
        files["out.jsonl"] = files["out.jsonl"].with_suffix(".txt")
    else:
        files["hi.txt"].write_text("एक\n", encoding="utf-8")
    with pytest.raises(
        InputError, match={"exists": "exists already", "suffix": "end in|ends in", "lines": "1 lines"}[what]
    ):
        command(monkeypatch, files, "ner", *links)


EMPTY = {
    "jsonl": "",
    "list.json": "[]",
    "conllu": "# newdoc\n\n",
    "tsv": "\n\n",
    "txt": "-DOCSTART-\n",
    "none.jsonl": "\n",
}


@pytest.mark.parametrize("suffix", EMPTY)
@pytest.mark.parametrize("translations", ["", "\n", "नदी\n"])
@pytest.mark.parametrize("task", ["ner", "pos"])
def test_a_tagged_file_without_sentences(monkeypatch, files, suffix, translations, task):
    files["en.jsonl"] = files["en.jsonl"].with_name(f"tagged.{suffix}")
    files["en.jsonl"].write_text(EMPTY[suffix])
    files["hi.txt"].write_text(translations, encoding="utf-8")
    files["links"].write_text("")
    with pytest.raises(InputError, match=str(files["en.jsonl"])):
        command(monkeypatch, files, task, "--links_file", files["links"])
    assert not files["out.jsonl"].exists()


@pytest.mark.parametrize("translations", ["\n\n\n", " \n\t\n\n"])
@pytest.mark.parametrize("task", ["ner", "pos"])
@pytest.mark.parametrize("options", [[], ["--min_linked", "0"]])
def test_translations_without_words(monkeypatch, files, translations, task, options):
    files["hi.txt"].write_text(translations)
    files["links"].write_text("\n\n\n")
    with pytest.raises(InputError):
        command(monkeypatch, files, task, "--links_file", files["links"], *options)
    assert not files["out.jsonl"].exists()


def test_sentences_without_words_are_left_out(monkeypatch, files):
    """Also where no link is needed."""
    row = {"tokens": [], "ner_tags": []}
    files["en.jsonl"].write_text(json.dumps(row) + "\n" + files["en.jsonl"].read_text())
    files["hi.txt"].write_text("कुछ\n" + files["hi.txt"].read_text(encoding="utf-8"), encoding="utf-8")
    files["links"].write_text("\n" + files["links"].read_text())
    found = command(monkeypatch, files, "ner", "--links_file", files["links"])
    assert [len(row["tokens"]) for row in found] == [6, 3]


def test_a_word_without_a_tag_has_a_remedy_that_exists(monkeypatch, files):
    files["en.jsonl"].write_text(json.dumps({"tokens": ["a"], "ner_tags": [None]}))
    with pytest.raises(InputError) as error:
        command(monkeypatch, files, "ner", "--links_file", files["links"])
    assert str(files["en.jsonl"]) in str(error.value)
    assert "--skip_unlabeled" not in str(error.value)
