"""What comparisons say of a claim, and which of them decides it."""

import re
from itertools import product
from random import Random
from types import SimpleNamespace

import pytest

from utils.experiments.arms import by_script
from utils.experiments.claims import Claim, decisive, errors_to, verdict_on
from utils.experiments.comparison import Comparison


def compared(difference, p_holm, cautions=()):
    bootstrap = SimpleNamespace(low=difference - 0.01, high=difference + 0.01)
    return Comparison(SimpleNamespace(), difference, bootstrap=bootstrap, p_holm=p_holm, cautions=list(cautions))


LANGUAGES = ("es", "ru", "vi", "hi")
NAMES = {
    "languages": LANGUAGES,
    "directions": [way for one in LANGUAGES for way in (f"{one}-en", f"en-{one}")],
    "one": ["hi-en", "en-hi"],
}


def claim_of(n_gains) -> Claim:
    return Claim("", "xsr", "adjusted", "original", n_gains)


def kind(verdict: str) -> str:
    """A claim of no gain agrees with no difference, and with losses."""
    return "yes" if "as claimed" in verdict else re.split("[:,;]", verdict)[0]


def tables(names, seed, cautious=False):
    """Random tables of comparisons, a few of them doubtful."""
    random = Random(seed)
    for _ in range(25):
        yield {
            name: compared(
                random.choice([-1, 1]) * random.choice([0.02, 0.05]), random.choice([0.0002, 0.001, 0.04, 0.06, 0.3, 1.0]),
                ["too few"] if cautious and random.random() < 0.4 else [],
            )
            for name in names
        }  # fmt: skip


@pytest.mark.parametrize("n_gains", [4, 3, 2, 0, -4])
@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("cautious", [False, True])
def test_the_deciding_comparison_is_the_nearest_that_changes_the_verdict(n_gains, names, cautious):
    """By trying all other outcomes of all comparisons."""
    claim = claim_of(n_gains)
    for found in tables(NAMES[names], n_gains, cautious):
        now = kind(verdict_on(found, claim))
        others = {"gain": (0.05, 1e-6, 1), "loss": (-0.05, 1e-6, -1), "none": (0.001, 1.0, 0)}
        distances = {}
        for name, one in found.items():
            for difference, p_value, sign in others.values():
                if kind(verdict_on({**found, name: compared(difference, p_value)}, claim)) != now:
                    distance = errors_to(sign, one, 0.05)
                    distances[name] = min(distance, distances.get(name, distance))
        named = decisive(found, claim)
        if distances:
            assert distances[named.split()[0]] == min(distances.values())
        else:
            assert named == "no single one"


@pytest.mark.parametrize(
    ("difference", "p_holm", "sign", "errors"),
    [(0.1, 0.05, 1, 0), (0.1, 0.05, 0, 0), (0.1, 1.0, 1, 1.96), (0.1, 1.0, -1, 1.96), (-0.1, 0.05, 1, 3.92), (0.1, 0.0027, 0, 1.04)],
)  # fmt: skip
def test_how_far_a_comparison_is_from_another_outcome(difference, p_holm, sign, errors):
    assert errors_to(sign, compared(difference, p_holm), 0.05) == pytest.approx(errors, abs=0.01)


@pytest.mark.parametrize("n_gains", [4, 3, 2, 0, -4])
@pytest.mark.parametrize("names", NAMES)
def test_undecided_is_what_the_doubtful_could_change(n_gains, names):
    """By letting every part of the doubtful differences count."""
    claim = claim_of(n_gains)
    for found in tables(NAMES[names], n_gains, cautious=True):
        doubtful = [name for name, one in found.items() if one.mark(0.05) == "(*)"]
        kinds = set()
        for counts in product([True, False], repeat=len(doubtful)):
            some = {
                name: compared(found[name].difference, 0.001 if count else 1.0)
                for name, count in zip(doubtful, counts)
            }
            kinds.add(kind(verdict_on({**found, **some}, claim)))
        verdict = verdict_on(found, claim)
        is_open = len(kinds) > 1 and "yes" in kinds
        assert verdict.startswith("undecided") == is_open
        if is_open:
            n = sum(one.mark(0.05) != "" for one in found.values())
            assert [int(number) for number in re.findall(r"[0-9]+", verdict)] == [n, len(found), len(doubtful)]
        else:
            assert kind(verdict) in kinds


