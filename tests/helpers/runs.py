"""Folders as the scripts leave them."""

from utils.core.files import write_json, write_json_lines


NLI, NER, QA = "text-classification", "token-classification", "question-answering"


def write_run(
    folder, task, predictions, results, seed=1, base_model="mbert", regime="plain", sha256="a" * 64, **facts
):
    """The folder of a task script: predictions by language, results as `all_results.json` has them."""
    split = facts.pop("split", "validation")
    arguments = {"do_train": True, "learning_rate": 5e-5, "num_train_epochs": 2, **facts.pop("arguments", {})}
    record = {
        "task": task,
        "regime": regime,
        "base_model": str(base_model),
        "base_model_revision": None,
        "seed": seed,
        "train_data": {"examples": 8, "sha256": "b" * 64},
        "eval_data": {language: {"examples": len(rows), "sha256": sha256} for language, rows in predictions.items()},
        "predict_data": {},
        "arguments": arguments,
        "hyperparameters": {name: value for name, value in arguments.items() if name != "do_train"},
        **facts,
    }
    write_json(folder / "run.json", record)
    write_json(folder / "all_results.json", results)
    for language, rows in predictions.items():
        write_json_lines(folder / "predictions" / f"{language}.jsonl", ({**row, "split": split} for row in rows))
    return folder


def write_nli(folder, right, language="hi", prefix="eval", **options):
    """Right (1) and wrong (0) answers to as many examples."""
    rows = [
        {"id": f"x{k}", "gold": "neutral", "prediction": "neutral" if one else "entailment", "score": 0.5}
        for k, one in enumerate(right)
    ]
    results = {f"{prefix}_{language}_accuracy": sum(right) / len(right), "eval_loss": 1.0}
    return write_run(folder, NLI, {language: rows}, results, **options)


def write_alignment(folder, seed=1, accuracy=0.5, base_model="mbert", found=(), **arguments):
    """What run_align.py leaves; `found` are the links that were found of 5 of each pair, the same in both directions."""
    record = {
        "task": "cross-lingual-adjustment",
        "base_model": base_model,
        "seed": seed,
        "arguments": {
            "do_train": True, "languages": ["hi"], "alignment_objective": "mse", "alignment_layer": -1, **arguments
        },
    }  # fmt: skip
    data = {"pairs": len(found) or 90, "links": 5 * len(found) or 500, "sha256": "c" * 64}
    languages = record["arguments"]["languages"]
    record["eval_data"] = dict.fromkeys(languages, data)
    directions = [name for language in languages for name in (f"{language}-en", f"en-{language}")]
    write_json(folder / "run.json", record)
    accuracy = sum(found) / len(found) / 5 if found else accuracy
    for name in directions if found else ():
        rows = [{"id": k, "gold": 5, "prediction": n} for k, n in enumerate(found)]
        write_json_lines(folder / "predictions" / f"{name}.jsonl", rows)
    results = {f"eval_{name}_word_retrieval_accuracy": accuracy for name in directions}
    write_json(folder / "all_results.json", results)
    return folder


def write_xsr(folder, ranks, base_model="mbert", layer=8, language="hi", **options):
    """What run_xsr.py leaves: the ranks of the right sentences, the same in both directions."""
    rows = [
        {"id": k, "gold": k, "prediction": k if rank == 1 else k + 1, "score": 0.9, "rank": rank, "layer": layer,
         "pooling": "mean", "distance": "cosine", "split": "test", **options}
        for k, rank in enumerate(ranks)
    ]  # fmt: skip
    results = {"predictions_layer": layer}
    for name in (f"{language}-en", f"en-{language}"):
        write_json_lines(folder / "predictions" / f"{name}.jsonl", rows)
        results[f"{name}_layer{layer}_accuracy"] = ranks.count(1) / len(ranks)
        results[f"{name}_layer{layer}_mrr"] = sum(1 / rank for rank in ranks) / len(ranks)
    write_json(folder / "all_results.json", results)
    data = {
        language: {"dataset": f"data/xsr {language}", "split": "test", "sentences": len(ranks), "sha256": "d" * 64}
    }
    arguments = {"pooling": "mean", "distance": "cosine"}
    write_json(folder / "run.json", {"base_model": str(base_model), "arguments": arguments, "eval_data": data})
    return folder
