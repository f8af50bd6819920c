"""The report of sentence retrieval: accuracy by layer, and what one model finds that another does not."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from utils.core.charts import describe_dots, dot_chart
from utils.core.files import write_text
from utils.core.page import Chart, Section, Table, lines_chart, lines_table, report_page
from utils.core.result_tables import ResultTable, shorten
from utils.evaluation.intervals import confidence_interval
from utils.evaluation.neighbors import Retrieval
from utils.evaluation.sentence_pairs import SentencePairs
from utils.evaluation.sentence_retrieval import ByDistance, Found, curves_by_layer


# Sentences of each kind that are shown, by direction.
_EXAMPLES = 5


def write_retrieval_report(
    path: Path,
    found: Mapping[str, ByDistance],
    layers: Mapping[str, int],
    data: Sequence[SentencePairs],
    record: Mapping[str, Any],
) -> None:
    """Write the report of a run of `run_xsr.py`.

    Args:
        found: by model; the first one is what others are compared with.
        layers: by model, the layer whose predictions are kept.
        record: content of `run.json`.
    """
    models = record["base_model"]
    rows = [
        *((f"Model {label}" if len(models) > 1 else "Model", name) for label, name in models.items()),
        *((f"Sentences in {pairs.language}", f"{len(pairs.source):,}, {pairs.dataset}") for pairs in data),
        ("Vectors", f"{record['arguments']['pooling']} pooling, {', '.join(record['arguments']['distance'])}"),
        ("Code", record.get("git_commit") or "unknown"),
    ]
    title = f"Sentence retrieval: {path.absolute().parent.name}"
    sections = retrieval_sections(found, layers, data)
    write_text(path, report_page(title, ResultTable(["", ""], rows, 2), sections, record))


def retrieval_sections(
    found: Mapping[str, ByDistance], layers: Mapping[str, int], data: Sequence[SentencePairs]
) -> list[Section]:
    """Accuracy at one layer and at all, and what every other model finds that the first one does not, and the reverse."""
    (baseline, before), *others = ((model, next(iter(of_model.values()))) for model, of_model in found.items())
    sections = [_at_one_layer(found, layers), *_by_layer(found)]
    for model, after in others:
        at_layers = (_at(before, layers[baseline]), _at(after, layers[model]))
        sections.append(_changes((baseline, model), *at_layers, data))
    return sections


def _at(found: Found, layer: int) -> dict[str, Retrieval]:
    return {direction: by_layer[layer] for direction, by_layer in found.items()}


def _at_one_layer(found: Mapping[str, ByDistance], layers: Mapping[str, int]) -> Section:
    """Accuracy with its interval, by direction, of every model and distance."""
    dots: dict[str, dict[str, list[float]]] = {}
    rows = []
    for model, by_distance in found.items():
        for distance, of_distance in by_distance.items():
            name = f"{model}, {distance}" if len(by_distance) > 1 else model
            for direction, one in _at(of_distance, layers[model]).items():
                low, high = confidence_interval((one.nearest == one.gold).double().tolist())
                dots.setdefault(name, {})[direction] = [100 * one.accuracy, 100 * low, 100 * high]
                interval = f"{100 * low:.1f} to {100 * high:.1f}"
                percents = [f"{100 * one.accuracy:.1f}", interval, f"{100 * one.share_found:.1f}"]
                rows.append([name, direction, layers[model], *percents, f"{one.mrr:.3f}", len(one.gold)])
    columns = ["model", "direction", "layer", "accuracy", "95 % interval", "candidates found", "MRR", "sentences"]
    chart = Chart("Accuracy (%) with its 95 % interval", partial(dot_chart, dots, "Accuracy (%)"), describe_dots(dots))
    note = "Every sentence looks for its translation among all sentences of the other language, whose language is named second."
    return Section("Sentence retrieval", [note], [chart], [Table("Accuracy (%)", ResultTable(columns, rows, 2))])


def _by_layer(found: Mapping[str, ByDistance]) -> list[Section]:
    """Accuracy and MEXA by layer, a chart and a table for each direction."""
    charts, tables = [], []
    for panel, of_panel in curves_by_layer(found).items():
        lines = {name: {layer: 100 * value for layer, value in curve.items()} for name, curve in of_panel.items()}
        if len({layer for line in lines.values() for layer in line}) < 2:
            return []
        label = "%" if "MEXA" in panel else "Accuracy (%)"
        charts.append(lines_chart(panel, lines, "Layer (0: embeddings)", label))
        tables.append(lines_table(f"{panel} (%)", lines, "layer", ".1f"))
    return [Section("By layer", charts=charts, tables=tables)]


def _changes(
    models: tuple[str, str],
    before: Mapping[str, Retrieval],
    after: Mapping[str, Retrieval],
    data: Sequence[SentencePairs],
) -> Section:
    """The sentences that only one of two models finds, with what the other one takes for the translation."""
    counts, rows = [], []
    for pairs in data:
        for direction, queries, candidates in zip(
            pairs.directions, (pairs.source, pairs.english), (pairs.english, pairs.source)
        ):
            old, new = before[direction].nearest.tolist(), after[direction].nearest.tolist()
            gold = after[direction].gold.tolist()
            gained = [k for k, right in enumerate(gold) if old[k] != right == new[k]]
            lost = [k for k, right in enumerate(gold) if old[k] == right != new[k]]
            both = sum(one == other == right for one, other, right in zip(old, new, gold))
            n = len(gold)
            counts.append(
                [direction, *(f"{m:,}" for m in (n, both, len(gained), len(lost), n - both - len(gained) - len(lost)))]
            )
            for kind, wrong, chosen in (("found now", old, gained), ("no longer found", new, lost)):
                for k in chosen[:_EXAMPLES]:
                    texts = (queries[k], candidates[gold[k]], candidates[wrong[k]])
                    rows.append([direction, kind, *(shorten(text, 300) for text in texts)])
    columns = ["direction", "sentences", "found by both", f"only by {models[1]}", f"only by {models[0]}", "by neither"]
    sentences = ResultTable(["direction", "", "sentence", "translation", "taken for it by the other"], rows, 5)
    tables = [Table("Sentences found", ResultTable(columns, counts))]
    tables += [Table("Sentences that one of them finds", sentences, wide=True)] * bool(rows)
    return Section(f"What changed: {models[0]}, then {models[1]}", tables=tables)
