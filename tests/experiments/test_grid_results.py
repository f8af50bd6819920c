"""What a grid measures of which model, and that its report and its archive say the same of all grids."""

import zlib
from dataclasses import fields
from itertools import product

import numpy as np
import pytest

import run_align
from helpers.runs import NER, write_alignment, write_run, write_xsr
from utils.alignment.objectives import AlignmentArguments
from utils.core.errors import InputError
from utils.core.files import write_json
from utils.evaluation.entities import entity_scores
from utils.experiments.arms import ABLATION, ADJUSTED, ADJUSTED_CONTINUAL, MEASURED, ORIGINAL, TRANSLATED
from utils.experiments.comparison import compare
from utils.experiments.grid import _USUAL_REPRESENTATION, Grid
from utils.experiments.marks import mark_done
from utils.experiments.plan import plan
from utils.experiments.report import write_report
from utils.experiments.results import PARTS, read_results
from utils.experiments.run_archives import read_runs_and_archives
from utils.parallel.aligners.registry import AlignerArguments
from utils.parallel.arguments import ParallelDataArguments


LANGUAGES = ["hi", "ru"]


def grid(**changes) -> Grid:
    usual = {
        "model_name_or_path": "mbert",
        "languages": LANGUAGES,
        "seeds": [1, 2, 3],
        "tasks": ["words", "ner", "forgetting"],
        "regimes": [ORIGINAL, ADJUSTED],
    }
    settings = {"align": {"do_eval": "true", "validation_file": "v.tsv"}, "ner": {}, **changes.pop("settings", {})}
    return Grid(**{**usual, **changes}, settings=settings)


def argument(run, name):
    words = run.arguments
    if f"--{name}" not in words:
        return None
    begin = words.index(f"--{name}") + 1
    end = next((k for k in range(begin, len(words)) if words[k].startswith("--")), len(words))
    return words[begin:end]


# --- The same model, measured in another way ---


VARIANTS = {
    "usual": {},
    "both": {"alignment_layer": [4, -1]},  # of several the highest one, which is the usual one
    "same": {"alignment_layer": "-1", "word_pooling": "avg"},
    "other": {"alignment_objective": "contrastive"},
    "middle": {"alignment_layer": 4},
    "lower": {"alignment_layer": [2, 4], "alignment_objective": "contrastive"},
    "end": {"word_pooling": "end"},
}
WAYS = {"usual": "", "both": "", "same": "", "other": "", "middle": "middle", "lower": "middle", "end": "end"}


def test_the_usual_way_is_that_of_the_script():
    usual = AlignmentArguments()
    assert {name: getattr(usual, name) for name in _USUAL_REPRESENTATION} == {
        **_USUAL_REPRESENTATION, "alignment_layer": [_USUAL_REPRESENTATION["alignment_layer"]]
    }  # fmt: skip


def test_every_model_is_measured_as_those_that_it_is_compared_with():
    runs = {run.name: run for run in plan(grid(joint=True, settings={"variants": VARIANTS}))}
    assert [name for name in runs if name.startswith("words/")] == [
        "words/original", "words/original-middle", "words/original-end"
    ]  # fmt: skip
    way = {"": (None, None), "middle": (["4"], None), "end": (None, ["end"])}
    for name, of in WAYS.items():
        measured = runs[f"forgetting/adjusted-{name}-seed1"]
        assert measured.needs == [f"ner/adjusted-{name}-seed1"]
        assert (argument(measured, "alignment_layer"), argument(measured, "word_pooling")) == way[of]
    for of, (layer, pooling) in way.items():
        for name in (f"words/original{'-' * bool(of)}{of}", f"forgetting/original{'-' * bool(of)}{of}-seed1"):
            assert (argument(runs[name], "alignment_layer"), argument(runs[name], "word_pooling")) == (layer, pooling)


def test_variants_that_change_nothing_of_this_measure_nothing_else():
    """So that a grid whose runs are done is not run again."""
    plain = {run.name: run.arguments for run in plan(grid(settings={"variants": {"usual": {}}}))}
    others = {"both": VARIANTS["both"], "other": VARIANTS["other"]}
    runs = plan(grid(settings={"variants": {"usual": {}, **others}}))
    assert {run.name for run in runs if run.task == "words"} == {"words/original"}
    for run in runs:
        if run.task == "forgetting":
            name = run.name
            for variant in others:
                name = name.replace(f"-{variant}-", "-usual-")
            expected = [word.replace("usual", str(run.regime).split("-")[-1]) for word in plain[name]]
            assert run.arguments == expected


