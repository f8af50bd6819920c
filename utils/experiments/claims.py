"""The claims of the paper, and what comparisons say of them."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist

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


@dataclass(frozen=True)
class Claim:
    """A claim of Efimov et al. (ECIR 2023), and the comparison of two regimes that decides it."""

    words: str
    part: str  # task, or `qa-cross`
    regime: str
    baseline: str
    n_gains: int  # number of the paper's four languages that gain; negative: that lose
    is_the_papers: bool = True  # False for a claim of this project


# Verdicts in full. (That nothing differs agrees with a claim that nothing is gained, and not with one of a gain.)
NO_DIFFERENCE = "no significant difference"
NO_GAIN = "no significant difference, as claimed"
NOT_TESTED = "not tested"
UNDECIDED = "undecided"
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


def place(claim: Claim, variant: str) -> tuple[str, str, str]:
    """The key of the comparison that decides a claim."""
    arms = [Arm(of, variant if REGIMES[of].aligns else "") for of in (claim.regime, claim.baseline) if of != BEFORE]
    baseline = arms[0]._replace(is_before=True) if claim.baseline == BEFORE else arms[1]
    return claim.part, arms[0].name, baseline.name


def verdict_on(compared: Mapping[str, Comparison], claim: Claim, alpha: float = 0.05) -> str | None:
    """Whether a claim was seen, in a few words, from comparisons by language or direction; None if there are none.

    It is undecided if significant differences that cannot support a claim would decide whether it is seen if some of them could.
    """
    if not compared:
        return None
    if not any(one.bootstrap for one in compared.values()):
        return NOT_TESTED
    outcomes = _outcomes(compared, alpha)
    marks = [one.mark(alpha) for one in compared.values()]
    n_doubtful = marks.count("(*)")
    if _kind(outcomes, claim) == UNDECIDED:
        n = sum(map(bool, marks))
        return f"{UNDECIDED}: {n} of {len(marks)} differences are significant, of which {n_doubtful} cannot support a claim"
    return _verdict(_sure(outcomes), claim) + f"; {n_doubtful} more cannot support a claim" * bool(n_doubtful)


def kind_of(verdict: str) -> str:
    """A verdict without its numbers."""
    return NO_GAIN if verdict.startswith(NO_GAIN) else re.split("[:,;]", verdict)[0]


def decisive(compared: Mapping[str, Comparison], claim: Claim, alpha: float = 0.05) -> str | None:
    """The comparison that came nearest to changing the verdict, with its interval and p-value; None if nothing was tested.

    Every comparison could have been a significant gain, a significant loss, or neither. Of all that would have changed the
    verdict by itself as one of these, it is the one that misses it by the least number of standard errors (of the normal
    distribution, at its adjusted p-value). "no single one" if there is none.
    """
    tested = {name: one for name, one in sorted(compared.items()) if one.bootstrap and one.p_holm is not None}
    if not tested:
        return None
    outcomes = _outcomes(compared, alpha)
    found = []
    for name, one in tested.items():
        for sign in (1, 0, -1):
            if _kind({**outcomes, name: _Outcome(sign)}, claim) != _kind(outcomes, claim):
                found.append((errors_to(sign, one, alpha), name))
    if not found:
        return "no single one"
    _, name = min(found)
    one = tested[name]
    assert one.bootstrap
    assert one.p_holm is not None
    p_text = "< 0.001" if one.p_holm < 0.001 else f"= {one.p_holm:.3f}"
    return f"{name} {points(one.difference)} [{points(one.bootstrap.low)}, {points(one.bootstrap.high)}], p {p_text}"


def errors_to(sign: int, one: Comparison, alpha: float) -> float:
    """By how many standard errors a comparison misses being a significant gain (1), a significant loss (-1), or neither (0)."""
    assert one.p_holm is not None
    of = NormalDist().inv_cdf
    needed = -of(alpha / 2)
    reached = abs(of(max(one.p_holm, 1e-12) / 2)) * (1 if one.difference > 0 else -1)
    return max(0.0, abs(reached) - needed if sign == 0 else needed - sign * reached)


@dataclass(frozen=True)
class _Outcome:
    """What a comparison says: better (1), worse (-1), or no significant difference (0)."""

    sign: int
    is_doubtful: bool = False  # whether it is significant, but cannot support a claim


def _outcomes(compared: Mapping[str, Comparison], alpha: float) -> dict[str, _Outcome]:
    found = {}
    for name, one in compared.items():
        mark = one.mark(alpha)
        found[name] = _Outcome((1 if one.difference > 0 else -1) if mark else 0, mark == "(*)")
    return found


# Languages that are better, that are worse, that are better one way and worse the other, and all.
_Counts = tuple[int, int, int, int]
_STATES = (frozenset({1}), frozenset({-1}), frozenset({1, -1}))


def _sure(outcomes: Mapping[str, _Outcome]) -> _Counts:
    """The counts if nothing that is doubtful counts."""
    return next(_possible({name: one for name, one in outcomes.items() if not one.is_doubtful}, outcomes))


def _possible(outcomes: Mapping[str, _Outcome], names: Iterable[str]) -> Iterator[_Counts]:
    """The counts that there may be, in the languages of all names, as any of the doubtful outcomes count, or do not."""
    by_language: dict[str, list[_Outcome]] = {language_of(name): [] for name in names}
    for name, one in outcomes.items():
        by_language[language_of(name)].append(one)
    possible: set[_Counts] = {(0, 0, 0, len(by_language))}
    for of_language in by_language.values():
        sure = {one.sign for one in of_language if one.sign and not one.is_doubtful}
        doubtful = {one.sign for one in of_language if one.sign and one.is_doubtful}
        states = {
            frozenset(sure.union(chosen)) for n in range(len(doubtful) + 1) for chosen in combinations(doubtful, n)
        }
        steps = [tuple(int(state == one) for one in _STATES) for state in states]
        possible = {(a + x, b + y, c + z, n) for a, b, c, n in possible for x, y, z in steps}
    yield from possible


def _kind(outcomes: Mapping[str, _Outcome], claim: Claim) -> str:
    """The verdict without its numbers."""
    kinds = {_agreement(counts, claim) for counts in _possible(outcomes, outcomes)}
    return UNDECIDED if "yes" in kinds and len(kinds) > 1 else _agreement(_sure(outcomes), claim)


def _agreement(counts: _Counts, claim: Claim) -> str:
    kind = kind_of(_verdict(counts, claim))
    return (
        "yes" if kind == NO_GAIN else kind
    )  # (where no gain is claimed, no difference and a loss both agree with it)


def _verdict(counts: _Counts, claim: Claim) -> str:
    better, worse, mixed, n = counts
    both = {"better in": better, "worse in": worse, "better one way and worse the other in": mixed}
    said = ", ".join(f"{words} {k}" for words, k in both.items() if k) + f" of {n}"
    if claim.n_gains == 0:
        if better or mixed:
            return f"no: {said}"
        return f"yes, never better ({said})" if worse else NO_GAIN
    as_claimed = better if claim.n_gains > 0 else worse
    if as_claimed >= abs(claim.n_gains) * n / 4:
        return f"yes, in {as_claimed} of {n}"
    if as_claimed:
        return f"partly: {said}"
    return f"no: {said}" if any(both.values()) else NO_DIFFERENCE
