"""The report of a replication, as Markdown and as HTML: what was tried, what came out, how certain that is.

It depends on the results alone: written again from the same runs it is bit-for-bit identical.
"""

import base64
import html
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import markdown
from jinja2 import Environment, StrictUndefined

from utils.core.files import write_text
from utils.core.page import html_page
from utils.core.result_tables import ResultTable, markdown_text, points
from utils.experiments.arms import (
    ADJUSTED,
    ADJUSTED_CONTINUAL,
    FORGETTING,
    ORIGINAL,
    REGIMES,
    TRANSLATED,
    WORDS,
    XSR,
    Arm,
    by_script,
    language_of,
)
from utils.experiments.claims import CLAIMS, NOT_TESTED, decisive, kind_of, place, verdict_on
from utils.experiments.comparison import Comparison, note_on_resamples
from utils.experiments.comparison_tables import mean_and_sd, write_tables
from utils.experiments.grid import Grid
from utils.experiments.predictors import correlate, gains
from utils.experiments.results import PARTS, Results, original_for, title_with_metric
from utils.experiments.run_archives import SUFFIX, write_archive
from utils.experiments.significance import seed_scores
from utils.parallel.sides import ENGLISH, directions


_TEMPLATE = Path(__file__).with_name("report_template.md")


def write_report(results: Results, output_dir: Path, conditions: Mapping[str, str]) -> Path:
    """Write `report.md`, `report.html`, the figures, the comparisons in full, and the runs in one archive.

    `conditions` says by name what a reader must know about how the runs were made. Returns the path of `report.md`.
    """
    text = _report(results, conditions, _draw(results, output_dir), output_dir)
    write_text(output_dir / "report.md", text)
    write_text(output_dir / "report.html", as_html(text, output_dir))
    if results.tables:
        write_tables(results.tables, output_dir)
        write_archive(results.runs, output_dir / f"grid{SUFFIX}")
    return output_dir / "report.md"


def _draw(results: Results, output_dir: Path) -> list[tuple[str, str]]:
    """Caption and file name of the figures of scores and of differences; none if there are no intervals to draw."""
    panels: dict[str, dict[str, dict[str, tuple[float, float, float]]]] = {}
    baselines: dict[str, dict[str, float]] = {}
    for (part, regime, baseline), compared in results.comparisons.items():
        intervals = {
            language: (one.difference, one.bootstrap.low, one.bootstrap.high)
            for language, one in compared.items()
            if one.bootstrap
        }
        if baseline == original_for(results.grid, part, regime) and intervals:
            # (Measured in another way, the original has other scores.)
            way = results.grid.rows[baseline].variant
            title = title_with_metric(part) + f", measured as {way}" * bool(way)
            panels.setdefault(title, {})[results.grid.rows[regime].title] = intervals
            baselines.setdefault(title, {}).update({name: compared[name].baseline.score.mean for name in intervals})
    if not panels:
        return []
    order = [name for one in results.grid.languages for name in (one, *directions(one))]
    captions = {
        "scores": "Scores, with the 95 % interval of the difference from the original model (line)",
        "differences": "Difference from the original model, fine-tuned plainly",
    }
    from utils.experiments.figures import plot_differences  # (matplotlib takes long to import)

    plot_differences(panels, output_dir / "scores", captions["scores"], baselines, order)
    plot_differences(panels, output_dir / "differences", captions["differences"], order=order)
    return [(caption, f"{name}.png") for name, caption in captions.items()]


