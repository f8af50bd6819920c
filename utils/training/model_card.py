"""The card of a model (`README.md` of its folder): what it is, where it came from, what it scores, how to use it."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, EvalResult, HfApi, ModelCardData
from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled

from utils.alignment.objectives import OBJECTIVES
from utils.models.adapters import TASK_TYPES, adapters_of
from utils.models.lineage import ancestors


PROJECT_PAPERS = """```bibtex
@inproceedings{efimov2023impact,
  title = {The Impact of Cross-Lingual Adjustment of Contextual Word Representations on Zero-Shot Transfer},
  author = {Efimov, Pavel and Boytsov, Leonid and Arslanova, Elena and Braslavski, Pavel},
  booktitle = {Advances in Information Retrieval (ECIR)},
  year = {2023}
}
@inproceedings{cao2020multilingual,
  title = {Multilingual Alignment of Contextual Word Representations},
  author = {Cao, Steven and Kitaev, Nikita and Klein, Dan},
  booktitle = {International Conference on Learning Representations (ICLR)},
  year = {2020}
}
```"""
ALIGNMENT = "cross-lingual-adjustment"
_AUTO_CLASSES = {
    ALIGNMENT: "AutoModel",
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
}
# What a reader needs to do the run again, in this order, where the run has it.
_SETTINGS = (
    "learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps",
    "train_sampling_strategy", "max_seq_length", "seed", "bf16", "fp16", "lora_rank", "lora_alpha", "word_pooling", "alignment_layer",
    "alignment_objective", "temperature", "alignment_weight", "regularization_weight", "include_special_tokens",
    "freeze_layers", "alignment_batch_size", "alignment_every", "aligner", "max_words", "max_train_pairs",
)  # fmt: skip
_OF_ALIGNMENT = frozenset(_SETTINGS[_SETTINGS.index("word_pooling") :])


def model_card(
    name: str,
    record: Mapping[str, Any],
    results: Mapping[str, Any],
    folder: str | Path,
    **hub_options: Any,  # noqa: ANN401
) -> str:
    """The text of a card, with its metadata.

    Args:
        name: of the model: the repository it is pushed to, or its folder's.
        record: what `run.json` holds.
        results: what `all_results.json` holds.
        folder: of the model; figures in it are shown.
        hub_options: `cache_dir`, `token`.
    """
    task, arguments = record["task"], record["arguments"]
    chain = [
        record["base_model"],
        *ancestors(record["base_model"], record["base_model_revision"] or "main", **hub_options),
    ]
    published = [model for model in chain if not _is_folder(model)]
    data_sets = _data_sets(arguments)
    is_adapter = _is_adapter(record)
    card = ModelCardData(
        model_name=name.rpartition("/")[2],
        language=_languages(record),
        library_name="peft" if is_adapter else "transformers",
        pipeline_tag=task if task != ALIGNMENT else "feature-extraction",
        tags=[
            ALIGNMENT,
            "cross-lingual",
            *(["continual-learning"] if record.get("regime") == "continual" else []),
            *(["lora"] if is_adapter else []),
        ],
        base_model=published[0] if published else None,
        base_model_relation=("adapter" if is_adapter else "finetune") if published else None,
        datasets=[name for name in data_sets if not _is_folder(name)] or None,
        eval_results=_eval_results(record, results) or None,
    )
    summary = _summary(record)
    paragraphs = [
        f"---\n{card.to_yaml()}\n---\n\n# {name.rpartition('/')[2]}",
        summary[:1].upper() + summary[1:],
        "## Use",
        _adapter_snippet(name, record, hub_options) if is_adapter else _snippet(name, task),
        "## Results",
        _results_table(record, results) or "Nothing was measured in this run.",
        *(f"![{figure.stem.replace('_', ' ')}]({figure.name})" for figure in sorted(Path(folder).glob("*.png"))),
        "## Where it comes from",
        "\n".join(f"{k}. {_shown(model)}" for k, model in enumerate([name, *chain], start=1)),
        *([_data_table(data_sets, hub_options.get("token"))] if data_sets else []),
        "## How it was made",
        _settings_table(record, results),
        "## Citation",
        PROJECT_PAPERS,
    ]
    return "\n\n".join(paragraphs) + "\n"


def _is_adapter(record: Mapping[str, Any]) -> bool:
    return record["arguments"].get("use_lora", False) and not record["arguments"]["merge_adapter"]


def _is_folder(model: str) -> bool:
    return os.path.isdir(model) or model.startswith((".", "/", "~"))


def _public(model: str) -> str:
    """A model's name for code that others run."""
    return "path/to/" + Path(model).name if _is_folder(model) else model


