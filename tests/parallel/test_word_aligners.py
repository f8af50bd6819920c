"""Word links: files in every form, the statistical aligner, the encoder against a plain loop, word lists."""

import gzip
import json
import re
import sys
from collections import defaultdict
from dataclasses import fields
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import compare_aligners
from helpers.paths import REFERENCE
from helpers.tiny import ARCHITECTURES, TEXT, TOKENIZERS, model, tokenizer
from utils.alignment.words import WordTokenizer, split_on_punctuation
from utils.core.errors import InputError
from utils.parallel.aligners import statistical
from utils.parallel.aligners.agreement import AgreementAligner
from utils.parallel.aligners.base import WordAligner
from utils.parallel.aligners.dictionary import DictionaryAligner, write_dictionary
from utils.parallel.aligners.encoder import EncoderAligner, mutual_argmax
from utils.parallel.aligners.pharaoh import read_header, read_links, read_pharaoh, write_pharaoh
from utils.parallel.aligners.registry import AlignerArguments, AlignerInputs, aligner_spec, links_key, make_aligner
from utils.parallel.aligners.statistical import StatisticalAligner


def one_sentence(message: str, *parts: object) -> bool:
    """Whether a message is a single sentence that contains all the parts."""
    ends = re.findall(r"[.!?](?= [A-Z]|$)", message)
    return len(ends) == 1 and message.endswith(".") and "\n" not in message and all(str(p) in message for p in parts)


def write(path, text: str | bytes):
    content = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def words(*counts: int) -> list[list[str]]:
    return [[f"w{k}" for k in range(count)] for count in counts]


def links_of(path, source: list[list[str]], english: list[list[str]], reverse: bool = False) -> list:
    return list(read_links(path, [*map(len, source)], [*map(len, english)], reverse))


# --- Files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["links", "links.gz"])
def test_every_form_of_pharaoh_lines(tmp_path, name):
    text = "# made by hand\n2-1 0-0\n\n# in between\n0?1 1p0  1-1\t3-3 \r\n0-0 0-0 0-1"
    path = write(tmp_path / name, text)
    assert list(read_pharaoh(path)) == [
        (2, [(0, 0), (2, 1)]),
        (3, []),
        (5, [(0, 1), (1, 0), (1, 1), (3, 3)]),
        (6, [(0, 0), (0, 1)]),
    ]
    assert [links for _, links in read_pharaoh(path, reverse=True)][0] == [(0, 0), (1, 2)]
    pairs = words(3, 0, 4, 1), words(2, 5, 4, 2)
    assert links_of(path, *pairs) == [links for _, links in read_pharaoh(path)]
    assert links_of(path, *reversed(pairs), reverse=True) == [
        sorted((j, i) for i, j in links) for _, links in read_pharaoh(path)
    ]


@pytest.mark.parametrize(
    "token", ["1", "a-b", "1-", "-1-2", "1--2", "1-2-3", "1:2", "1.0-2", "１-２", "0-0,1-1", "(0,0)"]
)
def test_what_is_no_link(tmp_path, token):
    path = write(tmp_path / "links", f"# header\n0-0\n0-0 {token} 1-1\n")
    with pytest.raises(InputError) as error:
        links_of(path, words(1, 9), words(1, 9))
    assert one_sentence(str(error.value), "Line 3", path, repr(token), "0-0 1-2")


@pytest.mark.parametrize(
    ("link", "reverse", "parts"),
    [
        ("3-0", False, ["source word 3", "3 words", "from 0", "with --reverse_links"]),
        ("0-2", False, ["English word 2", "2 words", "from 0", "with --reverse_links"]),
        ("0-3", True, ["source word 3", "3 words", "without --reverse_links"]),
        ("99999999999999999999-0", False, ["99999999999999999999"]),
    ],
)
def test_links_beyond_the_sentence(tmp_path, link, reverse, parts):
    path = write(tmp_path / "links", f"\n# note\n0-0 {link}\n")
    with pytest.raises(InputError) as error:
        links_of(path, words(3, 3), words(2, 2), reverse)
    assert one_sentence(str(error.value), "Line 3", path, "spaces", *parts)


@pytest.mark.parametrize(("text", "n_lines"), [("0-0\n0-0\n", 2), ("0-0\n" * 4, 4), ("0-0\n" * 5, 5), ("\n" * 7, 7)])
def test_fewer_or_more_lines_than_pairs(tmp_path, text, n_lines):
    path = write(tmp_path / "links", "# header\n" + text)
    with pytest.raises(InputError) as error:
        links_of(path, words(1, 1, 1), words(1, 1, 1))
    assert one_sentence(str(error.value), path, f"{n_lines} lines", "3 sentence pairs", "blank")


@pytest.mark.parametrize("text", ["", "# only: a header\n"])
def test_empty_file(tmp_path, text):
    path = write(tmp_path / "links", text)
    with pytest.raises(InputError) as error:
        links_of(path, words(1), words(1))
    assert one_sentence(str(error.value), path, "is empty", "line")
    assert links_of(path, [], []) == []


def test_missing_damaged_and_badly_encoded_files(tmp_path):
    for path, part in [
        (tmp_path / "none", "check the path"),
        (write(tmp_path / "latin", b"0-0\n0-0 \xe9\n"), "Line 2"),
        (write(tmp_path / "cut", b""), "empty"),
    ]:
        with pytest.raises(InputError) as error:
            links_of(path, words(1, 1), words(1, 1))
        assert one_sentence(str(error.value), path, part)
    path = tmp_path / "links.gz"
    path.write_bytes(gzip.compress(b"0-0\n" * 1000)[:-9])
    with pytest.raises(InputError, match="damaged"):
        list(read_pharaoh(path))


