"""compare_runs.py on small runs written by hand: numbers worked out by hand, refusals, and what is written."""

import contextlib
import csv
import json
import re

import pytest
from scipy import stats

import compare_runs
from helpers.paths import PROJECT
from helpers.processes import ScriptProcess, run_process
from helpers.runs import NER, NLI, QA, write_alignment, write_nli, write_run, write_xsr
from utils.core.arguments import hyperparameters
from utils.core.errors import InputError
from utils.core.files import write_json, write_json_lines
from utils.evaluation.answers import answer_scores
from utils.evaluation.entities import entity_scores
from utils.experiments.comparison import comparison_table, find_baselines
from utils.experiments.finished_runs import read_runs
from utils.experiments.run_archives import read_runs_and_archives, write_archive
from utils.parallel.aligners.registry import ALIGNERS, AlignerArguments


# --- Runs as the scripts leave them ---


def write_ner(folder, tags, gold, **options):
    rows = [
        {"id": str(k), "gold": right.split(), "prediction": found.split(), "score": 0.5}
        for k, (found, right) in enumerate(zip(tags, gold))
    ]
    measured = entity_scores([row["prediction"] for row in rows], [row["gold"] for row in rows])[""]
    return write_run(folder, NER, {"hi": rows}, {"eval_hi_f1": measured["f1"]}, **options)


def write_qa(folder, found, right, **options):
    rows = []
    for k, (answer, gold) in enumerate(zip(found, right)):
        exact_match, f1 = answer_scores(answer, [gold])
        told = {"id": str(k), "gold": [gold], "prediction": answer, "score": 0.5}
        rows.append({**told, "exact_match": exact_match, "f1": round(f1, 6)})
    results = {f"eval_hi_{m}": 100 * sum(row[m] for row in rows) / len(rows) for m in ("f1", "exact_match")}
    return write_run(folder, QA, {"hi": rows}, results, **options)


CONTINUAL = {"regime": "continual", "arguments": {"languages": ["hi"], "alignment_weight": 0.01}}
ABLATION = {"regime": "continual", "arguments": {"languages": ["hi"], "alignment_weight": 0}}
# Of 200 examples the plain runs have 100 right; with continual learning 10, 20 and 30 more.
PLAIN_RUNS = [[1] * 100 + [0] * 100] * 3
CONTINUAL_RUNS = [[1] * (100 + more) + [0] * (100 - more) for more in (10, 20, 30)]


@pytest.fixture
def grid(tmp_path):
    """NLI with three seeds, plain and continual."""
    folders = []
    for seed, (plain, continual) in enumerate(zip(PLAIN_RUNS, CONTINUAL_RUNS), start=1):
        folders.append(write_nli(tmp_path / f"nli-plain-{seed}", plain, seed=seed))
        folders.append(write_nli(tmp_path / f"nli-continual-{seed}", continual, seed=seed, **CONTINUAL))
    return folders


