"""Significance tests against scipy and statsmodels, and against what they promise: their level, and their power."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats import contingency_tables, multitest, power

from utils.evaluation.entities import entity_scores
from utils.experiments.comparison import Comparison
from utils.experiments.significance import (
    SeedScores,
    cautions,
    corpus_f1,
    discordant_pairs,
    f1_bootstrap,
    holm,
    mcnemar,
    paired_bootstrap,
    paired_t_test,
    seed_correlation,
    seed_scores,
    with_seeds,
)


pytestmark = pytest.mark.slow  # together more than a few seconds


N_SIMULATIONS = 1000


def answers(generator, n_examples, right=0.6, baseline_right=0.6):
    """0/1 scores of two systems on the same examples, half of which are equally hard for both."""
    same = generator.random(n_examples) < 0.5
    hard = generator.random(n_examples)
    luck = (np.where(same, hard, generator.random(n_examples)) for _ in range(2))
    return [(some < share).astype(float) for some, share in zip(luck, (right, baseline_right))]


def overlaps(generator, n_examples, gain=0.0):
    """Scores as skewed as F1 of answers: mostly near 0 or 1, shared in part."""
    hard = generator.beta(0.5, 0.5, n_examples)
    same = generator.random((2, n_examples)) < 0.5
    scores = np.where(same, hard, generator.beta(0.5, 0.5, (2, n_examples)))
    return np.minimum(scores[0] + gain, 1), scores[1]


def entity_counts(generator, n_sentences, gain=0.0, n_seeds=1):
    """Counts of two systems on the same sentences: sentences differ in entities, and in how hard these are."""
    number = generator.poisson(1.5, n_sentences)
    easy = generator.beta(2, 1, n_sentences)
    systems = []
    for chance in (np.minimum(easy + gain, 1), easy):
        found = generator.binomial(number, chance, (n_seeds, n_sentences))
        wrong = generator.poisson(0.4 * (1.3 - chance), (n_seeds, n_sentences))
        systems.append(np.stack([found, wrong, number - found], axis=-1))
    return systems


def rejections(test, simulate, *arguments, n_simulations=N_SIMULATIONS, **options):
    """How often a test rejects at the level of 5 % what is simulated."""
    generator = np.random.default_rng(2023)
    rejected = [test(*simulate(generator, *arguments, **options)) <= 0.05 for _ in range(n_simulations)]
    return sum(rejected) / n_simulations


def bootstrap_p(scores, baseline):
    return paired_bootstrap(scores, baseline, n_resamples=399).p_value


def f1_bootstrap_p(counts, baseline):
    return f1_bootstrap(counts, baseline, n_resamples=399).p_value


def mcnemar_p(scores, baseline):
    return mcnemar(*discordant_pairs(scores, baseline))


# --- The level: two runs from the same distribution ---


@pytest.mark.parametrize(
    ("test", "simulate", "n_examples"),
    [
        (bootstrap_p, answers, 200),
        (bootstrap_p, overlaps, 200),
        (paired_t_test, answers, 200),
        (paired_t_test, overlaps, 100),
        (mcnemar_p, answers, 200),
        (mcnemar_p, answers, 1000),
        (f1_bootstrap_p, entity_counts, 200),
    ],
)
def test_rejects_the_null_at_its_level(test, simulate, n_examples):
    assert rejections(test, simulate, n_examples) == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize("simulate", [answers, overlaps])
def test_few_examples_hardly_raise_the_level_of_the_bootstrap(simulate):
    assert 0.02 < rejections(bootstrap_p, simulate, 30) < 0.08


@pytest.mark.parametrize("test", [bootstrap_p, paired_t_test])
def test_the_level_holds_for_means_over_seeds(test):
    def simulate(generator):
        hard = generator.random(150)
        luck = generator.random((2, 3, 150))
        return (np.where(generator.random((2, 3, 150)) < 0.5, hard, luck) < 0.6).astype(float)

    assert rejections(test, simulate) == pytest.approx(0.05, abs=0.015)


def test_the_level_of_f1_holds_for_means_over_seeds():
    found = rejections(f1_bootstrap_p, entity_counts, 100, n_seeds=3)
    assert found == pytest.approx(0.05, abs=0.015)


# --- The power: a known difference ---


@pytest.mark.parametrize("test", [bootstrap_p, paired_t_test])
@pytest.mark.parametrize(("effect", "n_examples"), [(0.1, 100), (0.2, 100), (0.2, 200), (0.3, 100)])
def test_power_is_that_of_the_t_distribution(test, effect, n_examples):
    """For normal differences it is known: that of the noncentral t distribution."""
    known = power.TTestPower().power(effect, n_examples, 0.05)

    def simulate(generator):
        shared = generator.normal(0, 3, n_examples)  # pairing takes this away
        return shared + generator.normal(effect, 1, n_examples), shared

    assert rejections(test, simulate, n_simulations=600) == pytest.approx(known, abs=0.05)


@pytest.mark.parametrize(
    ("test", "simulate", "effects"),
    [
        (mcnemar_p, answers, [{}, {"right": 0.65}, {"right": 0.7}]),
        (f1_bootstrap_p, entity_counts, [{}, {"gain": 0.04}, {"gain": 0.08}]),
    ],
)
def test_power_rises_with_the_effect_and_with_the_number_of_examples(test, simulate, effects):
    by_effect = [rejections(test, simulate, 200, n_simulations=200, **effect) for effect in effects]
    assert by_effect[0] < 0.1
    assert by_effect[1] > by_effect[0] + 0.1
    assert by_effect[2] > by_effect[1] + 0.1
    by_number = [rejections(test, simulate, n, n_simulations=200, **effects[1]) for n in (50, 200, 500)]
    assert by_number[0] + 0.05 < by_number[1] < by_number[2] - 0.1


# --- Reference values ---


@pytest.fixture
def scores():
    """QA-like scores of three seeds of two systems."""
    generator = np.random.default_rng(7)
    return np.stack([overlaps(generator, 120, gain=0.05) for _ in range(3)], axis=1)


def test_t_test_as_scipy_has_it(scores):
    system, baseline = scores
    reference = stats.ttest_rel(system.mean(axis=0), baseline.mean(axis=0)).pvalue
    assert paired_t_test(system, baseline) == pytest.approx(reference, rel=1e-9)
    assert paired_t_test(baseline, system) == pytest.approx(reference, rel=1e-9)
    assert paired_t_test(system[0], baseline[0]) == pytest.approx(stats.ttest_rel(system[0], baseline[0]).pvalue)


def test_t_test_without_variance():
    assert paired_t_test(np.full(5, 0.3), np.full(5, 0.3)) == 1
    assert paired_t_test(np.full(5, 0.4), np.full(5, 0.3)) == 0
    with pytest.raises(ValueError, match="two examples or more"):
        paired_t_test(np.ones(1), np.ones(1))


def test_bootstrap_interval_as_scipy_has_it(scores):
    system, baseline = (some.mean(axis=0) for some in scores)
    reference = stats.bootstrap(
        (system, baseline), lambda x, y, axis: (x - y).mean(axis=axis), paired=True, vectorized=True,
        n_resamples=20_000, confidence_level=0.9, method="percentile", rng=1,
    ).confidence_interval  # fmt: skip
    found = paired_bootstrap(*scores, n_resamples=20_000, level=0.9)
    assert found.difference == pytest.approx(system.mean() - baseline.mean())
    assert (found.low, found.high) == pytest.approx(tuple(reference), abs=0.001)


def test_bootstrap_p_value_is_near_the_one_of_the_t_test(scores):
    """For a sample of this size the bootstrap and the t distribution say the same."""
    system, baseline = scores
    for shift in (0.0, 0.02, 0.05):
        p_value = paired_bootstrap(system - shift, baseline, n_resamples=20_000).p_value
        assert p_value == pytest.approx(paired_t_test(system - shift, baseline), abs=0.015)


def test_bootstrap_is_the_same_however_the_draws_are_made(monkeypatch):
    """Drawing how often values occur, or single values, is the same distribution."""
    system, baseline = answers(np.random.default_rng(3), 300, right=0.66)
    found = []
    for many in (1, 10**9):
        monkeypatch.setattr("utils.experiments.significance._MANY", many)
        found.append(paired_bootstrap(system, baseline, n_resamples=20_000))
    assert found[0] != found[1]
    assert found[0].p_value == pytest.approx(found[1].p_value, abs=0.01)
    assert (found[0].low, found[0].high) == pytest.approx((found[1].low, found[1].high), abs=0.004)


def test_bootstrap_is_repeatable_whatever_is_drawn_at_once(monkeypatch, scores):
    first = paired_bootstrap(*scores, n_resamples=500, seed=1)
    assert paired_bootstrap(*scores, n_resamples=500, seed=1) == first
    assert paired_bootstrap(*scores, n_resamples=500, seed=2) != first
    monkeypatch.setattr("utils.experiments.significance._DRAWN_AT_ONCE", 1)
    again = paired_bootstrap(*scores, n_resamples=500, seed=1)
    assert again.p_value == pytest.approx(first.p_value)
    assert (again.low, again.high) == pytest.approx((first.low, first.high))


def test_bootstrap_without_a_difference():
    same = np.array([0.0, 1.0, 1.0])
    found = paired_bootstrap(same, same, n_resamples=99)
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)
    always = paired_bootstrap(same + 0.1, same, n_resamples=99)
    assert always.p_value == pytest.approx(1 / 100)
    assert always.low == always.high == pytest.approx(0.1)


def test_bootstrap_p_value_by_hand():
    """12 of 100 examples only the system has right: a resample has about Poisson(12), and 0 or 24 and more are as far."""
    system, baseline = np.repeat([1, 0], [12, 88]), np.zeros(100)
    binomial = stats.binom(100, 0.12)
    found = paired_bootstrap(system, baseline, n_resamples=100_000)
    assert found.p_value == pytest.approx(binomial.cdf(0) + binomial.sf(23), abs=0.0005)
    assert (found.low, found.high) == tuple(binomial.ppf([0.025, 0.975]) / 100)


def test_mirrored_systems_mirror_the_interval(scores):
    there, back = paired_bootstrap(*scores), paired_bootstrap(*scores[::-1])
    assert back.difference == pytest.approx(-there.difference)
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low), abs=0.003)


@pytest.mark.parametrize(("only_system", "only_baseline"), [(0, 5), (3, 9), (12, 2), (30, 45), (7, 8)])
def test_mcnemar_as_statsmodels_has_it(only_system, only_baseline):
    """The mid-p-value is the exact one less the probability of what was observed (once, of its two sides' two)."""
    exact = contingency_tables.mcnemar([[50, only_system], [only_baseline, 10]], exact=True).pvalue
    observed = stats.binom.pmf(only_system, only_system + only_baseline, 0.5)
    assert mcnemar(only_system, only_baseline) == pytest.approx(exact - observed)


def test_mcnemar_by_hand():
    assert mcnemar(0, 4) == pytest.approx(1 / 16)  # 2 · 1/16, less 1/16
    assert mcnemar(4, 0) == mcnemar(0, 4)
    assert mcnemar(6, 6) == pytest.approx(1)
    assert mcnemar(0, 0) == 1


def test_discordant_pairs():
    system, baseline = np.array([1, 1, 1, 0, 0, 1]), np.array([1, 0, 0, 1, 0, 1])
    assert discordant_pairs(system, baseline) == (2, 1)
    with pytest.raises(ValueError, match="scores of 0 and 1"):
        discordant_pairs(system * 0.5, baseline)
    with pytest.raises(ValueError, match="two single runs"):
        discordant_pairs(np.stack([system, system]), baseline)


def test_scores_of_other_examples_cannot_be_paired():
    counts = np.ones((3, 3))
    for test in (paired_bootstrap, paired_t_test, discordant_pairs):
        with pytest.raises(ValueError, match="3 examples and of 2 cannot be paired"):
            test(np.ones(3), np.ones(2))
    with pytest.raises(ValueError, match="3 examples and of 2 cannot be paired"):
        f1_bootstrap(counts, counts[:2])
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_bootstrap(np.ones(0), np.ones(0))


# --- Entities ---


def test_corpus_f1_is_the_metric_s():
    right = [["B-PER", "I-PER", "O", "B-LOC", "O"], ["B-ORG", "O", "B-LOC"], ["O", "O"]]
    predicted = [["B-PER", "I-PER", "O", "B-LOC", "I-LOC"], ["B-LOC", "O", "B-LOC"], ["O", "B-PER"]]
    # By sentence: PER found, LOC with a wrong end; ORG called LOC, LOC found; a PER too many.
    counts = np.array([[1, 1, 1], [1, 1, 1], [0, 1, 0]])
    assert corpus_f1(counts.sum(axis=0)) == pytest.approx(entity_scores(predicted, right)[""]["f1"])
    assert corpus_f1(np.array([[0, 0, 0], [0, 2, 1], [2, 0, 0]])).tolist() == [0, 0, 1]


def test_f1_bootstrap_as_scipy_has_it():
    counts, baseline = entity_counts(np.random.default_rng(5), 150, gain=0.05)
    columns = (*counts[0].T, *baseline[0].T)

    def difference(*columns, axis):
        sums = np.stack([column.sum(axis=axis) for column in columns], axis=-1)
        return corpus_f1(sums[..., :3]) - corpus_f1(sums[..., 3:])

    reference = stats.bootstrap(
        columns, difference, paired=True, vectorized=True, n_resamples=20_000, method="percentile", rng=1, batch=2000
    )
    found = f1_bootstrap(counts, baseline, n_resamples=20_000)
    assert found.difference == pytest.approx(difference(*columns, axis=0))
    assert (found.low, found.high) == pytest.approx(tuple(reference.confidence_interval), abs=0.002)
    resampled = reference.bootstrap_distribution - found.difference
    assert found.p_value == pytest.approx((np.abs(resampled) >= abs(found.difference)).mean(), abs=0.01)


def test_f1_difference_is_the_mean_over_seeds():
    counts, baseline = entity_counts(np.random.default_rng(6), 40, gain=0.1, n_seeds=3)
    by_hand = np.mean([corpus_f1(one.sum(axis=0)) for one in counts])
    by_hand -= np.mean([corpus_f1(one.sum(axis=0)) for one in baseline[:2]])
    assert f1_bootstrap(counts, baseline[:2], n_resamples=10).difference == pytest.approx(by_hand)
    same = f1_bootstrap(counts, counts, n_resamples=50)
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)


