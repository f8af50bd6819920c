"""Batches, losses and objectives: literal tensors, plain loops, and what must not change a loss."""

import math
from functools import cache

import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import tiny
from helpers.pairs import COLLATOR, TOKENIZER, WORD_TOKENIZER, some_pairs
from utils.alignment.losses import AlignmentLoss
from utils.alignment.objectives import (
    NEGATIVES,
    OBJECTIVES,
    AlignmentArguments,
    ContrastiveObjective,
    CosineDistance,
    LossWeights,
    MeanSquaredError,
)
from utils.alignment.pairs import AlignmentCollator, encode_pairs, first_pairs
from utils.alignment.words import WordTokenizer, word_vectors
from utils.core.errors import InputError


def rows(pairs: Dataset, **options) -> list[dict]:
    return list(encode_pairs(pairs, WORD_TOKENIZER, **options))


@cache
def encoders() -> tuple[torch.nn.Module, torch.nn.Module]:
    return tiny.model(head="", seed=1), tiny.model(head="", seed=2)


def losses(batch: dict, objective=None) -> tuple[float, float, int, int]:
    f, f0 = encoders()
    with torch.no_grad():
        terms = AlignmentLoss(objective or MeanSquaredError(), f0)(f, batch)
    return terms.alignment.item(), terms.regularization.item(), *terms.counts[:2]


def test_collator_numbers_words_through():
    first = {
        "source_input_ids": [2, 10, 11, 12, 3], "source_word_ids": [0, 1, 1, 2, 3],
        "english_input_ids": [2, 20, 3], "english_word_ids": [0, 1, 2],
        "links": [[1, 1]], "source_spelling": [5], "english_spelling": [6],
    }  # fmt: skip
    second = {
        "source_input_ids": [2, 13, 3], "source_word_ids": [0, -1, 1],
        "english_input_ids": [2, 21, 22, 3], "english_word_ids": [0, 1, 1, 2],
        "links": [[0, 0], [1, 2]], "source_spelling": [-1, -1], "english_spelling": [-1, -1],
    }  # fmt: skip
    batch = AlignmentCollator(pad_token_id=9)([first, second])
    checksums = [batch.pop(f"{side}_sentence") for side in ("source", "english")]
    assert len(set(torch.cat(checksums).tolist())) == 4
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "source_input_ids": [[2, 10, 11, 12, 3], [2, 13, 3, 9, 9]],
        "source_attention_mask": [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]],
        "source_word_ids": [[0, 1, 1, 2, 3], [4, -1, 5, -1, -1]],
        "source_word_lengths": [1, 2, 1, 1, 1, 1],
        "english_input_ids": [[2, 20, 3, 9], [2, 21, 22, 3]],
        "english_attention_mask": [[1, 1, 1, 0], [1, 1, 1, 1]],
        "english_word_ids": [[0, 1, 2, -1], [3, 4, 4, 5]],
        "english_word_lengths": [1, 1, 1, 1, 2, 1],
        "links": [[1, 1], [4, 3], [5, 5]],
        "source_spelling": [5, -1, -1],
        "english_spelling": [6, -1, -1],
    }
    padded = AlignmentCollator(pad_token_id=9, pad_to_multiple_of=8)([first, second])
    assert padded["source_input_ids"].shape == padded["english_word_ids"].shape == (2, 8)
    assert padded["links"].tolist() == batch["links"].tolist()
    assert padded["source_sentence"].tolist() == checksums[0].tolist()


def test_a_batch_without_links_has_no_loss():
    pairs = Dataset.from_dict({"source": [["old"]], "english": [["old"]], "links": [[]]})
    batch = COLLATOR(rows(pairs, include_special_tokens=False))
    assert batch["links"].shape == (0, 2)
    for objective in (kind() for kind in OBJECTIVES.values()):
        assert losses(batch, objective)[0] == 0


