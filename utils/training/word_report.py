"""What the report of an adjustment shows first: word retrieval by direction and layer, and which pairs it changed."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from utils.core.charts import describe_dots, dot_chart
from utils.core.page import Chart, Section, Table, lines_chart, lines_table
from utils.core.result_tables import ResultTable, points, shorten
from utils.evaluation.intervals import confidence_interval
from utils.parallel.corpus import ChosenPairs
from utils.training.alignment_trainer import AlignmentTrainer
from utils.training.report import thinned


# Pairs of each kind that are shown, by direction.
_EXAMPLES = 5
_WORDS = re.compile(r"eval_(.+)_word_retrieval_accuracy")
_LAYER = re.compile(r"(.+)_layer(\d+)")

# Direction → layer → accuracy.
_Accuracies = Mapping[str, Mapping[int, float]]
# Direction → a record for every pair.
_Predictions = Mapping[str, Sequence[Mapping[str, int]]]


def alignment_sections(trainer: AlignmentTrainer, pairs: ChosenPairs | None) -> list[Section]:
    """Of the held-out pairs: word retrieval of the last evaluation, beside that of --eval_on_start if there was one."""
    history = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    if not history or not pairs:
        return []
    top = trainer.alignment_loss.layers[-1]
    top = top if top >= 0 else trainer.model.config.num_hidden_layers
    before = _by_layer(history[0], top) if history[0]["step"] == 0 < trainer.state.global_step else {}
    sections = [_word_retrieval(_by_layer(history[-1], top), before, trainer.word_predictions, top)]
    sections += _during_training(history, top)
    if trainer.first_word_predictions:
        sections.append(changed_pairs(trainer.first_word_predictions, trainer.word_predictions, pairs.pairs))
    return sections


def _by_layer(numbers: Mapping[str, Any], top: int) -> _Accuracies:
    """The accuracies among logged numbers; names without a layer are of the highest aligned one."""
    found: dict[str, dict[int, float]] = {}
    for name, value in numbers.items():
        if match := _WORDS.fullmatch(name):
            of_layer = _LAYER.fullmatch(match[1])
            direction, layer = (of_layer[1], int(of_layer[2])) if of_layer else (match[1], top)
            found.setdefault(direction, {})[layer] = value
    return {direction: dict(sorted(of_direction.items())) for direction, of_direction in found.items()}


def _word_retrieval(after: _Accuracies, before: _Accuracies, predictions: _Predictions, top: int) -> Section:
    rows, dots = [], dict[str, dict[str, list[float]]]()
    for direction, of_direction in after.items():
        found = [(row["prediction"], row["gold"] - row["prediction"]) for row in predictions[direction]]
        ends = confidence_interval([(n, missed, missed) for n, missed in found])
        for layer, value in of_direction.items():
            old = before.get(direction, {}).get(layer)
            interval = " to ".join(f"{100 * end:.1f}" for end in ends) if layer == top else None
            change = None if old is None else points(value - old)
            shown = None if old is None else f"{100 * old:.1f}"
            rows.append([direction, layer, shown, f"{100 * value:.1f}", interval, change])
            if layer == top:
                if old is not None:
                    dots.setdefault("before", {})[direction] = [100 * old]
                dots.setdefault("after", {})[direction] = [100 * one for one in (value, *ends)]
    columns = ["direction", "layer", "before", "after", "95 % interval", "change"]
    if not before:
        columns[3] = "accuracy"
    charts = [Chart(f"Layer {top}", partial(dot_chart, dots, "Found (%)"), describe_dots(dots))]
    for direction, of_direction in after.items():
        if len(of_direction) > 1:
            both = {"before": before[direction]} if direction in before else {}
            both |= {"after": of_direction}
            lines = {name: {layer: 100 * value for layer, value in line.items()} for name, line in both.items()}
            charts.append(lines_chart(direction, lines, "Layer (0: embeddings)", "Found (%)"))
    notes = [
        "Every linked word of the held-out pairs looks for the word that it is linked with among all linked words of the "
        "other language, by cosine. The language that searches is named first. Before: the encoder of --model."
    ]
    if not before:
        notes[0] = notes[0].replace("Before: the encoder of --model.", "")
        notes.append("With --eval_on_start the encoder is measured before the training, too.")
    table = Table("Word retrieval (%)", ResultTable(columns, rows).without_empty_columns())
    return Section("Word retrieval", notes, charts, [table])


def _during_training(history: Sequence[Mapping[str, Any]], top: int) -> list[Section]:
    lines: dict[str, dict[float, float]] = {}
    for entry in history:
        for direction, of_direction in _by_layer(entry, top).items():
            lines.setdefault(direction, {})[entry["step"]] = 100 * of_direction[top]
    lines = {direction: thinned(line) for direction, line in lines.items() if len(line) > 2}
    if not lines:
        return []
    title = f"Words found in layer {top} (%)"
    charts, tables = [lines_chart(title, lines, "Step", "Found (%)")], [lines_table(title, lines, "step")]
    return [Section("Word retrieval during training", charts=charts, tables=tables)]


def changed_pairs(before: _Predictions, after: _Predictions, pairs: Mapping[str, Any]) -> Section:
    """The held-out pairs in which the number of words that find their links changed, and those that changed most.

    Args:
        before, after: by direction, a record for every pair (`AlignmentTrainer.word_predictions`).
        pairs: by language, the pairs in the same order, with the columns `source` and `english`.
    """
    counts, rows = [], []
    for direction, old in before.items():
        language = _language_of(direction, pairs)
        change = [there["prediction"] - here["prediction"] for here, there in zip(old, after[direction])]
        order = sorted(range(len(change)), key=lambda k: (-abs(change[k]), k))
        more, fewer = ([k for k in order if sign * change[k] > 0] for sign in (1, -1))
        numbers = (len(change), len(more), len(fewer), len(change) - len(more) - len(fewer))
        counts.append([direction, *(f"{n:,}" for n in numbers)])
        for k in [*more[:_EXAMPLES], *fewer[:_EXAMPLES]]:
            pair = pairs[language][k]
            text = "\n".join(shorten(" ".join(pair[side]), 300) for side in ("source", "english"))
            rows.append([direction, text, old[k]["gold"], old[k]["prediction"], after[direction][k]["prediction"]])
    most = ResultTable(["direction", "pair", "links", "found before", "found after"], rows, 2)
    columns = ["direction", "pairs", "more", "fewer", "as many"]
    tables = [Table("Pairs by how many words find their links", ResultTable(columns, counts))]
    tables += [Table("Pairs that changed most", most, wide=True)] * bool(rows)
    return Section("What the adjustment changed", tables=tables)


def _language_of(direction: str, languages: Iterable[str]) -> str:
    """Of `hi-Latn-en`, hi-Latn rather than hi."""
    return max((name for name in languages if name in direction), key=len)