def _report(
    results: Results, conditions: Mapping[str, str], figures: Sequence[tuple[str, str]], output_dir: Path
) -> str:
    grid = results.grid
    claims = list(_claims(results))
    environment = Environment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    text = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        results=results,
        grid=grid,
        listed=_listed,
        regimes=[REGIMES[regime].title for regime in grid.regimes],
        model=markdown_text(Path(grid.model_name_or_path).name.replace("`", "'")),
        tasks=[PARTS[task][0][:1].lower() + PARTS[task][0][1:] for task in grid.tasks if task not in (XSR, WORDS)],
        summary=_summary([row[3] for row, is_the_papers in claims if is_the_papers]),
        smallest_set=min((n for of_part in results.n_examples.values() for n in of_part.values()), default=0),
        claims=_claims_table([row for row, _ in claims]),
        figures=figures,
        too_few_resamples=note_on_resamples(results.n_comparisons, results.n_resamples, results.alpha),
        sections=[_section(results, part) for part in results.scores],
        predictors=_predictors(results, output_dir),
        retrieval=_other_retrieval(results),
        retrieval_layers=_layers(results.retrieval_layers),
        distances=_distances(results),
        distance_layers=_layers(_highest_layers(results)),
        conditions=ResultTable(["", ""], list(conditions.items()), 2).markdown(),
        missing=ResultTable(["run", "reason"], sorted(results.missing.items()), 2).markdown(),
    )
    return text.rstrip() + "\n"


def _summary(verdicts: Sequence[str]) -> str:
    """One sentence: how many of the paper's claims were seen, not seen, or remain undecided. Those that nobody tested do not count."""
    if not verdicts:
        return "These runs test no claim of the paper; that takes two of its regimes of a task."
    names = {"yes": "seen", "partly": "seen in part", "no": "not seen"}
    found = [kind_of(verdict) for verdict in verdicts]
    kinds = [names.get(kind, kind) for kind in found if kind != NOT_TESTED]
    if not kinds:
        return "No claim of the paper could be tested: there are no predictions of single examples. The table gives the differences."
    counts = "; ".join(f"{kind}: {kinds.count(kind)}" for kind in dict.fromkeys(kinds))
    return f"Of {len(kinds)} claims of the paper that could be tested: {counts}. The table gives the details."


_CLAIM_COLUMNS = ["The paper's claim", "In", "Here", "Seen?", "Decided by"]
# Claim, script (if the grid has several), differences, verdict, the comparison that decides; and whether the paper makes it.
_ClaimRow = tuple[tuple[str, str | None, str, str, str | None], bool]


def _claims_table(rows: Sequence[tuple]) -> str:
    return ResultTable(_CLAIM_COLUMNS, rows, 5).without_empty_columns().markdown() if rows else ""


def _claims(results: Results) -> Iterator[_ClaimRow]:
    """The claims that were tested, each in every script by itself."""
    grid = results.grid
    groups = by_script(grid.languages)
    for variant in grid.variants or [""]:
        of_variant = f" ({variant})" if variant else ""
        for claim in CLAIMS:
            found = results.comparisons.get(place(claim, variant), {})
            for script, languages in groups.items():
                compared = {name: one for name, one in found.items() if language_of(name) in languages}
                if verdict := verdict_on(compared, claim, results.alpha):
                    named = None if len(groups) == 1 else script or "own script"
                    cells = (named, _differences(results, compared), verdict, decisive(compared, claim, results.alpha))
                    yield (claim.words + of_variant, *cells), claim.is_the_papers
        if FORGETTING not in results.scores:
            yield from _claims_on_forgetting(results, variant, of_variant)


def _claims_on_forgetting(results: Results, variant: str, of_variant: str) -> Iterator[_ClaimRow]:
    found, grid = _alignment(results), results.grid
    arms = [Arm(regime, variant) for regime in (ADJUSTED, ADJUSTED, ADJUSTED_CONTINUAL)]
    stages = (arms[0].title, *(_fine_tuned(grid, arm) for arm in arms[1:]))
    adjusted, plain, continual = (found.get(stage, {}) for stage in stages)
    for words, before, after, expected in (
        (f"Fine-tuning forgets alignment (word retrieval falls).{of_variant}", adjusted, plain, -1),
        (f"Continual learning keeps more of it.{of_variant}", plain, continual, 1),
    ):
        if changes := {language: after[language][1] - before[language][1] for language in before if language in after}:
            n = sum(change * expected > 0 for change in changes.values())
            here = ", ".join(f"{language} {points(change)}" for language, change in sorted(changes.items()))
            # (Of single words nothing is kept there. The task `forgetting` tests it.)
            verdict = f"{NOT_TESTED}: {'higher' if expected > 0 else 'lower'} in {n} of {len(changes)} (first seed)"
            yield (words, None, here, verdict, None), True


