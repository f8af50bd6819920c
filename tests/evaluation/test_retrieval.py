"""Nearest neighbors, sentence vectors, sentence pairs."""

import gzip
from itertools import permutations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from helpers import tiny
from helpers.paths import REFERENCE
from helpers.retrieval import dataset, reference_sentences
from utils.core.errors import InputError
from utils.evaluation import neighbors
from utils.evaluation import vectors as encoding
from utils.evaluation.figures import plot_accuracy_by_layer
from utils.evaluation.neighbors import RETRIEVAL_DISTANCES, Retrieval, retrieve
from utils.evaluation.sentence_pairs import SentencePairs, load_sentence_pairs, read_sentence_files
from utils.evaluation.sentence_retrieval import (
    curves_by_layer,
    mexa_by_layer,
    mexa_table,
    retrieval_metrics,
    retrieval_table,
    retrieve_translations,
)
from utils.evaluation.vectors import encode_sentences
from utils.models.encoders import load_encoder
from utils.models.hub import label_models
from utils.models.layers import parse_layers, usual_layer
from utils.models.loading import load_config
from utils.models.tokenizers import load_tokenizer


# --- The paper's own code ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference_encoder():
    return load_encoder(str(REFERENCE / "model")), load_tokenizer(str(REFERENCE / "model"))


@pytest.mark.parametrize(("number", "language"), enumerate(("es", "ru", "hi", "vi")))
def test_every_recorded_retrieval(reference_encoder, expected, number, language):
    recorded = [r for r in expected["retrieval"] if r["language"] == language]
    assert len(recorded) == 6
    layers = sorted({r["layer"] for r in recorded})
    source, english = (encode_sentences(*reference_encoder, side, layers) for side in reference_sentences(number))
    for r in recorded:
        found = retrieve(source[layers.index(r["layer"])], english[layers.index(r["layer"])], r["distance"])
        assert found.nearest.tolist() == r["nearest"]
        assert found.accuracy == pytest.approx(r["accuracy"], rel=1e-5)
        assert found.mrr == pytest.approx(r["mrr"], rel=1e-5)


# --- Nearest neighbors ------------------------------------------------------------------------------------------


def similarity(queries, candidates, distance):
    """The whole matrix in double precision, straight from the definitions."""
    queries, candidates = queries.double(), candidates.double()
    if distance == "centered":
        queries, candidates = queries - queries.mean(dim=0), candidates - candidates.mean(dim=0)
    if distance == "l2":
        return -(queries[:, None] - candidates[None]).norm(dim=2)
    cosine = F.normalize(queries, dim=1) @ F.normalize(candidates, dim=1).T
    if distance in ("cosine", "centered"):
        return cosine
    of_queries = torch.stack([row.sort(descending=True).values[:10].mean() for row in cosine])
    of_candidates = torch.stack([column.sort(descending=True).values[:10].mean() for column in cosine.T])
    return 2 * cosine - of_queries[:, None] - of_candidates[None]


def retrieve_naively(queries, candidates, distance, gold) -> Retrieval:
    scores = similarity(queries, candidates, distance)
    right = scores[torch.arange(len(queries)), gold]
    best = scores.max(dim=1).values
    # The first of the best: argmax of a Boolean is the first True.
    nearest = (scores >= best[:, None] - 1e-9).int().argmax(dim=1)
    return Retrieval(nearest, (scores >= right[:, None] - 1e-9).sum(dim=1), best, gold)


@given(
    n_queries=st.integers(1, 40),
    n_candidates=st.integers(1, 40),
    dimensions=st.integers(3, 8),
    repeated=st.floats(0, 1),
    block_size=st.integers(1, 50),
    distance=st.sampled_from(list(RETRIEVAL_DISTANCES)),
    seed=st.integers(0, 10**6),
)
def test_blocks_find_what_the_definition_finds(
    n_queries, n_candidates, dimensions, repeated, block_size, distance, seed
):
    random = torch.Generator().manual_seed(seed)
    queries = torch.randn(n_queries, dimensions, generator=random)
    candidates = torch.randn(n_candidates, dimensions, generator=random)
    copied = torch.rand(n_candidates, generator=random) < repeated
    candidates[copied] = candidates[torch.randint(n_candidates, (n_candidates,), generator=random)][copied]
    gold = torch.randint(n_candidates, (n_queries,), generator=random)
    found = retrieve(queries, candidates, distance, block_size, gold)
    naive = retrieve_naively(queries, candidates, distance, gold)
    assert found.nearest.tolist() == naive.nearest.tolist()
    assert found.rank.tolist() == naive.rank.tolist()
    torch.testing.assert_close(found.score.double(), naive.score, rtol=1e-4, atol=2e-3 if distance == "l2" else 1e-5)
    assert found.accuracy == naive.accuracy
    assert found.mrr == naive.mrr