def _shown(model: str) -> str:
    return "a model in a local folder (not published)" if _is_folder(model) else f"`{model}`"


def _languages(record: Mapping[str, Any]) -> list[str]:
    found = [*record["arguments"].get("languages", []), *record["arguments"].get("eval_languages", [])]
    return sorted({"en", *found})


def _data_sets(arguments: Mapping[str, Any]) -> list[str]:
    """The data sets, on the Hub or in folders, that the run has read."""
    names = [
        arguments.get("parallel_dataset"),
        None if arguments.get("train_file") else arguments.get("dataset_name"),
        arguments.get("eval_dataset_name"),
    ]
    return list(dict.fromkeys(name for name in names if name))


def _summary(record: Mapping[str, Any]) -> str:
    """One paragraph: what was done."""
    arguments, base = record["arguments"], _shown(record["base_model"])
    languages = ", ".join(arguments.get("languages", []))
    if record["task"] == ALIGNMENT:
        n_pairs = sum(facts["pairs"] for facts in (record["train_data"] or {}).values())
        how = OBJECTIVES[arguments["alignment_objective"]].description
        return (
            f"{base} after *cross-lingual adjustment* to {languages}: in {n_pairs:,} pairs of sentences, words and their "
            f"English translations were {how}, while English words were held where the original encoder has them. Fine-tuned in "
            "English, it should transfer better to these languages. It holds every weight of the model it came from."
        )
    text = f"{base} fine-tuned for {record['task']}"
    if record["train_data"]:
        text += f" on {record['train_data']['examples']:,} examples in {arguments['train_language']}"
    if record.get("regime") == "continual":
        text += f", with the alignment loss for {languages} kept beside the task loss (*continual learning*)"
    measured = [
        name for name in {**record["eval_data"], **record["predict_data"]} if name != arguments["train_language"]
    ]
    return text + (f". Measured in {', '.join(measured)} without any training data there." if measured else ".")


def _snippet(name: str, task: str) -> str:
    auto_class = _AUTO_CLASSES[task]
    lines = [f"from transformers import {auto_class}, AutoTokenizer", ""]
    lines += [
        f'tokenizer = AutoTokenizer.from_pretrained("{name}")',
        f'model = {auto_class}.from_pretrained("{name}")',
    ]
    return "\n".join(["```python", *lines, "```"])


def _adapter_snippet(name: str, record: Mapping[str, Any], hub_options: Mapping[str, Any]) -> str:
    """Every adapter is put on what it stands on, from the plain model up."""
    revision = record["base_model_revision"] or "main"
    plain, below = adapters_of(record["base_model"], revision=revision, **hub_options)
    tasks = {_public(adapter): config.task_type for adapter, config in below}
    tasks[name] = TASK_TYPES.get(_AUTO_CLASSES[record["task"]].removeprefix("AutoModel"))
    head = next(((adapter, task) for adapter, task in reversed(tasks.items()) if task), None)
    auto_class, config = "AutoModel", ""
    if head:
        auto_class += next(end for end, task in TASK_TYPES.items() if task == head[1])
        config = f', config=AutoConfig.from_pretrained("{head[0]}")'
    lines = [
        "from peft import PeftModel",
        f"from transformers import {'AutoConfig, ' if head else ''}{auto_class}, AutoTokenizer",
        "",
        f'tokenizer = AutoTokenizer.from_pretrained("{name}")',
        f'model = {auto_class}.from_pretrained("{_public(plain)}"{config})',
    ]
    for adapter, task in tasks.items():
        if head and not task:  # an adjustment, of the encoder inside the model
            lines.append(f'PeftModel.from_pretrained(model.base_model, "{adapter}").merge_and_unload()')
        else:
            lines.append(f'model = PeftModel.from_pretrained(model, "{adapter}").merge_and_unload()')
    return "\n".join(["The model is an adapter (LoRA) of what it was made from:", "", "```python", *lines, "```"])


