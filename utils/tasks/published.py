"""Published zero-shot results, to compare those of a run with."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


MBERT, XLMR = "bert-base-multilingual-cased", "xlm-roberta-base"
ALIGNFREEZE = "AlignFreeze (NAACL 2025)"


@dataclass(frozen=True)
class Published:
    """Results of a model that was fine-tuned on English as usual, without adjustment.

    Attributes:
        task: name in the registry.
        data_set: id of the data set that was evaluated.
        model: last part of the model's id.
        metric: what was measured.
        scores: language → mean and standard deviation over seeds, in percent; None if there was one run.
        source: where they were published.
    """

    task: str
    data_set: str
    model: str
    metric: str
    scores: Mapping[str, tuple[float, float | None]]
    source: str


def _alone(**scores: float) -> dict[str, tuple[float, None]]:
    return {language: (score, None) for language, score in scores.items()}


# AlignFreeze: the rows `baseline` of its result files, five seeds (docs/paper.md).
PUBLISHED = (
    Published(
        "nli", "facebook/xnli", MBERT, "accuracy",
        {"en": (80.8, 0.1), "es": (73.4, 0.5), "ru": (67.8, 0.4), "vi": (69.0, 0.6), "hi": (59.7, 1.2)}, ALIGNFREEZE,
    ),
    Published(
        "nli", "facebook/xnli", XLMR, "accuracy",
        {"en": (83.4, 0.1), "es": (78.3, 0.2), "ru": (74.8, 0.5), "vi": (73.8, 0.5), "hi": (69.0, 0.3)}, ALIGNFREEZE,
    ),
    Published(
        "nli", "facebook/xnli", XLMR, "accuracy", _alone(en=85.8, es=80.7, ru=78.1, vi=76.5, hi=72.4),
        "Conneau et al. (ACL 2020)",
    ),
    Published(
        "ner", "unimelb-nlp/wikiann", MBERT, "f1",
        {"en": (85.1, 0.1), "es": (73.8, 2.0), "ru": (65.2, 1.4), "vi": (72.8, 1.1), "hi": (68.9, 1.3)}, ALIGNFREEZE,
    ),
    Published(
        "ner", "unimelb-nlp/wikiann", XLMR, "f1",
        {"en": (82.0, 0.1), "es": (75.3, 3.1), "ru": (64.9, 1.7), "vi": (69.4, 0.8), "hi": (68.3, 0.6)}, ALIGNFREEZE,
    ),
    Published(
        "qa", "google/xquad", MBERT, "f1", {"es": (68.6, 0.3), "ru": (65.4, 0.6), "vi": (64.1, 1.1), "hi": (49.6, 0.7)},
        ALIGNFREEZE,
    ),
    Published(
        "qa", "google/xquad", XLMR, "f1", {"es": (67.8, 1.1), "ru": (66.3, 0.8), "vi": (65.3, 0.3), "hi": (58.4, 1.2)},
        ALIGNFREEZE,
    ),
    Published(
        "pos", "google/xtreme", MBERT, "accuracy",
        {"en": (96.6, 0.1), "es": (85.1, 0.2), "ru": (81.4, 1.4), "vi": (62.3, 0.3), "hi": (67.7, 0.8)}, ALIGNFREEZE,
    ),
    Published(
        "pos", "google/xtreme", XLMR, "accuracy",
        {"en": (96.7, 0.1), "es": (86.7, 0.4), "ru": (87.3, 0.4), "vi": (64.7, 0.6), "hi": (71.2, 1.6)}, ALIGNFREEZE,
    ),
)  # fmt: skip


def note_on_published(task: str, data_set: str, model: str, scores: Mapping[str, Mapping[str, float]]) -> str:
    """A sentence that compares results with published ones; an empty text if there are none.

    A result is *within* if it is no further than 2 standard deviations, and one point, from what was published; where sources
    differ, from the lowest to the highest.

    Args:
        task: name in the registry.
        data_set: what was evaluated, as a whole.
        model: id or folder of the original encoder.
        scores: metric → language → result, in percent.
    """
    known: dict[tuple[str, str], list[tuple[float, float]]] = {}
    sources: dict[str, None] = {}
    for one in PUBLISHED:
        if (one.task, one.data_set, one.model) == (task, data_set, Path(model).name):
            sources[one.source] = None
            for language, (mean, deviation) in one.scores.items():
                known.setdefault((one.metric, language), []).append((mean, 1 + 2 * (deviation or 0)))
    notes = []
    for (metric, language), values in known.items():
        if language in scores.get(metric, {}):
            result, means = scores[metric][language], [mean for mean, _ in values]
            lowest, highest = min(mean - off for mean, off in values), max(mean + off for mean, off in values)
            verdict = "within" if lowest <= result <= highest else "above" if result > highest else "below"
            span = " to ".join(f"{mean:.1f}" for mean in dict.fromkeys((min(means), max(means))))
            notes.append(f"{language} {verdict} ({span})")
    if not notes:
        return ""
    return (
        f"Published for the original {Path(model).name}, {', '.join(sources)}: {', '.join(notes)}. See docs/paper.md."
    )