@given(
    st.lists(st.tuples(*[st.integers(-3, 3)] * 3), min_size=1, max_size=12),
    st.integers(1, 12),
    st.sampled_from([1, 2, 5, 100]),
)
def test_different_candidates_equally_far_away_tie(rows, n_queries, block_size):
    """Squared distances of whole numbers are exact in both, and there are many ties."""
    candidates = torch.tensor(rows).float()
    queries = candidates.flip(1)[:n_queries]
    gold = torch.arange(len(queries))
    found = retrieve(queries, candidates, "l2", block_size)
    naive = retrieve_naively(queries, candidates, "l2", gold)
    assert found.nearest.tolist() == naive.nearest.tolist()
    assert found.rank.tolist() == naive.rank.tolist()


@pytest.mark.parametrize("distance", RETRIEVAL_DISTANCES)
@pytest.mark.parametrize("width", [33, 768])
@pytest.mark.parametrize("block_size", [64, 77, 4096])
def test_copies_in_any_block_are_equally_near(distance, width, block_size):
    """The last digits of a score depend on its place in a matrix; which copy is nearest, and the rank, must not."""
    vectors = torch.randn(100, width) + torch.randn(width)
    copies = torch.cat([vectors, vectors[torch.randperm(100)], vectors[:1].expand(50, -1)])
    original = (copies[:, None, 0] == vectors[None, :, 0]).int().argmax(dim=1)
    n_copies = torch.bincount(original)
    found = retrieve(copies, copies, distance, block_size)
    assert found.nearest.tolist() == original.tolist()
    assert found.rank.tolist() == n_copies[original].tolist()
    assert found.accuracy == pytest.approx(100 / 250)


@pytest.mark.parametrize(
    ("distance", "noise"), [("cosine", 0), ("l2", 0), ("csls", 0), ("cosine", 1e-6), ("csls", 1e-6)]
)
@pytest.mark.parametrize("block_size", [64, 4096])
def test_a_collapsed_encoder_is_no_better_than_chance(distance, noise, block_size):
    vectors = torch.randn(1, 384) * (1 + noise * torch.randn(200, 384))
    found = retrieve(vectors, vectors, distance, block_size)
    assert found.rank.tolist() == [200] * 200
    assert found.nearest.tolist() == [0] * 200
    assert (found.mrr, found.accuracy) == pytest.approx((1 / 200, 1 / 200))


def test_a_small_difference_is_not_a_tie():
    """Cosines of 0.99999 and 0.99998 from each other, as in encoders whose vectors all point in one direction."""
    direction = torch.ones(1, 768)
    vectors = direction + 0.02 * torch.randn(300, 768)
    found = retrieve(vectors + 0.004 * torch.randn(300, 768), vectors)
    assert found.score.min() > 0.9995
    assert found.mrr == found.accuracy == 1


def test_an_unknown_distance_is_refused():
    with pytest.raises(InputError, match="manhattan"):
        retrieve(torch.ones(2, 3), torch.ones(2, 3), "manhattan")


def test_l2_far_from_the_origin():
    """Encoders like XLM-R have dimensions with huge values that all sentences share."""
    vectors, noise = torch.randn(2, 200, 16)
    offset = torch.zeros(16)
    offset[3] = 3e3
    near = retrieve(vectors, vectors + 0.3 * noise, "l2")
    far = retrieve(vectors + offset, vectors + 0.3 * noise + offset, "l2")
    assert far.nearest.tolist() == near.nearest.tolist()
    torch.testing.assert_close(far.score, near.score, rtol=1e-3, atol=1e-2)