def _differences(results: Results, compared: Mapping[str, Comparison]) -> str:
    return ", ".join(f"{name} {_points(results, one)}" for name, one in sorted(compared.items()))


def _points(results: Results, comparison: Comparison) -> str:
    """In Markdown, in which two stars in a line can be emphasis unless they are escaped."""
    return f"{points(comparison.difference)}{comparison.mark(results.alpha)}".replace("*", r"\*")


def _section(results: Results, part: str) -> dict[str, Any]:
    """The paper's table: a row per arm, a column per language; mean ± sd over seeds, difference from the original."""
    scores = results.scores[part]
    names = sorted({name for of_regime in scores.values() for name in of_regime}, key=lambda n: (n != ENGLISH, n))
    foreign = [name for name in names if name != ENGLISH]
    rows = []
    arms = results.grid.rows
    for regime in filter(scores.get, arms):
        of_regime = scores[regime]
        compared = results.comparisons.get((part, regime, original_for(results.grid, part, regime)), {})
        cells = {name: mean_and_sd(seed_scores(values)) for name, values in of_regime.items()}
        cells |= {name: f"{cells[name]} ({_points(results, one)})" for name, one in compared.items()}
        means = [mean(of_regime[name]) for name in foreign if name in of_regime]
        mean_of_all = f"{100 * mean(means):.1f}" if len(means) == len(foreign) else None
        rows.append([arms[regime].title, *map(cells.get, names), mean_of_all])
    columns = ["", *names, "mean without en" if ENGLISH in names else "mean"]
    return {
        "title": title_with_metric(part),
        "table": ResultTable(columns, rows).markdown(),
        "examples": [f"{results.n_examples[part][name]:,} ({name})" for name in names],
        "detectable": _detectable(results, part),
        "between_regimes": [
            (f"{arms[regime].title} – {arms[baseline].title}", _differences(results, compared))
            for (of, regime, baseline), compared in results.comparisons.items()
            if of == part and baseline != original_for(results.grid, part, regime)
        ],
        "not_compared": [
            f"{arms[one].title} – {arms[other].title}" for one, other in results.not_compared.get(part, ())
        ],
        "means_in_english": ENGLISH in names and not results.grid.joint and len(results.grid.languages) > 1,
    }


def _detectable(results: Results, part: str) -> str:
    """The smallest difference that would be seen with a power of 80 %, at the strictest level of Holm's adjustment."""
    level = results.alpha / max(1, results.n_comparisons)
    compared = [one for (of, *_), found in results.comparisons.items() if of == part for one in found.values()]
    found = sorted(filter(None, (one.detectable(level) for one in compared)))
    return f"{100 * found[0]:.1f} to {100 * found[-1]:.1f}" if found else ""


def _other_retrieval(results: Results) -> str:
    """Sentence retrieval by other measures: a row per arm, a column per language and measure, in percent."""
    columns = sorted({name for of_arm in results.retrieval.values() for name in of_arm})
    rows = [
        [arm.title, *(f"{100 * of_arm[name]:.1f}" if name in of_arm else None for name in columns)]
        for arm in results.grid.rows.values()
        if (of_arm := results.retrieval.get(arm.name))
    ]
    return ResultTable(["", *columns], rows).markdown() if columns else ""


def _predictors(results: Results, output_dir: Path) -> str:
    """How the gain goes with what was known before: a row per task and predictor; the figure is written beside the report."""
    found = gains(results)
    rows = [
        [task, predictor, f"{one.rho:+.2f} [{one.low:+.2f}, {one.high:+.2f}]".replace("-", "−"), one.n_languages]
        for task, of_task in found.items()
        for predictor, points_of in of_task.items()
        if (one := correlate(points_of))
    ]
    if not rows:
        return ""
    from utils.experiments.figures import plot_gains

    plot_gains(found, output_dir / "predictors")
    return ResultTable(["task", "predictor", "Spearman's ρ [95 % interval]", "languages"], rows, 2).markdown()