@pytest.fixture
def compared(run, tmp_path):
    """Run the script, and read its CSV: a row per system."""

    def compare(*arguments, out="out"):
        run(compare_runs.main, *arguments, "--output_dir", tmp_path / out)
        with open(tmp_path / out / "comparison.csv", encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    return compare


def numbers(row, *names):
    return tuple(float(row[name]) for name in names)


# --- Numbers ---


def test_means_differences_and_p_values(grid, compared, tmp_path):
    plain, continual = compared(*grid, "--baseline", "plain")
    assert (plain["model"], plain["regime"], plain["language"]) == ("mbert", "plain", "hi")
    assert continual["regime"] == "continual"
    assert (continual["seeds"], continual["runs"], continual["examples"]) == ("1 2 3", "3", "200")
    assert numbers(plain, "mean", "sd") == (0.5, 0)
    assert numbers(continual, "mean", "sd", "difference") == pytest.approx((0.6, 0.05, 0.1))
    assert (plain["baseline"], continual["baseline"]) == ("mbert, plain", "mbert, plain")
    assert plain["difference"] == plain["p_bootstrap"] == plain["low"] == ""
    # Averaged over seeds, ten examples differ by 1, ten by 2/3, ten by 1/3, the others by nothing.
    assert float(continual["low"]) == pytest.approx(0.1 - 1.96 * 0.0182, abs=0.003)
    assert float(continual["high"]) == pytest.approx(0.1 + 1.96 * 0.0182, abs=0.003)
    assert float(continual["p_t_test"]) < 1e-6
    assert float(continual["p_bootstrap"]) == float(continual["p_holm_examples"]) == pytest.approx(1 / 10_001)
    # Over seeds, the standard error is 0.05 / √3, with two degrees of freedom; one comparison needs no correction.
    of_seeds = 0.05**2 / 3
    degrees = (0.0182**2 + of_seeds) ** 2 / (of_seeds**2 / 2)
    p_seeds = 2 * stats.t.sf(0.1 / (0.0182**2 + of_seeds) ** 0.5, degrees)
    assert float(continual["p_seeds"]) == float(continual["p_holm"]) == pytest.approx(p_seeds, rel=0.02)
    assert continual["p_mcnemar"] == ""  # of several runs there is no such test
    assert (continual["mark"], continual["cautions"]) == ("*", "")


def test_single_runs_are_tested_by_mcnemar_but_carry_no_claim(compared, tmp_path):
    plain = write_nli(tmp_path / "a", [1] * 100 + [0] * 100)
    continual = write_nli(tmp_path / "b", [0] * 2 + [1] * 118 + [0] * 80, **CONTINUAL)
    *_, row = compared(plain, continual, "--baseline", plain)
    # 20 to 2 discordant pairs: 2 · P(X ≤ 2) - P(X = 2) of 22 throws.
    assert float(row["p_mcnemar"]) == pytest.approx((2 * (1 + 22 + 231) - 231) / 2**22)
    assert (row["difference"], row["sd"]) == ("0.08999999999999997", "")
    assert (row["mark"], row["cautions"]) == ("(*)", "fewer than 3 seeds")


def test_few_examples_and_few_discordant_pairs_are_named(compared, tmp_path, capsys):
    write_nli(tmp_path / "a", [1] * 10 + [0] * 20)
    write_nli(tmp_path / "b", [1] * 12 + [0] * 18, **CONTINUAL)
    compared(tmp_path / "a", tmp_path / "b", "--baseline", "plain")
    text = capsys.readouterr().out
    for why in ("fewer than 3 seeds", "fewer than 100 examples", "fewer than 10 examples on which the two differ"):
        assert f"- Natural language inference (hi): {why}" in text


def test_what_seeds_alone_may_make_carries_no_claim(compared, tmp_path, capsys):
    """Better by 1, 10 and 40 of 200: significant on these examples, but the next seed may bring nothing."""
    folders = []
    for seed, more in enumerate((1, 10, 40)):
        folders.append(write_nli(tmp_path / f"a{seed}", [1] * 100 + [0] * 100, seed=seed))
        folders.append(
            write_nli(tmp_path / f"b{seed}", [1] * (100 + more) + [0] * (100 - more), seed=seed, **CONTINUAL)
        )
    *_, row = compared(*folders, "--baseline", "plain")
    assert float(row["p_holm_examples"]) < 0.001
    assert float(row["p_holm"]) == float(row["p_seeds"]) > 0.2
    assert (row["mark"], bool(row["cautions"])) == ("(*)", True)
    assert "- Natural language inference (hi): significant over examples" in capsys.readouterr().out


def test_seeds_count_in_the_correction_for_many_comparisons(compared, tmp_path):
    """Four systems gain 8, 13 and 18 of 200: each alone would be significant, also over seeds; of four none is."""
    folders = [write_nli(tmp_path / f"a{seed}", [1] * 100 + [0] * 100, seed=seed) for seed in range(3)]
    for model in "bcde":
        for seed, more in enumerate((8, 13, 18)):
            right = [1] * (100 + more) + [0] * (100 - more)
            folders.append(write_nli(tmp_path / f"{model}{seed}", right, seed=seed, base_model=model))
    rows = [row for row in compared(*folders, "--baseline", "mbert") if row["difference"]]
    assert len(rows) == 4
    for row in rows:
        assert float(row["p_seeds"]) < 0.05 < float(row["p_holm"])
        assert float(row["p_holm"]) == pytest.approx(4 * float(row["p_seeds"]))
        assert row["mark"] == "(*)"


def test_seeds_that_are_good_for_both_systems_are_compared_by_seed(compared, tmp_path, capsys):
    """Seeds differ by 40 of 200 examples, always in both systems: a gain of 12 is certain, but not from other seeds."""

    def p_value(seeds_of_continual):
        folders = []
        for language in ("hi", "ru", "vi"):
            for index, right in enumerate((90, 110, 130)):
                name, gain = f"{language}-{index}-{seeds_of_continual[0]}", 12 + (index == 1)
                plain, continual = [1] * right + [0] * (200 - right), [1] * (right + gain) + [0] * (200 - right - gain)
                folders.append(write_nli(tmp_path / f"a-{name}", plain, language, seed=index))
                seed = seeds_of_continual[index]
                folders.append(write_nli(tmp_path / f"b-{name}", continual, language, seed=seed, **CONTINUAL))
        rows = [
            row
            for row in compared(*folders, "--baseline", "plain", out=f"out{seeds_of_continual[0]}")
            if row["difference"]
        ]
        assert len(rows) == 3
        return max(float(row["p_holm"]) for row in rows)

    assert p_value((0, 1, 2)) < 0.01
    assert "correlation over seeds 1.00" in capsys.readouterr().out
    assert p_value((3, 4, 5)) > 0.5
    assert "correlation over seeds" not in capsys.readouterr().out


def test_a_classifier_that_was_only_evaluated_is_one_fine_tuning(compared, tmp_path):
    rights = {"a": 200, "b": 260}
    folders = [write_nli(tmp_path / name, [1] * right + [0] * (400 - right), base_model=name, arguments={"do_train": False})
               for name, right in rights.items()]  # fmt: skip
    *_, row = compared(*folders, "--baseline", folders[0])
    assert float(row["p_holm"]) < 0.01
    assert (row["seeds"], row["mark"], bool(row["cautions"])) == ("", "(*)", True)


@pytest.mark.parametrize("regime", ["plain", "continual"])
def test_a_run_at_chance_carries_no_claim(compared, tmp_path, capsys, regime):
    """Whether the system or its baseline has such a run."""
    folders = []
    for seed in range(3):
        for name, right, options in (("plain", 100, {}), ("continual", 130 + seed, CONTINUAL)):
            options = {**options, "at_chance": True} if name == regime and seed == 1 else options
            folder = tmp_path / f"{name}{seed}"
            folders.append(write_nli(folder, [1] * right + [0] * (200 - right), seed=seed, **options))
    *_, row = compared(*folders, "--baseline", "plain")
    assert row["mark"] == "(*)"
    assert "at chance" in row["cautions"]
    assert "- Natural language inference (hi): a run that has not learned its task" in capsys.readouterr().out


@pytest.mark.parametrize(("adjusted", "cautioned"), [((1, 1, 1), True), ((1, 1, 2), True), ((1, 2, 3), False)])
def test_few_adjusted_models_carry_no_claim_of_the_adjustment(compared, tmp_path, capsys, adjusted, cautioned):
    """Several fine-tunings of one adjusted model say nothing about another one; but something about continual learning with it."""
    folders = []
    for seed, of in enumerate(adjusted):
        base = write_alignment(tmp_path / f"aligned{of}", of)
        folders.append(write_nli(tmp_path / f"a{seed}", [1] * 100 + [0] * 100, seed=seed))
        folders.append(write_nli(tmp_path / f"b{seed}", [1] * 130 + [0] * 70, seed=seed, base_model=base))
        better = [1] * 160 + [0] * 40
        folders.append(write_nli(tmp_path / f"c{seed}", better, seed=seed, base_model=base, **CONTINUAL))
    row = next(row for row in compared(*folders, "--baseline", "mbert") if row["difference"])
    assert row["model"] == "mbert adjusted (hi)"
    assert (row["mark"], bool(row["cautions"])) == (("(*)", True) if cautioned else ("*", False))
    assert ("fewer than 3 adjusted models" in capsys.readouterr().out) == cautioned
    rows = compared(*folders, "--baseline", "plain", out="of-one-model")
    (row,) = (row for row in rows if row["regime"] == "continual" and row["difference"])
    assert (row["mark"], row["cautions"]) == ("*", "")


def test_entities_are_resampled_by_sentence(compared, tmp_path):
    gold = ["B-PER I-PER O", "B-LOC O B-ORG"] * 60
    good = ["B-PER I-PER O", "B-LOC O O"] * 60  # finds two of three
    bad = ["B-PER O O", "B-LOC O B-LOC"] * 60  # one of three, and two that are none
    write_ner(tmp_path / "bad", bad, gold)
    write_ner(tmp_path / "good", good, gold, **CONTINUAL)
    plain, continual = compared(tmp_path / "bad", tmp_path / "good", "--baseline", "plain")
    assert (plain["metric"], plain["language"]) == ("f1", "hi")
    assert float(plain["mean"]) == pytest.approx(2 * 1 / (3 + 3))
    assert float(continual["mean"]) == pytest.approx(2 * 2 / (2 + 3))
    # Nearly every resample has both kinds of sentences: the difference is never near 0.
    assert float(continual["p_bootstrap"]) == pytest.approx(1 / 10_001)
    assert 0.3 < float(continual["low"]) < float(continual["difference"]) < float(continual["high"]) < 0.65
    assert continual["p_t_test"] == continual["p_mcnemar"] == ""


def test_questions_have_two_metrics(compared, tmp_path):
    right = ["black cat", "dog"] * 60
    write_qa(tmp_path / "a", ["cat", "owl"] * 60, right)
    write_qa(tmp_path / "b", ["cat", "dog"] * 60, right, **CONTINUAL)
    rows = compared(tmp_path / "a", tmp_path / "b", "--baseline", "plain")
    found = {(row["metric"], row["regime"]): float(row["mean"]) for row in rows}
    assert found[("f1", "plain")] == pytest.approx(1 / 3, abs=1e-5)  # cat of black cat: 2/3
    assert found[("f1", "continual")] == pytest.approx(5 / 6, abs=1e-5)
    assert (found[("exact_match", "plain")], found[("exact_match", "continual")]) == (0, 0.5)
    exact_match = next(row for row in rows if row["metric"] == "exact_match" and row["regime"] == "continual")
    assert float(exact_match["p_mcnemar"]) == pytest.approx(2 / 2**60 - 1 / 2**60)
    # Two comparisons: Holm doubles the smallest p-value.
    assert float(exact_match["p_holm"]) == pytest.approx(2 / 10_001)
    only = compared(tmp_path / "a", tmp_path / "b", "--baseline", "plain", "--metric", "f1", out="only")
    assert {row["metric"] for row in only} == {"f1"}


def test_sentence_retrieval_of_several_models_in_one_folder(compared, tmp_path, run):
    adjusted = write_alignment(tmp_path / "aligned")
    write_xsr(tmp_path / "xsr" / "mbert", [1, 2] * 60)
    write_xsr(tmp_path / "xsr" / "aligned", [1, 1, 1, 2] * 30, base_model=adjusted)
    models = {"mbert": "mbert", "aligned": str(adjusted)}
    write_json(tmp_path / "xsr" / "run.json", {"base_model": models, "arguments": {}})
    rows = compared(tmp_path / "xsr", "--baseline", "mbert")
    assert [(row["language"], row["model"], row["regime"], row["metric"]) for row in rows] == [
        (direction, model, "layer 8", "accuracy")
        for direction in ("en-hi", "hi-en")
        for model in ("mbert", "mbert adjusted (hi)")
    ]
    assert numbers(rows[1], "mean", "difference") == (0.75, 0.25)
    assert (rows[0]["seeds"], rows[1]["seeds"]) == ("", "1")  # the seed of the adjustment
    reciprocal = compared(tmp_path / "xsr", "--baseline", "mbert", "--metric", "mrr", out="mrr")
    assert numbers(reciprocal[1], "mean", "difference") == pytest.approx((7 / 8, 1 / 8))


def test_word_retrieval_has_no_examples_to_test(compared, tmp_path, capsys):
    write_alignment(tmp_path / "original", do_train=False)
    for seed, accuracy in enumerate((0.6, 0.7, 0.8)):
        write_alignment(tmp_path / f"adjusted{seed}", seed, accuracy)
    adjusted = [tmp_path / f"adjusted{seed}" for seed in range(3)]
    rows = compared(tmp_path / "original", *adjusted, "--baseline", "mbert")
    assert {row["model"] for row in rows} == {"mbert", "mbert adjusted (hi)"}
    row = next(row for row in rows if row["language"] == "hi-en" and row["runs"] == "3")
    assert numbers(row, "mean", "sd", "difference") == pytest.approx((0.7, 0.1, 0.2))
    assert row["p_bootstrap"] == ""
    assert "without predictions of single examples nothing can be tested" in capsys.readouterr().out


def test_word_retrieval_is_tested_over_pairs(compared, tmp_path):
    write_alignment(tmp_path / "original", do_train=False, found=[1, 2] * 60)
    for seed in range(3):
        write_alignment(tmp_path / f"adjusted{seed}", seed, found=[3, 4, 3, 2] * 30)
    adjusted = [tmp_path / f"adjusted{seed}" for seed in range(3)]
    rows = compared(tmp_path / "original", *adjusted, "--baseline", "mbert")
    row = next(row for row in rows if row["language"] == "hi-en" and row["runs"] == "3")
    assert numbers(row, "mean", "difference") == pytest.approx((0.6, 0.3))
    assert float(row["p_bootstrap"]) < 0.001
    assert row["mark"] == "*"
    assert row["examples"] == "120"
    # A run from before predictions were kept is compared without a test.
    (tmp_path / "adjusted2" / "predictions" / "hi-en.jsonl").unlink()
    row = next(row for row in compared(tmp_path / "original", *adjusted, "--baseline", "mbert", "--overwrite_output_dir")
               if row["language"] == "hi-en" and row["runs"] == "3")  # fmt: skip
    assert numbers(row, "mean", "difference") == pytest.approx((0.6, 0.3))
    assert row["p_bootstrap"] == ""


# --- Systems ---


def test_the_regime_knows_the_ablation(compared, tmp_path):
    write_nli(tmp_path / "a", [1, 0] * 60)
    write_nli(tmp_path / "b", [1, 0] * 60, **CONTINUAL)
    write_nli(tmp_path / "c", [1, 0] * 60, **ABLATION)
    contrastive = {**CONTINUAL, "arguments": {**CONTINUAL["arguments"], "alignment_objective": "contrastive"}}
    write_nli(tmp_path / "d", [1, 0] * 60, **contrastive)
    rows = compared(*(tmp_path / name for name in "abcd"))
    found = ["continual", "continual, alignment_weight 0", "continual, contrastive", "plain"]
    assert sorted(row["regime"] for row in rows) == found


def test_a_recorded_variant_is_another_system(compared, tmp_path):
    for name, variant in {"a": [], "b": ["few_shot hi=100"], "c": ["LoRA", "train_language hi"]}.items():
        write_nli(tmp_path / name, [1, 0] * 60, variant=variant)
    write_nli(tmp_path / "d", [1, 0] * 60, **{**CONTINUAL, "variant": ["freeze_layers front"]})
    rows = compared(*(tmp_path / name for name in "abcd"))
    assert {row["regime"] for row in rows} == {
        "plain", "plain, few_shot hi=100", "plain, LoRA, train_language hi", "continual, freeze_layers front",
    }  # fmt: skip


def test_continual_learning_in_several_languages_is_told_apart(compared, tmp_path):
    write_nli(tmp_path / "hi", [1, 0] * 60, **CONTINUAL)
    write_nli(tmp_path / "ru", [1, 0] * 60, regime="continual", arguments={"languages": ["ru"], "alignment_weight": 0})
    rows = compared(tmp_path / "hi", tmp_path / "ru")
    assert sorted(row["regime"] for row in rows) == ["continual (hi)", "continual (ru), alignment_weight 0"]


def test_an_adjusted_model_is_known_by_its_record(compared, tmp_path, monkeypatch):
    """Where the run found it, or beside the run if both were moved; its own seed is no other system."""
    for seed in (1, 2):
        write_alignment(tmp_path / "runs" / f"aligned-{seed}", seed, output_dir=f"elsewhere/aligned-{seed}")
    write_nli(tmp_path / "runs" / "nli-1", [1, 0] * 60, base_model=tmp_path / "runs" / "aligned-1", seed=1)
    write_nli(tmp_path / "runs" / "nli-2", [1, 0] * 60, base_model="elsewhere/aligned-2", seed=2)
    write_nli(tmp_path / "runs" / "original", [1, 0] * 60)
    write_nli(tmp_path / "runs" / "gone", [1, 0] * 60, base_model="elsewhere/aligned-3")
    rows = compared(*(tmp_path / "runs" / name for name in ("nli-1", "nli-2", "original", "gone")))
    assert {row["model"]: row["seeds"] for row in rows} == {
        "mbert adjusted (hi)": "1 2",
        "mbert": "1",
        "aligned-3": "1",
    }


def test_measuring_a_fine_tuned_model_is_no_other_system(compared, tmp_path):
    write_nli(tmp_path / "trained", [1, 0] * 60, language="en", seed=7, **CONTINUAL)
    measured = {"seed": 42, "base_model": tmp_path / "trained", "arguments": {"do_train": False}}
    write_nli(tmp_path / "measured", [1, 0] * 60, **measured)
    rows = compared(tmp_path / "trained", tmp_path / "measured")
    found = [(row["language"], row["model"], row["regime"], row["seeds"]) for row in rows]
    assert found == [("en", "mbert", "continual", "7"), ("hi", "mbert", "continual", "7")]


@pytest.mark.parametrize(
    ("baseline", "compared_with"),
    [
        (
            "plain",
            {"mbert adjusted (hi), continual": "mbert adjusted (hi), plain", "mbert, continual": "mbert, plain"},
        ),
        (
            "mbert",
            {"mbert adjusted (hi), continual": "mbert, continual", "mbert adjusted (hi), plain": "mbert, plain"},
        ),
        (
            "mbert, plain",
            dict.fromkeys(
                ("mbert, continual", "mbert adjusted (hi), plain", "mbert adjusted (hi), continual"), "mbert, plain"
            ),
        ),
    ],
)
def test_a_baseline_is_a_regime_a_model_or_both(compared, tmp_path, baseline, compared_with):
    adjusted = write_alignment(tmp_path / "aligned")
    write_nli(tmp_path / "a", [1, 0] * 60)
    write_nli(tmp_path / "b", [1, 0] * 60, **CONTINUAL)
    write_nli(tmp_path / "c", [1, 0] * 60, base_model=adjusted)
    write_nli(tmp_path / "d", [1, 0] * 60, base_model=adjusted, **CONTINUAL)
    rows = compared(*(tmp_path / name for name in "abcd"), "--baseline", baseline)
    found = {f"{row['model']}, {row['regime']}": row["baseline"] for row in rows if row["difference"]}
    assert found == compared_with


def test_the_folder_of_the_baseline_need_not_be_named_twice(grid, compared, tmp_path, monkeypatch):
    rows = compared(*grid[1::2], "--baseline", grid[0])
    assert [(row["regime"], row["runs"]) for row in rows] == [("plain", "1"), ("continual", "3")]
    assert float(rows[1]["difference"]) == pytest.approx(0.1)
    monkeypatch.chdir(tmp_path)  # and may be, in another way
    assert compared(*grid[1::2], grid[0], "--baseline", "./nli-plain-1/", out="again") == rows


# --- What is written ---


def test_tables(grid, run, tmp_path, capsys):
    write_nli(tmp_path / "en", [1, 0] * 60, language="en", seed=1, **ABLATION)
    run(compare_runs.main, *grid, tmp_path / "en", "--baseline", "plain", "--output_dir", tmp_path / "out")
    markdown = (tmp_path / "out" / "comparison.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out.startswith(markdown)
    lines = [" ".join(line.split()) for line in markdown.splitlines()]
    assert lines[0] == "## Natural language inference: accuracy (%)"
    assert lines[2] == (
        "| language | model | regime | seeds | mean ± sd | difference | 95 % interval | p | p (seeds) | p (Holm) | t-test |"
    )
    assert lines[4] == "| en | mbert | continual, alignment_weight 0 | 1 | 50.0 | – | – | – | – | – | – |"
    assert lines[5] == "| hi | mbert | plain | 3 | 50.0 ± 0.0 | baseline | – | – | – | – | – |"
    assert lines[6].startswith("| hi | mbert | continual | 3 | 60.0 ± 5.0 | +10.0 * | [+6.")
    assert re.search(r"\| < 0.001 \| (0.04\d) \| \1 \| < 0.001 \|$", lines[6])
    assert (
        "- Natural language inference (en): there is no run of mbert, plain; nothing to compare with: mbert, continual, "
        "alignment_weight 0."
    ) in markdown
    latex = (tmp_path / "out" / "comparison.tex").read_text(encoding="utf-8")
    assert r"\caption{Natural language inference: accuracy (\%)}" in latex
    assert r"en & mbert & continual, alignment\_weight 0 & 1 & 50.0 & -- &" in latex
    assert r"hi & mbert & continual & 3 & 60.0 $\pm$ 5.0 & +10.0 $^{*}$ & [+6." in latex
    assert r"$<$ 0.001 \\" in latex
    record = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert record["runs"] == [str(folder) for folder in (*grid, tmp_path / "en")]
    assert record["arguments"]["n_resamples"] == 10_000


def write_languages(folder, seed, regime="plain", **n_right):
    """NLI in several languages: how many of 10 examples are right."""
    rows = {
        language: [
            {"id": f"x{k}", "gold": "neutral", "prediction": "neutral" if k < n else "entailment"} for k in range(10)
        ]
        for language, n in n_right.items()
    }
    results = {f"eval_{language}_accuracy": n / 10 for language, n in n_right.items()}
    return write_run(folder, NLI, rows, results, seed=seed, regime=regime, arguments={"languages": ["hi"]})


def test_the_transfer_gap_is_that_of_the_means(compared, tmp_path, capsys):
    """English minus the language, over the same seeds; the note ranks the languages."""
    runs = [write_languages(tmp_path / "one", 1, en=9, hi=5, ru=7), write_languages(tmp_path / "two", 2, en=7, hi=4, ru=8),
            write_languages(tmp_path / "other", 1, "continual", hi=6, ru=6)]  # fmt: skip
    rows = {(row["language"], row["regime"]): row["gap"] for row in compared(*runs)}
    assert (rows.pop(("en", "plain")), rows.pop(("hi", "continual")), rows.pop(("ru", "continual"))) == ("", "", "")
    assert {place: float(gap) for place, gap in rows.items()} == pytest.approx(
        {("hi", "plain"): 0.35, ("ru", "plain"): 0.05}
    )
    printed = capsys.readouterr().out
    assert "mbert, plain: hi 35.0, ru 5.0." in printed
    assert any(line.split("|")[1:2] == [" language "] and " gap " in line for line in printed.splitlines())


def test_a_language_that_is_better_than_english_has_a_minus_as_everywhere(compared, tmp_path, capsys):
    compared(write_languages(tmp_path / "one", 1, en=5, hi=9, ru=7))
    printed = capsys.readouterr().out
    assert "ru −20.0, hi −40.0" in printed
    assert "-40.0" not in printed


def test_the_same_table_every_time_whatever_the_order(grid, compared):
    assert compared(*grid, "--baseline", "plain") == compared(*grid[::-1], "--baseline", "plain", out="again")
    other = compared(*grid, "--baseline", "plain", "--seed", 7, "--alpha", 0.2, "--n_resamples", 500, out="other")
    assert float(other[1]["p_bootstrap"]) == pytest.approx(1 / 501)


def test_a_metric_that_is_named_twice_is_compared_once(grid, compared):
    once = compared(*grid, "--baseline", "plain", "--metric", "accuracy")
    assert compared(*grid, "--baseline", "plain", "--metric", "accuracy", "accuracy", out="twice") == once


def test_without_a_baseline_there_are_means(grid, compared, capsys):
    rows = compared("--runs", *grid)
    assert [(row["regime"], row["difference"]) for row in rows] == [("continual", ""), ("plain", "")]
    assert "Nothing is compared: --baseline" in capsys.readouterr().out


def test_other_word_links_are_named(compared, tmp_path, capsys):
    """Also where no argument says it: with a file of links that is what is read, otherwise the encoder links."""
    for seed, links in enumerate(("file", "encoder", None)):
        write_nli(tmp_path / str(seed), [1, 0] * 60, seed=seed, **CONTINUAL, word_links=links)
    compared(*(tmp_path / str(seed) for seed in range(2)))
    assert "word links (file, encoder)" in "".join(capsys.readouterr())
    compared(tmp_path / "0", tmp_path / "2", out="earlier")
    assert "word links" not in "".join(capsys.readouterr())


def test_settings_and_training_data_that_differ_are_named(compared, tmp_path, capsys):
    write_nli(tmp_path / "a", [1, 0] * 60)
    write_nli(tmp_path / "b", [1, 0] * 60, seed=2, arguments={"learning_rate": 2e-5})
    write_nli(tmp_path / "c", [1, 0] * 60, train_data={"examples": 9, "sha256": "e" * 64}, **CONTINUAL)
    compared(*(tmp_path / name for name in "abc"), "--baseline", "plain")
    text = capsys.readouterr().out
    assert (
        f"Runs of mbert, plain differ in more than the seed: learning_rate (5e-05, 2e-05) ({tmp_path / 'a'}, "
        f"{tmp_path / 'b'})."
    ) in text
    assert "mbert, continual differs from its baseline mbert, plain in: training data (eeeeeeee, bbbbbbbb)." in text


# Arguments of two adjustments that learned from other pairs or links, and what is said of each.
OTHER_SOURCES = [
    ({"parallel_file": ["hi=a/wiki.tsv"]}, {"parallel_file": ["hi=a/bible.tsv"]}, "hi=wiki.tsv", "hi=bible.tsv"),
    ({"parallel_file": ["a/x.hi", "a/x.en"]}, {"parallel_file": ["a/y.hi", "a/y.en"]}, "x.hi x.en", "y.hi y.en"),
    ({"parallel_dataset": "org/wiki"}, {"parallel_dataset": "org/opus"}, "wiki train", "opus train"),
    ({"parallel_dataset": "org/opus"}, {"parallel_file": ["x.tsv"]}, "opus train", "x.tsv"),
    ({"parallel_dataset": "d", "parallel_config": "en-hi"}, {"parallel_dataset": "d", "parallel_config": "hi-en"}, "en-hi", "hi-en"),
    ({"parallel_dataset": "d"}, {"parallel_dataset": "d", "parallel_split": "test"}, "d train", "d test"),
    ({"links_file": ["a.links"]}, {"links_file": ["b.links"]}, "a.links", "b.links"),
    ({"dictionary_file": ["hi=x/a"]}, {"dictionary_file": ["hi=x/b"]}, "hi=a", "hi=b"),
    ({"reference_model": "org/m"}, {"reference_model": "org/n"}, "m", "n"),
]  # fmt: skip


def from_sources(tmp_path, *arguments, continual=False):
    """NLI with a seed each, of models adjusted with these arguments (or with continual learning, which has them)."""
    folders = []
    for seed, sources in enumerate(arguments):
        sources = {"parallel_split": "train", **sources}
        if continual:
            options = {**CONTINUAL, "arguments": {**CONTINUAL["arguments"], **sources}, "hyperparameters": {}}
        else:
            options = {"base_model": write_alignment(tmp_path / f"aligned{seed}", seed, **sources)}
        folders.append(write_nli(tmp_path / f"nli{seed}", [1, 0] * 60, seed=seed, **options))
    return read_runs(list(map(str, folders)))


@pytest.mark.parametrize("continual", [False, True])
@pytest.mark.parametrize(("one", "other", "here", "there"), OTHER_SOURCES)
def test_models_of_other_pairs_or_links_are_not_averaged_silently(tmp_path, one, other, here, there, continual):
    runs = from_sources(tmp_path, one, other, continual=continual)
    assert len({run.system for run in runs}) == 1
    (note,) = (note for note in comparison_table(runs).notes if "differ in more than the seed" in note)
    for said in (here, there, *(run.folder for run in runs)):
        assert said in note


@pytest.mark.parametrize("continual", [False, True])
@pytest.mark.parametrize("name", ["parallel_file", "links_file", "dictionary_file"])
def test_the_same_names_in_other_folders_are_the_same(tmp_path, name, continual):
    """Of temporary folders, or of another machine; with the same name in an archive."""
    places = [["hi=a/x.hi,a/x.en"], ["hi=/tmp/1/x.hi,/tmp/2/x.en"], ["hi=C:\\b\\x.hi,C:\\b\\x.en"]]
    runs = from_sources(tmp_path, *({name: place} for place in places), continual=continual)
    assert not [note for note in comparison_table(runs).notes if "more than the seed" in note]
    assert all(run.history[-1] == runs[0].history[-1] for run in runs)


def test_pairs_that_nothing_was_aligned_with_are_no_settings(tmp_path):
    """Those that are only tracked."""
    runs = [
        write_nli(tmp_path / name, [1, 0] * 60, seed=seed, arguments={"parallel_file": [name]}, hyperparameters={})
        for seed, name in enumerate("ab")
    ]
    assert not [note for note in comparison_table(read_runs(list(map(str, runs)))).notes if "seed" in note]


def test_what_changes_the_links_is_a_hyperparameter():
    named = set(hyperparameters(AlignerArguments))
    assert {setting for spec in ALIGNERS.values() for setting in spec.settings} <= named
    assert {"aligner", "min_link_score", "reverse_links"} <= named


# Settings with which a model can be measured otherwise: of a model with this value, and of its baseline.
MEASURED = {
    "max_seq_length": (16, 128), "doc_stride": (32, 128), "max_question_length": (16, 64), "max_answer_length": (3, 30),
    "null_score_diff_threshold": (5.0, 0.0), "bf16": (True, False), "fp16_full_eval": (True, False), "dtype": ("bfloat16", "float32"),
}  # fmt: skip


def notes_on_measuring(runs, archive):
    """The notes that name both values, of the runs and of their archive, which must be the same."""
    write_archive(runs, archive)
    archived = read_runs_and_archives([str(archive)])
    assert [run.evaluation for run in archived] == [run.evaluation for run in runs]
    tables = [comparison_table(of, find_baselines("plain", of), n_resamples=100) for of in (runs, archived)]
    notes = [[note for note in table.notes if "(" in note and "baseline" in note] for table in tables]
    assert len(notes[0]) == len(notes[1])
    return notes[0]


@pytest.mark.parametrize("name", MEASURED)
def test_what_is_measured_otherwise_than_its_baseline_is_noted(tmp_path, name):
    measured = []
    for regime, value in zip((CONTINUAL, {}), MEASURED[name]):
        trained = write_nli(tmp_path / f"trained{value}", [1, 0] * 60, **regime)
        options = {"base_model": trained, "arguments": {"do_train": False, name: value}}
        measured.append(write_nli(tmp_path / str(value), [1, 0] * 60, **options))
    runs = read_runs(list(map(str, measured)))
    (note,) = notes_on_measuring(runs, tmp_path / "a.runs.jsonl.gz")
    here, there = MEASURED[name]
    assert f"{name} ({here}, {there})" in note


def test_what_the_training_says_is_said_once(tmp_path):
    """Trained and measured with other lengths than the baseline."""
    folders = []
    for number, regime in enumerate((CONTINUAL, {})):
        arguments = {**regime.get("arguments", {}), "max_seq_length": 64 * (number + 1)}
        folders.append(write_nli(tmp_path / str(number), [1, 0] * 60, **{**regime, "arguments": arguments}))
    (note,) = notes_on_measuring(read_runs(list(map(str, folders))), tmp_path / "a.runs.jsonl.gz")
    assert "max_seq_length (64, 128)" in note


def test_seeds_that_were_measured_otherwise_are_noted(tmp_path):
    folders = []
    for seed, value in enumerate((16, 128)):
        trained = write_nli(tmp_path / f"trained{seed}", [1, 0] * 60, seed=seed)
        options = {"base_model": trained, "arguments": {"do_train": False, "max_seq_length": value}}
        folders.append(write_nli(tmp_path / str(seed), [1, 0] * 60, **options))
    table = comparison_table(read_runs(list(map(str, folders))))
    assert [note for note in table.notes if "max_seq_length (16, 128)" in note and "seed" in note]


def test_too_few_resamples_for_so_many_comparisons_are_named(compared, tmp_path, capsys):
    write_qa(tmp_path / "a", ["cat", "owl"] * 60, ["cat", "dog"] * 60)
    write_qa(tmp_path / "b", ["cat", "owl"] * 60, ["cat", "dog"] * 60, **CONTINUAL)
    arguments = ("--baseline", "plain", "--n_resamples", 100, "--alpha", 0.01)
    compared(tmp_path / "a", tmp_path / "b", *arguments)
    assert "With 100 resamples none of 2 comparisons can be significant; give --n_resamples 2,000" in (
        capsys.readouterr().out
    )


def test_help_teaches(run, capsys):
    with pytest.raises(SystemExit):
        run(compare_runs.main, "--help")
    text = capsys.readouterr().out
    assert "usage: compare_runs [settings.yaml] [RUNS ...] [--argument value ...]" in text
    assert "python compare_runs.py runs/nli-* --baseline plain" in text
    for name in ("runs", "baseline", "metric", "output_dir", "seed", "n_resamples", "alpha"):
        assert f"--{name}" in text


def test_as_it_is_typed(grid, tmp_path):
    """Whole, in a process of its own; and bad input ends it with one sentence."""
    command = [PROJECT / "compare_runs.py", *grid, "--baseline"]
    printed = run_process([*command, "plain"], tmp_path / "log", cwd=tmp_path)
    assert printed.startswith((tmp_path / "comparison" / "comparison.md").read_text(encoding="utf-8").strip())
    failed = ScriptProcess([*command, "none", "--output_dir", "x"], tmp_path / "failed", cwd=tmp_path)
    assert failed.wait() == 1
    assert failed.text.startswith("error: --baseline none ")
    assert len(failed.text.splitlines()) == 1
    assert not (tmp_path / "x").exists()


# --- Refusals ---


def test_different_data_are_refused(run, tmp_path):
    good = write_nli(tmp_path / "good", [1, 0, 1])

    def refused(expected, right=(1, 0, 1), change=None, **options):
        folder = write_nli(tmp_path / "other", list(right), **{**CONTINUAL, **options})
        if change:
            path = folder / "predictions" / "hi.jsonl"
            path.write_text(path.read_text(encoding="utf-8").replace(*change), encoding="utf-8")
        with pytest.raises(InputError) as error:
            run(compare_runs.main, good, folder, "--output_dir", tmp_path / "out")
        assert expected in str(error.value)

    refused("the content of the examples differs (fingerprints aaaaaaaa, ffffffff)", sha256="f" * 64)
    refused("one on 3 examples, one on 2", right=(1, 0))
    refused("one on the split validation, one on test", split="test")
    refused("example 2 is x1 in one, y7 in the other", change=('"id": "x1"', '"id": "y7"'))
    swapped = ('"neutral", "prediction": "entailment"', '"contradiction", "prediction": "entailment"')
    refused("the right answer to x1 is neutral in one, contradiction in the other", change=swapped)


def test_different_rules_are_refused(run, tmp_path):
    for name, rule in (("a", "squad"), ("b", "mlqa")):
        write_qa(tmp_path / name, ["cat"], ["cat"], arguments={"answer_normalization": rule})
    with pytest.raises(InputError, match="in hi: answer_normalization is squad for one, mlqa for the other"):
        run(compare_runs.main, tmp_path / "a", tmp_path / "b", "--output_dir", tmp_path / "out")


def test_other_languages_may_differ(compared, tmp_path):
    write_nli(tmp_path / "a", [1, 0] * 60)
    write_nli(tmp_path / "b", [1, 0] * 50, language="ru", sha256="f" * 64)
    assert len(compared(tmp_path / "a", tmp_path / "b")) == 2


def test_the_same_seed_twice_is_refused(run, tmp_path):
    folders = [write_nli(tmp_path / name, [1, 0, 1], seed=3) for name in "ab"]
    with pytest.raises(InputError) as error:
        run(compare_runs.main, *folders, "--output_dir", tmp_path / "out")
    assert str(error.value) == (
        f"The runs {folders[0]} and {folders[1]} are both mbert, plain, with seed 3, in hi; leave one out."
    )


def test_the_same_folder_twice_is_one_run(compared, tmp_path):
    folder = write_nli(tmp_path / "a", [1, 0, 1])
    assert [row["runs"] for row in compared(folder, f"{folder}/")] == ["1"]


def test_damaged_folders_are_named(run, tmp_path):
    def refused(expected):
        with pytest.raises(InputError, match=expected):
            run(compare_runs.main, tmp_path / "a", "--output_dir", tmp_path / "out")

    refused("a/run.json cannot be read")
    write_json(tmp_path / "a" / "run.json", {"arguments": {}})
    refused("a/run.json is not of a run of run_align.py")
    (tmp_path / "a" / "run.json").write_text("{", encoding="utf-8")
    refused("a/run.json is not JSON")
    (tmp_path / "a" / "run.json").write_text("[]", encoding="utf-8")
    refused("a/run.json does not hold a JSON object")
    write_nli(tmp_path / "a", [1, 0, 1], eval_data={"hi": {}})
    refused("a/run.json is damaged")
    write_nli(tmp_path / "a", [1, 0, 1], eval_data={})
    refused("a holds no predictions or results .* --do_eval or --do_predict")
    write_nli(tmp_path / "a", [1, 0, 1], task_name="chess")
    refused("chess")
    write_nli(tmp_path / "a", [1, 0, 1], base_model="")
    record = json.loads((tmp_path / "a" / "run.json").read_text(encoding="utf-8"))
    write_json(tmp_path / "a" / "run.json", {**record, "base_model": None})
    refused("a names no base_model")


def test_damaged_predictions_are_named_by_their_line(run, tmp_path):
    folder = write_nli(tmp_path / "a", [1, 0, 1])
    path = folder / "predictions" / "hi.jsonl"
    whole = path.read_text(encoding="utf-8")

    def refused(text, expected):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=expected):
            run(compare_runs.main, folder, "--output_dir", tmp_path / "out")

    lines = whole.splitlines()
    refused("\n".join(lines[:2]), "a/predictions/hi.jsonl has 2 predictions, .* 3 examples")
    refused("\n".join([lines[0], "{", lines[2]]), "Line 2 of .*hi.jsonl")
    refused("\n".join([lines[0], lines[1], '{"id": "x2"}']), "Line 3 of .*hi.jsonl has no prediction")
    refused(whole.replace("entailment", "neutral"), "all_results.json says eval_hi_accuracy 0.66.*hi.jsonl .* give 1:")
    path.unlink()
    with pytest.raises(InputError, match="There is no file .*hi.jsonl; run the script again with --do_eval"):
        run(compare_runs.main, folder, "--output_dir", tmp_path / "out")


def test_predictions_of_another_task_are_named(run, tmp_path):
    folder = write_qa(tmp_path / "a", ["cat"], ["cat"])
    write_json_lines(folder / "predictions" / "hi.jsonl", [{"id": "0", "gold": [], "prediction": "", "f1": "?"}])
    with pytest.raises(InputError, match="Line 1 of .*hi.jsonl is not a prediction"):
        run(compare_runs.main, folder, "--output_dir", tmp_path / "out")


def test_tasks_of_one_kind_are_told_by_their_names(compared, tmp_path):
    """NLI and PAWS-X both classify text, but are measured on other data: side by side, never against each other."""
    write_nli(tmp_path / "nli", [1, 0] * 60, task_name="nli")
    write_nli(tmp_path / "pawsx", [1, 1] * 50, task_name="pawsx", sha256="9" * 64)
    rows = compared(tmp_path / "nli", tmp_path / "pawsx", "--baseline", "plain")
    assert [(row["task"], row["mean"], row["difference"]) for row in rows] == [
        ("nli", "0.5", ""),
        ("pawsx", "1.0", ""),
    ]


def test_parts_of_speech_are_scored_by_words_and_resampled_by_sentences(compared, tmp_path):
    rows = [
        {"id": str(k), "gold": ["NOUN", "VERB", "ADV"], "prediction": ["NOUN", "VERB", "ADJ" if k % 2 else "ADV"]}
        for k in range(120)
    ]
    for name, facts, right in (("bad", {}, 3 / 6), ("good", CONTINUAL, 5 / 6)):
        if name == "bad":
            these = [{**row, "prediction": ["ADJ", *row["prediction"][1:]]} for row in rows]
        else:
            these = rows
        write_run(tmp_path / name, NER, {"hi": these}, {"eval_hi_accuracy": right}, task_name="pos", **facts)
    plain, continual = compared(tmp_path / "bad", tmp_path / "good", "--baseline", "plain")
    assert (plain["task"], plain["metric"]) == ("pos", "accuracy")
    assert numbers(continual, "mean", "difference") == pytest.approx((5 / 6, 1 / 3))
    assert float(continual["p_bootstrap"]) == pytest.approx(1 / 10_001)


def test_every_recorded_hyperparameter_counts(compared, tmp_path, capsys):
    """Nobody keeps a list: what is declared as a hyperparameter is recorded, and compared."""
    write_nli(tmp_path / "a", [1, 0] * 60, hyperparameters={"invented_yesterday": 1, "learning_rate": 5e-5})
    write_nli(tmp_path / "b", [1, 0] * 60, seed=2, hyperparameters={"invented_yesterday": 2, "learning_rate": 5e-5})
    compared(tmp_path / "a", tmp_path / "b")
    assert "differ in more than the seed: invented_yesterday (1, 2)" in capsys.readouterr().out


def test_those_of_do_predict_count_where_there_are_any(compared, tmp_path):
    data = {"hi": {"examples": 4, "sha256": "9" * 64}}
    write_nli(tmp_path / "a", [1, 0, 1, 1], prefix="predict", split="test", predict_data=data, eval_data={"en": {}})
    (row,) = compared(tmp_path / "a")
    assert (row["split"], row["mean"]) == ("test", "0.75")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "--runs is missing: name the output folders"),
        (["{run}", "--metric", "bleu"], "No run has the metric bleu; there are accuracy"),
        (["{run}", "--alpha", "5"], "--alpha 5.0"),
        (["{run}", "--n_resamples", "10"], "--n_resamples 10 "),
        (["{run}", "--seed", "-1"], "--seed -1 "),
        (["--alpha", "0.1", "{run}"], "There is no argument .*; write runs before everything else, or after --runs"),
        (["{run}", "--base", "plain"], "There is no argument --base; did you mean --baseline"),
    ],
)
def test_arguments_that_make_no_sense(run, tmp_path, arguments, expected):
    folder = write_nli(tmp_path / "a", [1, 0, 1])
    with pytest.raises(InputError, match=expected):
        run(compare_runs.main, *(word.format(run=folder) for word in arguments))