def test_csls_is_fair_to_hubs():
    """Candidate 30 is what all queries have in common, and so everybody's nearest by cosine."""
    candidates = torch.eye(31)
    queries = candidates[:30] + 1.2 * candidates[30]
    gold = torch.arange(30)
    assert retrieve(queries, candidates, "cosine", gold=gold).accuracy == 0
    assert retrieve(queries, candidates, "csls", gold=gold).accuracy == 1


def test_centering_takes_away_what_a_language_shares():
    meaning = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    source, english = meaning + torch.tensor([3.0, 0.0]), meaning + torch.tensor([0.0, 3.0])
    assert retrieve(source, english, "cosine").accuracy < 1
    assert retrieve(source, english, "centered").accuracy == 1


def test_mean_reciprocal_rank():
    queries = torch.tensor([[0.0], [1.0], [4.0]])
    candidates = torch.tensor([[1.0], [1.0], [9.0], [3.0]])
    found = retrieve(queries, candidates, "l2")
    assert found.nearest.tolist() == [0, 0, 3]
    assert found.rank.tolist() == [2, 2, 4]
    assert found.score.tolist() == [-1, 0, -1]
    assert found.accuracy == pytest.approx(1 / 3)
    assert found.mrr == pytest.approx((1 / 2 + 1 / 2 + 1 / 4) / 3)
    assert list(found.rows())[2] == {"id": 2, "gold": 2, "prediction": 3, "score": -1.0, "rank": 4}


@pytest.mark.parametrize("distance", RETRIEVAL_DISTANCES)
def test_degenerate_vectors(distance):
    zeros = retrieve(torch.zeros(3, 4), torch.zeros(3, 4), distance)
    assert zeros.rank.tolist() == [3, 3, 3]
    assert zeros.score.isfinite().all()
    broken = retrieve(torch.full((3, 4), torch.nan), torch.randn(5, 4), distance)
    assert broken.rank.tolist() == [5, 5, 5]
    nothing = retrieve(torch.zeros(0, 4), torch.zeros(0, 4), distance)
    assert len(nothing.nearest) == 0