NUMBERS = st.integers(0, 70)
LINKS = st.lists(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=6, unique=True).map(sorted), max_size=6)
HEADERS = st.dictionaries(
    st.text("abcdefgh_", min_size=1, max_size=9),
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=9),
)


@given(LINKS, HEADERS, st.booleans())
def test_what_is_written_is_read_again(tmp_path_factory, links, header, compressed):
    path = tmp_path_factory.mktemp("links") / "new folder" / ("links.gz" if compressed else "links")
    write_pharaoh(path, links, header)
    assert links_of(path, words(*[71] * len(links)), words(*[71] * len(links))) == links
    assert read_header(path) == {key: " ".join(value.split()) for key, value in header.items()}
    assert [file.name for file in path.parent.iterdir()] == [path.name]


PLAIN = "0-0 1-2\n\n2-1\n"
SCORED = "0-0:0.9 1-2:.5\n\n2-1:5e-1 0-2:0\n"


@pytest.mark.parametrize("scores", [" ||| -12.5", "\t-45.15\t-75.6", " ||| 1e-05", "\t-inf", " |||\t-3"])
def test_scores_of_sentences_are_ignored(tmp_path, scores):
    path = write(tmp_path / "links", PLAIN.replace("\n", f"{scores}\n"))
    assert list(read_pharaoh(path)) == list(read_pharaoh(write(tmp_path / "plain", PLAIN)))


def test_scores_are_written(tmp_path):
    write_pharaoh(tmp_path / "links", [[(0, 0), (1, 2)], [], [(2, 1)]], {}, [[0.93, 1.0], [], [-0.0123]])
    assert (tmp_path / "links").read_text() == "0-0:0.93 1-2:1\n\n2-1:-0.0123\n"
    assert [links for _, links in read_pharaoh(tmp_path / "links", min_score=-0.0123)][2] == [(2, 1)]
    assert [links for _, links in read_pharaoh(tmp_path / "links", min_score=0.95)] == [[(1, 2)], [], []]


@pytest.mark.parametrize(
    ("min_score", "links"),
    [
        (None, [[(0, 0), (1, 2)], [], [(0, 2), (2, 1)]]),
        (0.5, [[(0, 0), (1, 2)], [], [(2, 1)]]),
        (0.6, [[(0, 0)], [], []]),
    ],
)
def test_links_with_scores(tmp_path, min_score, links):
    path = write(tmp_path / "links", SCORED)
    assert [found for _, found in read_pharaoh(path, min_score=min_score)] == links
    with pytest.raises(InputError, match="Line 1 .*--min_link_score"):
        list(read_pharaoh(write(tmp_path / "plain", PLAIN), min_score=0.5))


def test_giza(tmp_path):
    text = (
        "# Sentence pair (1) source length 3 target length 4 alignment score : 1e-5\n"
        "one two three four\n"
        "NULL ({ 4 }) uno ({ 1 }) dos ({ 2 3 }) ({ ({ })\n"
        "# Sentence pair (2) source length 0 target length 1 alignment score : 1e-5\none\nNULL ({ 1 })\n"
    )
    path = write(tmp_path / "x.A3.final", text)
    assert [links for _, links in read_pharaoh(path)] == [[(0, 0), (1, 1), (1, 2)], []]
    assert [links for _, links in read_pharaoh(path, reverse=True)][0] == [(0, 0), (1, 1), (2, 1)]
    with pytest.raises(InputError, match="Line 4 .*GIZA"):
        list(read_pharaoh(write(path, text.replace("NULL ({ 1 })", "NULL"))))


def test_header_ends_with_the_first_links(tmp_path):
    path = write(tmp_path / "links", "#word_splitting:  punctuation\n# no pair\n# url: a:b\n0-0\n# late: x\n")
    assert read_header(path) == {"word_splitting": "punctuation", "url": "a:b"}
    assert read_header(write(tmp_path / "bare", "0-0\n")) == {}


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "links"
    write_pharaoh(path, [[(0, 0)]], {})

    def failing():
        yield [(1, 1)]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_pharaoh(path, failing(), {})
    assert path.read_text() == "0-0\n"
    assert list(tmp_path.iterdir()) == [path]


def test_the_same_links_make_the_same_archive(tmp_path):
    for name in ("a.gz", "b.gz"):
        write_pharaoh(tmp_path / name, [[(0, 1)], []], {"word_splitting": "space"})
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


# --- Statistics --------------------------------------------------------------------------------------------------

# Subject, verb, adjective and noun; the last two change places in Spanish.
SUBJECTS = {"Ana": "Anna", "Pedro": "Peter", "Luisa": "Louise", "Juan": "John"}
VERBS = {"compra": "buys", "vende": "sells", "pinta": "paints", "busca": "seeks"}
NOUNS = {"casas": "houses", "sillas": "chairs", "mesas": "tables", "barcas": "boats"}
ADJECTIVES = {"rojas": "red", "viejas": "old", "grandes": "big", "bonitas": "pretty"}
CORPUS = [
    ([s, v, n, a], [SUBJECTS[s], VERBS[v], ADJECTIVES[a], NOUNS[n]])
    for k, (s, v, n, a) in enumerate(product(SUBJECTS, VERBS, NOUNS, ADJECTIVES))
    if k % 3
]


