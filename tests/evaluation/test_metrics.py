"""Metrics against numbers worked out by hand from the published definitions, rule by rule."""

import evaluate
import pytest
from hypothesis import given
from hypothesis import strategies as st

import utils.evaluation.metrics
from utils.core.errors import InputError
from utils.evaluation.answers import answer_scores, mean_scores, normalize_answer, version_2_scores
from utils.evaluation.entities import entities, entity_scores
from utils.evaluation.metrics import METRICS, load_metric


# --- Answers: what normalization makes of a text ---


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Cat", "cat"),  # lower case, articles
        ("a cat, an owl and the dog", "cat owl and dog"),
        ("theatre of Athens", "theatre of athens"),  # no article inside a word
        ("the-end", "theend"),  # punctuation goes before articles, and glues
        ("U.S.A.", "usa"),
        ("  two   spaces\t\n", "two spaces"),
        ("don't!", "dont"),
        ("$3.50 (approx.)", "350 approx"),
        ("«oui»", "«oui»"),  # ASCII punctuation only
        ("“yes” – no…", "“yes” – no…"),
        ("el perro", "el perro"),  # English articles only
        ("नदी शांत थी।", "नदी शांत थी।"),  # the danda stays
        ("ÉCOLE", "école"),
        ("", ""),
        ("The", ""),
    ],
)
def test_squad_s_normalization(text, normal):
    assert normalize_answer(text) == normal


@pytest.mark.parametrize(
    ("language", "text", "normal"),
    [
        ("en", "The “Cat”, an owl", "cat owl"),
        ("en", "el perro", "el perro"),
        ("es", "El perro y la gata: ¿unos amigos?", "perro y gata amigos"),
        ("es", "¡Las Américas!", "américas"),
        ("es", "una, un; unas, los", ""),
        ("es", "él vino", "él vino"),  # a pronoun, not the article
        ("es", "elefante", "elefante"),
        ("es", "the cat", "the cat"),
        ("vi", "Những cái cây của làng là xanh", "cây làng xanh"),
        ("vi", "chiếc xe", "xe"),
        ("vi", "cáihang", "cáihang"),
        ("hi", "नदी शांत थी।", "नदी शांत थी"),  # the danda is punctuation
        ("hi", "पहला॥ दूसरा, तीसरा", "पहला दूसरा तीसरा"),
        ("hi", "हिन्दी की किताब", "हिन्दी की किताब"),  # vowel signs and viramas stay, and there are no articles
        ("hi", "१२ कि.मी.", "१२ किमी"),
        ("hi", "the cat", "the cat"),
        ("de", "Der Hund, die Katze – „ein“ Tier", "hund katze tier"),
        ("ar", "البيت الكبير،", "بيت كبير"),
        ("zh", "中国人民。", "中 国 人 民"),
        ("zh", "1998年NBA 总决赛", "1998 年 nba 总 决 赛"),
        ("vi", "«Sông – Hồng»…", "sông hồng"),
        ("en", "full．width，marks！", "fullwidthmarks"),
        ("en", "5 + 3 = $8", "5 3 8"),  # ASCII's signs, though Unicode calls them symbols
        ("en", "20 °C €5", "20 °c €5"),  # other symbols are no punctuation
    ],
)
def test_mlqa_s_normalization(language, text, normal):
    assert normalize_answer(text, language) == normal


def test_mlqa_has_no_russian():
    with pytest.raises(ValueError, match="MLQA has no normalization for ru, only for en, es, vi"):
        normalize_answer("река", "ru")


# --- Answers: exact match and F1 ---


@pytest.mark.parametrize(
    ("prediction", "answers", "language", "exact_match", "f1"),
    [
        ("the cat", ["The cat."], None, 1, 1),
        ("black cat", ["the cat"], None, 0, 2 / 3),  # precision 1/2, recall 1
        ("cat", ["the big black cat"], None, 0, 1 / 2),  # precision 1, recall 1/3
        ("dog", ["cat"], None, 0, 0),
        ("cat cat dog", ["cat dog dog"], None, 0, 2 / 3),  # a word counts as often as both have it
        ("cat", ["dog", "black cat", "cat"], None, 1, 1),  # the closest of several
        ("red cat", ["red fox", "black cat sat"], None, 0, 1 / 2),
        ("", ["cat"], None, 0, 0),
        ("the", ["a"], None, 1, 0),  # both empty: equal, but without a word in common
        ("नदी शांत थी", ["नदी शांत थी।"], None, 0, 2 / 3),  # SQuAD's rules keep the danda at the last word
        ("नदी शांत थी", ["नदी शांत थी।"], "hi", 1, 1),
        ("el río Ebro", ["Ebro"], None, 0, 1 / 2),
        ("el río Ebro", ["río Ebro"], "es", 1, 1),
        ("của Hà Nội", ["Hà Nội"], "vi", 1, 1),
        ("реки Волги.", ["реки Волги"], None, 1, 1),
        ("中国人", ["中国"], "zh", 0, 4 / 5),
    ],
)  # fmt: skip
def test_exact_match_and_f1(prediction, answers, language, exact_match, f1):
    assert answer_scores(prediction, answers, language) == (exact_match, pytest.approx(f1))


