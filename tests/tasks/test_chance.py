"""Models that have learned nothing are called so: against the best strategy that does not look at the input."""

import numpy as np
import pytest
from datasets import Dataset
from scipy import stats

from utils.evaluation.answers import answer_scores
from utils.evaluation.intervals import confidence_interval
from utils.experiments.significance import corpus_f1
from utils.tasks.registry import TASKS
from utils.tasks.steps import at_chance


N = 300
RANDOM = np.random.default_rng(0)
CONTEXT = "The river was quiet and nobody crossed the old bridge before seven, said Anna."
CLASSES = {"nli": ("entailment", "neutral", "contradiction"), "pawsx": ("different", "paraphrase"),
           "ner": ("O", "O", "B-PER", "I-PER"), "pos": ("NOUN", "VERB", "X")}  # fmt: skip


def examples_of(task: str) -> Dataset:
    if task == "qa":
        words = CONTEXT.split()
        answers = [{"text": [" ".join(words[k : k + 2])], "answer_start": [0]} for k in RANDOM.integers(0, 12, N)]
        return Dataset.from_dict({"context": [CONTEXT] * N, "answers": answers})
    if task in ("ner", "pos"):
        tags = [list(RANDOM.choice(CLASSES[task], size=5)) for _ in range(N)]
        return Dataset.from_dict({f"{task}_tags": tags})
    return Dataset.from_dict({"label": list(RANDOM.choice(CLASSES[task], size=N))})


def gold_of(task: str, examples: Dataset) -> list:
    if task == "qa":
        return [answers["text"] for answers in examples["answers"]]
    return examples["label" if task in ("nli", "pawsx") else f"{task}_tags"][:]


def records_of(task: str, gold: list, predictions: list) -> list[dict]:
    records = [{"id": "", "gold": right, "prediction": found} for right, found in zip(gold, predictions)]
    if task == "qa":
        for record in records:
            record["exact_match"], record["f1"] = answer_scores(record["prediction"], record["gold"])
    return records


def guesses(task: str, gold: list) -> list:
    """Predictions that do not depend on the input, as those of a model that has learned nothing."""
    if task == "qa":
        words = CONTEXT.split()
        return [" ".join(words[k : k + 8]) for k in RANDOM.integers(0, 12, N)]
    if task in ("ner", "pos"):
        return [list(RANDOM.choice(CLASSES[task], size=len(tags))) for tags in gold]
    return list(RANDOM.choice(CLASSES[task], size=N))


@pytest.mark.parametrize("task", TASKS)
def test_a_model_that_has_learned_nothing(task):
    examples = examples_of(task)
    gold = gold_of(task, examples)
    assert at_chance(TASKS[task], "en", examples, records_of(task, gold, guesses(task, gold)))


def test_finding_no_entity_is_chance():
    examples = examples_of("ner")
    gold = gold_of("ner", examples)
    assert at_chance(TASKS["ner"], "en", examples, records_of("ner", gold, [["O"] * len(tags) for tags in gold]))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("share", [0.9, 1.0])
def test_a_model_that_has_learned_something(task, share):
    examples = examples_of(task)
    gold = gold_of(task, examples)
    right = [one[0] if task == "qa" else one for one in gold]
    mixed = [one if RANDOM.random() < share else other for one, other in zip(right, guesses(task, gold))]
    assert not at_chance(TASKS[task], "en", examples, records_of(task, gold, mixed))