def _alignment(results: Results) -> dict[str, dict[str, tuple[float, float]]]:
    """Model → language → how often the related word is nearer than an unrelated one, and the accuracy of word retrieval.

    By cosine in the highest layer that was measured, for the first seed.
    """
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for language, numbers in results.distances.items():
        for stage, label in _stages(results.grid, language).items():
            where = f"layer{_highest_layer(numbers, label, language)}_cosine"
            names = (f"{language}_{where}_share_nearer", f"{language}-en_{where}_word_retrieval_accuracy")
            if all(f"{label}/{name}" in numbers for name in names):
                found.setdefault(stage, {})[language] = tuple(numbers[f"{label}/{name}"] for name in names)
    return found


def _highest_layer(numbers: Mapping[str, Any], label: str, language: str) -> int | None:
    pattern = rf"{re.escape(label)}/{re.escape(language)}_layer(\d+)_cosine_share_nearer"
    return max((int(match[1]) for name in numbers if (match := re.fullmatch(pattern, name))), default=None)


def _highest_layers(results: Results) -> set[int]:
    """Those of the models and languages whose distances were measured: usually one."""
    found = (
        _highest_layer(numbers, label, language)
        for language, numbers in results.distances.items()
        for label in _stages(results.grid, language).values()
    )
    return {layer for layer in found if layer is not None}


def _layers(layers: Iterable[int]) -> str:
    numbers = list(map(str, sorted(layers)))
    return f"layer{'s' * (len(numbers) > 1)} {_listed(numbers)}" if numbers else ""


def _stages(grid: Grid, language: str) -> dict[str, str]:
    """The models that were measured: name in the report → label in the results of `run_distances.py`."""
    seed = f"seed{grid.seeds[0]}"
    adjusted_to = "joint" if grid.joint else language
    stages = {ORIGINAL: Path(grid.model_name_or_path).name}
    for variant in grid.variants or [""]:
        stages[Arm(ADJUSTED, variant).title] = "-".join(filter(None, [variant, adjusted_to, seed]))
    for arm in grid.arms.values() if grid.first_task else ():
        end = seed if arm.regime == ORIGINAL or grid.joint and arm.regime != TRANSLATED else f"{language}-{seed}"
        stages[_fine_tuned(grid, arm)] = f"{arm.name}-{end}"
    return stages


def _fine_tuned(grid: Grid, arm: Arm) -> str:
    return f"{arm.title}, fine-tuned ({grid.first_task})"


def _distances(results: Results) -> str:
    languages = list(results.distances)
    rows = []
    for stage, of_stage in _alignment(results).items():
        cells = {name: f"{100 * nearer:.1f} / {100 * retrieved:.1f}" for name, (nearer, retrieved) in of_stage.items()}
        rows.append([stage, *map(cells.get, languages)])
    return ResultTable(["", *languages], rows).markdown()


def _listed(items: Iterable[str]) -> str:
    *most, last = items
    return f"{', '.join(most)} and {last}" if most else last


_STYLE = """\
main { max-width: 72rem; margin: 0 auto; }
table { margin: 1rem 0; }
td, th { vertical-align: top; }
p { max-width: 52rem; }
img { background: white; }
sub { color: var(--muted); vertical-align: baseline; }"""


def as_html(text: str, folder: Path) -> str:
    """A report in Markdown as one HTML page that contains its figures, whose paths are relative to a folder.

    Of HTML in the report only `<sub>` counts, and there are no links: names in it come from anywhere.
    """

    def embedded(match: re.Match) -> str:
        path = folder / html.unescape(match[1])
        if not path.is_file():
            return match[0]
        return f'src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"'

    converter = markdown.Markdown(extensions=["tables"])
    converter.preprocessors.deregister("html_block")
    for pattern in ("html", "entity", "link", "reference", "short_reference", "autolink", "automail"):
        converter.inlinePatterns.deregister(pattern)
    body = re.sub("&lt;(/?sub)&gt;", r"<\1>", converter.convert(text))
    body = re.sub(r'src="([^"]+\.png)"', embedded, body)
    body = body.replace("<table>", '<div class="scroll" role="group" aria-label="Table" tabindex="0"><table>')
    body = body.replace("</table>", "</table></div>")
    return html_page(text.split("\n", 1)[0].lstrip("# "), f"<main>\n{body}\n</main>", _STYLE)
