"""The data sets that the scripts read by default, on the Hub of the tests: the same schemas, a few rows from `data/`."""

from pathlib import Path

import yaml
from datasets import ClassLabel, Dataset, Features, List, Value, load_dataset
from huggingface_hub import HfApi

from helpers.hub_server import HubServer
from helpers.paths import PROJECT


N_ROWS = 6
LANGUAGES = {"en": "English", "es": "Spanish", "ru": "Russian", "vi": "Vietnamese", "hi": "Hindi"}
FOREIGN = tuple(LANGUAGES)[1:]
THREE_LETTERS = {"es": "spa", "ru": "rus", "vi": "vie", "hi": "hin"}
NLI = ["entailment", "neutral", "contradiction"]
ENTITIES = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"]
POS = ["ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON", "PROPN", "PUNCT", "SCONJ", "SYM",
       "VERB", "X"]  # fmt: skip

_TEXT = Value("string")
_QUESTION = {
    **dict.fromkeys(("id", "title", "context", "question"), _TEXT),
    "answers": {"text": List(_TEXT), "answer_start": List(Value("int32"))},
}
_TAGGED = {"tokens": List(_TEXT), "pos_tags": List(ClassLabel(names=POS))}
_PAWSX = {"sentence1": _TEXT, "sentence2": _TEXT, "label": _TEXT}
_TATOEBA = dict.fromkeys(("source_sentence", "target_sentence", "source_lang", "target_lang"), _TEXT)


def publish_data(hub: HubServer, folder: Path) -> None:
    """Put the default data sets on a Hub; `folder` is an empty one for the files."""
    three = ("train", "validation", "test")
    nli = {"premise": _TEXT, "hypothesis": _TEXT, "label": ClassLabel(names=NLI)}
    parts = {(one, split): (nli, _nli(one, split)) for one in LANGUAGES for split in three}
    _publish(hub, folder, "facebook/xnli", parts)
    ner = {
        "tokens": List(_TEXT),
        "ner_tags": List(ClassLabel(names=ENTITIES)),
        "langs": List(_TEXT),
        "spans": List(_TEXT),
    }
    parts = {(one, split): (ner, _ner(one, split)) for one in LANGUAGES for split in three}
    _publish(hub, folder, "unimelb-nlp/wikiann", parts)
    parts = {("plain_text", split): (_QUESTION, _rows("qa", "en", split)) for split in ("train", "validation")}
    _publish(hub, folder, "rajpurkar/squad", parts)
    xquad = {name: feature for name, feature in _QUESTION.items() if name != "title"}
    parts = {(f"xquad.{one}", "validation"): (xquad, _rows("qa", one, "validation")) for one in LANGUAGES}
    _publish(hub, folder, "google/xquad", parts)
    parts = {("secondary_task", split): (_QUESTION, _tydi(split)) for split in ("train", "validation")}
    _publish(hub, folder, "google-research-datasets/tydiqa", parts)
    _publish(hub, folder, "google/xtreme", _xtreme())
    opus = {name: {"translation": {"en": _TEXT, name: _TEXT}} for name in FOREIGN}
    parts = {(f"en-{one}", split): (opus[one], [{"translation": row} for row in _rows("parallel", f"en-{one}", "train")])
             for one in FOREIGN for split in three}  # fmt: skip
    _publish(hub, folder, "Helsinki-NLP/opus-100", parts)
    wikimatrix = {"english": _TEXT, "non_english": _TEXT}
    parts = {(f"en-{one}", "train"): (wikimatrix, _pairs(one, 300)) for one in FOREIGN}
    _publish(hub, folder, "sentence-transformers/parallel-sentences-wikimatrix", parts)