@pytest.mark.parametrize("kind", ["eflomal", "fast_align", "hmm", "ibm4"])
def test_statistical_aligner_finds_what_goes_together(kind):
    source, english = map(list, zip(*CORPUS))
    links = StatisticalAligner(kind).align(source, english)
    right = [(0, 0), (1, 1), (2, 3), (3, 2)]
    assert sum(len(set(pair).intersection(right)) for pair in links) > 0.95 * 4 * len(links)
    assert all(pair == sorted(pair) for pair in links)
    assert all(type(i) is int and type(j) is int for i, j in links[0])


@pytest.fixture
def pairs():
    """Repeated and unlike words, so that the two directions disagree, and empty sides."""
    source, english = map(list, zip(*CORPUS[:60]))
    source = [[*sentence, "muy", "muy", sentence[k % 4]] for k, sentence in enumerate(source)]
    english = [[*sentence[k % 3 :], "very"] for k, sentence in enumerate(english)]
    return [*source, [], ["sola"], []], [*english, ["alone"], [], []]


def test_symmetrizations_are_nested_and_repeatable(pairs):
    links = {name: StatisticalAligner(symmetrization=name).align(*pairs) for name in statistical.SYMMETRIZATIONS}
    assert links["intersection"] == StatisticalAligner().align(*pairs)
    assert sum(map(len, links["intersection"])) < sum(map(len, links["union"]))
    for name in links:
        for inner, pair, outer in zip(links["intersection"], links[name], links["union"]):
            assert set(inner) <= set(pair) <= set(outer)
            assert pair == sorted(set(pair))
        assert links[name][-3:] == [[], [], []]


def test_statistical_aligner_leaves_its_input_alone(pairs):
    before = [[list(sentence) for sentence in side] for side in pairs]
    StatisticalAligner().align(*pairs)
    assert [[list(sentence) for sentence in side] for side in pairs] == before
    assert StatisticalAligner().align([], []) == []


def expectation_maximization(source, english, n_iterations: int) -> dict[tuple[str, str], float]:
    """IBM model 1 (Brown et al., 1993): p(English word | source word or none), in plain Python."""
    pairs = [([None, *s], e) for s, e in zip(source, english)]
    p: dict = defaultdict(lambda: 1.0)
    for _ in range(n_iterations):
        counts: dict = defaultdict(float)
        for s, e in pairs:
            for there in e:
                total = sum(p[here, there] for here in s)
                for here in s:
                    counts[here, there] += p[here, there] / total
        totals: dict = defaultdict(float)
        for (here, _), count in counts.items():
            totals[here] += count
        p = {key: count / totals[key[0]] for key, count in counts.items()}
    return p


def test_the_score_is_the_geometric_mean_of_both_translation_probabilities(monkeypatch):
    monkeypatch.setattr(StatisticalAligner, "_PREFIX", 99)
    source, english = ([[word.lower() for word in words] for words in side] for side in zip(*CORPUS[:30]))
    aligner = StatisticalAligner("ibm1")
    scored = aligner.score(source, english)
    assert [list(links) for links in scored] == aligner.align(source, english)
    there = expectation_maximization(source, english, 5)
    back = expectation_maximization(english, source, 5)
    for s, e, links in zip(source, english, scored):
        for (i, j), score in links.items():
            assert score == pytest.approx((there[s[i], e[j]] * back[e[j], s[i]]) ** 0.5, rel=0.02)


def test_prefixes_unite_inflected_forms():
    # Every form occurs once: without its ending cut off nothing can be learned from it.
    stems = {
        "trabaj": "work",
        "camin": "walk",
        "estudi": "study",
        "cocin": "cook",
        "limpi": "clean",
        "levant": "raise",
    }
    endings = "abcdefgh"
    source = [
        [f"{stem}{e}xyz", f"{other}{e}xyz"] for e in endings for stem in stems for other in stems if stem != other
    ]
    english = [[stems[w[:-4]] for w in reversed(sentence)] for sentence in source]
    links = StatisticalAligner().align(source, english)
    assert sum(pair == [(0, 1), (1, 0)] for pair in links) > 0.95 * len(links)


# --- The encoder -------------------------------------------------------------------------------------------------

MADE = {kind: tokenizer(kind) for kind in TOKENIZERS}
ENCODER = model(head="", num_hidden_layers=3)
VOCABULARY = sorted({word for text in TEXT for word in split_on_punctuation(text)})
SENTENCES = st.lists(st.sampled_from([*VOCABULARY, "\u200b", "\u00ad", "新", "[SEP]"]), max_size=9)
PAIRS = st.lists(st.tuples(SENTENCES, SENTENCES), min_size=1, max_size=7)


def naive_links(word_tokenizer: WordTokenizer, layer: int, source: list[str], english: list[str]) -> list:
    vectors = []
    for sentence in (source, english):
        encoded = word_tokenizer([sentence])
        ids, word_ids, positions = (encoded[name][0] for name in ("input_ids", "word_ids", "words"))
        with torch.no_grad():
            states = ENCODER(torch.tensor([ids]), output_hidden_states=True).hidden_states[layer][0]
        vectors.append({
            position: torch.stack([states[t] for t, word in enumerate(word_ids) if word == k]).mean(0)
            for k, position in enumerate(positions)
            if 0 <= position < len(sentence)
        })  # fmt: skip
    s, e = vectors
    similarity = {(i, j): torch.cosine_similarity(s[i], e[j], dim=0).item() for i in s for j in e}
    # Equal words in equal places have equal vectors: rounding must not decide between them.
    nearest_english = {i: max(e, key=lambda j: (round(similarity[i, j], 5), -j)) for i in s if e}
    nearest_source = {j: max(s, key=lambda i: (round(similarity[i, j], 5), -i)) for j in e if s}
    close = {
        (i, j)
        for (i, j), value in similarity.items()
        if value >= similarity[i, nearest_english[i]] - 1e-5 and value >= similarity[nearest_source[j], j] - 1e-5
    }
    return [(i, j) for i, j in sorted(nearest_english.items()) if nearest_source[j] == i], close, similarity


