"""The draw of related and unrelated words, their vectors and distances: by hand, by loops, and what must change nothing."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from matplotlib.image import imread

from helpers import tiny
from helpers.figures import inked
from helpers.pairs import SENTENCES, WORD_TOKENIZER, some_pairs
from utils.alignment.pairs import AlignmentCollator, encode_pairs
from utils.alignment.words import WordTokenizer, word_vectors
from utils.evaluation.distance_report import bootstrap_interval, distance_metrics, distance_table, write_distances
from utils.evaluation.figures import plot_distances, plot_distances_by_layer
from utils.evaluation.vectors import encode_words
from utils.evaluation.word_distances import (
    Triples,
    WordDistances,
    compare_vectors,
    cosine_distances,
    draw_triples,
    l2_distances,
    measure_words,
    with_vectors,
)


def bitext(*pairs: tuple[str, str, list]) -> Dataset:
    source, english, links = zip(*pairs)
    return Dataset.from_dict(
        {"source": [s.split() for s in source], "english": [e.split() for e in english], "links": list(links)}
    )


def many_pairs(n: int = 200, length: int = 10, seed: int = 0) -> Dataset:
    """Pairs of invented words, each linked with the one in its own place."""
    random = np.random.default_rng(seed)
    english = [[f"e{word}" for word in random.integers(60, size=length)] for _ in range(n)]
    source = [[f"s{word}" for word in random.integers(60, size=length)] for _ in range(n)]
    return Dataset.from_dict({"source": source, "english": english, "links": [[[k, k] for k in range(length)]] * n})


# --- Which words -------------------------------------------------------------------------------------------------


def test_unrelated_words_are_unrelated():
    pairs = many_pairs()
    triples = draw_triples(pairs, seed=3)
    assert len(triples) == 2000
    same_pair = triples.pair == triples.unrelated_pair
    assert same_pair.mean() == pytest.approx(0.5, abs=0.04)
    for pair, i, j, other, word in zip(
        triples.pair, triples.source, triples.english, triples.unrelated_pair, triples.unrelated
    ):
        assert [i, j] in pairs[int(pair)]["links"]
        assert pairs[int(other)]["english"][word] != pairs[int(pair)]["english"][j]
    # Every word of the other pairs has the same chance.
    others = np.bincount(triples.unrelated_pair[~same_pair], minlength=200)
    assert others.max() < 20
    assert (others > 0).mean() > 0.95


def test_words_linked_with_the_same_word_or_spelled_alike_are_not_unrelated():
    pairs = bitext(("a b", "The cat the dog THE", [[0, 0], [0, 1], [1, 2]]), ("c", "the", [[0, 0]]))
    for seed in range(20):
        triples = draw_triples(pairs, seed=seed)
        found = {(k, i, j): (o, w) for k, i, j, o, w in zip(*(getattr(triples, f) for f in triples.__match_args__))}
        assert found[0, 0, 0] == (0, 3)  # nothing but the dog: neither `the` nor the linked cat
        assert found[0, 1, 2] in ((0, 1), (0, 3))
        assert found[0, 0, 1] in ((0, 2), (0, 3), (0, 4), (1, 0))
        assert found[1, 0, 0] in ((0, 1), (0, 3))


def test_a_link_without_unrelated_word_is_left_out():
    assert len(draw_triples(bitext(("a", "x", [[0, 0]]), ("b", "X", [[0, 0]])))) == 0
    assert len(draw_triples(bitext(("a", "x", []), ("b", "y", [])))) == 0
    one_sentence = draw_triples(bitext(("a", "x y", [[0, 0]])), seed=1)
    assert (one_sentence.unrelated_pair.tolist(), one_sentence.unrelated.tolist()) == ([0], [1])


def test_the_draw_is_seeded_and_bounded():
    pairs = many_pairs()
    one, same, other = (draw_triples(pairs, 300, seed) for seed in (1, 1, 2))
    assert len(one) == len(set(map(tuple, one.source_words.tolist()))) == 300
    for name in one.__match_args__:
        np.testing.assert_array_equal(getattr(one, name), getattr(same, name))
    assert not np.array_equal(one.unrelated, other.unrelated)
    assert (np.diff(one.pair) >= 0).all()


def test_words_that_one_model_lacks_are_measured_by_none():
    pairs = bitext(
        ("la \u200b casa", "the small house there", [[0, 0], [1, 1], [2, 2]]),
        ("el gato negro", "the black \u00ad", [[1, 2], [2, 1]]),
    )
    short, long = (WordTokenizer(tiny.tokenizer(), max_length=n) for n in (8, 64))
    drawn = draw_triples(pairs, seed=5)
    by_both = with_vectors(drawn, pairs, [short, long])
    for words, side in ((by_both.source_words, "source"), (by_both.english_words, "english")):
        for sentence, position in words.tolist():
            for tokenizer in (short, long):
                assert position in tokenizer([pairs[sentence][side]])["words"][0]
    by_long = with_vectors(drawn, pairs, [long])
    assert len(by_both) < len(by_long) < len(drawn)
    assert (0, 1) not in set(map(tuple, by_long.source_words.tolist()))
    assert len(with_vectors(drawn.select(np.arange(0)), pairs, [long])) == 0


# --- Their vectors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["avg", "start", "end"])
@pytest.mark.parametrize("kind", tiny.TOKENIZERS)
def test_vectors_are_those_of_training(kind, pooling):
    """The vectors of linked words, as `AlignmentLoss` has them."""
    words, model = WordTokenizer(tiny.tokenizer(kind), pooling, 64), tiny.model(head="", seed=1)
    pairs = some_pairs(7)
    layers = [0, 2]
    batch = AlignmentCollator(0)(list(encode_pairs(pairs, words, include_special_tokens=False)))
    with torch.no_grad():
        expected = word_vectors(model, batch, "english", layers)
    expected = torch.stack([vectors[batch["links"][:, 1]] for vectors in expected])
    links = np.array([(k, i, j, k, j) for k, links in enumerate(pairs["links"]) for i, j in links])
    wanted = with_vectors(Triples(*links.T), pairs, [words]).english_words[: len(batch["links"])]
    for batch_size in (1, 3, 64):
        vectors = encode_words(model, words, pairs["english"], wanted, layers, batch_size)
        assert vectors.dtype == torch.float32
        torch.testing.assert_close(vectors, expected, rtol=1e-5, atol=1e-5)


def test_words_come_in_the_order_they_were_asked_for():
    model = tiny.model(head="", seed=1)
    wanted = np.array([(3, 2), (0, 1), (3, 2), (3, 0), (0, 4)])
    vectors = encode_words(model, WORD_TOKENIZER, SENTENCES, wanted, [1, 2])
    assert vectors.shape == (2, 5, 16)
    assert torch.equal(vectors[:, 0], vectors[:, 2])
    for k, word in enumerate(wanted):
        alone = encode_words(model, WORD_TOKENIZER, SENTENCES, word[None], [1, 2])
        torch.testing.assert_close(alone[:, 0], vectors[:, k], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("none", [np.zeros((0, 2), int), np.array([])])
def test_no_words_have_no_vectors(none):
    vectors = encode_words(tiny.model(head="", seed=1), WORD_TOKENIZER, SENTENCES, none, [0, 2])
    assert (vectors.shape, vectors.dtype) == ((2, 0, 16), torch.float32)


def test_vectors_that_are_no_numbers():
    model = tiny.model(head="", seed=1)
    with torch.no_grad():
        model.embeddings.LayerNorm.bias.fill_(float("nan"))
    pairs = many_pairs(3)
    found = measure_words(model, WORD_TOKENIZER, pairs, with_vectors(draw_triples(pairs), pairs, [WORD_TOKENIZER]))
    assert not found[-1]["cosine"].is_finite
    assert np.isnan(found[-1]["l2"].share_nearer)
    assert comparison().is_finite


# --- Their distances ---------------------------------------------------------------------------------------------

SOURCE = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
ENGLISH = torch.tensor([[0.0, 0.0], [0.0, 1.0], [0.0, 5.0], [2.0, 2.0]])
UNRELATED = torch.tensor([[3.0, 0.0], [-1.0, 0.0], [0.0, -1.0], [0.0, 0.0]])


def test_distances_by_hand():
    assert l2_distances(SOURCE, UNRELATED).tolist() == pytest.approx([4, 2, 3, 2**0.5])
    assert cosine_distances(SOURCE[1:3], UNRELATED[1:3]).tolist() == pytest.approx([2, 2])
    assert cosine_distances(SOURCE[:1], UNRELATED[:1]).tolist() == pytest.approx([1 - 3 / 5])
    assert l2_distances(SOURCE, SOURCE).tolist() == [0, 0, 0, 0]


def test_comparison_by_hand():
    found = compare_vectors(SOURCE, ENGLISH, UNRELATED, "l2")
    assert found.related.tolist() == pytest.approx([5, 2**0.5, 3, 2**0.5])
    assert found.difference.tolist() == pytest.approx([-1, 2 - 2**0.5, 0, 0])
    assert found.nearer.tolist() == [0, 1, 0.5, 0.5]
    assert found.share_nearer == 0.5
    # Nearest, from the first on: (2, 2), (0, 0), (0, 1), (0, 1); back: (1, 0), (0, 2), (0, 2), (1, 1).
    assert (found.to_english, found.from_english) == (0, 2 / 4)
    by_angle = compare_vectors(SOURCE[1:3], torch.tensor([[5.0, 1.0], [1.0, 5.0]]), UNRELATED[1:3], "cosine")
    assert (by_angle.to_english, by_angle.from_english, by_angle.share_nearer) == (1, 1, 1)


def test_bootstrap_interval():
    values = np.random.default_rng(0).normal(size=400)
    low, high = bootstrap_interval(values, np.mean, 2000)
    standard_error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * standard_error, abs=0.2 * standard_error)
    assert high == pytest.approx(values.mean() + 1.96 * standard_error, abs=0.2 * standard_error)
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values) != bootstrap_interval(values, seed=1)
    assert bootstrap_interval(np.full(7, 2.5)) == (2.5, 2.5)


def test_the_interval_holds_the_median_as_often_as_it_says():
    random = np.random.default_rng(0)
    hits = [low <= 0 <= high for low, high in (bootstrap_interval(random.normal(size=80), n_resamples=200, seed=k)
                                               for k in range(300))]  # fmt: skip
    assert np.mean(hits) == pytest.approx(0.95, abs=0.035)


def aligned_vectors(n: int = 2000, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Source and English vectors that agree but for noise, and English vectors of other words."""
    generator = torch.Generator().manual_seed(seed)
    words, noise, others = (torch.randn(n, 12, generator=generator) for _ in range(3))
    return words, words + 0.5 * noise, others


