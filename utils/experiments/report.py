"""The report of a replication: what was tried, what came out, how sure that is; as Markdown and as HTML.

Only the results decide what it says: made again from the same runs it is the same, byte by byte.
"""

import base64
import html
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import markdown

from utils.core.files import write_text
from utils.experiments.comparison import Comparison, Row
from utils.experiments.comparison_tables import as_csv, as_latex, as_markdown, points
from utils.experiments.figures import plot_differences
from utils.experiments.grid import (
    ABLATION,
    ADJUSTED,
    ADJUSTED_CONTINUAL,
    ENGLISH,
    FINE_TUNED,
    ORIGINAL,
    ORIGINAL_CONTINUAL,
    Grid,
)
from utils.experiments.results import Results
from utils.experiments.significance import seed_scores


REGIME_NAMES = {
    ORIGINAL: "original",
    ADJUSTED: "adjusted",
    ADJUSTED_CONTINUAL: "adjusted, continual",
    ORIGINAL_CONTINUAL: "original, continual",
    ABLATION: "adjusted, continual with alignment weight 0",
}
TITLES = {
    "nli": "Natural language inference, accuracy",
    "ner": "Named entities, F1",
    "qa": "Question answering, F1",
    "qa-cross": "Question answering across languages, F1",
    "xsr": "Sentence retrieval, accuracy",
}


@dataclass(frozen=True)
class Claim:
    """What Efimov et al. (ECIR 2023) say in words, and where to look for it.

    Attributes:
        words: the claim.
        task: where, of `TITLES`.
        regime, baseline: what is compared with what.
        n_gains: of the paper's four languages, how many gain; 0: none.
        is_the_papers: or ours.
    """

    words: str
    task: str
    regime: str
    baseline: str
    n_gains: int
    is_the_papers: bool = True


CLAIMS = (
    Claim("Adjustment helps NLI in all four languages.", "nli", ADJUSTED, ORIGINAL, 4),
    Claim("Adjustment helps NER in three of four languages.", "ner", ADJUSTED, ORIGINAL, 3),
    Claim("Adjustment helps sentence retrieval in three of four languages.", "xsr", ADJUSTED, ORIGINAL, 3),
    Claim("Adjustment helps QA across languages in three of four.", "qa-cross", ADJUSTED, ORIGINAL, 3),
    Claim("Adjustment does not help QA in one language.", "qa", ADJUSTED, ORIGINAL, 0),
    Claim("Continual learning helps NLI, beside plain fine-tuning of the adjusted model.", "nli", ADJUSTED_CONTINUAL, ADJUSTED, 4),
    Claim("(Ours.) It is the alignment loss that helps NLI, not the regulariser alone.", "nli", ADJUSTED_CONTINUAL, ABLATION, 4, is_the_papers=False),
)  # fmt: skip


def write_report(results: Results, output_dir: Path, how: Mapping[str, str]) -> Path:
    """Write `report.md`, `report.html`, the figure of differences, and the comparisons in full.

    Args:
        results: of the grid.
        output_dir: where to.
        how: what a reader must know of the conditions, by name.

    Returns:
        The report in Markdown.
    """
    figure = _draw(results, output_dir)
    text = _report(results, how, figure)
    write_text(output_dir / "report.md", text)
    write_text(output_dir / "report.html", as_html(text, output_dir))
    if results.tables:
        merged = Comparison(
            [row for comparison in results.tables for row in comparison.rows],
            list(dict.fromkeys(note for comparison in results.tables for note in comparison.notes)),
            results.alpha,
        )
        write_text(output_dir / "comparison.csv", as_csv(merged))
        for name, write in (("comparison.md", as_markdown), ("comparison.tex", as_latex)):
            write_text(output_dir / name, "\n".join(map(write, results.tables)))
    return output_dir / "report.md"


