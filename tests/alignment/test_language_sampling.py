"""Languages in given shares, and the bandit: proportions, the formula, the same draws after a resume."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.bandit import naive_shares
from utils.alignment.language_sampling import LanguageBandit, LanguageSampling, LanguageSamplingArguments
from utils.alignment.sampler import MixedLanguages, OneLanguageAtATime
from utils.core.errors import InputError


def test_shares_are_the_published_ones():
    sizes = [10_000, 100, 1]
    naive = [n ** (1 / 5) for n in sizes]
    assert LanguageSampling("temperature").shares(sizes) == pytest.approx([n / sum(naive) for n in naive])
    assert LanguageSampling("uniform").shares(sizes) == pytest.approx([1 / 3] * 3)
    assert LanguageSampling("temperature", 1).shares(sizes) == pytest.approx(LanguageSampling().shares(sizes))


sizes_of_languages = st.lists(st.integers(1, 60), min_size=1, max_size=4)


@given(sizes_of_languages, st.integers(1, 9), st.integers(1, 5), st.floats(1, 100), st.integers(0, 9))
@settings(max_examples=50)
def test_an_epoch_has_the_shares_and_no_pair_twice_before_the_others(sizes, batch_size, per_block, temperature, seed):
    languages = np.repeat(range(len(sizes)), sizes)
    shares = LanguageSampling("temperature", temperature).shares(sizes)
    lengths = np.random.default_rng(seed).integers(3, 60, (len(languages), 2))
    sampler = MixedLanguages(lengths, batch_size, seed, per_block, languages=languages, shares=shares)
    order = list(sampler)
    assert order == list(sampler)
    assert len(order) == len(sampler) == len(languages)
    for language, (size, share) in enumerate(zip(sizes, shares)):
        drawn = Counter(pair for pair in order if languages[pair] == language)
        assert abs(drawn.total() - share * len(languages)) <= 1
        times = [drawn[pair] for pair in range(sum(sizes[:language]), sum(sizes[: language + 1]))]
        assert max(times) - min(times) <= 1
        assert len(times) == size
    sampler.set_epoch(1)
    assert len(order) < 20 or list(sampler) != order


def test_copies_of_a_pair_do_not_fill_a_batch():
    """They have one length, which would put them all side by side in a longer block."""
    sizes, batch_size = [4000, 40], 8
    languages = np.repeat([0, 1], sizes)
    lengths = np.random.default_rng(0).integers(3, 60, len(languages))
    order = list(MixedLanguages(lengths, batch_size, 0, languages=languages, shares=np.array([0.5, 0.5])))
    copies = [Counter(order[k : k + batch_size]) for k in range(0, len(order), batch_size)]
    assert max(max(batch.values()) for batch in copies) <= 2


def test_the_bandit_is_the_formula():
    bandit, random = LanguageBandit(3, seed=4), np.random.default_rng(1)
    rewards: list[list[float]] = [[], [], []]
    assert bandit.shares == pytest.approx([1 / 3] * 3)
    for step in range(40):
        if step and step % 5 == 0:
            bandit.update(np.array([sum(losses) for losses in rewards]), np.array([len(losses) for losses in rewards]))
            assert bandit.shares == pytest.approx(naive_shares(rewards, bandit.drawn))
        language = bandit.language(step)
        rewards[language] += (random.random(3) * (1 + language)).tolist()
    assert len(bandit.drawn) == 40


def test_the_bandit_draws_by_its_probabilities():
    bandit = LanguageBandit(2, seed=0)
    bandit.update(np.array([30.0, 10.0]), np.array([10.0, 10.0]))  # (nothing drawn yet: no bonus)
    assert bandit.shares[0] == pytest.approx(math.exp(3) / (math.exp(3) + math.exp(1)))
    share = sum(bandit.language(step) == 0 for step in range(2000)) / 2000
    assert share == pytest.approx(bandit.shares[0], abs=0.02)


def test_losses_that_are_not_finite_change_no_probability():
    bandit = LanguageBandit(2, seed=0)
    bandit.update(np.array([math.nan, 1.0]), np.array([10.0, 10.0]))
    assert bandit.shares == pytest.approx([0.5, 0.5])


@given(sizes_of_languages, st.integers(1, 9), st.integers(0, 3))
@settings(max_examples=30)
def test_every_batch_has_the_language_that_was_drawn(sizes, batch_size, epoch):
    languages = np.repeat(range(len(sizes)), sizes)
    bandit = LanguageBandit(len(sizes), seed=3)
    sampler = OneLanguageAtATime(np.arange(len(languages)), batch_size, 3, languages=languages, bandit=bandit)
    for number in range(epoch + 1):
        sampler.set_epoch(number)
        order = list(sampler)
    assert len(order) == len(languages)
    n_steps = -(-len(order) // batch_size)
    assert len(bandit.drawn) == n_steps * (epoch + 1)
    for step, language in enumerate(bandit.drawn[n_steps * epoch :]):
        batch = order[step * batch_size : (step + 1) * batch_size]
        assert {languages[pair] for pair in batch} == {language}
        assert len(set(batch)) >= min(len(batch), sizes[language]) / 2  # (a last batch is filled up)
    assert list(sampler) == order  # the draws are repeated


def test_a_language_passes_through_all_its_pairs():
    bandit = LanguageBandit(1, seed=0)
    sampler = OneLanguageAtATime(np.arange(40), 8, 0, languages=np.zeros(40, int), bandit=bandit)
    assert sorted(sampler) == list(range(40))
    assert list(sampler) != sorted(sampler)


@pytest.mark.parametrize(
    ("arguments", "languages", "losses", "order"),
    [
        ({"language_sampling": "uniform"}, ["hi"], ["alignment_loss"], "random"),
        ({"language_sampling": "ucb"}, ["hi", "ru"], ["regularization_loss"], "random"),
        ({"language_sampling": "uniform"}, ["hi", "ru"], ["alignment_loss"], "sequential"),
        ({"sampling_temperature": 2.0}, ["hi", "ru"], ["alignment_loss"], "random"),
    ],
)
def test_what_has_no_effect_is_refused(arguments, languages, losses, order):
    with pytest.raises(InputError):
        LanguageSamplingArguments(**arguments).check_sampling(languages, losses, order)