@pytest.mark.parametrize("distance", ["l2", "cosine"])
def test_shuffled_links_make_related_words_unrelated(distance):
    source, english, unrelated = aligned_vectors()
    linked = compare_vectors(source, english, unrelated, distance)
    assert linked.share_nearer > 0.95
    shuffled = compare_vectors(source, english[torch.randperm(2000)], english[torch.randperm(2000)], distance)
    low, high = bootstrap_interval(shuffled.difference)
    assert low < 0 < high
    assert shuffled.share_nearer == pytest.approx(0.5, abs=3 * 0.5 / 2000**0.5)
    assert shuffled.to_english < 0.01 < 0.8 < linked.to_english


def test_shuffled_sentences_make_related_words_unrelated():
    """From sentences to distances: an encoder without any training finds the same word, and nothing in other sentences."""
    random, words = np.random.default_rng(0), sorted({word for sentence in SENTENCES for word in sentence})
    sentences = [random.choice(words, 8, replace=False).tolist() for _ in range(300)]
    model = tiny.model(head="", seed=1)
    shares = {}
    for name, order in (("linked", np.arange(300)), ("shuffled", random.permutation(300))):
        english = [sentences[k] for k in order]
        # (Words in the same place are a little alike, for their positions.)
        places = [range(8) if name == "linked" else random.permutation(8).tolist() for _ in range(300)]
        links = [[[i, j] for i, j in enumerate(of_pair)] for of_pair in places]
        pairs = Dataset.from_dict({"source": sentences, "english": english, "links": links})
        triples = with_vectors(draw_triples(pairs), pairs, [WORD_TOKENIZER])
        found = measure_words(model, WORD_TOKENIZER, pairs, triples, [2])[2]
        shares[name] = [found[distance].share_nearer for distance in ("l2", "cosine")]
    assert min(shares["linked"]) > 0.95
    # (By chance some words are linked with themselves even now, but are never drawn as unrelated.)
    assert shares["shuffled"] == pytest.approx([0.5, 0.5], abs=0.04)