def _draw(results: Results, output_dir: Path) -> str | None:
    panels: dict[str, dict[str, dict[str, tuple[float, float, float]]]] = {}
    for (task, regime, baseline), rows in results.rows.items():
        tested = {language: row for language, row in rows.items() if row.bootstrap}
        if baseline == ORIGINAL and tested:
            panels.setdefault(TITLES[task], {})[REGIME_NAMES[regime]] = {
                language: (row.difference, row.bootstrap.low, row.bootstrap.high) for language, row in tested.items()
            }
    if not panels:
        return None
    plot_differences(panels, output_dir / "differences", "Difference from the original model, fine-tuned plainly")
    return "differences.png"


def _report(results: Results, how: Mapping[str, str], figure: str | None) -> str:
    grid = results.grid
    seeds = f"{len(grid.seeds)} seed{'s' if len(grid.seeds) > 1 else ''}"
    lines = [
        "# Does cross-lingual adjustment help?",
        "",
        f"**What was tried.** `{Path(grid.model_name_or_path).name}`, adjusted to {_listed(grid.languages)}{' at once' if grid.joint else ''}, was fine-tuned in "
        f"English for {_listed([TITLES[task].split(',')[0].lower() for task in grid.tasks if task != 'xsr'])} and measured in the "
        f"other languages: as it came, adjusted, and with continual learning, {seeds} each; as in Efimov et al. (ECIR 2023).",
        "",
        f"**What came out.** {_summary(results)}",
        "",
        f"**How sure that is.** {_how_sure(results)}",
        "",
        *_claims(results),
        "",
    ]
    if figure:
        lines += [f"![Differences from the original model]({figure})", ""]
    for task in TITLES:
        if task in results.cells:
            lines += _section(results, task)
    if results.distances:
        lines += _distances(results)
    lines += ["## Conditions", "", "| | |", "| --- | --- |"]
    lines += [f"| {name} | {text} |" for name, text in how.items()]
    lines += ["", *_missing(results.missing)]
    return "\n".join(lines).rstrip() + "\n"


def _summary(results: Results) -> str:
    """One sentence: how many of the paper's claims are seen, not seen, or cannot be told."""
    verdicts = [verdict for claim in CLAIMS if claim.is_the_papers and (verdict := _verdict(results, claim))]
    verdicts += [verdict for *_, verdict in _claims_on_forgetting(results)]
    if not verdicts:
        return "Nothing yet: no two regimes of a task are done."
    names = {"yes": "seen", "partly": "seen in part", "no": "not so", "not so": "not so"}
    kinds = [names.get(kind, kind) for kind in (re.split("[:,]", verdict)[0] for verdict in verdicts)]
    said = "; ".join(f"{kind}: {kinds.count(kind)}" for kind in dict.fromkeys(kinds))
    return f"Of {len(verdicts)} claims of the paper that could be looked at: {said}. The table says which."


def _how_sure(results: Results) -> str:
    smallest = min((n for of_task in results.n_examples.values() for n in of_task.values()), default=0)
    too_few = (
        f" With {results.n_resamples:,} resamples no p-value can be small enough for that: give --n_resamples "
        f"{int(10 * results.n_comparisons / results.alpha):,} or more."
        if results.n_comparisons / (results.n_resamples + 1) > results.alpha
        else ""
    )
    return (
        f"`*` marks a difference that is more than chance at the 5 % level, adjusted (Holm) for all {results.n_comparisons} "
        f"comparisons of this report: paired bootstrap over examples ({smallest:,} or more a language), scores averaged over "
        "seeds first. `(*)` is one that cannot carry a claim all the same: too few seeds or examples, or seeds that vary as "
        f"much. Everything else may be chance.{too_few}"
    )


def _claims(results: Results) -> Iterator[str]:
    yield "| The paper's claim | Here | Seen? |"
    yield "| --- | --- | --- |"
    for claim in CLAIMS:
        if verdict := _verdict(results, claim):
            rows = results.rows[claim.task, claim.regime, claim.baseline]
            yield f"| {claim.words} | {_differences(results, rows)} | {verdict} |"
    for cells in _claims_on_forgetting(results):
        yield f"| {' | '.join(cells)} |"