def test_the_strategies_by_hand():
    labels = Dataset.from_dict({"label": ["a", "b", "a", "a"]})
    assert TASKS["nli"].chance.score(labels) == TASKS["pawsx"].chance.score(labels) == 3 / 4
    assert TASKS["pos"].chance.score(Dataset.from_dict({"pos_tags": [["X", "X"], ["NOUN"]]})) == 2 / 3
    tags = Dataset.from_dict({"ner_tags": [["B-LOC", "O", "B-PER", "I-PER"], ["B-LOC"], ["B-PER"], ["O"]]})
    assert TASKS["ner"].chance.score(tags) == 2 * 2 / (7 + 4)  # both places, of seven words
    assert TASKS["ner"].chance.score(Dataset.from_dict({"ner_tags": [["O"]]})) == 0
    answers = [{"text": ["quiet"], "answer_start": [0]}, {"text": ["Anna crossed"], "answer_start": [0]}]
    of_context = [answer_scores(CONTEXT, answer["text"])[1] for answer in answers]
    asked = Dataset.from_dict({"context": [CONTEXT] * 2, "answers": answers})
    assert TASKS["qa"].chance.score(asked) == pytest.approx(sum(of_context) / 2)
    unanswered = Dataset.from_dict(
        {"context": [CONTEXT] * 2, "answers": [answers[0], {"text": [], "answer_start": []}]}
    )
    assert TASKS["qa"].chance.score(unanswered) == 1 / 2  # no answer to any question


@pytest.mark.parametrize("kind", ["mean", "f1"])
def test_the_interval_is_that_of_the_bootstrap(kind):
    counts = RANDOM.integers(0, 4, size=(400, 3))
    values = counts if kind == "f1" else RANDOM.random(400)
    of = (lambda some: corpus_f1(some.sum(axis=0))) if kind == "f1" else np.mean
    draws = [float(of(values[RANDOM.integers(400, size=400)])) for _ in range(2000)]
    interval = confidence_interval([tuple(one) for one in values] if kind == "f1" else list(values))
    assert interval == pytest.approx(tuple(np.percentile(draws, [2.5, 97.5])), abs=0.01)


def test_intervals_at_the_ends():
    """They have a width there, which goes with the number of examples: Wilson's is n / (n + 1.96²) of one success or failure."""
    for n in (1, 9, 100, 2000):
        reach = 1.96**2 / (n + 1.96**2)
        assert confidence_interval([1.0] * n) == pytest.approx((1 - reach, 1.0), abs=1e-4)
        assert confidence_interval([0.0] * n) == pytest.approx((0.0, reach), abs=1e-4)
        assert confidence_interval([(0, 1, 0)] * n) == pytest.approx((0.0, reach), abs=1e-4)
        assert confidence_interval([(2, 0, 0)] * n + [(0, 0, 0)]) == pytest.approx((1 - reach, 1.0), abs=1e-4)
    assert confidence_interval([(0, 0, 0)] * 9) == (0.0, 0.0)


@pytest.mark.parametrize(("n", "right"), [(20, 1), (20, 10), (100, 99), (500, 8), (1, 1), (3, 0)])
def test_intervals_of_shares_are_wilsons(n, right):
    scores = [1.0] * right + [0.0] * (n - right)
    expected = stats.binomtest(right, n).proportion_ci(method="wilson")
    assert confidence_interval(scores) == pytest.approx((expected.low, expected.high), abs=1e-6)


@pytest.mark.parametrize(("n", "share"), [(100, 0.99), (100, 0.9), (500, 0.995), (498, 0.016), (20, 0.8), (1000, 0.5)])
def test_the_interval_covers_what_it_says(n, share):
    """In 95 % of samples: of shares exactly, by the probabilities of all numbers of successes."""
    covered = 0.0
    for right in range(n + 1):
        if (probability := stats.binom.pmf(right, n, share)) > 1e-7:
            low, high = confidence_interval([1.0] * right + [0.0] * (n - right))
            covered += probability * (low <= share <= high)
    assert 0.91 < covered < 0.985


@pytest.mark.parametrize(("n", "share"), [(100, 0.98), (300, 0.9), (300, 0.03)])
def test_the_interval_of_f1_covers_what_it_says(n, share):
    """Also where the entities of a sentence are right or wrong together."""
    random = np.random.default_rng(0)
    true = 2 * share / (2 * share + (1 - share) + (1 - share))  # what is missed is found elsewhere
    covered = 0
    for _ in range(400):
        sizes, right = random.integers(1, 4, n), random.random(n) < share
        low, high = confidence_interval(
            [(int(k), 0, 0) if one else (0, int(k), int(k)) for k, one in zip(sizes, right)]
        )
        covered += low <= true <= high
    assert 0.91 < covered / 400 <= 1