def test_a_model_and_itself():
    pairs = many_pairs(30)
    triples = with_vectors(draw_triples(pairs), pairs, [WORD_TOKENIZER])
    one, same = (measure_words(tiny.model(head="", seed=1), WORD_TOKENIZER, pairs, triples, [0, 2]) for _ in range(2))
    for layer in (0, 2):
        for distance in ("l2", "cosine"):
            assert np.array_equal(one[layer][distance].related, same[layer][distance].related)
            assert np.array_equal(one[layer][distance].unrelated, same[layer][distance].unrelated)
    assert distance_metrics({"hi": one}) == distance_metrics({"hi": same})


# --- What is written ---------------------------------------------------------------------------------------------


def comparison(n: int = 100, shift: float = 1.0) -> WordDistances:
    random = np.random.default_rng(n)
    return WordDistances(random.random(n), random.random(n) + shift, 0.75, 0.5)


def test_metrics_by_flat_names():
    found = WordDistances(np.array([1.0, 2.0, 6.0]), np.array([2.0, 2.0, 5.0]), 0.75, 0.5, 0.1, 0.2)
    metrics = distance_metrics({"hi": {4: {"l2": found}}})
    assert len(metrics) == 4 * 3 + 4
    assert metrics.items() >= {
        "hi_layer4_l2_median_related": 2, "hi_layer4_l2_median_unrelated": 2, "hi_layer4_l2_median_difference": 0,
        "hi_layer4_l2_share_nearer": 0.5, "hi-en_layer4_l2_word_retrieval_accuracy": 0.75,
        "en-hi_layer4_l2_word_retrieval_accuracy": 0.5, "hi_layer4_l2_median_related_low": 1,
        "hi_layer4_l2_median_related_high": 6, "hi_layer4_l2_spread_source": 0.1, "hi_layer4_l2_spread_english": 0.2,
    }.items()  # fmt: skip