def test_nothing_is_overwritten(grid, run, tmp_path):
    with pytest.raises(InputError, match="--output_dir"):
        run(compare_runs.main, *grid, "--output_dir", grid[0])


def test_settings_file_and_folders(grid, run, tmp_path):
    """Folders may also follow a file of settings."""
    (tmp_path / "how.yaml").write_text(f"baseline: plain\noutput_dir: {tmp_path / 'out'}\n", encoding="utf-8")
    run(compare_runs.main, tmp_path / "how.yaml", *grid)
    assert "+10.0 *" in (tmp_path / "out" / "comparison.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["é" * 3000, "a/" * 3000, "a\0b", "\ud800", ""])
def test_names_in_records_that_no_file_can_have(tmp_path, name):
    """They are compared, or refused in a sentence."""
    runs = [write_alignment(tmp_path / f"run{seed}", seed=seed, base_model=name or "mbert") for seed in (1, 2)]
    with contextlib.suppress(InputError):
        read_runs(list(map(str, runs)))
    for seed in (1, 2):
        folder = write_xsr(tmp_path / f"xsr{seed}", [1, 2, 3])
        results = json.loads((folder / "all_results.json").read_text())
        renamed = {key.replace("hi", name): value for key, value in results.items()}
        (folder / "all_results.json").write_text(json.dumps(renamed))
        with contextlib.suppress(InputError):
            read_runs([str(folder)])


@pytest.mark.parametrize("write", [write_nli, write_alignment])
def test_null_in_a_record_is_as_if_it_were_missing(tmp_path, write):
    folder = write(tmp_path / "run", **({"right": [1, 0, 1]} if write is write_nli else {}))
    record = json.loads((folder / "run.json").read_text())
    for name in record:
        found = []
        for changed in ({**record, name: None}, {other: value for other, value in record.items() if other != name}):
            (folder / "run.json").write_text(json.dumps(changed))
            try:
                found.append(repr(read_runs([str(folder)])))
            except InputError as error:
                found.append(str(error))
        assert found[0] == found[1], name