# --- Many tests, several seeds ---


def test_holm_by_hand():
    """Sorted .01 .02 .03 .04, times 4 3 2 1: .04 .06 .06 .04, and none less than the one before."""
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1, 1]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_holm_as_statsmodels_has_it():
    p_values = np.random.default_rng(1).beta(0.3, 1, 25)
    p_values[3] = p_values[9]
    assert holm(p_values) == pytest.approx(multitest.multipletests(p_values, method="holm")[1])


def test_spread():
    assert seed_scores([70, 72, 77]).mean == 73
    assert seed_scores([70, 72, 77]).sd == pytest.approx(np.sqrt((9 + 1 + 16) / 2))
    assert (seed_scores([0.5]).mean, seed_scores([0.5]).sd, seed_scores([0.5]).n) == (0.5, None, 1)
    with pytest.raises(ValueError, match="a value per seed"):
        seed_scores([])


def test_cautions():
    assert cautions(3, 100, 10) == []
    assert cautions(None) == []
    assert cautions(1) == ["fewer than 3 seeds"]
    assert cautions(2, 99) == ["fewer than 3 seeds", "fewer than 100 examples"]
    assert cautions(3, 500, 9) == ["fewer than 10 examples on which the two differ"]


def test_the_error_of_seeds_alone_is_welch_s():
    """Without an error over examples, p is that of Welch's t-test of the seeds' scores."""
    generator = np.random.default_rng(3)
    for n, n_baseline in ((3, 3), (5, 3), (2, 4)):
        one, other = generator.normal(0.7, 0.02, n), generator.normal(0.66, 0.01, n_baseline)
        scores = seed_scores(one), seed_scores(other)
        p_value = with_seeds(0.0, *scores).p_value(scores[0].mean - scores[1].mean)
        assert p_value == pytest.approx(stats.ttest_ind(one, other, equal_var=False).pvalue)