@pytest.mark.parametrize("distance", RETRIEVAL_DISTANCES)
def test_odd_blocks_find_what_one_block_finds(distance):
    queries, candidates = torch.randn(31, 16), torch.randn(67, 16)
    gold = torch.randint(67, (31,))
    whole = retrieve(queries, candidates, distance, 1000, gold)
    for block_size in (1, 13, 30, 64):
        found = retrieve(queries, candidates, distance, block_size, gold)
        assert found.nearest.tolist() == whole.nearest.tolist()
        assert found.rank.tolist() == whole.rank.tolist()
        torch.testing.assert_close(found.score, whole.score, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("distance", RETRIEVAL_DISTANCES)
def test_memory_does_not_grow_with_the_vectors(distance):
    """No tensor made on the way is as large as the vectors are, or as large as two blocks of scores."""
    block_size, width = 64, 128
    vectors = torch.randn(1000, width)

    class Largest(TorchDispatchMode):
        bytes = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            own = result if isinstance(result, (tuple, list)) else [result]
            for tensor in own:
                # (Views make nothing.)
                if isinstance(tensor, torch.Tensor) and not tensor._is_view():
                    self.bytes = max(self.bytes, tensor.nbytes)
            return result

    with Largest() as largest:
        retrieve(vectors, vectors.flip(0), distance, block_size)
        vectors.flip(0)  # the candidates, made inside here: the mode does see what is large
        assert largest.bytes == vectors.nbytes
    candidates = vectors.flip(0)
    with Largest() as largest:
        retrieve(vectors, candidates, distance, block_size)
    assert largest.bytes <= max(2 * block_size * width * 4, 2 * len(vectors) * 10 * 4) < vectors.nbytes / 4


@pytest.mark.parametrize("distance", RETRIEVAL_DISTANCES)
@pytest.mark.parametrize("kind", ["equal", "zero", "nearly equal", "apart"])
def test_collapsed_vectors_are_at_chance_and_named(caplog, distance, kind):
    torch.manual_seed(0)
    apart = torch.randn(40, 8)
    equal = torch.ones(40, 8)
    vectors = {"equal": equal, "zero": 0 * equal, "nearly equal": 1 + 1e-5 * apart, "apart": apart}[kind]
    pairs = SentencePairs("hi", [str(k) for k in range(20)], [str(k) for k in range(20)], "x")
    found = retrieve_translations(vectors.unsqueeze(0), pairs, [3], distance, torch.device("cpu"))
    if kind in ("equal", "zero"):
        assert all(found[direction][3].accuracy == found[direction][3].mrr == 1 / 20 for direction in found)
    named = [message for message in caplog.messages if "collapsed" in message]
    assert len(named) == (0 if kind == "apart" or (kind, distance) == ("nearly equal", "l2") else 2)
    assert all("layer 3" in message for message in named)


@pytest.mark.parametrize("size", [0, -1])
def test_batches_of_no_sentence(reference_encoder, size):
    with pytest.raises(InputError, match="batch size of"):
        encode_sentences(*reference_encoder, ["a"], [0], batch_size=size)


def test_zero_equals_negative_zero():
    candidates = torch.tensor([[0.0, 1.0], [-0.0, 1.0], [1.0, 0.0]])
    found = retrieve(candidates[1:2], candidates, gold=torch.tensor([1]))
    assert (found.nearest.item(), found.rank.item()) == (0, 2)


@pytest.mark.parametrize("distance", RETRIEVAL_DISTANCES)
def test_half_precision_vectors_are_compared_in_full(distance):
    queries, candidates = torch.randn(2, 40, 8).bfloat16()
    half = retrieve(queries, candidates, distance)
    full = retrieve(queries.float(), candidates.float(), distance)
    assert half.rank.tolist() == full.rank.tolist()
    assert torch.equal(half.score, full.score)


# --- Sentence vectors --------------------------------------------------------------------------------------------

SENTENCES = [*tiny.TEXT, "Да.", *tiny.TEXT[:2], "a", " ".join(tiny.TEXT)]


def pool_naively(states, special, pooling):
    """The vector of one sentence without padding; `special` says which of its tokens are special."""
    own = [state for state, is_special in zip(states, special) if not is_special] or list(states)
    if pooling == "weighted":
        return sum(i * state for i, state in enumerate(own, 1)) / sum(range(1, len(own) + 1))
    return {"mean": sum(states) / len(states), "cls": states[0], "last": own[-1]}[pooling]


def encode_one_by_one(model, tokenizer, sentences, layers, pooling):
    vectors = []
    for sentence in sentences:
        inputs = tokenizer(
            sentence, truncation=True, max_length=64, return_tensors="pt", return_special_tokens_mask=True
        )
        special = inputs.pop("special_tokens_mask")[0].tolist()
        inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            states = model(**inputs, output_hidden_states=True).hidden_states
        vectors.append(torch.stack([pool_naively(states[k][0], special, pooling) for k in layers]))
    return torch.stack(vectors, dim=1)


@pytest.mark.parametrize("pooling", encoding.SENTENCE_POOLINGS)
@pytest.mark.parametrize("n_before", [0, 1, 2])
@pytest.mark.parametrize("n_after", [0, 1])
def test_poolings_on_literal_tensors(pooling, n_before, n_after):
    """Sentences of 5, 3 and 1 tokens, with padding before or after them, or on both sides."""
    tokens = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 0, 0]]).bool()
    states = torch.arange(50.0).reshape(5, 5, 2).square()
    states[~tokens] = torch.nan
    with_special = pooling in ("mean", "cls")
    mask = tokens if with_special else encoding.without_special_tokens(tokens, n_before, n_after)
    vectors = encoding.SENTENCE_POOLINGS[pooling](states.bfloat16(), mask)
    assert vectors.dtype == torch.float32
    for vector, sentence, own in zip(vectors, states.bfloat16().float(), tokens):
        n = int(own.sum())
        special = [i < n_before or i >= n - n_after for i in range(n)]
        torch.testing.assert_close(vector, pool_naively(sentence[own], special, pooling))