def _publish(hub: HubServer, folder: Path, name: str, parts: dict[tuple[str, str], tuple[dict, list[dict]]]) -> None:
    """A repository with a Parquet file per configuration and split, named in its card, as most on the Hub are."""
    owner, place = name.split("/")[0], folder / name
    configs: dict[str, list[dict[str, str]]] = {}
    for (config, split), (features, rows) in parts.items():
        configs.setdefault(config, []).append({"split": split, "path": f"{config}/{split}-*"})
        (place / config).mkdir(parents=True, exist_ok=True)
        kept = [{column: row[column] for column in features} for row in rows]
        Dataset.from_list(kept, Features(features)).to_parquet(place / config / f"{split}-00000-of-00001.parquet")
    listed = [{"config_name": config, "data_files": files} for config, files in configs.items()]
    (place / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': listed})}---\n", encoding="utf-8")
    hub.add_user(owner, f"hf_{owner}")
    api = HfApi(endpoint=hub.endpoint, token=f"hf_{owner}")
    api.create_repo(name, repo_type="dataset")
    api.upload_folder(repo_id=name, repo_type="dataset", folder_path=place)


def _rows(task: str, language: str, split: str, n: int = N_ROWS) -> list[dict]:
    return load_dataset(str(PROJECT / "data" / task), language, split=split).to_list()[:n]


def _nli(language: str, split: str) -> list[dict]:
    return [{**row, "label": NLI.index(row["label"])} for row in _rows("nli", language, split)]


def _ner(language: str, split: str) -> list[dict]:
    rows = _rows("ner", language, split)
    return [{**row, "ner_tags": [ENTITIES.index(tag) for tag in row["ner_tags"]],
             "langs": [language] * len(row["tokens"]), "spans": []} for row in rows]  # fmt: skip


def _tydi(split: str) -> list[dict]:
    """All languages in one configuration; the id says which."""
    return [
        {**row, "id": f"{LANGUAGES[one].lower()}-{row['id']}"}
        for one in ("en", "ru")
        for row in _rows("qa", one, split)
    ]


def _pairs(language: str, n: int) -> list[dict]:
    rows = _rows("parallel", f"en-{language}", "train", n)
    return [{"english": row["en"], "non_english": row[language]} for row in rows]


def _xtreme() -> dict[tuple[str, str], tuple[dict, list[dict]]]:
    parts: dict[tuple[str, str], tuple[dict, list[dict]]] = {}
    for one, name in LANGUAGES.items():
        for split in ("train", "validation", "test") if one == "en" else ("validation", "test"):
            rows = _rows("pos", one, split)
            tagged = [{**row, "pos_tags": [POS.index(tag) for tag in row["pos_tags"]]} for row in rows]
            parts[f"udpos.{name}", split] = _TAGGED, tagged
    for one in ("en", "de", "es", "fr", "ja", "ko", "zh"):  # (in XTREME's languages, whatever the sentences are in)
        pairs = [(row["premise"], row["hypothesis"]) for row in _rows("nli", "en", "test")]
        rows = [{"sentence1": a, "sentence2": b, "label": str(k % 2)} for k, (a, b) in enumerate(pairs)]
        parts |= {(f"PAWS-X.{one}", split): (_PAWSX, rows) for split in ("train", "validation", "test")}
    for one in FOREIGN:  # the sentences of XTREME's Tatoeba end in a line break
        rows = [{"source_sentence": row["source_sentence"] + "\n", "target_sentence": row["target_sentence"] + "\n",
                 "source_lang": THREE_LETTERS[one], "target_lang": "eng"}
                for row in _rows("xsr", one, "test")]  # fmt: skip
        parts[f"tatoeba.{THREE_LETTERS[one]}", "validation"] = _TATOEBA, rows
    questions = {one: _rows("qa", one, "validation") for one in ("en", "es", "vi", "hi")}  # MLQA has no Russian
    for context in questions:
        for question in questions:
            rows = [{**c, "question": q["question"]} for c, q in zip(questions[context], questions[question])]
            parts |= {(f"MLQA.{context}.{question}", split): (_QUESTION, rows) for split in ("validation", "test")}
    return parts