@pytest.mark.parametrize(
    "setting",
    [{"max_words": 5}, {"validation_file": "w.tsv"}, {"romanize": ["hi"]}, {"include_special_tokens": False},
     {"word_pooling": "token"}],
)  # fmt: skip
def test_variants_cannot_be_measured_on_other_pairs(setting):
    with pytest.raises(InputError, match=next(iter(setting))):
        grid(settings={"variants": {"usual": {}, "x": setting}})
    grid(tasks=["ner"], settings={"variants": {"usual": {}, "x": setting}})  # (nothing is measured there)
    align = {"do_eval": "true", **setting}
    grid(settings={"align": align, "variants": {"usual": {}, "x": setting}})  # (nor is it other than the usual)


# --- What continual learning has of a variant ---


# Of the groups of arguments that say what is aligned (not how an adjustment is trained): a value, or several arguments that go together.
PASSED = {
    "aligner": "encoder", "aligner_layer": 4, "alignment_layer": [4, -1], "alignment_objective": "contrastive",
    "alignment_unit": "both", "alignment_weight": 2, "anchor_language": "de", "contrastive_negatives": "both",
    "dictionary_file": {"hi": "d.tsv"}, "english_column": "e", "freeze_embeddings": False, "freeze_layers": "front",
    "include_special_tokens": False, "language_sampling": "uniform", "languages": ["hi"], "links_file": {"hi": "l.txt"}, "max_words": 9,
    "min_link_score": 0.3, "parallel_config": "c", "parallel_dataset": "d", "parallel_file": {"hi": "p.tsv"}, "parallel_split": "s",
    "reference_model": "m", "regularization_weight": 2, "reverse_links": True, "sampling_temperature": 3,
    "source_column": "s", "statistical_model": "fast_align", "streaming": True, "symmetrization": "union", "temperature": 0.2,
    "word_pooling": "end", "word_splitting": "space",
}  # fmt: skip
REFUSED = {"language_sampling": "ucb", "max_seq_length": 64, "realign_every": 60, "romanize": ["hi"]}
# Of the training of the adjustment, or of no result.
OF_ADJUSTMENT = {
    "learning_rate": 1e-3, "num_train_epochs": 2, "per_device_train_batch_size": 8, "use_lora": True, "lora_rank": 4, "dtype": "bfloat16",
    "max_train_pairs": 50, "min_dictionary_count": 3, "preprocessing_num_workers": 2, "write_dictionary": "w.tsv", "write_links": "w.txt",
}  # fmt: skip


def in_continual(**settings):
    """A grid with a variant of these settings, and the run of continual learning from the original with it."""
    of = grid(tasks=["ner"], joint=True, seeds=[1], regimes=[ORIGINAL, "original+continual"],
              settings={"variants": {"usual": {}, "x": settings}})  # fmt: skip
    return next(run for run in plan(of) if run.name == "ner/original+continual-x-seed1")


def test_every_argument_of_the_alignment_is_passed_to_continual_learning_or_refused():
    shared = (run_align.AdjustmentArguments, ParallelDataArguments, AlignerArguments)
    names = {item.name for group in shared for item in fields(group)} | {"reference_model"}
    assert names == (PASSED.keys() | REFUSED.keys() | OF_ADJUSTMENT.keys()) & names


@pytest.mark.parametrize("name", PASSED)
def test_what_a_variant_aligns_is_aligned_in_continual_learning(name):
    value = PASSED[name]
    if isinstance(value, dict):
        expected = [f"hi={value['hi']}"]
    else:
        expected = list(map(str, value if isinstance(value, list) else [value]))
    assert argument(in_continual(**{name: value}), name) == expected


@pytest.mark.parametrize("name", OF_ADJUSTMENT)
def test_how_an_adjustment_is_trained_is_none_of_continual_learning(name):
    assert in_continual(**{name: OF_ADJUSTMENT[name]}).arguments == in_continual().arguments


@pytest.mark.parametrize("name", REFUSED)
def test_what_continual_learning_cannot_have_is_refused(name):
    variants = {"variants": {"usual": {}, "x": {name: REFUSED[name]}}}
    for regime in (ADJUSTED_CONTINUAL, "original+continual", ABLATION):
        with pytest.raises(InputError, match=f"x sets {name}"):
            grid(tasks=["ner"], regimes=[ORIGINAL, regime], settings=variants)
    grid(tasks=["ner"], settings=variants)


@pytest.mark.parametrize(
    "setting", [{"realign_every": 0}, {"realign_every": "0"}, {"romanize": []}, {"max_seq_length": None}, {"language_sampling": "size"}],
)  # fmt: skip
def test_values_that_change_nothing_are_not_refused(setting):
    in_continual(**setting)
    (name,) = setting
    if name in REFUSED and name != "language_sampling":  # (but where they do change something)
        with pytest.raises(InputError, match=name):
            grid(tasks=["ner"], regimes=["original+continual"],
                 settings={"align": {name: REFUSED[name]}, "variants": {"x": setting}})  # fmt: skip


