"""Draw docs/figures/overview.png, the figure of the README, from the tables of docs/retrieval.md.

python -m docs.figures.overview
"""

from pathlib import Path

from utils.evaluation.figures import plot_accuracy_by_layer


FOLDER = Path(__file__).resolve().parent
MODELS = {
    "original": "original encoder",
    "squared error": "adjusted, squared error",
    "contrastive": "adjusted, contrastive",
}
DIRECTIONS = {"→ English": "Hindi → English", "← English": "English → Hindi"}


def hindi_tables(page: str) -> dict[str, dict[str, dict[int, float]]]:
    """Accuracy (0 to 1) by panel, model and layer, from the sections "Hindi" of "Words" and "Sentences"."""
    panels: dict[str, dict[str, dict[int, float]]] = {}
    for title in ("Words", "Sentences"):
        section = page.split(f"\n## {title}\n")[1].split("\n### Hindi\n")[1].split("\n### ")[0]
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines()]
        for direction, name in DIRECTIONS.items():
            for model, _, *cells in (row for row in rows if len(row) > 2 and row[1] == direction):
                curve = {layer: float(cell) / 100 for layer, cell in enumerate(cells)}
                panels.setdefault(f"{title}, {name}", {})[MODELS[model]] = curve
    return panels


if __name__ == "__main__":
    tables = hindi_tables((FOLDER.parent / "retrieval.md").read_text(encoding="utf-8"))
    plot_accuracy_by_layer(tables, FOLDER / "overview.png")
