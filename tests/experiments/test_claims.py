"""What comparisons say of a claim, and which of them decides it."""

from itertools import product
from types import SimpleNamespace

import pytest

from utils.experiments.arms import by_script
from utils.experiments.claims import Claim, decisive, verdict_on
from utils.experiments.comparison import Comparison
from utils.experiments.significance import Bootstrap


def compared(difference, p_holm, cautions=()):
    bootstrap = Bootstrap(difference, difference - 0.01, difference + 0.01, p_holm, 0.005)
    return Comparison(SimpleNamespace(), difference, bootstrap=bootstrap, p_holm=p_holm, cautions=list(cautions))


# A sure gain, a likely one, none, and a sure loss.
KINDS = {"gain": (0.05, 0.001), "likely": (0.03, 0.06), "none": (0.001, 0.9), "loss": (-0.04, 0.002)}


@pytest.mark.parametrize("n_gains", [4, 3, 2, -4, -3])
def test_the_deciding_comparison_decides(n_gains):
    """A claim of gains (losses) is seen exactly if the comparison that decides it is a significant gain (loss)."""
    claim = Claim("", "ner", "adjusted", "original", n_gains)
    for kinds in product(KINDS, repeat=4):
        found = {name: compared(*KINDS[kind]) for name, kind in zip(("hi", "ru", "vi", "es"), kinds)}
        one = found[decisive(found, claim).split()[0]]
        is_seen = one.p_holm <= 0.05 and (one.difference > 0) == (n_gains > 0)
        assert verdict_on(found, claim).startswith("yes") == is_seen, kinds


def test_a_claim_of_no_change_is_decided_by_the_surest_change():
    claim = Claim("", "qa", "adjusted", "original", 0)
    for kinds in product(KINDS, repeat=3):
        found = {name: compared(*KINDS[kind]) for name, kind in zip(("hi", "ru", "vi"), kinds)}
        surest = min(one.p_holm for one in found.values())
        assert found[decisive(found, claim).split()[0]].p_holm == surest
        assert verdict_on(found, claim).startswith("no:") == (surest <= 0.05), kinds


def test_untested_differences_decide_nothing():
    claim = Claim("", "ner", "adjusted", "original", 3)
    assert decisive({"hi": Comparison(SimpleNamespace(), 0.1)}, claim) is None
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