@pytest.mark.parametrize("architecture", [*tiny.ARCHITECTURES, "Llama"])
@pytest.mark.parametrize("pooling", encoding.SENTENCE_POOLINGS)
def test_vectors_are_those_of_single_sentences(architecture, pooling):
    model, tokenizer = tiny.model(architecture, head=""), tiny.tokenizer("bytes")
    single = encode_one_by_one(model, tokenizer, SENTENCES, [0, 1, 2], pooling)
    for batch_size in (1, 3, 100):
        vectors = encode_sentences(model.train(), tokenizer, SENTENCES, [0, 1, 2], pooling, batch_size)
        assert not model.training
        assert vectors.dtype == torch.float32
        torch.testing.assert_close(vectors, single, rtol=1e-4, atol=1e-5)


def test_order_and_batch_size_change_no_answer(reference_encoder):
    sentences = [s for number in range(4) for side in reference_sentences(number) for s in side]
    whole = encode_sentences(*reference_encoder, sentences, [2])[0]
    mixed = torch.randperm(len(sentences))
    part = encode_sentences(*reference_encoder, [sentences[i] for i in mixed], [2], batch_size=5)[0]
    torch.testing.assert_close(part, whole[mixed], rtol=1e-4, atol=1e-5)
    one, other = (retrieve(v[::2], v[1::2], block_size=b) for v, b in ((whole, 7), (part[mixed.argsort()], 100)))
    assert one.nearest.tolist() == other.nearest.tolist()
    assert one.rank.tolist() == other.rank.tolist()


def test_chunks_are_put_together(reference_encoder, monkeypatch):
    sentences = [s for number in range(4) for side in reference_sentences(number) for s in side]
    whole = encode_sentences(*reference_encoder, sentences, [1, 3], batch_size=4)
    monkeypatch.setattr(encoding, "_BATCHES_OF_CHUNK", 3)
    chunked = encode_sentences(*reference_encoder, sentences, [1, 3], batch_size=4)
    torch.testing.assert_close(chunked, whole, rtol=1e-4, atol=1e-5)


def test_one_chunk_is_tokenized_ahead():
    made = []
    results = encoding._one_ahead(lambda n: made.append(n) or n * n, range(4))
    assert next(results) == 0
    assert max(made) <= 1
    assert [*results] == [1, 4, 9]
    assert made == [0, 1, 2, 3]


def test_a_sentence_that_repeats_is_encoded_once(reference_encoder):
    model, tokenizer = reference_encoder
    seen = []
    hook = model.register_forward_pre_hook(
        lambda _, args, inputs: seen.append(inputs["input_ids"].shape), with_kwargs=True
    )
    vectors = encode_sentences(model, tokenizer, ["one", "a longer sentence", "one"] * 5, [0, 3], batch_size=2)
    hook.remove()
    assert [shape[0] for shape in seen] == [2]
    assert vectors.shape == (2, 15, 32)
    assert torch.equal(vectors[:, 0], vectors[:, 2])


def test_sentences_are_cut(reference_encoder):
    model, tokenizer = reference_encoder
    endless = "word " * 1000
    vectors = encode_sentences(model, tokenizer, [endless, endless + "more"], [3])
    assert torch.equal(vectors[:, 0], vectors[:, 1])
    short = encode_sentences(model, tokenizer, ["a b", "a c"], [3], max_length=3)
    assert torch.equal(short[:, 0], short[:, 1])
    for max_length in (0, 2, 129):
        with pytest.raises(InputError, match="from 3 to 128"):
            encode_sentences(model, tokenizer, ["a"], [3], max_length=max_length)


def test_a_broken_encoder_is_no_perfect_one():
    model = tiny.model("Bert", head="")
    model.encoder.layer[1].output.dense.weight.data.fill_(torch.nan)
    with pytest.raises(InputError, match="nan"):
        encode_sentences(model, tiny.tokenizer(), ["a", "b"], [2])


def test_half_precision_is_pooled_in_full(reference_encoder):
    model, tokenizer = reference_encoder
    with torch.autocast("cpu", torch.bfloat16):
        half = encode_sentences(model, tokenizer, SENTENCES, [3])
    assert half.dtype == torch.float32
    full = encode_sentences(model, tokenizer, SENTENCES, [3])
    assert F.cosine_similarity(half, full, dim=2).min() > 0.999
    assert not torch.equal(half, full)