@given(PAIRS, st.sampled_from(TOKENIZERS), st.integers(0, 3))
def test_encoder_aligner_equals_a_naive_loop(pairs, kind, layer):
    word_tokenizer = WordTokenizer(MADE[kind], max_length=14)
    source, english = map(list, zip(*pairs))
    aligner = EncoderAligner(ENCODER, word_tokenizer, layer, batch_size=3)
    links = aligner.align(source, english)
    for found, s, e in zip(links, source, english):
        expected, close, _ = naive_links(word_tokenizer, layer, s, e)
        assert found == sorted(found)
        assert set(found) <= close
        if len(close) == len(expected):  # no ties
            assert found == expected
    scored, cosines = aligner.score_with_similarities(source, english)
    assert scored == aligner.score(source, english)
    for scores, matrix, s, e in zip(scored, cosines, source, english):
        similarity = naive_links(word_tokenizer, layer, s, e)[2]
        assert scores == pytest.approx({link: similarity[link] for link in scores}, abs=1e-4)
        assert matrix.shape == (len(s), len(e))
        known = {
            (i, j): matrix[i, j] for i, j in product(range(len(s)), range(len(e))) if matrix[i, j] == matrix[i, j]
        }
        assert known == pytest.approx(similarity, abs=1e-4)
    # Neither the batch size matters, nor from which subwords the vectors of the adjustment are pooled.
    word_tokenizer = WordTokenizer(MADE[kind], "start", max_length=14)
    assert links == EncoderAligner(ENCODER, word_tokenizer, layer, batch_size=50).align(source, english)


def test_equal_sentences_are_linked_word_by_word():
    sentences = [split_on_punctuation(text) for text in TEXT]
    links = EncoderAligner(ENCODER, WordTokenizer(MADE["wordpiece"], max_length=64), 2).align(sentences, sentences)
    assert links == [[(i, i) for i in range(len(sentence))] for sentence in sentences]


def test_words_without_vector_and_special_tokens_have_no_link():
    word_tokenizer = WordTokenizer(MADE["wordpiece"], max_length=8)
    sentence = ["río", "\u200b", "puente", *["viejo"] * 9]
    positions = word_tokenizer([sentence])["words"][0]
    assert -1 in positions  # the tokenizer's own
    assert 1 not in positions
    (links,) = EncoderAligner(ENCODER, word_tokenizer, 1).align([sentence], [sentence])
    assert links
    assert {i for i, _ in links} <= {i for i in positions if 0 <= i < len(sentence)}
    aligner = EncoderAligner(ENCODER, word_tokenizer)
    assert aligner.align([[], ["río"], [], ["\u200b"]], [["river"], [], [], ["river"]]) == [[], [], [], []]
    assert aligner.align([], []) == []


def test_layers_above_the_one_that_links_are_not_computed():
    encoder, computed = model("Bert", "", num_hidden_layers=6), []
    for number, layer in enumerate(encoder.encoder.layer):
        layer.register_forward_hook(lambda *_, number=number: computed.append(number))
    sentences = [split_on_punctuation(text) for text in TEXT[:2]]
    EncoderAligner(encoder, WordTokenizer(MADE["wordpiece"], max_length=64), 2).align(sentences, sentences)
    passes = [computed.count(number) for number in range(6)]
    assert passes == [3, 3, 3, 1, 1, 1]  # (the first pass is of a single token)
    assert len(encoder.encoder.layer) == 6


def test_tokens_as_words():
    word_tokenizer = WordTokenizer(MADE["unigram"], "token", max_length=64)
    source, english = ([MADE["unigram"].tokenize(TEXT[k])] for k in (1, 0))
    links = EncoderAligner(ENCODER, word_tokenizer, 2).align(source, english)
    assert links[0] == naive_links(word_tokenizer, 2, source[0], english[0])[0]


def test_layer_is_the_one_that_links_most_words(caplog):
    word_tokenizer = WordTokenizer(MADE["wordpiece"], max_length=64)
    source, english = ([split_on_punctuation(TEXT[k]) for k in part] for part in ((1, 2, 3, 4), (0, 0, 0, 5)))
    by_layer = [EncoderAligner(ENCODER, word_tokenizer, k).align(source, english) for k in range(4)]
    counts = [sum(map(len, links)) for links in by_layer]
    assert len(set(counts)) > 1
    with caplog.at_level("INFO", "utils.parallel.aligners"):
        links = EncoderAligner(ENCODER, word_tokenizer).align(source, english)
    assert links == by_layer[min((k for k in range(4) if counts[k] == max(counts)), key=lambda k: abs(k - 2))]
    assert str(counts) in caplog.text
    assert EncoderAligner(ENCODER, word_tokenizer, -1).align(source, english) == by_layer[3]