def test_links_of_words_without_vector_are_dropped():
    source, english = ["old", "\u200b", "bridge"], ["the", "old", "bridge"]
    pairs = Dataset.from_dict({"source": [source], "english": [english], "links": [[[0, 1], [1, 0], [2, 2]]]})
    (row,) = rows(pairs, include_special_tokens=False)
    # Numbers among the words that have a vector: 0 is [CLS], and the source lost its word 1.
    assert row["links"] == [[1, 2], [2, 3]]
    cut = encode_pairs(pairs, WordTokenizer(TOKENIZER, max_length=4), include_special_tokens=True)[0]
    kept = [link for link in cut["links"] if link[0] > 0]
    assert all(link[0] < max(cut["source_word_ids"]) + 1 for link in kept)


@pytest.mark.parametrize("max_length", range(3, 40, 3))
def test_truncation_keeps_the_links_of_what_remains(max_length):
    """A cut sentence has the vectors' links of the whole one, restricted to the words that are left."""
    whole_tokenizer, cut_tokenizer = WORD_TOKENIZER, WordTokenizer(TOKENIZER, max_length=max_length)
    pairs = some_pairs()
    whole, cut = (encode_pairs(pairs, t, include_special_tokens=False) for t in (whole_tokenizer, cut_tokenizer))
    for row in range(len(pairs)):
        words = {}
        for side in ("source", "english"):
            (words[side],) = cut_tokenizer([pairs[row][side]])["words"]
        expected = [
            [words["source"].index(i), words["english"].index(j)]
            for i, j in pairs[row]["links"]
            if i in words["source"] and j in words["english"]
        ]
        assert cut[row]["links"] == expected
        assert all(link in whole[row]["links"] for link in cut[row]["links"])


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("n_pairs", range(1, 9))
def test_the_first_pairs_of_a_batch_are_a_batch_of_them(n_pairs, special):
    given_rows = rows(some_pairs(8), include_special_tokens=special)
    numbered = [{**row, "row": k, "language": "hi" if k % 3 else "ru"} for k, row in enumerate(given_rows)]
    collator = AlignmentCollator(COLLATOR.pad_token_id, languages=["hi", "ru"])
    first, wanted = first_pairs(collator(numbered), n_pairs), collator(numbered[:n_pairs])
    assert list(first) == list(wanted)
    for name, tensor in wanted.items():
        width = tensor.shape[1] if tensor.dim() == 2 else None
        assert torch.equal(first[name][:, :width] if width else first[name], tensor)
    assert losses(first) == pytest.approx(losses(wanted))


@pytest.mark.parametrize("unit", [(1, 1, 0), (0, 1, 1), (1, 0, 1)])
def test_no_loss_counts_what_is_left_of_no_pairs(unit):
    model, reference = encoders()
    batch = first_pairs(COLLATOR(rows(some_pairs(4))), 0)
    weights = LossWeights(alignment=unit[0], regularization=unit[1], sentence=unit[2])
    for objective in (MeanSquaredError(), ContrastiveObjective()):
        terms = AlignmentLoss(objective, reference, weights=weights)(model, batch)
        assert list(terms.counts) == [0, 0, 0]
        assert sum(terms.sums().values()).item() == 0
        sum(terms.sums().values()).backward()
        assert not any(p.grad is not None and p.grad.any() for p in model.parameters())


def test_losses_equal_a_loop_over_words():
    pairs = some_pairs()
    f, f0 = tiny.model(head="", seed=1), tiny.model(head="", seed=2)

    def vectors(model, words):
        tokens = WORD_TOKENIZER([words])
        ids, word_ids = torch.tensor(tokens["input_ids"]), torch.tensor(tokens["word_ids"][0])
        with torch.no_grad():
            state = model(input_ids=ids).last_hidden_state[0]
        return {w: state[word_ids == k].mean(0) for k, w in enumerate(tokens["words"][0])}

    distances, drifts = [], []
    for pair in pairs:
        source, english = vectors(f, pair["source"]), vectors(f, pair["english"])
        before = vectors(f0, pair["english"])
        ends = [(-1, -1), (len(pair["source"]), len(pair["english"]))]
        distances += [(source[i] - english[j]).square().mean() for i, j in [*pair["links"], *ends]]
        drifts += [(english[w] - before[w]).square().mean() for w in english]
    alignment, regularization, n_links, n_words = losses(COLLATOR(rows(pairs)))
    assert (n_links, n_words) == (len(distances), len(drifts))
    assert alignment == pytest.approx(sum(distances).item(), rel=1e-5)
    assert regularization == pytest.approx(sum(drifts).item(), rel=1e-5)