@pytest.mark.parametrize(
    ("words", "n_layers", "layers"),
    [
        (None, 12, [8]),
        (None, 3, [2]),
        (None, 6, [4]),
        (None, 24, [16]),
        ("8", 12, [8]),
        (["8"], 12, [8]),
        ("all", 2, [0, 1, 2]),
        (["0", "4", "8"], 12, [0, 4, 8]),
        ("8 4 -1 12", 12, [4, 8, 12]),
        (["-13"], 12, [0]),
    ],
)
def test_layers(words, n_layers, layers):
    assert parse_layers(words, n_layers) == layers


@pytest.mark.parametrize("words", ["13", "-14", "most", ["0", "8.5"], "all 3"])
def test_layers_that_do_not_exist(words):
    with pytest.raises(InputError, match="12 layers.*from 0 .* 12 .*all"):
        parse_layers(words, 12)


def test_number_of_layers(tmp_path):
    for architecture in tiny.ARCHITECTURES:
        tiny.config(architecture).save_pretrained(tmp_path / architecture)
        assert load_config(str(tmp_path / architecture)).num_hidden_layers == 2
    assert usual_layer(12) == 8
    with pytest.raises(InputError, match=r"config\.json"):
        load_config(str(tmp_path))


# --- Pairs of sentences ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "split", "columns"),
    [
        ("tatoeba.hin", "validation", ("source_sentence", "target_sentence")),  # google/xtreme
        ("hin-eng", "test", ("sentence1", "sentence2")),  # mteb/tatoeba-bitext-mining
        ("hi", "test", ("source_sentence", "target_sentence")),  # data/xsr
        ("en-hi", "train", ("hi", "en")),
        ("default", "train", ("non_english", "english")),
    ],
)
def test_usual_data_sets(tmp_path, config, split, columns):
    pairs = load_sentence_pairs(dataset(tmp_path / "set", config, split, columns=columns), "hi")
    assert pairs == SentencePairs("hi", ["नदी", "पुल"], ["river", "bridge"], f"{tmp_path / 'set'} {config}", split)
    assert pairs.facts == {"dataset": f"{tmp_path / 'set'} {config}", "split": split, "sentences": 2}
    assert pairs.directions == ("hi-en", "en-hi")


def test_both_sides_in_one_column(tmp_path):
    rows = [({"en": "river", "hi": "नदी"},)]
    folder = dataset(tmp_path / "opus", "en-hi", rows=rows, columns=("translation", None))
    pairs = load_sentence_pairs(folder, "hi")
    assert (pairs.source, pairs.english) == (["नदी"], ["river"])


def test_named_parts_of_a_data_set(tmp_path):
    folder = dataset(tmp_path / "set", "x-hi", "dev", columns=("theirs", "ours"))
    pairs = load_sentence_pairs(folder, "hi", "x-{language}", "dev", "theirs", "ours")
    assert pairs.source == ["नदी", "पुल"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"language": "ru"}, "no configuration tatoeba.rus or rus-eng or ru .*only hi, vi; .*--dataset_config_name"),
        ({"config_name": "{language}.x"}, "no configuration hi.x, only hi, vi"),
        ({"split": "train"}, r"\(hi\) has no split train, only test; .*--dataset_split"),
        ({"source_column": "x"}, "no column x .*only source_sentence, target_sentence; .*--source_column"),
        ({"english_column": "x"}, "no column x .*--target_column"),
        ({"dataset_name": "no/such"}, "no/such cannot be loaded"),
        ({"dataset_name": "no_such_folder"}, "no_such_folder cannot be loaded"),
        ({"language": "vi"}, r"Row 2 of the data set .* \(vi\) has no sentence"),
    ],
)
def test_data_sets_that_do_not_fit(tmp_path, arguments, message):
    folder = dataset(tmp_path / "set")
    dataset(tmp_path / "set", "vi", rows=[("sông", "river"), (" ", "bridge")])
    with pytest.raises(InputError, match=message):
        load_sentence_pairs(**{"dataset_name": folder, "language": "hi", **arguments})