@pytest.mark.parametrize(("n_unlinked", "warns"), [(0, False), (6, False), (7, True), (20, True)])
def test_few_links_are_a_hint_at_links_of_another_aligner(caplog, monkeypatch, n_unlinked, warns):
    """Words of the shorter side count: ten of the pair are linked, and `n_unlinked` are not."""
    aligner = EncoderAligner(ENCODER, WordTokenizer(MADE["wordpiece"], max_length=64))
    found = [(torch.zeros(10, 3), torch.zeros(10))] * (aligner.n_layers + 1)
    monkeypatch.setattr(aligner, "_batches", lambda *_: [([0], found)])
    aligner.most_links([["word"] * (10 + n_unlinked)], [["word"] * 40])
    assert any(record.levelname == "WARNING" for record in caplog.records) is warns


def test_of_equally_good_layers_the_one_two_thirds_up():
    sentences = [split_on_punctuation(text) for text in TEXT]
    aligner = EncoderAligner(ENCODER, WordTokenizer(MADE["wordpiece"], max_length=64))
    assert aligner.most_links([["río"]], [["river"]]) == 2  # every layer links the only words
    assert aligner.most_links([], []) == 2
    assert aligner.align(sentences, sentences) == [[(i, i) for i in range(len(s))] for s in sentences]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_architectures(architecture):
    encoder = model(architecture, head="")
    sentences = [split_on_punctuation(text) for text in TEXT]
    aligner = EncoderAligner(encoder, WordTokenizer(MADE["wordpiece"], max_length=64))
    assert aligner.n_layers == 2
    assert aligner.align(sentences, sentences) == [[(i, i) for i in range(len(s))] for s in sentences]


def test_layer_is_judged_on_a_sample_of_the_corpus(monkeypatch):
    monkeypatch.setattr(EncoderAligner, "_PROBE_PAIRS", 4)
    aligner = EncoderAligner(ENCODER, WordTokenizer(MADE["wordpiece"]), batch_size=2)
    seen = []
    encode = aligner._encode
    monkeypatch.setattr(aligner, "_encode", lambda s, e: seen.extend(s) or encode(s, e))
    aligner.most_links([[str(k)] for k in range(10)], [["x"]] * 10)
    assert sorted(seen) == [["0"], ["3"], ["6"], ["9"]]


def test_the_encoder_comes_back_as_it_was():
    encoder = model(head="", hidden_dropout_prob=0.5)
    sentences = [split_on_punctuation(text) for text in TEXT]
    aligner = EncoderAligner(encoder, WordTokenizer(MADE["wordpiece"], max_length=64), 1)
    links = aligner.align(sentences[:2], sentences[1:3])
    encoder.train()
    assert aligner.align(sentences[:2], sentences[1:3]) == links  # without dropout
    assert encoder.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in encoder.parameters())


def test_cosines_are_compared_in_full_precision_also_under_autocast(pairs):
    """(view_links.py --bf16: of eight bits many cosines are equal.)"""
    aligner = EncoderAligner(ENCODER, WordTokenizer(MADE["wordpiece"], max_length=64), 2)
    with torch.autocast("cpu", torch.bfloat16):
        links, _ = aligner.score_with_similarities(*pairs)
    scores = [score for of_pair in links for score in of_pair.values()]
    assert len(scores) > 10
    assert any(torch.tensor(score).bfloat16().item() != score for score in scores)


def test_half_precision_encoder():
    sentences = [split_on_punctuation(text) for text in TEXT]
    encoder = model(head="").to(torch.bfloat16)
    links = EncoderAligner(encoder, WordTokenizer(MADE["wordpiece"], max_length=64), 2).align(sentences, sentences)
    assert links == [[(i, i) for i in range(len(sentence))] for sentence in sentences]


@pytest.mark.parametrize("layer", [4, -5, 99])
def test_layers_that_do_not_exist(layer):
    with pytest.raises(InputError) as error:
        EncoderAligner(ENCODER, WordTokenizer(MADE["wordpiece"]), layer)
    assert one_sentence(str(error.value), f"--aligner_layer {layer}", "to 3")


def test_mutual_argmax_ignores_missing_words():
    similarity = torch.tensor([[[0.9, 0.8, 0.1], [0.7, 0.95, 0.2], [0.99, 0.99, 0.99]]])
    there = torch.tensor([[True, True, False]])
    everywhere = torch.tensor([[True, True, True]])
    assert mutual_argmax(similarity, there, everywhere).T.tolist() == [[0, 0, 0], [0, 1, 1]]
    assert mutual_argmax(similarity, everywhere, there).T.tolist() == [[0, 2, 0]]
    assert mutual_argmax(similarity, everywhere & False, everywhere).shape == (3, 0)


# --- Word lists --------------------------------------------------------------------------------------------------


@pytest.fixture
def dictionary(tmp_path):
    text = "# es en\ncasa house\ncasa home\nPerro\tdog\nel the\nla the\n\nNueva York\tNew York\nSTRASSE\tstreet\n"
    return write(tmp_path / "es-en.txt.gz", text)


@pytest.mark.parametrize(
    ("source", "english", "links"),
    [
        ("La CASA duerme", "the House sleeps", [(0, 0), (1, 1)]),
        ("el perro", "a cat", []),
        ("casa", "house home", [(0, 0), (0, 1)]),  # two translations: ambiguous, both stay
        ("Straße", "Street", [(0, 0)]),  # case-folding, not lower-casing
        ("el x el y", "the the z z", [(0, 0), (2, 1)]),  # as often on both sides: in order
        ("la x x x", "x x x the x the", [(0, 3)]),  # closest relative position: 0 of 4, 3 of 6 rather than 5
        ("x x x la", "x the x the", [(3, 3)]),
        ("la x x la x la", "the the", [(0, 0), (5, 1)]),
        ("", "the", []),
        ("la", "", []),
    ],
)
def test_dictionary_links(dictionary, source, english, links):
    assert DictionaryAligner(dictionary).align([source.split()], [english.split()]) == [links]


