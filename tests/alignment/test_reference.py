"""Every number that the paper's own code computed (tests/reference/README.md); the tolerances are those given there.

Retrieval's are in test_retrieval.py.
"""

import pytest
import torch

from helpers.paths import REFERENCE
from helpers.reference import batch_of
from utils.alignment.losses import AlignmentLoss
from utils.alignment.objectives import MeanSquaredError
from utils.alignment.words import word_vectors
from utils.models.encoders import load_encoder
from utils.parallel.choosing import one_to_one


def test_one_to_one_links(corpus, expected):
    assert [[list(link) for link in one_to_one(links)] for links in corpus["links"]] == expected["one_to_one"]


def test_kept_pairs_and_links(kept, expected):
    sentences = [f"{' '.join(s)} ||| {' '.join(e)}" for s, e in zip(kept["source"], kept["english"])]
    assert sentences == expected["kept_sentences"]
    assert list(kept["links"]) == expected["kept_links"]


@pytest.mark.parametrize("word_pooling", ["avg", "start", "end"])
@pytest.mark.parametrize("include_special_tokens", [True, False])
def test_losses(kept, expected, word_pooling, include_special_tokens):
    model = load_encoder(str(REFERENCE / "model"))
    loss = AlignmentLoss(MeanSquaredError(), load_encoder(str(REFERENCE / "reference_model")))
    batches = [
        b
        for b in expected["batches"]
        if (b["pooling"], b["include_special_tokens"]) == (word_pooling, include_special_tokens)
    ]
    assert len(batches) == 6
    for recorded in batches:
        batch = batch_of(kept, word_pooling, include_special_tokens, recorded["first"], recorded["size"])
        with torch.no_grad():
            terms = loss(model, batch)
            source = word_vectors(model, batch, "source", [-1])[0]
        assert terms.counts[0] == recorded["n_links"]
        assert terms.counts[1] == recorded["n_reference_words"]
        assert (terms.alignment / terms.counts[0]).item() == pytest.approx(recorded["alignment_loss"], rel=1e-5)
        mean_drift = (terms.regularization / terms.counts[1]).item()
        assert mean_drift == pytest.approx(recorded["regularization_loss"], rel=1e-5)
        # Word 0 of the batch is the special token before the first sentence.
        assert source[1, :4].tolist() == pytest.approx(recorded["first_word_vector"], rel=1e-4, abs=1e-5)


def test_training_trace(kept, expected):
    recorded = expected["training"]
    model = load_encoder(str(REFERENCE / "model")).train()
    loss = AlignmentLoss(MeanSquaredError(), load_encoder(str(REFERENCE / "reference_model")))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.98), eps=1e-9)
    losses = []
    for _ in range(recorded["epochs"]):
        for first in range(0, recorded["sentences"], recorded["batch_size"]):
            terms = loss(model, batch_of(kept, "avg", True, first, recorded["batch_size"]))
            total = terms.alignment / terms.counts[0] + terms.regularization / terms.counts[1]
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            losses.append(total.item())
    assert losses == pytest.approx(recorded["losses"], rel=1e-4)
    embeddings = model.get_input_embeddings().weight.sum().item()
    assert embeddings == pytest.approx(recorded["final_word_embedding_sum"], rel=1e-4)