def test_of_many_configurations_the_relevant_ones_are_named(tmp_path):
    folder = dataset(tmp_path / "xtreme", "tatoeba.hin")
    dataset(tmp_path / "xtreme", "XNLI")
    with pytest.raises(InputError, match="only tatoeba.hin; "):
        load_sentence_pairs(folder, "xx")


def test_files_aligned_line_by_line(tmp_path):
    source, english = tmp_path / "a.hi", tmp_path / "a.en.gz"
    source.write_text("\ufeffनदी\r\nपुल\u2028बड़ा", encoding="utf-8")
    english.write_bytes(gzip.compress(b"river\nbig bridge\n"))
    pairs = read_sentence_files("hi", str(source), str(english))
    assert pairs.source == ["नदी", "पुल\u2028बड़ा"]
    assert pairs.english == ["river", "big bridge"]
    assert pairs.sha256 == read_sentence_files("hi", str(source), str(english)).sha256 != pairs.first(1).sha256
    assert pairs.first(None) == pairs
    assert pairs.first(1).english == ["river"]


# --- Report ------------------------------------------------------------------------------------------------------


def found_at(layers, n=10) -> dict[int, Retrieval]:
    return {k: retrieve(torch.randn(n, 4), torch.randn(n, 4)) for k in layers}


@pytest.mark.parametrize("layers", [[8], [0, 8, 12], range(13), [0, 1, 2, 12]])
@pytest.mark.parametrize("n_distances", [1, 3])
def test_the_table_fits_the_terminal(layers, n_distances):
    long = "a-very-long-name-of-a-model/that-nobody-can-read"
    distances = ["cosine", "csls", "centered"][:n_distances]
    found = {
        model: {distance: {way: found_at(of_model) for way in ("hi-en", "en-hi")} for distance in distances}
        for model, of_model in ((long, layers), ("small", [0, 1, 2]))
    }
    lines = retrieval_table(found, {long: 8, "small": 1}).text().splitlines()
    mexa = mexa_table(found, {long: 8, "small": 1}).text().splitlines()
    assert max(map(len, lines + mexa)) <= 100
    assert len(lines) == 1 + 4 * n_distances
    assert len(mexa) == 1 + 2 * n_distances
    for distance, line in zip(distances, mexa[1:]):
        curve = mexa_by_layer(found[long][distance])["hi"].values()
        assert line.split()[-2:] == [f"{100 * value:.1f}" for value in (sum(curve) / len(curve), max(curve))]
    if n_distances > 1:  # beside each other
        assert [line.split()[1:3] for line in lines[1:4]] == [["hi-en", distance] for distance in distances]
    assert "a-very-l" in lines[1]
    if len(layers) > 3:
        assert [word for word in lines[0].split() if word in ("best", "usual", "last")] == ["best", "usual", "last"]
    best = max(found[long]["cosine"]["hi-en"].values(), key=lambda r: r.accuracy)
    assert f"{100 * best.accuracy:.1f}  {best.mrr:.3f}" in lines[1]


def test_mexa_is_the_share_of_pairs_that_are_largest_in_row_and_column():
    source = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    english = torch.tensor([[2.0, 0.1, 0.0], [0.5, 0.5, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, -1.0]])
    pairs = SentencePairs("hi", list("abcd"), list("efgh"), "x")
    random = torch.randn(2, 4, 3)
    vectors = torch.stack([torch.cat([source, english]), random.flatten(0, 1)])
    mexa = mexa_by_layer(retrieve_translations(vectors, pairs, [0, 5], "cosine", torch.device("cpu")))
    for layer, both in zip((0, 5), vectors):
        cosine = [[F.cosine_similarity(q, c, dim=0).item() for c in both[4:]] for q in both[:4]]
        mutual = [all(cosine[i][i] > max(cosine[i][j], cosine[j][i]) for j in range(4) if j != i) for i in range(4)]
        assert mexa["hi"][layer] == sum(mutual) / 4
    assert mexa["hi"][0] == 1 / 4  # the first pair; 1 and 2 are nearer to each other's translations