LETTERS = st.lists(st.sampled_from("abcd"), max_size=9)


@given(LETTERS, LETTERS)
def test_repeated_words_are_linked_one_to_one(tmp_path_factory, source, english):
    path = write(tmp_path_factory.mktemp("words") / "list", "a a\nb b\nc c\n")
    (links,) = DictionaryAligner(path).align([source], [english])
    assert all(source[i] == english[j] != "d" for i, j in links)
    assert len({i for i, _ in links}) == len({j for _, j in links}) == len(links)
    assert len(links) == sum(min(source.count(letter), english.count(letter)) for letter in "abc")


PROBABLE = "# es en\ncasa\thouse\t9\t0.9\t0.4\ncasa\thome\t1\t.1\t1\nhogar\thome\t4\t1\t0.64\n"


@pytest.mark.parametrize(
    ("source", "english", "links"),
    [
        ("casa", "house", {(0, 0): 0.6}),
        ("CASA", "a home", {(0, 1): 0.1**0.5}),
        ("casa", "home house", {(0, 1): 0.6}),  # the more probable of two translations
        ("casa hogar", "home", {(1, 0): 0.8}),
        ("casa hogar", "home house", {(0, 1): 0.6, (1, 0): 0.8}),
        ("casa x casa", "house home house", {(0, 0): 0.6, (2, 2): 0.6}),
    ],
)
def test_dictionary_with_probabilities(tmp_path, source, english, links):
    aligner = DictionaryAligner(write(tmp_path / "list", PROBABLE))
    assert aligner.has_scores
    assert aligner.score([source.split()], [english.split()]) == [pytest.approx(links)]


@pytest.mark.parametrize("line", ["a\tb", "a\tb\t1\t0.5", "a\tb\t1\tx\t1", "a\tb\t1\t1.5\t1", "a\tb\t1\tnan\t1"])
def test_bad_lines_of_a_word_list_with_probabilities(tmp_path, line):
    path = write(tmp_path / "list", f"{PROBABLE}{line}\n")
    with pytest.raises(InputError) as error:
        DictionaryAligner(path)
    assert one_sentence(str(error.value), "Line 5", path)


def test_word_list_made_of_links(tmp_path):
    linked = [
        (["Casa", "azul"], ["blue", "house"], [(0, 1), (1, 0)]),
        (["casa", "#casa"], ["house", "#house"], [(0, 0), (1, 1)]),
        (["casa", "#casa"], ["Home", "#house"], [(0, 0), (1, 1)]),
        (["azul", "hogar"], ["azure", "home"], [(1, 1)]),
    ]
    assert write_dictionary(tmp_path / "1", linked, 1, {"aligner": "encoder"}) == 4
    assert (tmp_path / "1").read_text().splitlines() == [
        "# aligner: encoder",
        "# source word\tEnglish word\tcount\tp(English|source)\tp(source|English)",
        "azul\tblue\t1\t1\t1",
        "casa\thouse\t2\t0.6667\t1",
        "casa\thome\t1\t0.3333\t0.5",
        "hogar\thome\t1\t1\t0.5",
    ]
    # Rare words are counted, but not written.
    assert write_dictionary(tmp_path / "2.gz", linked, 2, {}) == 1
    (links,) = DictionaryAligner(tmp_path / "2.gz").score([["la", "casa"]], [["the", "house"]])
    assert links == {(1, 1): pytest.approx((2 / 3) ** 0.5, abs=1e-4)}


SPELLINGS = st.sampled_from(["casa", "Casa", "ß", "a", "#", "\u0130"])


@given(st.lists(st.tuples(SPELLINGS, SPELLINGS), min_size=1, max_size=9))
def test_a_word_list_scores_what_it_was_made_of(tmp_path_factory, pairs):
    path = tmp_path_factory.mktemp("words") / "list"
    write_dictionary(path, [([source], [english], [(0, 0)]) for source, english in [*pairs, ("a", "a")]], 1, {})
    aligner = DictionaryAligner(path)
    folded = [(source.casefold(), english.casefold()) for source, english in [*pairs, ("a", "a")]]
    for source, english in folded:
        together, of_source, of_english = (
            folded.count((source, english)), [s for s, _ in folded].count(source), [e for _, e in folded].count(english)
        )  # fmt: skip
        score = together / (of_source * of_english) ** 0.5
        expected = {} if source == "#" else {(0, 0): pytest.approx(score, rel=1e-3)}
        assert aligner.score([[source]], [[english]]) == [expected]


@pytest.mark.parametrize("line", ["casa", "casa house home", "casa\thouse\thome", "casa\t", "\thouse"])
def test_bad_lines_of_a_word_list(tmp_path, line):
    path = write(tmp_path / "list", f"# words\nel the\n{line}\n")
    with pytest.raises(InputError) as error:
        DictionaryAligner(path)
    assert one_sentence(str(error.value), "Line 3", path, "tab")


def test_word_lists_without_entries(tmp_path):
    with pytest.raises(InputError, match="no entries"):
        DictionaryAligner(write(tmp_path / "list", "# nothing\n\n"))
    with pytest.raises(InputError, match="check the path"):
        DictionaryAligner(tmp_path / "none")