def test_the_error_over_examples_and_seeds():
    """Standard deviations of 2 and 1 over four seeds each, and an error of 0.5 over examples: √(4/4 + 1/4 + 1/4)."""
    found = with_seeds(0.5, SeedScores(72, 2.0, 4), SeedScores(70, 1.0, 4))
    assert found.error == pytest.approx(np.sqrt(1.5))
    assert found.degrees == pytest.approx(1.5**2 / (1 / 3 + 0.25**2 / 3))
    assert found.p_value(2) == pytest.approx(2 * stats.t.sf(2 / np.sqrt(1.5), found.degrees))
    assert found.p_value(-2) == found.p_value(2)
    # A single run, or equal ones, add nothing: what is left is the error over examples.
    for one in (seed_scores([0.6]), seed_scores([0.6, 0.6])):
        alone = with_seeds(0.5, one, one)
        assert (alone.error, alone.degrees) == (0.5, np.inf)
        assert alone.p_value(0.98) == pytest.approx(0.05, abs=0.0005)
    none = with_seeds(0.0, seed_scores([0.6]), seed_scores([0.6]))
    assert (none.p_value(0.1), none.p_value(0.0)) == (0, 1)


@pytest.mark.parametrize(("n_seeds", "n_tests"), [(3, 1), (5, 1), (3, 8), (5, 8), (5, 20)])
@pytest.mark.parametrize("sd", [0.2, 1.0])
def test_a_family_of_comparisons_has_a_false_claim_as_often_as_promised(n_seeds, n_tests, sd):
    """No difference, an error of 1 over examples, and a standard deviation `sd` over seeds."""
    generator, n_families = np.random.default_rng(7), 1000
    examples = generator.normal(0, 1, (n_families, n_tests))
    seeds = generator.normal(0, sd, (2, n_families, n_tests, n_seeds))
    n_false = 0
    for of_examples, one, other in zip(examples, *seeds):
        p_values = []
        for error, scores, baseline in zip(of_examples, one, other):
            found = with_seeds(1.0, seed_scores(scores), seed_scores(baseline))
            p_values.append(found.p_value(error + scores.mean() - baseline.mean()))
        n_false += min(holm(p_values)) <= 0.05
    assert 0.02 < n_false / n_families < 0.08


