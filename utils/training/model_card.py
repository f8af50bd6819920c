"""The card of a model (`README.md` in its folder): what it is, how to use it, what it scores, where it came from.

The text is in `model_card_template.md`; here are the values that it is filled with.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, EvalResult, HfApi, ModelCard, ModelCardData
from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled

from utils.alignment.objectives import OBJECTIVES, UNITS
from utils.core.records import ALIGNMENT
from utils.core.result_tables import ResultTable, markdown_text
from utils.models.adapters import TASK_TYPES, adapters_of
from utils.models.lineage import ancestors
from utils.parallel.sides import EACH, ENGLISH, anchor_name, directions


_TEMPLATE = Path(__file__).with_name("model_card_template.md")
# What the sets are called whose results begin with these words.
_SETS = {"predict": "test", "eval": "validation"}

# Data in files and folders of this machine: others do not know where they are.
_LOCAL = "local data"

_Json = Mapping[str, Any]


def model_card(name: str, record: _Json, results: _Json, folder: str | Path, **hub_options: Any) -> str:
    """The text of a card, with its metadata, from the content of `run.json` and `all_results.json`.

    Args:
        name: the repository that the model is pushed to, or its folder as `from_pretrained` takes it.
        folder: the card shows the PNG files in it.
        hub_options: `cache_dir`, `token`.
    """
    name = _in_code(name)
    arguments, continual = record["arguments"], record.get("regime") == "continual"
    is_adjustment, base, revision = record["task"] == ALIGNMENT, record["base_model"], record["base_model_revision"]
    chain = [base, *ancestors(base, revision or "main", **hub_options)]
    published = next((model for model in chain if not _is_folder(model)), None)
    data_sets, english = _data_sets(arguments), {_anchor(record) if is_adjustment else ENGLISH} - {EACH}
    is_adapter = arguments.get("use_lora", False) and not arguments["merge_adapter"]
    found = _measured(record, results)
    rows = [(_SETS[prefix], label, metric.replace("_", " "), f"{v:.4g}") for _, v, label, metric, prefix in found]
    plain, adapters = _adapters(name, record, hub_options) if is_adapter else (name, {})
    head = next((adapter for adapter, task_type in reversed(adapters.items()) if task_type), None)
    class_end = next((end for end, task_type in TASK_TYPES.items() if head and task_type == adapters[head]), "")
    metadata = ModelCardData(
        model_name=name.rpartition("/")[2],
        language=sorted({*english, *arguments.get("languages", []), *arguments.get("eval_languages", [])}),
        library_name="peft" if is_adapter else "transformers",
        pipeline_tag="feature-extraction" if is_adjustment else record["task"],
        tags=[ALIGNMENT, "cross-lingual", *["continual-learning"] * continual, *["lora"] * is_adapter],
        base_model=published,
        base_model_relation=("adapter" if is_adapter else "finetune") if published else None,
        datasets=[data_set for data_set in data_sets if not _is_folder(data_set)] or None,
        eval_results=[_eval_result(record, *one) for one in found] or None,
    )
    card = ModelCard.from_template(
        metadata,
        str(_TEMPLATE),
        repository=name,
        base=_shown(base),
        record=record,
        arguments=arguments,
        is_adjustment=is_adjustment,
        anchor=None if _anchor(record) == EACH else anchor_name(_anchor(record)),
        objectives=OBJECTIVES,
        aligned=arguments.get("alignment_weight", 1) > 0,
        kept=arguments.get("regularization_weight", 1) > 0,
        unit=UNITS[arguments.get("alignment_unit", "word")].description,
        continual=continual,
        evaluated=list(dict.fromkeys(label for _, _, label, *_ in found)),
        auto_class=f"AutoModel{class_end}" if head else record["auto_class"],
        plain=plain,
        adapters=adapters.items(),
        head=head,
        results=_markdown(["set", "language", "metric", "value"], rows, n_text_columns=3),
        figures=sorted(Path(folder).glob("*.png")),
        chain=[_shown(model) for model in (name, *chain)],
        data_sets=_data_table(data_sets, hub_options.get("token")),
        languages_table=_language_table(record, results),
        settings=_settings_table(record, results),
    )
    return f"{card}\n"


def _data_sets(arguments: _Json) -> list[str]:
    """What was read, on the Hub or in folders."""
    of_task = None if arguments.get("train_file") else arguments.get("dataset_name")
    read = (arguments.get("parallel_dataset"), of_task, arguments.get("eval_dataset_name"))
    return list(dict.fromkeys(filter(None, read)))


def _anchor(record: _Json) -> str:
    """The language to which others were pulled."""
    return record["arguments"].get("anchor_language") or ENGLISH


def _is_folder(model: str) -> bool:
    return os.path.isdir(model) or model.startswith((".", "/", "~"))


def _shown(model: str) -> str:
    """A model as text; of a folder its name alone, as where it is on this machine does not concern others."""
    if not _is_folder(model):
        return f"`{_in_code(model)}`"
    return f"`{_in_code(Path(model).absolute().name)}` (a local folder, not published)"


def _in_code(name: str) -> str:
    """A name that ends neither a string in Python nor code in Markdown."""
    return re.sub('["`]', "'", markdown_text(name))


def _adapters(name: str, record: _Json, hub_options: _Json) -> tuple[str, dict[str, str | None]]:
    """The plain model under an adapter; and all adapters from there up to this one, with PEFT's names of their tasks."""
    plain, below = adapters_of(record["base_model"], revision=record["base_model_revision"] or "main", **hub_options)
    # (For code that others run: where a folder is on this machine does not concern them.)
    models = [plain, *(adapter for adapter, _ in below)]
    public = {model: _in_code(f"path/to/{Path(model).name}" if _is_folder(model) else model) for model in models}
    task_types = {public[adapter]: config.task_type for adapter, config in below}
    return public[plain], {**task_types, name: TASK_TYPES.get(record["auto_class"].removeprefix("AutoModel"))}


def _measured(record: _Json, results: _Json) -> list[tuple[str, float, str, str, str]]:
    """Key, value, language (or direction), metric and set of everything that says how good the model is."""
    anchor = _anchor(record)
    keys = {
        f"{prefix}_{label}_{metric}": (label, metric, prefix)
        for prefix in _SETS
        for language in record.get(f"{prefix}_data") or {}
        for label in dict.fromkeys([language, *directions(language, anchor)])
        for metric in record["metrics"]
    }
    return [(key, results[key], *parts) for key, parts in keys.items() if key in results]


def _eval_result(record: _Json, key: str, value: float, label: str, metric: str, prefix: str) -> EvalResult:
    name, split = _evaluated(record, _SETS[prefix])
    return EvalResult(
        task_type="translation-retrieval" if record["task"] == ALIGNMENT else record["task"],
        dataset_type=name,
        dataset_name=f"{name} ({label})",
        dataset_config=label,
        dataset_split=split,
        metric_type=metric,
        metric_value=value,
        metric_name=key,
    )


def _evaluated(record: _Json, kind: str) -> tuple[str, str | None]:
    """What the data of a set (`validation`, `test`) are called that others may find, and its split there."""
    arguments = record["arguments"]
    sources = ("parallel_dataset",) if record["task"] == ALIGNMENT else ("eval_dataset_name", "dataset_name")
    name = next(filter(None, map(arguments.get, sources)), None)
    if arguments.get(f"{kind}_file") or not name:
        return _LOCAL, None
    return _LOCAL if _is_folder(name) else name, arguments.get(f"{kind}_split")


def _data_table(data_sets: Sequence[str], token: str | None) -> str:
    rows = []
    for name in data_sets:
        card = _card_of_data(name, token)
        shown = f"[{name}](https://huggingface.co/datasets/{name})"
        if _is_folder(name):  # what it calls itself, not where it is
            shown = f"{card.get('pretty_name', _LOCAL)} (a local folder)"
        rows.append((shown, card.get("license") or "see its page"))
    return _markdown(["data", "license"], rows, n_text_columns=2)


def _card_of_data(data_set: str, token: str | None) -> _Json:
    """The metadata of a data set's card; empty if there is none, or the Hub cannot be reached."""
    try:
        if _is_folder(data_set):
            return DatasetCard.load(Path(data_set, "README.md")).data.to_dict()
        card = HfApi().dataset_info(data_set, token=token, timeout=10).card_data
    except (HTTPError, OSError, OfflineModeIsEnabled, ValueError):
        return {}
    return card.to_dict() if card else {}


def _language_table(record: _Json, results: _Json) -> str:
    """By language, if there are several: pairs and links, alignment losses, and how often linked words find each other."""
    data = record.get("train_data" if record["task"] == ALIGNMENT else "parallel_data") or {}
    anchor = _anchor(record)
    columns = {
        "mean loss in training": "train_alignment_loss_{}",
        "loss of held-out pairs": "eval_alignment_loss_{}",
        "mean loss of sentences in training": "train_sentence_loss_{}",
        "loss of held-out sentences": "eval_sentence_loss_{}",
        f"words: to {anchor_name(anchor)}": f"eval_{{}}-{anchor}_word_retrieval_accuracy",
        f"from {anchor_name(anchor)}": f"eval_{anchor}-{{}}_word_retrieval_accuracy",
        "words: first to second": "eval_{}_word_retrieval_accuracy",
    }
    rows = []
    for language, facts in data.items() if len(data) > 1 else ():
        found = [results.get(name.format(language)) for name in columns.values()]
        counts = [f"{facts[name]:,}" for name in ("pairs", "links")]
        rows.append([language, *counts, *(None if value is None else _short(value) for value in found)])
    table = ResultTable(["language", "pairs", "links", *columns], rows).without_empty_columns()
    return table.markdown() if rows else ""


def _settings_table(record: _Json, results: _Json) -> str:
    """Hyperparameters, what linked words, seed, losses and versions."""
    rows = [*record["hyperparameters"].items(), ("word links", record.get("word_links")), ("seed", record.get("seed"))]
    losses = ("train_loss", "eval_alignment_loss", "eval_sentence_loss", "eval_regularization_loss")
    rows += [(name, results.get(name)) for name in losses]
    rows += [(package, record["versions"].get(package)) for package in ("transformers", "torch")]
    return _markdown(["", ""], [(name, _short(v)) for name, v in rows if v is not None], n_text_columns=2)


def _short(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]], n_text_columns: int) -> str:
    return ResultTable(columns, rows, n_text_columns).markdown() if rows else ""