def test_table():
    layers = {3: {"l2": comparison()}, 11: {"l2": comparison(50, 2.0), "cosine": comparison(60)}}
    lines = distance_table({"a" * 40: {"hi": layers, "ru": layers}, "b": {"hi": layers}}).text().splitlines()
    assert len(lines) == 1 + 2 * 2 + 2
    assert max(map(len, lines)) <= 100
    assert [line.split()[1:4] for line in lines[1:3]] == [["hi", "11", "l2"], ["hi", "11", "cosine"]]
    assert f"{np.median(layers[11]['l2'].unrelated):.3f}" in lines[1]


def test_distances_link_by_link(tmp_path):
    pairs = bitext(("la casa", "the house", [[0, 0], [1, 1]]), ("gato", "cat", [[0, 0]]))
    triples = Triples(*np.array([[0, 1, 1, 1, 0], [1, 0, 0, 0, 0]]).T)
    found = {name: WordDistances(np.array([1.0, 2.0]), np.array([3.0, 4.0]), 1, 1) for name in ("l2", "cosine")}
    write_distances(tmp_path / "d.arrow", {"m": {"es": {2: found}}, "n": {"es": {5: found}}}, {"es": (pairs, triples)})
    rows = Dataset.from_file(str(tmp_path / "d.arrow"))
    assert len(rows) == 8
    assert rows[5] == {
        "model": "n", "language": "es", "layer": 5, "distance": "l2", "link": 1, "pair": 1, "source_word": "gato",
        "related_word": "cat", "unrelated_word": "the", "same_pair": False, "related": 2.0, "unrelated": 4.0,
    }  # fmt: skip
    assert (rows[0]["unrelated_word"], rows[2]["distance"]) == ("cat", "cosine")


@pytest.mark.usefixtures("figures")
def test_figures(tmp_path):
    histograms = {f"model-{k}": {name: comparison(50 + k) for name in ("l2", "cosine")} for k in range(3)}
    plot_distances(histograms, tmp_path / "h", "Title")
    curves = {f"model-{k}": {layer: layer / (4 + k) for layer in range(4 + k)} for k in range(3)}
    values = {model: {layer: [v] for layer, v in curve.items()} for model, curve in curves.items()}
    bands = {model: {layer: [v, v - 0.05, v + 0.05] for layer, v in curve.items()} for model, curve in curves.items()}
    panels = {name: {"Median, related words": values, "Related word nearer": bands} for name in ("l2", "cosine")}
    plot_distances_by_layer(panels, tmp_path / "c", "Title")
    for name in ("h", "c"):
        assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert 0.02 < inked(tmp_path / f"{name}.png") < 0.6
    # Related and unrelated words differ without colors: where only the one or the other is, it is not equally dark.
    plot_distances({"m": {"l2": WordDistances(np.zeros(9), np.full(9, 9.0), 0, 0)}}, tmp_path / "gray")
    gray = imread(tmp_path / "gray.png")[..., :3].mean(axis=2)
    height, width = gray.shape
    bars = gray[height // 3 : height // 2, : width // 2]
    related, unrelated = bars[:, : width // 4], bars[:, width // 4 :]
    assert abs(related[related < 0.95].mean() - unrelated[unrelated < 0.95].mean()) > 0.02