def test_what_both_systems_share_by_their_seeds_is_no_error():
    """Standard deviations of 2 and 1 over four seeds, which go together by 0.5: half of the variance of 4/4 + 1/4 is left."""
    alone, together = (with_seeds(0.0, SeedScores(72, 2.0, 4), SeedScores(70, 1.0, 4), shared) for shared in (0, 0.5))
    assert together.error == pytest.approx(np.sqrt(0.625))
    assert together.degrees == pytest.approx(alone.degrees)
    # With the whole correlation and equal variances nothing is left but the error over examples.
    same = with_seeds(0.5, SeedScores(72, 2.0, 4), SeedScores(70, 2.0, 4), 1.0)
    assert (same.error, same.degrees) == (0.5, np.inf)


def by_seed(generator, correlation, n_languages, n_seeds=3, n_systems=2, sd=1.0):
    """Scores over seeds [systems, seeds] and of the baseline [seeds] by language, without a difference."""
    for _ in range(n_languages):
        common, *own = generator.normal(0, sd, (n_systems + 2, n_seeds))
        baseline, *systems = np.sqrt(correlation) * common + np.sqrt(1 - correlation) * np.stack(own)
        yield systems, baseline


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_the_correlation_over_seeds_is_estimated_cautiously(correlation):
    generator = np.random.default_rng(5)
    found = [
        seed_correlation([[(one, other) for one in systems] for systems, other in by_seed(generator, correlation, 8)])
        for _ in range(500)
    ]
    assert 0 <= min(found) <= max(found) <= 1
    assert np.mean(np.array(found) <= correlation) > 0.7
    assert correlation - 0.35 < np.median(found) <= correlation