def _verdict(results: Results, claim: Claim) -> str | None:
    """Whether a claim is seen; None if it was not tried."""
    rows = results.rows.get((claim.task, claim.regime, claim.baseline))
    if not rows:
        return None
    directions: dict[str, list[int]] = {}  # by language: of all pairs that it is part of
    for name, row in rows.items():
        sign = (1 if row.difference > 0 else -1) if results.mark(row) == "*" else 0
        directions.setdefault(name.replace("en-", "").replace("-en", ""), []).append(sign)
    better = sum(max(signs) > 0 and min(signs) >= 0 for signs in directions.values())
    worse = sum(min(signs) < 0 and max(signs) <= 0 for signs in directions.values())
    n = len(directions)
    if claim.n_gains == 0:
        return (
            "no difference found"
            if not better and not worse
            else f"not so: better in {better}, worse in {worse} of {n}"
        )
    if better >= claim.n_gains * n / 4:
        return f"yes, in {better} of {n}"
    if better or worse:
        return f"partly: better in {better}, worse in {worse} of {n}" if better else f"no: worse in {worse} of {n}"
    return "cannot be told from chance"


def _differences(results: Results, rows: Mapping[str, Row]) -> str:
    return ", ".join(f"{name} {points(row.difference)}{results.mark(row)}" for name, row in sorted(rows.items()))


def _section(results: Results, task: str) -> list[str]:
    """The paper's table: a line per regime, a column per language; mean ± sd over seeds, difference from the original."""
    cells = results.cells[task]
    names = sorted(
        {name for of_regime in cells.values() for name in of_regime}, key=lambda name: (name != ENGLISH, name)
    )
    foreign = [name for name in names if name != ENGLISH]
    lines = [f"## {TITLES[task]} (%)", "", f"| | {' | '.join(names)} | mean{' without en' * (ENGLISH in names)} |"]
    lines.append(f"| --- |{' ---: |' * (len(names) + 1)}")
    for regime, title in REGIME_NAMES.items():
        if of_regime := cells.get(regime):
            rows = results.rows.get((task, regime, ORIGINAL), {})
            shown = [_cell(results, of_regime.get(name), rows.get(name)) for name in names]
            means = [mean(of_regime[name]) for name in foreign if name in of_regime]
            whole = f"{100 * mean(means):.1f}" if len(means) == len(foreign) else "–"
            lines.append(f"| {title} | {' | '.join(shown)} | {whole} |")
    notes = [f"{results.n_examples[task][name]:,} ({name})" for name in names]
    lines += [
        "",
        f"<sub>Mean ± sd over seeds; in brackets the difference from *original*. Examples: {_listed(notes)}.</sub>",
        "",
    ]
    between = [
        (f"{REGIME_NAMES[regime]} – {REGIME_NAMES[baseline]}", rows)
        for (of, regime, baseline), rows in results.rows.items()
        if of == task and baseline != ORIGINAL
    ]
    lines += [line for title, rows in between for line in (f"*{title}*: {_differences(results, rows)}.", "")]
    return lines


def _cell(results: Results, values: Sequence[float] | None, row: Row | None) -> str:
    if not values:
        return "–"
    of = seed_scores(values)
    sd = f" ± {100 * of.sd:.1f}" if of.sd is not None else ""
    difference = f" ({points(row.difference)}{results.mark(row)})" if row else ""
    return f"{100 * of.mean:.1f}{sd}{difference}"


_MEASURES = {
    "share_nearer": "{language}_{where}_share_nearer",
    "retrieval": "{language}-en_{where}_word_retrieval_accuracy",
}