def _eval_results(record: Mapping[str, Any], results: Mapping[str, Any]) -> list[EvalResult]:
    """The metrics per language as metadata."""
    task, arguments = record["task"], record["arguments"]
    found = []
    for prefix, data, split in (
        ("predict", record.get("predict_data"), arguments.get("test_split")),
        ("eval", record.get("eval_data"), arguments.get("validation_split")),
    ):
        for key, value, language, metric in _metrics(prefix, data, results):
            name = (
                arguments.get("eval_dataset_name")
                or arguments.get("dataset_name")
                or arguments.get("parallel_dataset")
            )
            name = name if name and not _is_folder(name) else "local data"
            found.append(
                EvalResult(
                    task_type=task if task != ALIGNMENT else "translation-retrieval",
                    dataset_type=name,
                    dataset_name=f"{name} ({language})",
                    dataset_config=language,
                    dataset_split=split,
                    metric_type=metric,
                    metric_value=value,
                    metric_name=key,
                )
            )
    return found


def _metrics(
    prefix: str, data: Mapping[str, Any] | None, results: Mapping[str, Any]
) -> list[tuple[str, float, str, str]]:
    """Key, value, language and name of the metrics that say how good a model is."""
    wanted = ("accuracy", "precision", "recall", "f1", "exact_match", "word_retrieval_accuracy")
    found = []
    for language in data or {}:
        for label in (language, f"{language}-en", f"en-{language}"):
            for metric in wanted:
                key = f"{prefix}_{label}_{metric}"
                if key in results and (label == language or metric == "word_retrieval_accuracy"):
                    found.append((key, results[key], label, metric))
    return found


def _results_table(record: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    lines = []
    for prefix, title in (("predict", "test"), ("eval", "validation")):
        for _, value, language, metric in _metrics(prefix, record.get(f"{prefix}_data"), results):
            lines.append(f"| {title} | {language} | {metric.replace('_', ' ')} | {value:.4g} |")
    return "\n".join(["| set | language | metric | value |", "| --- | --- | --- | ---: |", *lines]) if lines else ""


def _data_table(data_sets: Sequence[str], token: str | None) -> str:
    rows = []
    for name in data_sets:
        card = _card_of_data(name, token)
        shown = f"[{name}](https://huggingface.co/datasets/{name})"
        if _is_folder(name):  # what it calls itself, not where it is
            shown = f"{card.get('pretty_name', 'local data')} (a local folder)"
        rows.append(f"| {shown} | {card.get('license') or 'see its page'} |")
    return "\n".join(["| data | licence |", "| --- | --- |", *rows])


def _card_of_data(data_set: str, token: str | None) -> Mapping[str, Any]:
    """What the card of a data set says in its metadata; nothing if there is none, or the Hub cannot be reached."""
    try:
        if _is_folder(data_set):
            return DatasetCard.load(Path(data_set, "README.md")).data.to_dict()
        card = HfApi().dataset_info(data_set, token=token, timeout=10).card_data
    except (HTTPError, OSError, OfflineModeIsEnabled, ValueError):
        return {}
    return card.to_dict() if card else {}


def _settings_table(record: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """Settings, losses and versions."""
    arguments = record["arguments"]
    with_alignment = record["task"] == ALIGNMENT or record.get("regime") == "continual"
    names = [name for name in _SETTINGS if with_alignment or name not in _OF_ALIGNMENT]
    if not arguments.get("use_lora"):
        names = [name for name in names if not name.startswith("lora_")]
    rows = [(name, arguments[name]) for name in names if arguments.get(name) is not None]
    rows += [
        (name, results[name])
        for name in ("train_loss", "eval_alignment_loss", "eval_regularization_loss")
        if name in results
    ]
    rows += [
        (package, version) for package, version in record["versions"].items() if package in ("transformers", "torch")
    ]
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)])