def test_the_correlation_of_one_language_or_of_equal_scores_is_not_known():
    one, other = np.array([0.1, 0.2, 0.4]), np.array([0.2, 0.3, 0.5])
    same = np.full(3, 0.5)
    assert seed_correlation([]) == seed_correlation([[(one, other)]]) == seed_correlation([[(same, same)]] * 3) == 0
    # (Two languages that disagree: the standard error is as large as the estimate.)
    assert seed_correlation([[(one, one)], [(one, -one)]]) == 0
    assert seed_correlation([[(one, other)], [(other, one)]]) == pytest.approx(1)
    assert seed_correlation([[(one, -other)], [(other, -one)]]) == 0


@pytest.mark.parametrize("n_seeds", [3, 5])
@pytest.mark.parametrize("correlation", [0.0, 0.9])
@pytest.mark.parametrize("sd", [0.5, 2.0])
def test_a_family_of_comparisons_by_seed_has_a_false_claim_as_often_as_promised(n_seeds, correlation, sd):
    """Four languages, two systems each, no difference; an error of 1 over examples, and `sd` over seeds."""
    generator, n_families = np.random.default_rng(11), 500
    n_false = 0
    for _ in range(n_families):
        languages = list(by_seed(generator, correlation, 4, n_seeds, sd=sd))
        shared = seed_correlation([[(one, other) for one in systems] for systems, other in languages])
        p_values = []
        for systems, other in languages:
            for one in systems:
                found = with_seeds(1.0, seed_scores(one), seed_scores(other), shared)
                p_values.append(found.p_value(generator.normal() + one.mean() - other.mean()))
        n_false += min(holm(p_values)) <= 0.05
    assert n_false / n_families < (0.12 if n_seeds == 3 else 0.08)