def _alignment(results: Results) -> dict[str, dict[str, dict[str, float]]]:
    """Model → language → measure, by cosine in the highest layer that was measured."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for language, numbers in results.distances.items():
        seed = results.grid.seeds[0]
        for stage, label in _stages(results.grid, language, seed).items():
            layers = [
                int(match[1])
                for name in numbers
                if (match := re.fullmatch(rf"{re.escape(label)}/{language}_layer(\d+)_cosine_share_nearer", name))
            ]
            if layers:
                where = f"layer{max(layers)}_cosine"
                found.setdefault(stage, {})[language] = {
                    measure: numbers[f"{label}/{name.format(language=language, where=where)}"]
                    for measure, name in _MEASURES.items()
                }
    return found


def _stages(grid: Grid, language: str, seed: int) -> dict[str, str]:
    """What was measured, and what `run_distances.py` calls it."""
    task = next((task for task in grid.tasks if task in FINE_TUNED), None)
    adjusted_to = "joint" if grid.joint else language
    stages = {"original": Path(grid.model_name_or_path).name, "adjusted": f"{adjusted_to}-seed{seed}"}
    for regime in grid.regimes if task else ():
        end = f"seed{seed}" if regime == ORIGINAL or grid.joint else f"{language}-seed{seed}"
        stages[f"{REGIME_NAMES[regime]}, fine-tuned ({task})"] = f"{regime}-{end}"
    return stages


def _distances(results: Results) -> list[str]:
    found = _alignment(results)
    languages = list(results.distances)
    lines = ["## What was learned, and what was forgotten (%)", ""]
    lines.append(f"| | {' | '.join(languages)} |")
    lines.append(f"| --- |{' ---: |' * len(languages)}")
    for stage, of_stage in found.items():
        shown = [
            f"{100 * one['share_nearer']:.1f} / {100 * one['retrieval']:.1f}"
            if (one := of_stage.get(language))
            else "–"
            for language in languages
        ]
        lines.append(f"| {stage} | {' | '.join(shown)} |")
    lines += [
        "",
        "<sub>Held-out pairs, last layer, cosine: how often the related word is nearer than an unrelated one / how often a "
        "word's nearest English word is the one it is linked with. First seed.</sub>",
        "",
    ]
    for language in languages:
        lines += [f"![Distances, {language}](distances/{language}/distances_{language}.png)", ""]
    return lines


def _claims_on_forgetting(results: Results) -> Iterator[tuple[str, str, str]]:
    """The claims that distances decide: words, what is seen here, verdict."""
    found = _alignment(results)
    task = next((task for task in results.grid.tasks if task in FINE_TUNED), None)
    adjusted, plain, continual = (
        found.get(name, {})
        for name in ("adjusted", f"adjusted, fine-tuned ({task})", f"adjusted, continual, fine-tuned ({task})")
    )
    for words, before, after, expected in (
        ("Fine-tuning forgets alignment (word retrieval falls).", adjusted, plain, -1),
        ("Continual learning keeps more of it.", plain, continual, 1),
    ):
        both = [language for language in before if language in after]
        if both:
            changes = {language: after[language]["retrieval"] - before[language]["retrieval"] for language in both}
            n = sum(change * expected > 0 for change in changes.values())
            here = ", ".join(f"{language} {points(change)}" for language, change in sorted(changes.items()))
            verdict = f"{'yes' if n == len(both) else 'partly' if n else 'no'}, in {n} of {len(both)} (first seed)"
            yield words, here, verdict


def _missing(missing: Mapping[str, str]) -> list[str]:
    if not missing:
        return []
    lines = ["## What is missing", "", "| run | why |", "| --- | --- |"]
    return [*lines, *(f"| {name} | {why.replace('|', chr(92) + '|')} |" for name, why in sorted(missing.items()))]


def _listed(items: Iterable[str]) -> str:
    *most, last = items
    return f"{', '.join(most)} and {last}" if most else last


_STYLE = """\
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; vertical-align: top; }
img { max-width: 100%; }
sub { color: #555; vertical-align: baseline; }"""


def as_html(text: str, folder: Path) -> str:
    """A page of its own, figures within, of a report in Markdown.

    Args:
        text: Markdown.
        folder: that its figures are named from.
    """
    body = markdown.markdown(text, extensions=["tables"])

    def embedded(match: re.Match) -> str:
        path = folder / html.unescape(match[1])
        if not path.is_file():
            return match[0]
        return f'src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"'

    body = re.sub(r'src="([^"]+\.png)"', embedded, body)
    title = html.escape(text.split("\n", 1)[0].lstrip("# "))
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f"<style>\n{_STYLE}\n</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )
