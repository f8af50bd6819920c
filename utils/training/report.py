"""The report of a training, `report.html`: losses, tracked alignment, how the run was made, and what its script adds."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from transformers import Trainer
from transformers.integrations import TensorBoardCallback

from utils.core.charts import drawn, line_chart
from utils.core.figures import STYLE
from utils.core.files import atomic_write, write_text
from utils.core.page import Chart, Section, Table, lines_chart, lines_table, report_page
from utils.core.records import ALIGNMENT
from utils.core.result_tables import ResultTable


REPORT = "report.html"
# Points of the longest line.
_POINTS = 200
_LANGUAGE_LOSS = re.compile(r"(alignment|sentence)_loss_.+")
_TRACKED = re.compile(r"alignment_(.*_)?(share_nearer|word_retrieval_accuracy|median_related|median_unrelated)")

_Json = Mapping[str, Any]
_History = Sequence[Mapping[str, Any]]


def write_report(trainer: Trainer, record: _Json, results: _Json, sections: Sequence[Section] = ()) -> None:
    """Write the report into the output folder, and show its figures in TensorBoard if the trainer reports to it.

    Args:
        record: content of `run.json`.
        results: content of `all_results.json`.
        sections: what the report begins with; losses and settings follow.
    """
    folder, history = Path(str(trainer.args.output_dir)), trainer.state.log_history
    found = [*sections, *losses(history), *tracked_alignment(history), *settings(record, results)]
    is_adjustment = record["task"] == ALIGNMENT
    what = "Cross-lingual adjustment" if is_adjustment else record["title"]
    warnings = [
        "The results in the training language are at chance: the model has not learned the task, so comparisons mean nothing."
    ]
    page = report_page(
        f"{what}: {folder.absolute().name}", _facts(record), found, record, warnings * bool(record.get("at_chance"))
    )
    write_text(folder / REPORT, page)
    _show_in_tensorboard(trainer, found)


def _show_in_tensorboard(trainer: Trainer, sections: Iterable[Section]) -> None:
    for callback in trainer.callback_handler.callbacks:
        if not isinstance(callback, TensorBoardCallback) or not (callback.tb_writer or callback.logging_dir):
            continue
        from torch.utils.tensorboard import SummaryWriter

        # (The callback closes its own at the end of the training.)
        writer = callback.tb_writer or SummaryWriter(callback.logging_dir)
        for section in sections:
            for chart in section.charts:
                figure = drawn(partial(_sharper, chart))
                writer.add_figure(f"{section.title}/{chart.title}", figure, trainer.state.global_step)
        writer.flush()


def _sharper(chart: Chart) -> Any:
    figure = chart.draw()
    figure.set_dpi(200)
    return figure


def _facts(record: _Json) -> ResultTable:
    """What was trained, on what."""
    arguments, data = record["arguments"], record.get("train_data") or {}
    pairs = data if record["task"] == ALIGNMENT else record.get("parallel_data") or {}
    revision = f" ({record['base_model_revision'][:12]})" if record.get("base_model_revision") else ""
    rows = [
        ("Made from", f"{record['base_model']}{revision}"),
        ("Regime", record.get("regime")),
        ("Training examples", f"{data['examples']:,} ({arguments.get('train_language')})" if "examples" in data else None),
        ("Training pairs", ", ".join(f"{name} {one['pairs']:,} ({one['links']:,} links)" for name, one in pairs.items())),
        ("Word links", record.get("word_links")),
        ("Seed", record.get("seed")),
        ("Code", record.get("git_commit")),
    ]  # fmt: skip
    return ResultTable(["", ""], [row for row in rows if row[1] not in (None, "")], 2)


# --- Losses and other numbers over steps ---


def losses(history: _History) -> list[Section]:
    """Losses over steps: those of the training, of each language, and of what is held out."""
    steps = _over_steps(history, lambda name: name == "loss" or "_loss" in name and not name.startswith("train_"))
    groups: dict[str, dict[str, dict[float, float]]] = {}
    for name, line in steps.items():
        held_out, of_language = name.startswith("eval_"), _LANGUAGE_LOSS.fullmatch(name)
        title = "Of held-out data" if held_out else "Of each language" if of_language else "Training"
        groups.setdefault(title, {})[name.removeprefix("eval_").replace("_", " ")] = line
    charts = [lines_chart(title, lines, "Step", "Loss", log=True) for title, lines in groups.items()]
    tables = [lines_table(f"{title}: losses", lines, "step") for title, lines in groups.items()]
    return [Section("Losses", charts=charts, tables=tables)] if charts else []


def tracked_alignment(history: _History) -> list[Section]:
    """What --track_alignment_every has measured."""
    steps = _over_steps(history, lambda name: _TRACKED.fullmatch(name) is not None)
    groups: dict[str, dict[str, dict[float, float]]] = {}
    for name, line in steps.items():
        title = "Cosine distance (median)" if "_median_" in name else "Share of links"
        groups.setdefault(title, {})[name.removeprefix("alignment_").replace("_", " ")] = line
    charts = [lines_chart(title, lines, "Step", title) for title, lines in groups.items()]
    tables = [lines_table(title, lines, "step") for title, lines in groups.items()]
    return [Section("Alignment during training", charts=charts, tables=tables)] if charts else []


def _over_steps(history: _History, wanted: Any) -> dict[str, dict[float, float]]:
    """Name → step → value of what was logged at two steps or more; evenly thinned if that is too much to show."""
    lines: dict[str, dict[float, float]] = {}
    for entry in history:
        for name, value in entry.items():
            if isinstance(value, int | float) and wanted(name):
                lines.setdefault(name, {})[entry["step"]] = value
    return {name: thinned(line) for name, line in lines.items() if len(line) > 1}


def thinned(line: Mapping[float, float]) -> dict[float, float]:
    """At most `_POINTS` of the points of a line, its ends among them."""
    steps, n = sorted(line), min(len(line), _POINTS)
    kept = {steps[round(k * (len(steps) - 1) / (n - 1))] for k in range(n)} if n > 1 else steps
    return {step: line[step] for step in steps if step in kept}


def plot_losses(history: _History, path: str | Path) -> bool:
    """Draw the losses that were logged as a PNG file: a line each.

    Returns False, and draws nothing, if no loss was logged at two steps or more.
    """
    steps = _over_steps(history, lambda name: name == "loss" or name.endswith("_loss") and name != "train_loss")
    if not steps:
        return False
    lines = {name.replace("_", " "): line for name, line in steps.items()}
    with rc_context(STYLE), atomic_write(path) as temporary:
        line_chart(lines, "Step", "Loss", log=True).savefig(temporary, format="png", dpi=200)
    return True


# --- Settings ---


def settings(record: _Json, results: _Json) -> list[Section]:
    """Hyperparameters, versions, and every result by its name."""
    chosen = {**record["hyperparameters"], **record.get("versions", {})}
    tables = [
        Table("Hyperparameters and versions", ResultTable(["name", "value"], [[k, _shown(v)] for k, v in chosen.items()], 2), True),
        Table("All results (all_results.json)", ResultTable(["name", "value"], [[k, _shown(v)] for k, v in sorted(results.items())]), True),
    ]  # fmt: skip
    return [Section("How it was made", tables=tables)]


def _shown(value: object) -> str | None:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else None if value is None else str(value)