def test_a_link_of_a_dictionary_is_the_most_probable_of_both_words(tmp_path):
    path = tmp_path / "words.tsv"
    path.write_text("a\tx\t9\t.9\t.9\nb\tx\t9\t.95\t.95\nb\ty\t9\t.96\t.96\nc\tz\t9\t.1\t.1\n")
    (found,) = DictionaryAligner(path).score([["a", "b", "c"]], [["x", "y", "z"]])
    assert found == pytest.approx({(1, 1): 0.96, (2, 2): 0.1})


# --- Agreement ---------------------------------------------------------------------------------------------------


class Given(WordAligner):
    """Links that are given; counts how often it learns."""

    def __init__(self, *scored, has_scores: bool = True) -> None:
        self.scored, self.has_scores, self.shown = list(scored), has_scores, 0

    def learn(self, source, english) -> None:
        self.shown += 1

    def score(self, source, english):
        return self.scored


LINK_SCORES = st.lists(
    st.dictionaries(st.tuples(st.integers(0, 3), st.integers(0, 3)), st.sampled_from([-0.5, 0.0, 0.25, 1.0])),
    min_size=3, max_size=3,
)  # fmt: skip


@given(st.lists(LINK_SCORES, min_size=2, max_size=3))
def test_agreement_is_the_intersection_with_the_lowest_score(scored):
    parts = [Given(*(dict(sorted(links.items())) for links in of_part)) for of_part in scored]
    together = AgreementAligner(parts)
    together.learn([], [])
    assert [part.shown for part in parts] == [1] * len(parts)
    for k, found in enumerate(together.score([], [])):
        everywhere = set.intersection(*(set(of_part[k]) for of_part in scored))
        assert found == {link: min(of_part[k][link] for of_part in scored) for link in everywhere}
        assert list(found) == sorted(everywhere)


def test_agreement_with_an_aligner_without_scores():
    plain, scored = Given({(0, 0): 1.0}, has_scores=False), Given({(0, 0): 0.2, (1, 1): 0.9})
    assert AgreementAligner([plain, scored]).score([], []) == [{(0, 0): 0.2}]
    assert AgreementAligner([plain, scored]).has_scores
    assert not AgreementAligner([plain, plain]).has_scores


# --- Choosing ----------------------------------------------------------------------------------------------------


def inputs(**given) -> AlignerInputs:
    names = {item.name for item in fields(AlignerArguments)} - {"dictionary_file"}
    arguments = AlignerArguments(**{name: value for name, value in given.items() if name in names})
    return AlignerInputs(arguments, **{name: value for name, value in given.items() if name not in names})


def test_aligners_are_made_by_name(dictionary):
    word_tokenizer = WordTokenizer(MADE["wordpiece"])
    made = make_aligner("encoder", inputs(encoder=ENCODER, word_tokenizer=word_tokenizer, aligner_layer=2))
    assert isinstance(made, EncoderAligner)
    assert made.layer == 2
    made = make_aligner("statistical", inputs(aligner="statistical", symmetrization="grow-diag-final-and"))
    assert isinstance(made, StatisticalAligner)
    assert made.symmetrization == "grow-diag-final-and"
    assert isinstance(make_aligner("dictionary", inputs(dictionary_file=str(dictionary))), DictionaryAligner)
    made = make_aligner("dictionary+statistical", inputs(dictionary_file=str(dictionary), min_link_score=0.1))
    assert isinstance(made, AgreementAligner)
    assert [type(part) for part in made.aligners] == [DictionaryAligner, StatisticalAligner]


def test_an_agreement_needs_what_its_parts_need():
    together = aligner_spec("encoder+statistical+dictionary")
    assert set(together.settings) == {"aligner_layer", "statistical_model", "symmetrization"}
    assert set(together.needs) == {"encoder", "word_tokenizer", "dictionary_file"}
    assert together.learns_from_all
    assert not together.in_processes
    assert not aligner_spec("encoder+dictionary").learns_from_all


@pytest.mark.parametrize(
    ("name", "settings", "parts"),
    [
        ("dictionary", {}, ["--dictionary_file"]),
        ("encoder", {}, ["--model"]),
        ("giza", {}, ["giza", "encoder, statistical, dictionary"]),
        ("encoder+giza", {}, ["giza", "encoder, statistical, dictionary"]),
        ("encoder+", {}, ["encoder, statistical, dictionary"]),
        ("encoder+file", {}, ["file", "encoder, statistical, dictionary"]),
        ("encoder+encoder", {}, ["encoder+encoder", "once"]),
        ("statistical+dictionary", {}, ["--dictionary_file"]),
        (
            "statistical",
            {"aligner": "statistical", "symmetrization": "both"},
            ["--symmetrization both", "intersection", "grow-diag-final-and"],
        ),
    ],
)
def test_what_an_aligner_needs(name, settings, parts):
    with pytest.raises(InputError) as error:
        make_aligner(name, inputs(**settings))
    assert one_sentence(str(error.value), *parts)


@pytest.mark.parametrize("aligner", [None, "file", "encoder", "statistical", "dictionary", "encoder+dictionary"])
@pytest.mark.parametrize(
    ("of", "setting"),
    [
        ("encoder", {"aligner_layer": 0}),
        ("statistical", {"statistical_model": "hmm"}),
        ("statistical", {"symmetrization": "union"}),
        ("dictionary", {"dictionary_file": ["x"]}),
    ],
)
def test_a_setting_of_another_aligner_is_refused(aligner, of, setting):
    """The encoder links what has no links file, if no aligner is named."""
    if of in (aligner if aligner not in (None, "file") else "encoder").split("+"):
        assert AlignerArguments(aligner, **setting)
        return
    with pytest.raises(InputError) as error:
        AlignerArguments(aligner, **setting)
    assert one_sentence(str(error.value), f"--{next(iter(setting))}", f"--aligner {of}")


@pytest.mark.parametrize("arguments", [{"aligner": "file"}, {"reverse_links": True}])
def test_links_of_a_file_that_is_not_named(arguments):
    """Pairs that are only measured may have links of their own; what is learned from needs others."""
    for of_held_out in (None, []):
        with pytest.raises(InputError) as error:
            AlignerArguments(**arguments).check_links_files(of_held_out)
        assert one_sentence(str(error.value), f"--{next(iter(arguments))}", "--links_file")
    AlignerArguments(**arguments).check_links_files(["held.links"])
    AlignerArguments(**arguments, links_file=["hi=x"]).check_links_files(trains=True)


def test_links_of_held_out_pairs_are_not_those_of_training():
    with pytest.raises(InputError, match="--links_file"):
        AlignerArguments("file").check_links_files(["held.links"], trains=True)
    AlignerArguments(reverse_links=True).check_links_files(["held.links"], trains=True)


def test_a_limit_of_scores_that_do_not_exist(dictionary):
    with pytest.raises(InputError) as error:
        make_aligner("dictionary", inputs(dictionary_file=str(dictionary), min_link_score=0.5))
    assert one_sentence(str(error.value), "--min_link_score", "--aligner dictionary")


def test_links_are_cached_under_all_that_they_depend_on(dictionary, tmp_path):
    other = write(tmp_path / "other", "casa house\n")
    word_tokenizers = [WordTokenizer(MADE["wordpiece"], max_length=length) for length in (32, 64)]
    keys = [
        links_key("dictionary", inputs(dictionary_file=str(dictionary))),
        links_key("dictionary", inputs(dictionary_file=str(other))),
        links_key("statistical", inputs()),
        links_key("statistical", inputs(aligner="statistical", statistical_model="hmm")),
        links_key("statistical", inputs(aligner="statistical", symmetrization="union")),
        links_key("statistical", inputs(min_link_score=0.5)),
        links_key("statistical+dictionary", inputs(dictionary_file=str(dictionary))),
        links_key("statistical+dictionary", inputs(dictionary_file=str(other))),
        *(links_key("encoder", inputs(encoder=ENCODER, word_tokenizer=words)) for words in word_tokenizers),
        links_key("encoder", inputs(encoder=ENCODER, word_tokenizer=word_tokenizers[0], aligner_layer=1)),
        links_key("encoder", inputs(encoder=model(head="", seed=1), word_tokenizer=word_tokenizers[0])),
    ]
    assert len(set(keys)) == len(keys)
    assert links_key("statistical", inputs(write_links=["x"])) == links_key("statistical", inputs())


def test_statistical_aligner_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "thot.alignment", None)
    with pytest.raises(InputError) as error:
        make_aligner("statistical", inputs())
    assert one_sentence(str(error.value), "--aligner statistical", "pip install sil-thot")


# --- The benchmark -----------------------------------------------------------------------------------------------


def test_agreement_with_links_made_by_people():
    links = [[(0, 0), (1, 1), (1, 2)], [(5, 5)]]
    sure, possible = [{(0, 0), (2, 2)}, set()], [{(0, 0), (2, 2), (1, 1)}, set()]
    # 4 links, 2 of them possible and 1 of these sure, out of 2 sure ones: 1 - (1 + 2) / (4 + 2)
    assert compare_aligners.agreement(links, sure, possible) == pytest.approx((0.5, 0.5, 0.5))
    assert compare_aligners.agreement([[]], [set()], [set()]) == (0, 0, 1)


def test_benchmark_of_aligners(tmp_path, run, capsys):
    gold = [{"en": english, "es": source, "sure": [[0, 0], [1, 1], [2, 3], [3, 2]]} for source, english in CORPUS[:20]]
    partial = [{"en": row["en"], "es": row["es"], "content_links": [[2, 3], [3, 2]], "source": "-"} for row in gold]
    text = [{"es": " ".join(source), "en": " ".join(english)} for source, english in CORPUS[20:]]
    paths = [tmp_path / name for name in ("gold", "partial", "text.gz")]
    for path, rows in zip(paths, (gold, partial, text)):
        write(path, "\n".join(json.dumps(row) for row in rows))
    result_file = tmp_path / "results.json"
    run(
        compare_aligners.main, "--gold", *paths[:2], "--parallel", paths[2], "--pairs", 10, 900,
        "--statistical", "fast_align", "--model", REFERENCE / "model", "--layers", 1, "--json", result_file,
        "--limits", 0.9, "--word_list", "--agreement",
    )  # fmt: skip
    results = json.loads(result_file.read_text())["results"]
    assert [(r["aligner"].split(",")[0], r["language"], r["training_pairs"]) for r in results] == [
        *[
            (name, language, n)
            for n in (10, len(text))
            for name in [
                "fast_align intersection",
                "fast_align intersection >= 0.9",
                "word list of fast_align intersection",
                "encoder+fast_align intersection",
            ]
            for language in ("es", "es*")
        ],
        *[("encoder", language, 0) for _ in range(2) for language in ("es", "es*")],
    ]
    statistical, partial_links, limited, _, word_list, _, agreed = results[8:15]
    assert statistical["error_rate"] < 0.05
    assert statistical["precision"] == statistical["one_to_one_precision"] > 0.95
    assert partial_links["precision"] is None
    assert partial_links["recall"] > 0.95
    assert word_list["recall"] > 0.9
    assert max(limited["links"], agreed["links"]) <= statistical["links"]
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(results) + 1