def test_a_variant_takes_away_what_all_others_have():
    links = {
        "parallel": {"links_file": {"hi": "l.txt"}},
        "variants": {"usual": {}, "x": {"links_file": None, "aligner": "encoder"}},
    }
    of = grid(tasks=["ner"], regimes=["original+continual"], settings=links)
    found = {run.name: (argument(run, "links_file"), argument(run, "aligner")) for run in plan(of)}
    assert found["ner/original+continual-usual-hi-seed1"] == (["hi=l.txt"], None)
    assert found["ner/original+continual-x-hi-seed1"] == (None, ["encoder"])


# --- Another anchor than English ---


@pytest.mark.parametrize(
    ("tasks", "settings"),
    [(["words"], {"parallel": {"anchor_language": "de"}}), (["words", "ner", "forgetting"], {"parallel": {"anchor_language": "each"}}),
     (["words"], {"align": {"do_eval": "true", "anchor_language": "de"}}), (["ner"], {"distances": {}, "parallel": {"anchor_language": "de"}}),
     (["ner"], {"distances": {"anchor_language": "de"}})],
)  # fmt: skip
def test_what_would_be_measured_across_another_language_is_refused(tasks, settings):
    with pytest.raises(InputError, match="anchor_language"):
        grid(tasks=tasks, settings=settings)


def test_models_pulled_to_another_language_are_fine_tuned():
    of = grid(tasks=["ner"], settings={"parallel": {"anchor_language": "de"}})
    assert {tuple(argument(run, "anchor_language")) for run in plan(of) if run.task == "align"} == {("de",)}
    grid(tasks=["words"], settings={"parallel": {"anchor_language": "en"}})


def random_numbers(*names):
    return np.random.default_rng(zlib.crc32(" ".join(map(str, names)).encode()))


def write_grid(out, of, links=None):
    """What the runs of a grid leave; `links`: how many of 5 were found by layer, by default other ones of every model."""
    for run in plan(of):
        folder, about = out / run.name, of.about(run.language)
        base = str(out / run.needs[0]) if run.needs else "mbert"
        if run.script == "run_align.py":
            variant = run.regime.partition("-")[2] if run.task == "align" else ""
            settings = of.variants.get(variant, {})
            layer = argument(run, "alignment_layer") or ["-1"]
            pooling = argument(run, "word_pooling") or ["avg"]
            found = random_numbers(run.name).integers(0, 5, 40).tolist() if links is None else [links[layer[-1]]] * 40
            write_alignment(
                folder, run.seed, found=found, base_model=base, do_train=run.task == "align", languages=about,
                alignment_layer=[int(one) for one in layer], word_pooling=pooling[0],
                alignment_objective=settings.get("alignment_objective", "mse"),
            )  # fmt: skip
        elif run.task == "ner":
            write_ner(folder, run, base, about)
        elif run.task == "xsr":
            models = {"mbert": "mbert", **{name.partition("/")[2]: str(out / name) for name in run.needs}}
            for label, model in models.items():
                ranks = random_numbers(run.name, label).integers(1, 4, 40).tolist()
                write_xsr(folder / label, ranks, model, language=run.language)
            write_json(folder / "run.json", {"base_model": models, "arguments": {}})
        mark_done(run, out)


def write_ner(folder, run, base, about):
    predictions, results = {}, {}
    for language in ["en", *about]:
        right = random_numbers(run.name, language).random(40) < 0.6
        tags = ["B-PER" if one else "O" for one in right]
        predictions[language] = [
            {"id": k, "gold": ["B-PER"], "prediction": [tag], "score": 0.5} for k, tag in enumerate(tags)
        ]
        measured = entity_scores([[tag] for tag in tags], [["B-PER"]] * 40)[""]
        results[f"eval_{language}_f1"] = measured["f1"]
    continual = "continual" in run.regime
    arguments = {
        "languages": list(about) if continual else [],
        "alignment_weight": 0 if ABLATION in run.regime else 0.01,
    }
    variant = [f"train_language {run.language}"] if run.regime == TRANSLATED else None
    facts = {"variant": variant} if variant else {}
    regime = "continual" if continual else "plain"
    write_run(folder, NER, predictions, results, run.seed, base, regime, arguments=arguments, **facts)