GAIN, LOSS, NONE = (0.05, 0.001), (-0.1, 0.001), (0.01, 0.9)


@pytest.mark.parametrize(
    ("n_gains", "outcomes", "expected"),
    [
        # Both ways of every language: worse one way, better the other.
        (3, {f"{one}-en": LOSS for one in LANGUAGES} | {f"en-{one}": GAIN for one in LANGUAGES}, ("no", [4, 4])),
        (3, {"es-en": LOSS, "en-es": GAIN, "ru-en": GAIN, "en-ru": NONE}, ("partly", [1, 1, 2])),
        (4, {"es": GAIN, "ru": LOSS, "vi": NONE, "hi": NONE}, ("partly", [1, 1, 4])),
        (4, {"es": NONE, "ru": LOSS}, ("no", [1, 2])),
        (-4, {"es": LOSS, "ru": LOSS}, ("yes", [2, 2])),
        (-4, {"es": GAIN, "ru": NONE}, ("no", [1, 2])),
        # That QA gains nothing is also true of losses.
        (0, dict.fromkeys(LANGUAGES, LOSS), ("yes", [4, 4])),
        (0, {"es": LOSS, "hi": GAIN}, ("no", [1, 1, 2])),
        (0, {"es-en": LOSS, "en-es": GAIN}, ("no", [1, 1])),
        (0, dict.fromkeys(LANGUAGES, NONE), ("no significant difference", [])),
        (4, dict.fromkeys(LANGUAGES, NONE), ("no significant difference", [])),
        # Three sure losses and a doubtful gain: nothing is open.
        (4, {"es": LOSS, "ru": LOSS, "vi": LOSS, "hi": (0.05, 0.001, ["one seed"])}, ("no", [3, 4, 1])),
        (4, {"es": LOSS, "ru": GAIN, "vi": LOSS, "hi": (0.05, 0.001, ["one seed"])}, ("partly", [1, 2, 4, 1])),
        (3, {"es": GAIN, "ru": GAIN, "vi": LOSS, "hi": (0.05, 0.001, ["one seed"])}, ("undecided", [4, 4, 1])),
        (0, {"es": LOSS, "ru": (-0.1, 0.001, ["one seed"])}, ("yes", [1, 2, 1])),
    ],
)  # fmt: skip
def test_verdicts(n_gains, outcomes, expected):
    found = {name: compared(*outcome) for name, outcome in outcomes.items()}
    verdict = verdict_on(found, claim_of(n_gains))
    first = re.split("[:,;]", verdict)[0]
    assert (first, [int(number) for number in re.findall(r"[0-9]+", verdict)]) == expected


def test_untested_differences_decide_nothing():
    claim = Claim("", "ner", "adjusted", "original", 3)
    assert decisive({"hi": Comparison(SimpleNamespace(), 0.1)}, claim) is None
    assert verdict_on({"hi": Comparison(SimpleNamespace(), 0.1)}, claim) == "not tested"
    assert verdict_on({}, claim) is None


def test_significance_that_supports_no_claim_leaves_it_undecided():
    claim = Claim("", "ner", "adjusted", "original", 4)
    assert verdict_on({"hi": compared(0.05, 0.001, ["one seed"])}, claim).startswith("undecided")


@pytest.mark.parametrize(
    ("languages", "groups"),
    [
        (["hi", "ru"], {"": ["hi", "ru"]}),
        (["hi", "hi-Latn", "ru-Latn"], {"": ["hi"], "Latn": ["hi-Latn", "ru-Latn"]}),
        (["zh-Hans", "zh-Hant-TW", "pt-BR", "zh"], {"Hans": ["zh-Hans"], "Hant": ["zh-Hant-TW"], "": ["pt-BR", "zh"]}),
    ],
)
def test_languages_by_script(languages, groups):
    assert by_script(languages) == groups