@settings(max_examples=25)
@given(st.permutations(range(8)), st.integers(1, 8), st.sampled_from([None, 8, 64]))
def test_order_batching_and_padding_change_no_loss(order, batch_size, multiple):
    encoded = rows(some_pairs(8))
    collator = AlignmentCollator(TOKENIZER.pad_token_id, multiple)
    batches = [collator([encoded[k] for k in order[i : i + batch_size]]) for i in range(0, 8, batch_size)]
    parts = torch.tensor([losses(batch) for batch in batches], dtype=torch.float64).sum(0)
    torch.testing.assert_close(
        parts, torch.tensor(losses(COLLATOR(encoded)), dtype=torch.float64), rtol=1e-4, atol=1e-5
    )


def contrastive_loop(source, english, source_spelling, english_spelling, temperature, negatives):
    """-log softmax of the right candidate, candidate by candidate: (vector, spelling) of either side."""
    sides = [list(zip(source, source_spelling.tolist())), list(zip(english, english_spelling.tolist()))]
    result = []
    for i in range(len(source)):
        losses = []
        for query_side in (0, 1):
            (query, spelling), (right, right_spelling) = sides[query_side][i], sides[1 - query_side][i]
            candidates = [right]
            for side in (0, 1) if negatives == "both" else (1 - query_side,):
                for k, (vector, other) in enumerate(sides[side]):
                    alike = other == right_spelling or (negatives == "both" and other == spelling)
                    if k != i and not alike:
                        candidates.append(vector)
            logits = [torch.cosine_similarity(query, vector, dim=0).item() / temperature for vector in candidates]
            losses.append(math.log(sum(map(math.exp, logits))) - logits[0])
        result.append(sum(losses) / 2)
    return torch.tensor(result)


@given(st.integers(1, 9), st.integers(0, 100), st.sampled_from([0.1, 1.0]), st.sampled_from(NEGATIVES))
def test_contrastive_equals_a_loop(n, seed, temperature, negatives):
    generator = torch.Generator().manual_seed(seed)
    source, english = torch.randn(2, n, 4, generator=generator)
    spellings = torch.randint(-1, 6, (2, n), generator=generator)
    expected = contrastive_loop(source, english, *spellings, temperature, negatives)
    torch.testing.assert_close(
        ContrastiveObjective(temperature, negatives)(source, english, *spellings), expected, rtol=1e-4, atol=1e-5
    )


def test_cosine_is_one_minus_the_cosine():
    source, english = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[6.0, 8.0], [-2.0, 0.0]])
    losses = CosineDistance()(source, english, torch.arange(2), torch.arange(2))
    torch.testing.assert_close(losses, torch.tensor([0.0, 2.0]))


def test_the_same_word_is_no_negative():
    source, english = torch.eye(3), torch.eye(3)
    different, same = torch.tensor([1, 2, 3]), torch.tensor([1, 1, 3])
    harder, easier = (ContrastiveObjective()(source, english, different, s)[0].item() for s in (different, same))
    assert harder == pytest.approx(-math.log(math.exp(10) / (math.exp(10) + 2)), abs=1e-6)
    assert easier < harder


def test_with_negatives_of_both_languages_a_word_competes_with_its_own_language():
    """Of three links, four vectors besides the right one; a word that is spelled like the query is none of them."""
    source, english = torch.eye(3), torch.eye(3)
    objective = ContrastiveObjective(contrastive_negatives="both")
    assert objective(source, english, torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6]))[0].item() == pytest.approx(
        -math.log(math.exp(10) / (math.exp(10) + 4)), abs=1e-6
    )
    # The second source word is the first one again, and the third English word is spelled like it.
    one_masked = objective(source, english, torch.tensor([1, 1, 3]), torch.tensor([4, 5, 1]))[0].item()
    queries = [math.exp(10) + 2, math.exp(10) + 2]
    assert one_masked == pytest.approx(sum(math.log(total) - 10 for total in queries) / 2, abs=1e-6)