def test_a_model_that_stays_the_same_neither_gains_nor_forgets(tmp_path):
    """Whichever layer its words are retrieved in: they are found more often in layer 4 than in the last one."""
    of = grid(joint=True, settings={"variants": {"last": {}, "middle": {"alignment_layer": 4}}})
    write_grid(tmp_path, of, links={"4": 4, "-1": 2})
    results = read_results(of, plan(of), tmp_path, {}, 200)
    measured = {key: found for key, found in results.comparisons.items() if key[0] in MEASURED}
    assert {key[1:] for key in measured} == {
        ("adjusted-last", "original"), ("adjusted-middle", "original-middle"), ("original", "original, before"),
        ("original-middle", "original-middle, before"), ("adjusted-last", "adjusted-last, before"),
        ("adjusted-middle", "adjusted-middle, before"),
    }  # fmt: skip
    differences = [one.difference for found in measured.values() for one in found.values()]
    assert differences == pytest.approx([0] * len(differences))
    assert results.not_compared == dict.fromkeys(MEASURED, [("adjusted-middle", "adjusted-last")])
    assert results.scores["words"]["original-middle"]["hi-en"] == pytest.approx([0.8])
    report = write_report(results, tmp_path, {}).read_text(encoding="utf-8")
    assert report.count("adjusted (middle) – adjusted (last)") == 3  # in both parts, and compared in NER


# --- Several models of a seed ---


def test_english_is_averaged_over_the_models_of_a_seed(tmp_path):
    """Their difference is not what seeds make."""
    of = grid(tasks=["ner"])
    write_grid(tmp_path, of)
    scores = read_results(of, plan(of), tmp_path, {}, 200).scores["ner"]
    f1 = {run.name: value_of(tmp_path / run.name, "en") for run in plan(of) if run.task == "ner"}
    expected = [np.mean([f1[f"ner/adjusted-{one}-seed{seed}"] for one in LANGUAGES]) for seed in of.seeds]
    assert scores[ADJUSTED]["en"] == pytest.approx(expected)
    assert scores[ORIGINAL]["en"] == pytest.approx([f1[f"ner/original-seed{seed}"] for seed in of.seeds])
    assert {len(values) for of_arm in scores.values() for values in of_arm.values()} == {3}


def value_of(folder, language):
    (run,) = read_runs_and_archives([str(folder)])
    return run.sets[language].results["f1"]


# --- What is archived ---


GRIDS = list(
    product(
        (False, True),
        ({}, {"mse": {}, "best": {}}, {"mse": {}, "middle": {"alignment_layer": 4}}),
        ([ORIGINAL, ADJUSTED], [ORIGINAL, ADJUSTED, ADJUSTED_CONTINUAL, ABLATION, TRANSLATED]),
        (["ner", "xsr"], ["words", "ner", "forgetting", "xsr"]),
    )
)


@pytest.mark.parametrize(("joint", "variants", "regimes", "tasks"), GRIDS)
def test_an_archive_gives_the_differences_of_the_report(tmp_path, joint, variants, regimes, tasks):
    settings = {"variants": variants, "ner_translated": {"train_file": {one: f"{one}.jsonl" for one in LANGUAGES}}}
    of = grid(joint=joint, regimes=regimes, tasks=tasks, seeds=[1, 2], settings=settings)
    write_grid(tmp_path, of)
    results = read_results(of, plan(of), tmp_path, {}, 100)
    write_report(results, tmp_path, {})
    runs = read_runs_and_archives([str(tmp_path / "grid.runs.jsonl.gz")])
    compare(runs)  # (no run is there twice)
    planned = {run.name: run for run in plan(of)}
    adjusted = {run.name.partition("/")[2]: run.regime for run in planned.values() if run.task == "align"}
    systems = {}  # by part, arm and language or direction
    for run in runs:
        task, _, rest = run.folder.partition("/")
        if task == "xsr":
            arm = adjusted.get(rest.partition("/")[2], ORIGINAL)
        else:
            arm = planned[run.folder].regime
        for name in run.sets:
            for part in {"words": MEASURED, "align": MEASURED}.get(task, (task,)):
                before = part == "forgetting" != task
                systems.setdefault((part, f"{arm}, before" if before else arm, name), set()).add(run.system)
    assert all(len(found) == 1 for (*_, name), found in systems.items() if name != "en")
    assert len(results.comparisons) > 1
    for (part, arm, baseline), compared in results.comparisons.items():
        for name, comparison in compared.items():
            (system,), (other,) = systems[part, arm, name], systems[part, baseline, name]
            both = [run for run in runs if run.system in (system, other)]
            table = compare(both, {system: other}, [PARTS[part][1]], 100)
            (found,) = (one.difference for row, one in table.compared if (row.language, row.system) == (name, system))
            assert found == pytest.approx(comparison.difference, abs=1e-12)
    if regimes == [ORIGINAL, ADJUSTED] and variants and joint:
        # As archives of such grids have always called them, so that their parts are compared.
        named = {run.system.model for run in runs if run.task == "ner"}
        assert named == {"original", *(f"adjusted ({variant})" for variant in variants)}