def test_mexa_of_collapsed_vectors_is_zero():
    pairs = SentencePairs("hi", list("ab"), list("cd"), "x")
    assert mexa_by_layer(retrieve_translations(torch.ones(1, 4, 3), pairs, [1], "cosine", torch.device("cpu"))) == {
        "hi": {1: 0}
    }


def test_metrics_and_curves():
    first, second = ({way: found_at([0, 8]) for way in ("hi-en", "en-hi")} for _ in range(2))
    metrics = retrieval_metrics({"cosine": first, "csls": second})
    names = ("accuracy", "mrr", "share_found")
    for found, by in ((first, ""), (second, "_csls")):
        mexa = mexa_by_layer(found)["hi"]
        expected = {f"hi{by}_mexa_mean": (mexa[0] + mexa[8]) / 2, f"hi{by}_mexa_max": max(mexa.values())}
        for k in (0, 8):
            expected[f"hi_layer{k}{by}_mexa"] = mexa[k]
            expected |= {f"{way}_layer{k}{by}_{name}": getattr(found[way][k], name) for way in found for name in names}
        assert {name: metrics.pop(name) for name in expected} == pytest.approx(expected)
    assert not metrics
    curves = curves_by_layer({"a": {"cosine": first}, "b": {"cosine": first, "csls": second}})
    assert list(curves) == ["hi-en", "en-hi", "hi: MEXA"]
    assert all(list(panel) == ["a", "b, cosine", "b, csls"] for panel in curves.values())
    assert curves["hi-en"]["b, csls"] == {k: second["hi-en"][k].accuracy for k in (0, 8)}
    assert curves["hi: MEXA"]["a"] == mexa_by_layer(first)["hi"]


def test_models_are_told_apart(tmp_path, monkeypatch):
    assert label_models(["google-bert/bert-base", "runs/a/"]) == {"bert-base": "google-bert/bert-base", "a": "runs/a/"}
    names = ["x/a/checkpoint-1", "x/b/checkpoint-1"]
    assert list(label_models(names)) == ["a-checkpoint-1", "b-checkpoint-1"]
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert label_models(["."]) == {"here": "."}
    with pytest.raises(InputError, match="x/a is named twice"):
        label_models(["x/a", "y", "x/a"])


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_every_model_has_a_label_of_its_own(n):
    """Also where the parts of two names make the same label (o/m and o-m)."""
    for names in permutations(["m", "o/m", "p/m", "o-m", "o-m-2", "o/m-2", "o/m/2", "/o/m"], n):
        assert list(label_models(names).values()) == list(names)


@pytest.mark.usefixtures("figures")
@pytest.mark.parametrize("n_panels", [1, 2, 3, 5])
@pytest.mark.parametrize("n_models", [1, 9])
def test_figure(tmp_path, n_panels, n_models):
    curves = {f"model-{m}": {k: k * m / 110 for k in range(0, 13, 1 + m % 2)} for m in range(n_models)}
    path = tmp_path / "new" / "figure.png"
    plot_accuracy_by_layer({f"panel {k}": curves for k in range(n_panels)}, path, "Title")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in path.parent.iterdir()] == ["figure.png"]


@pytest.mark.parametrize("distance", RETRIEVAL_DISTANCES)
def test_spread_is_the_mean_over_all_pairs(distance):
    vectors = torch.randn(1500, 7) + 3  # more than one block
    if distance == "l2":
        expected = torch.cdist(vectors.double(), vectors.double()).square().mean().sqrt()
    else:
        unit = F.normalize(vectors.double(), dim=1)
        expected = (1 - unit @ unit.T).mean()
    assert neighbors.vector_spread(vectors, distance) == pytest.approx(expected.item(), rel=1e-9)
    assert neighbors.vector_spread(vectors[:1].expand(9, 7), distance) == pytest.approx(0, abs=1e-6)


def test_hubs_are_seen():
    """Queries near one point all find the same few candidates."""
    candidates = torch.eye(10)
    assert retrieve(candidates, candidates).share_found == 1
    crowded = candidates[:1] + 0.01 * candidates
    assert retrieve(crowded, candidates).share_found == 0.1