@pytest.mark.parametrize(
    ("prediction", "answers", "exact_match", "f1"),
    [
        ("", [], 1, 1),
        ("cat", [], 0, 0),
        ("the", [], 1, 1),  # nothing is left of it
        ("", ["cat"], 0, 0),
        ("", ["the"], 1, 1),  # an answer of which nothing is left counts as none
        ("cat", ["the", "cat"], 1, 1),
        ("", ["the", "cat"], 0, 0),  # the others count then
    ],
)
def test_squad_v2(prediction, answers, exact_match, f1):
    assert answer_scores(prediction, answers, version_2=True) == (exact_match, f1)


TEXTS = st.lists(st.sampled_from(["the", "cat", "Cat.", "dog", "नदी", "नदी।", "río", "el", "।", "1"]), max_size=6).map(
    " ".join
)


@given(TEXTS, TEXTS, st.sampled_from([None, "en", "es", "vi", "hi"]))
def test_f1_is_symmetric_and_1_for_what_is_equal(one, other, language):
    there, back = answer_scores(one, [other], language), answer_scores(other, [one], language)
    assert there == (back[0], pytest.approx(back[1]))
    assert 0 <= there[1] <= 1
    if there[0]:
        assert there[1] == (1 if normalize_answer(one, language) else 0)


@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=3), TEXTS)
def test_another_right_answer_never_harms(prediction, answers, another):
    before, after = answer_scores(prediction, answers), answer_scores(prediction, [*answers, another])
    assert after[0] >= before[0]
    assert after[1] >= before[1]


# --- Answers: the metrics ---


def scores_of(*triples, **rules):
    """Scores of (prediction, answers, no-answer score), and what `version_2_scores` needs besides them."""
    texts, answers, doubts = zip(*triples)
    scores = [answer_scores(text, right, **rules) for text, right in zip(texts, answers)]
    return scores, list(map(bool, answers)), list(map(bool, texts)), doubts


def test_means_by_squad_s_rules():
    scores, *_ = scores_of(
        ("the cat", ["cat"], 0), ("black cat", ["cat"], 0), ("", ["dog"], 0), ("x y", ["x", "x y"], 0)
    )
    assert mean_scores(scores, "exact_match", "f1") == {
        "exact_match": 50,
        "f1": pytest.approx(100 * (1 + 2 / 3 + 0 + 1) / 4),
    }


def test_squad_v2_metrics():
    """Four questions, two of them with an answer; both thresholds are worked out by hand."""
    found = version_2_scores(
        *scores_of(
            ("cat", ["cat"], -3.0), ("", [], 4.0), ("black cat", ["cat"], -1.0), ("owl", [], 1.0), version_2=True
        )
    )
    # Right: the first, the second; the third in part. Answering only what is surer than 1 turns the last one right.
    assert found == {
        "exact_match": 50, "f1": pytest.approx(100 * (1 + 1 + 2 / 3 + 0) / 4),
        "HasAns_exact": 50, "HasAns_f1": pytest.approx(100 * (1 + 2 / 3) / 2), "HasAns_total": 2,
        "NoAns_exact": 50, "NoAns_f1": 50, "NoAns_total": 2,
        "best_exact": 75, "best_exact_thresh": -3, "best_f1": pytest.approx(100 * (1 + 2 / 3 + 2) / 4), "best_f1_thresh": -1,
    }  # fmt: skip


def test_answering_nothing_can_be_best():
    found = version_2_scores(*scores_of(("cat", ["dog"], 0.0), ("owl", [], 1.0), version_2=True))
    assert (found["exact_match"], found["best_exact"], found["best_exact_thresh"]) == (0, 50, 0)


def test_means_by_mlqa_s_rules():
    scores, *_ = scores_of(("el río", ["un río"], 0), ("río", ["río Ebro"], 0), ("", ["x"], 0), language="es")
    means = mean_scores(scores, "exact_match", "f1")
    assert means == {"exact_match": pytest.approx(100 / 3), "f1": pytest.approx(100 * (1 + 2 / 3) / 3)}


