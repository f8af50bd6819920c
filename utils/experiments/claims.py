"""The claims of the paper, and what comparisons say of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from utils.core.result_tables import points
from utils.experiments.arms import (
    ABLATION,
    ADJUSTED,
    ADJUSTED_CONTINUAL,
    FORGETTING,
    ORIGINAL,
    REGIMES,
    Arm,
    language_of,
)
from utils.experiments.comparison import Comparison
from utils.experiments.grid import Grid


@dataclass(frozen=True)
class Claim:
    """A claim of Efimov et al. (ECIR 2023), and the comparison of two regimes that decides it."""

    words: str
    part: str  # task, or `qa-cross`
    regime: str
    baseline: str
    n_gains: int  # number of the paper's four languages that gain; negative: that lose
    is_the_papers: bool = True  # False for a claim of this project


# The baseline of what fine-tuning changes: the same model before it.
BEFORE = "before"
CLAIMS = (
    Claim("Adjustment helps NLI in all four languages.", "nli", ADJUSTED, ORIGINAL, 4),
    Claim("Adjustment helps NER in three of four languages.", "ner", ADJUSTED, ORIGINAL, 3),
    Claim("Adjustment helps sentence retrieval in three of four languages.", "xsr", ADJUSTED, ORIGINAL, 3),
    Claim("Adjustment helps QA across languages in three of four.", "qa-cross", ADJUSTED, ORIGINAL, 3),
    Claim("The same on MLQA.", "mlqa-cross", ADJUSTED, ORIGINAL, 3),
    Claim("Adjustment does not help QA in one language.", "qa", ADJUSTED, ORIGINAL, 0),
    Claim("The same on MLQA.", "mlqa", ADJUSTED, ORIGINAL, 0),
    Claim("The same on TyDi QA.", "tydiqa", ADJUSTED, ORIGINAL, 0),
    Claim("Continual learning helps NLI, beside plain fine-tuning of the adjusted model.", "nli", ADJUSTED_CONTINUAL, ADJUSTED, 4),
    Claim("Fine-tuning forgets alignment (word retrieval falls).", FORGETTING, ADJUSTED, BEFORE, -4),
    Claim("Continual learning keeps more of it.", FORGETTING, ADJUSTED_CONTINUAL, ADJUSTED, 4),
    Claim("(Ours.) It is the alignment loss that keeps it, not the regularizer alone.", FORGETTING, ADJUSTED_CONTINUAL, ABLATION, 4, is_the_papers=False),
    Claim("(Ours.) Adjustment helps part-of-speech tagging.", "pos", ADJUSTED, ORIGINAL, 4, is_the_papers=False),
    Claim("(Ours.) It is the alignment loss that helps NLI, not the regularizer alone.", "nli", ADJUSTED_CONTINUAL, ABLATION, 4, is_the_papers=False),
)  # fmt: skip


def place(grid: Grid, claim: Claim, variant: str) -> tuple[str, str, str]:
    """The key of the comparison that decides a claim."""
    arms = [Arm(of, variant if REGIMES[of].aligns else "") for of in (claim.regime, claim.baseline) if of != BEFORE]
    baseline = arms[0]._replace(is_before=True) if claim.baseline == BEFORE else arms[1]
    return claim.part, arms[0].name, baseline.name


def verdict_on(compared: Mapping[str, Comparison], claim: Claim, alpha: float = 0.05) -> str | None:
    """Whether a claim was seen, in a few words, from comparisons by language or direction; None if there are none."""
    if not compared:
        return None
    directions: dict[str, list[int]] = {}  # by language: of all pairs that it is part of
    for name, one in compared.items():
        sign = (1 if (one.difference > 0) == (claim.n_gains >= 0) else -1) if one.mark(alpha) == "*" else 0
        directions.setdefault(language_of(name), []).append(sign)
    better = sum(max(signs) > 0 and min(signs) >= 0 for signs in directions.values())
    worse = sum(min(signs) < 0 and max(signs) <= 0 for signs in directions.values())
    n = len(directions)
    n_doubtful = sum(one.mark(alpha) == "(*)" for one in compared.values())
    undecided = f"undecided: {n_doubtful} of {len(compared)} differences are significant, but cannot support a claim"
    words = ("better", "worse") if claim.n_gains >= 0 else ("worse", "better")
    counts = f"{words[0]} in {better}, {words[1]} in {worse} of {n}"
    if claim.n_gains == 0 and (better or worse):
        return f"no: {counts}"
    if claim.n_gains == 0:
        return undecided if n_doubtful else "no significant difference, as claimed"
    if better >= abs(claim.n_gains) * n / 4:
        return f"yes, in {better} of {n}"
    if n_doubtful:
        return undecided
    if better:
        return f"partly: {counts}"
    return f"no: {words[1]} in {worse} of {n}" if worse else "no significant difference"


def decisive(compared: Mapping[str, Comparison], claim: Claim) -> str | None:
    """The comparison that would change the verdict if it came out otherwise, with its interval and p-value.

    The comparisons are ranked from the surest gain to the surest loss (for a claim of losses the other way round). Of a claim
    that needs k of them, the k-th decides; of a claim that nothing changes, the surest of all. None if nothing was tested.
    """
    sign = 1 if claim.n_gains >= 0 else -1
    tested = [
        (one, one.p_holm, name) for name, one in sorted(compared.items()) if one.bootstrap and one.p_holm is not None
    ]
    if not tested:
        return None
    if claim.n_gains == 0:
        one, p_value, name = min(tested, key=lambda item: item[1])
    else:
        tested.sort(key=lambda item: item[1] - 1 if sign * item[0].difference > 0 else 1 - item[1])
        one, p_value, name = tested[ceil(abs(claim.n_gains) * len(tested) / 4) - 1]
    assert one.bootstrap
    p_text = "< 0.001" if p_value < 0.001 else f"= {p_value:.3f}"
    return f"{name} {points(one.difference)} [{points(one.bootstrap.low)}, {points(one.bootstrap.high)}], p {p_text}"
