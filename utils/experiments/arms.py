"""What a grid is made of: tasks, regimes of fine-tuning, and arms, the rows of its tables."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from utils.parallel.sides import ENGLISH
from utils.tasks.registry import TASKS


def language_of(name: str) -> str:
    """The language of a direction across it and English; any other name (`hi`, `zh-Hans`) stays."""
    return name.removeprefix(f"{ENGLISH}-").removesuffix(f"-{ENGLISH}")


def by_script(languages: Iterable[str]) -> dict[str, list[str]]:
    """Languages by the script that their codes name (BCP 47: `Latn` for `hi-Latn`); empty for their own."""
    groups: dict[str, list[str]] = {}
    for language in languages:
        script = re.search(r"-([A-Z][a-z]{3})(?:-|$)", language)
        groups.setdefault(script[1] if script else "", []).append(language)
    return groups


class Regime(NamedTuple):
    """How models are fine-tuned: title in the report, whether they start from an adjusted model, and for continual learning
    arguments besides those of the task."""

    title: str
    starts_adjusted: bool
    continual: dict[str, str] | None = None

    @property
    def aligns(self) -> bool:
        """Whether anything is aligned, before or during the fine-tuning."""
        return self.starts_adjusted or self.continual is not None


ORIGINAL, ADJUSTED = "original", "adjusted"
ADJUSTED_CONTINUAL, ORIGINAL_CONTINUAL = "adjusted+continual", "original+continual"
ABLATION = "adjusted+continual-weight-0"
TRANSLATED = "translate-train"
REGIMES = {
    ORIGINAL: Regime("original", False),
    ADJUSTED: Regime("adjusted", True),
    ADJUSTED_CONTINUAL: Regime("adjusted, continual", True, {}),
    ORIGINAL_CONTINUAL: Regime("original, continual", False, {}),
    ABLATION: Regime("adjusted, continual with alignment weight 0", True, {"alignment_weight": "0"}),
    TRANSLATED: Regime("original, trained in the language", False),
}
PAPER_REGIMES = tuple(regime for regime in REGIMES if regime != TRANSLATED)


class Arm(NamedTuple):
    """A row of the report: a regime, of a variant of the alignment if the grid has several; or the model before fine-tuning.

    Where nothing is aligned, the variant is one that words are retrieved in another way for: the same model, measured so.
    """

    regime: str
    variant: str = ""
    is_before: bool = False

    @property
    def name(self) -> str:
        """The name in folders and results."""
        name = f"{self.regime}-{self.variant}" if self.variant else self.regime
        return f"{name}, before" if self.is_before else name

    @property
    def title(self) -> str:
        """The name in the report."""
        title = REGIMES[self.regime].title
        if self.variant:
            title += f" ({self.variant})" if REGIMES[self.regime].aligns else f", measured as {self.variant}"
        return f"{title}, before fine-tuning" if self.is_before else title


class Further(NamedTuple):
    """Another data set on which the fine-tuned models of a task are measured: title, settings, and languages that it has."""

    task: str
    title: str
    settings: dict[str, str]
    languages: tuple[str, ...]


FURTHER = {
    "mlqa": Further(
        "qa",
        "Question answering (MLQA)",
        {
            "eval_dataset_name": "google/xtreme",
            "eval_dataset_config_name": "MLQA.{context_language}.{question_language}",
            "do_predict": "true",
        },
        ("en", "ar", "de", "es", "hi", "vi", "zh"),
    ),
    "tydiqa": Further(
        "qa",
        "Question answering (TyDi QA)",
        {"eval_dataset_name": "google-research-datasets/tydiqa", "do_eval": "true"},
        ("en", "ar", "bn", "fi", "id", "ko", "ru", "sw", "te"),
    ),
}
# Sentence retrieval, which nothing is fine-tuned for; and word retrieval, which run_align.py measures.
XSR, WORDS = "xsr", "words"
# Word retrieval of the models that were fine-tuned for the first task, beside that of the models before it.
FORGETTING = "forgetting"
# What both measure depends on the layer and on the vectors of words, which a variant of the alignment may choose.
MEASURED = (WORDS, FORGETTING)
GRID_TASKS = (WORDS, *TASKS, *FURTHER, FORGETTING, XSR)
PAPER_TASKS = ("nli", "ner", "qa", XSR)
