"""Which questions make the set of a language, or of a pair of them: from files of TyDi QA, and with a limit."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import run_qa
from utils.core.errors import InputError
from utils.tasks.question_answering import FEATURES, TYDI, CrossLingualReader, read_question


NAMES = {"en": "english", "ru": "russian", "fi": "finnish", "sw": "swahili"}


def write(path, ids, of="") -> str:
    """SQuAD's format, with an answer that begins every context."""
    articles = [
        {"paragraphs": [{"context": f"{name}{of} is it.", "qas": [
            {"id": name, "question": f"Who {name}{of}?", "answers": [{"text": name, "answer_start": 0}]}]}]}
        for name in ids
    ]  # fmt: skip
    path.write_text(json.dumps({"data": articles}))
    return str(path)


def reader(**arguments) -> CrossLingualReader:
    data = run_qa.QaDataArguments(**arguments)
    return CrossLingualReader(data, FEATURES, read_question, pairs=data.pairs())


def ids_of(sets) -> dict[str, list[str]]:
    return {name: examples["id"][:] for name, examples in sets.items()}


@settings(max_examples=10)
@given(st.lists(st.sampled_from(list(NAMES)), min_size=2, max_size=9))
def test_files_of_tydi_qa_hold_several_languages(tmp_path_factory, languages):
    folder = tmp_path_factory.getbasetemp()
    ids = [f"{NAMES[language]}-{k}" for k, language in enumerate(languages)]
    train, dev = write(folder / "train.json", ids, " then"), write(folder / "dev.json", ids)
    named = list(dict.fromkeys(languages))
    files = [f"{language}={dev}" for language in named]
    found = reader(train_file=train, train_language=named[0], validation_file=files, eval_languages=named)
    expected = {one: [name for name, of in zip(ids, languages) if of == one] for one in named}
    assert found.train()["id"][:] == expected[named[0]]
    assert ids_of(found.evaluation_sets("validation")) == expected
    lacking = next(one for one in ("ko", *NAMES) if one not in named)
    with pytest.raises(InputError, match=lacking) as refused:
        reader(validation_file=[f"{lacking}={dev}"], eval_languages=[lacking]).evaluation_sets("validation")
    assert dev in str(refused.value)


@pytest.mark.parametrize(
    "ids", [["57", "58"], ["english-1", "58"], ["hindi-1", "hindi-2"], ["russian-1", "russian-2"], ["russian1", "x"]]
)
def test_other_files_stay_as_they_are(tmp_path, ids):
    path = write(tmp_path / "dev.json", ids)
    found = reader(validation_file=[f"ru={path}"], eval_languages=["ru"]).evaluation_sets("validation")
    assert ids_of(found) == {"ru": ids}
    if ids[0].partition("-")[0] not in TYDI or ids[1] == "58":
        with pytest.raises(InputError, match="give each language a file of its own"):
            reader(validation_file=[f"ru={path}", f"en={path}"], eval_languages=["ru", "en"]).evaluation_sets(
                "validation"
            )


@settings(max_examples=15)
@given(
    st.permutations([f"q{k}" for k in range(6)]),
    st.permutations([f"q{k}" for k in range(6)]),
    st.integers(1, 7),
    st.sampled_from(["validation", "test"]),
)
def test_a_limit_counts_the_questions_that_are_in_both_languages(tmp_path_factory, of_en, of_hi, limit, purpose):
    folder = tmp_path_factory.getbasetemp()
    of_hi = of_hi[:4]
    files = [f"en={write(folder / 'en.json', of_en)}", f"hi={write(folder / 'hi.json', of_hi, ' hi')}"]
    how = {f"{purpose}_file": files, f"max_{'eval' if purpose == 'validation' else 'predict'}_samples": limit}
    found = reader(language_pairs=["en-en", "hi-hi", "en-hi", "hi-en"], **how).evaluation_sets(purpose)
    both = [name for name in of_en if name in of_hi]
    assert ids_of(found) == {
        "en": of_en[:limit],
        "hi": of_hi[:limit],
        "en-hi": of_hi[:limit],
        "hi-en": both[:limit],
    }
    assert found["hi-en"]["question"][:] == [f"Who {name} hi?" for name in both[:limit]]
    assert found["hi-en"]["context"][:] == [f"{name} is it." for name in both[:limit]]
