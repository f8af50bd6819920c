"""Draw docs/figures/scripts.png, the figure of docs/results.md, from the runs in docs/results.

python -m docs.figures.scripts
"""

from collections.abc import Sequence
from pathlib import Path

from utils.experiments.comparison import ComparisonTable, comparison_table, find_baselines
from utils.experiments.figures import plot_differences
from utils.experiments.finished_runs import FinishedRun
from utils.experiments.run_archives import read_runs_and_archives


FOLDER = Path(__file__).resolve().parent
ORIGINAL = "original"
SYSTEMS = {
    "adjusted (mse)": "adjusted, squared error",
    "adjusted (contrastive)": "adjusted, contrastive",
    "adjusted (sentence)": "adjusted, sentences",
}
LANGUAGES = ["hi", "hi-Latn", "ru", "ru-Latn"]
# Title of a panel → task, and the languages (or directions) that it shows, by their names in the figure.
INTO_ENGLISH = {f"{language}-en": language for language in LANGUAGES}
THEMSELVES = {language: language for language in LANGUAGES}
PANELS = {
    "Word retrieval, into English": ("cross-lingual-adjustment", INTO_ENGLISH),
    "Sentence retrieval, into English": ("sentence-retrieval", INTO_ENGLISH),
    "Parts of speech, zero-shot accuracy": ("pos", THEMSELVES),
    "Named entities, zero-shot F1": ("ner", THEMSELVES),
}


def panels(runs: Sequence[FinishedRun]) -> tuple[dict, dict]:
    """Differences with their intervals by panel, system and language, and the scores of the original encoder, 0 to 1."""
    shown = [run for run in runs if run.system.model in (ORIGINAL, *SYSTEMS)]
    table: ComparisonTable = comparison_table(shown, find_baselines(ORIGINAL, shown))
    differences: dict[str, dict[str, dict[str, tuple[float, float, float]]]] = {title: {} for title in PANELS}
    levels: dict[str, dict[str, float]] = {title: {} for title in PANELS}
    for title, (task, names) in PANELS.items():
        for row in table.rows:
            if row.task == task and row.language in names and row.comparison and row.comparison.bootstrap:
                one, of_row = row.comparison, names[row.language]
                interval = one.difference, row.comparison.bootstrap.low, row.comparison.bootstrap.high
                differences[title].setdefault(SYSTEMS[row.system.model], {})[of_row] = interval
                levels[title][of_row] = one.baseline.score.mean
    ordered = {title: {name: of[name] for name in SYSTEMS.values() if name in of} for title, of in differences.items()}
    return ordered, levels


if __name__ == "__main__":
    differences, levels = panels(read_runs_and_archives([str(FOLDER.parent / "results")]))
    title = "Before (line) and after adjustment: two languages in two scripts"
    plot_differences(differences, FOLDER / "scripts", title, levels, LANGUAGES)