@pytest.mark.parametrize("layers", [(0,), (1, -1), (0, 1, 2)])
def test_losses_of_several_layers_are_means_from_one_pass_of_each_side(layers):
    f, f0 = encoders()
    batch, passes = COLLATOR(rows(some_pairs())), []
    hooks = [model.register_forward_hook(lambda *_: passes.append(1)) for model in (f, f0)]
    with torch.no_grad():
        together = AlignmentLoss(MeanSquaredError(), f0, layers)(f, batch)
        for hook in hooks:
            hook.remove()
        apart = [AlignmentLoss(MeanSquaredError(), f0, [layer])(f, batch) for layer in layers]
    assert len(passes) == 3
    assert together.counts == apart[0].counts
    for name in ("alignment", "regularization"):
        expected = sum(getattr(terms, name).item() for terms in apart) / len(layers)
        assert getattr(together, name).item() == pytest.approx(expected, rel=1e-5)


def test_gradients_reach_both_ends_and_never_the_reference():
    f, f0 = tiny.model(head="", seed=1), tiny.model(head="", seed=2)
    loss = AlignmentLoss(MeanSquaredError(), f0)
    batch = COLLATOR(rows(some_pairs()))
    terms = loss(f, batch)
    (terms.alignment + terms.regularization).backward()
    assert all(p.grad is None and not p.requires_grad for p in f0.parameters())
    assert not f0.training
    assert f.embeddings.word_embeddings.weight.grad.abs().sum() > 0
    s, e = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    for objective in (*(kind() for kind in OBJECTIVES.values()), ContrastiveObjective(contrastive_negatives="both")):
        grads = torch.autograd.grad(objective(s, e, torch.arange(3), torch.arange(3)).sum(), (s, e))
        assert all(grad.abs().sum() > 0 for grad in grads)


@pytest.mark.parametrize("layer", [0, 1, -1])
def test_layer_is_an_index_into_hidden_states(layer):
    f = tiny.model(head="", seed=1)
    batch = COLLATOR(rows(some_pairs()))
    with torch.no_grad():
        vectors = word_vectors(f, batch, "english", [layer])[0]
        states = f(
            input_ids=batch["english_input_ids"],
            attention_mask=batch["english_attention_mask"],
            output_hidden_states=True,
        ).hidden_states
    torch.testing.assert_close(vectors[0], states[layer][0, 0])


def test_objectives_by_name():
    assert isinstance(AlignmentArguments().objective(), MeanSquaredError)
    contrastive = AlignmentArguments(alignment_objective="contrastive", temperature=0.5)
    assert contrastive.objective() == ContrastiveObjective(0.5, "other")
    both = AlignmentArguments(alignment_objective="contrastive", contrastive_negatives="both")
    assert both.objective() == ContrastiveObjective(0.1, "both")
    for kind in OBJECTIVES.values():
        assert kind.description


def test_an_unknown_objective_raises():
    with pytest.raises(InputError, match="barlow"):
        AlignmentArguments(alignment_objective="barlow").objective()


@pytest.mark.parametrize("objective", ["mse", "cosine"])
@pytest.mark.parametrize("given", [{"temperature": 0.2}, {"contrastive_negatives": "both"}])
def test_arguments_of_another_objective_are_refused(objective, given):
    with pytest.raises(InputError, match=f"--{next(iter(given))} .*{objective}"):
        AlignmentArguments(alignment_objective=objective, **given)


def test_the_weighted_sum_has_only_losses_that_count():
    losses = {"alignment_loss": torch.tensor(2.0), "regularization_loss": torch.tensor(3.0)}
    assert LossWeights(0.5, 2.0).total(losses) == 7
    assert LossWeights(0.5, 2.0).total(losses, torch.tensor(1.0)) == 8
    assert LossWeights(0, 2.0).total({"regularization_loss": torch.tensor(3.0)}) == 6
    assert LossWeights(0, 0).losses() == {}