# --- Entities ---


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("B-PER I-PER O B-LOC", [("PER", 0, 1), ("LOC", 3, 3)]),
        ("O I-PER I-PER O", [("PER", 1, 2)]),  # I after O begins one
        ("B-PER B-PER", [("PER", 0, 0), ("PER", 1, 1)]),  # adjacent ones
        ("I-PER B-PER I-PER", [("PER", 0, 0), ("PER", 1, 2)]),
        ("B-PER I-LOC", [("PER", 0, 0), ("LOC", 1, 1)]),  # another type begins one
        ("I-PER I-LOC I-LOC", [("PER", 0, 0), ("LOC", 1, 2)]),
        ("O O", []),
        ("", []),
        ("B-ORG I-ORG", [("ORG", 0, 1)]),  # to the end of the sentence
        ("B-PER I-PER E-PER S-LOC", [("PER", 0, 2), ("LOC", 3, 3)]),  # BIOES
        ("E-PER I-PER", [("PER", 0, 0), ("PER", 1, 1)]),
        ("S-PER I-PER", [("PER", 0, 0), ("PER", 1, 1)]),
        ("B-work-of-art I-work-of-art", [("work-of-art", 0, 1)]),
    ],
)
def test_entities(tags, found):
    assert entities(tags.split()) == found


def test_entity_scores_by_hand():
    right = [["B-PER", "I-PER", "O", "B-LOC", "O"], ["B-ORG", "O", "B-LOC"], ["O", "O"]]
    #         whole entity      wrong end         right one       one too many
    predicted = [["B-PER", "I-PER", "O", "B-LOC", "I-LOC"], ["B-LOC", "O", "B-LOC"], ["O", "B-PER"]]
    scores = entity_scores(predicted, right)
    # Predicted: PER, LOC | LOC, LOC | PER. Right: PER, LOC | ORG, LOC. In common: PER and the last LOC.
    assert scores[""] == {"precision": 2 / 5, "recall": 2 / 4, "f1": pytest.approx(4 / 9), "number": 4}
    assert scores["PER"] == {"precision": 1 / 2, "recall": 1, "f1": pytest.approx(2 / 3), "number": 1}
    assert scores["LOC"] == {"precision": 1 / 3, "recall": 1 / 2, "f1": pytest.approx(2 / 5), "number": 2}
    assert scores["ORG"] == {"precision": 0, "recall": 0, "f1": 0, "number": 1}


def test_an_entity_does_not_go_on_in_the_next_sentence():
    split, whole = [["B-PER"], ["I-PER"]], [["B-PER", "I-PER"]]
    assert entity_scores(split, split)[""]["number"] == 2
    assert entity_scores(whole, whole)[""]["number"] == 1


def test_seqeval_metric():
    metric = load_metric("seqeval")
    found = metric.compute(predictions=[["B-PER", "O"], ["O"]], references=[["B-PER", "B-LOC"], ["O"]])
    assert {name: found[name] for name in ("precision", "recall", "f1", "number", "accuracy")} == {
        "precision": 1, "recall": 1 / 2, "f1": pytest.approx(2 / 3), "number": 2, "accuracy": pytest.approx(2 / 3),
    }  # fmt: skip
    assert found["LOC"]["recall"] == 0
    nothing = load_metric("seqeval").compute(predictions=[["O"]], references=[["O"]])
    assert (nothing["f1"], nothing["number"], nothing["accuracy"]) == (0, 0, 1)
    with pytest.raises(ValueError, match="Sentence 1 has 1 predicted tags and 2 right ones"):
        load_metric("seqeval").compute(predictions=[["O"], ["O"]], references=[["O"], ["O", "O"]])


# --- Loading ---


def test_accuracy():
    assert load_metric("accuracy").compute(predictions=[0, 1, 2, 1], references=[0, 1, 1, 1]) == {"accuracy": 0.75}


@pytest.mark.parametrize("name", METRICS)
def test_metrics_load_as_evaluate_loads_them(monkeypatch, tmp_path, name):
    """By path, from anywhere, without the Hub."""
    folder = utils.evaluation.metrics.__path__[0]
    monkeypatch.chdir(tmp_path)
    assert evaluate.load(f"{folder}/{name}.py").name == load_metric(name).name == name


def test_an_unknown_metric_raises():
    with pytest.raises(InputError, match="bleu"):
        load_metric("bleu")