def test_a_difference_shows_by_seed_that_is_smaller_than_the_variation_of_seeds():
    """Seeds differ by 2 points, always by the same in both systems: a difference of 1 point is certain."""
    generator = np.random.default_rng(3)
    languages = list(by_seed(generator, 0.99, 4, 5, sd=2.0))
    shared = seed_correlation([[(one + 1, other) for one in systems] for systems, other in languages])
    (one, _), other = languages[0]
    scores = seed_scores(one + 1), seed_scores(other)
    difference = scores[0].mean - scores[1].mean
    assert with_seeds(0.1, *scores, shared).p_value(difference) < 0.01
    assert with_seeds(0.1, *scores).p_value(difference) > 0.2


def test_the_difference_that_would_be_seen():
    """At 5 % and a power of 80 % it is 2.8 standard errors, and such a true difference is significant in 80 % of samples."""
    comparison = Comparison(None, 0.0, error=with_seeds(0.1, seed_scores([0.5]), seed_scores([0.5])))
    assert comparison.detectable(0.05) == pytest.approx(0.280, abs=5e-4)
    assert comparison.detectable(0.05 / 20) > comparison.detectable(0.05)
    assert Comparison(None, 0.0).detectable(0.05) is None
    differences = np.random.default_rng(0).normal(comparison.detectable(0.05), 0.1, 20_000)
    assert (np.abs(differences) > 1.96 * 0.1).mean() == pytest.approx(0.8, abs=0.02)
    of_seeds = Comparison(None, 0.0, error=with_seeds(0.1, SeedScores(0.5, 0.2, 3), SeedScores(0.5, 0.2, 3)))
    assert of_seeds.detectable(0.05) > 2 * comparison.detectable(0.05)
