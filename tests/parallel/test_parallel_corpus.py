"""Large corpora: only what is needed is linked, nothing is held in memory, streams are read no further than needed."""

import json
import subprocess
import sys
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import datasets
import pytest

from helpers import tiny
from helpers.paths import PROJECT
from utils.alignment.pairs import PairEncoder, encode_pairs
from utils.alignment.words import WordTokenizer, split_on_spaces
from utils.core.columns import column_array, list_lengths
from utils.core.errors import InputError
from utils.parallel import choosing, data_sets, linking
from utils.parallel.aligners.base import WordAligner
from utils.parallel.aligners.encoder import EncoderAligner
from utils.parallel.aligners.pharaoh import read_pharaoh
from utils.parallel.aligners.registry import ALIGNERS, AlignerArguments, AlignerInputs, make_aligner
from utils.parallel.arguments import ParallelDataArguments
from utils.parallel.choosing import sample_pairs
from utils.parallel.corpus import ChosenPairs, LinkableCorpus, ParallelCorpus
from utils.parallel.data_sets import PairStream, load_bitext
from utils.parallel.formats import LINKS
from utils.parallel.linking import check_links_to_write
from utils.parallel.sides import SAMPLE


MAX_WORDS = 64


class EvenAligner(WordAligner):
    """Links the only words of pairs with an even number; counts what it is asked, and what it is shown."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.shown: list[int] = []

    def learn(self, source, english) -> None:
        self.shown.append(len(source))

    def score(self, source, english):
        self.asked.update(words[0] for words in source)
        return [{(0, 0): 0.75} if int(words[0][1:]) % 2 == 0 else {} for words in source]


@pytest.fixture
def aligner(monkeypatch) -> EvenAligner:
    made = EvenAligner()
    for name, spec in ALIGNERS.items():
        monkeypatch.setitem(ALIGNERS, name, replace(spec, make=lambda given: made))
    return made


def write_pairs(path: Path, n_pairs: int) -> Path:
    path.write_text("".join(f"s{k}\te{k}\n" for k in range(n_pairs)))
    return path


def write_data_set(folder: Path, n_pairs: int) -> str:
    folder.mkdir(exist_ok=True)
    rows = [json.dumps({"translation": {"en": f"e{k}", "hi": f"s{k}"}}) for k in range(n_pairs)]
    (folder / "train.jsonl").write_text("\n".join(rows))
    return str(folder)


def read(source: Path | str, links: AlignerArguments | None = None, **changes) -> LinkableCorpus:
    """The corpus in a file, or in a folder, with whatever links its words."""
    links = links or AlignerArguments(aligner="dictionary", dictionary_file=[__file__])
    files = None if Path(source).is_dir() else [str(source)]
    data = ParallelDataArguments(languages=["hi"], parallel_dataset=None if files else str(source), **changes)
    corpus = ParallelCorpus.read(data, tiny.tokenizer(), "avg", files, links.links_file)
    encoder = tiny.model(head="")
    return corpus.linkable(links, encoder, WordTokenizer(tiny.tokenizer(), max_length=64))


def sources(corpus: LinkableCorpus | ChosenPairs) -> list[str]:
    return [words[0] for words in corpus.pairs["hi"]["source"]]


# --- Drawing -----------------------------------------------------------------------------------------------------


def numbers(n: int) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"number": list(range(n))})


def divisible_by_three(part: datasets.Dataset) -> datasets.Dataset:
    return part.select([row for row, number in enumerate(part["number"]) if number % 3 == 0])


@pytest.mark.parametrize("n_wanted", [1, 30, 99, 100, 150])
def test_a_sample_is_the_first_usable_pairs_of_a_random_order(monkeypatch, n_wanted):
    """However they are asked for: so every usable pair is as likely as any other."""
    monkeypatch.setattr(choosing, "_FEWEST", 5)
    for seed in (1, 2):
        sample = sample_pairs(numbers(300), n_wanted, seed, divisible_by_three)["number"]
        assert list(sample) == [k for k in numbers(300).shuffle(seed=seed)["number"] if k % 3 == 0][:n_wanted]


def test_every_usable_pair_is_as_likely_as_any_other(monkeypatch):
    monkeypatch.setattr(choosing, "_FEWEST", 2)
    n_seeds = 100
    drawn = Counter(
        k for seed in range(n_seeds) for k in sample_pairs(numbers(30), 3, seed, divisible_by_three)["number"]
    )
    assert sorted(drawn) == list(range(0, 30, 3))
    # 3 of 10: a mean of 30, and the standard deviation is 4.6.
    assert all(abs(n - 0.3 * n_seeds) < 4.5 * 4.6 for n in drawn.values())


def test_a_few_usable_pairs_among_many_are_found():
    assert list(
        sample_pairs(numbers(3000), 2, 0, lambda part: part.filter(lambda row: row["number"] == 17))["number"]
    ) == [17]
    assert len(sample_pairs(numbers(600), 2, 0, lambda part: part.filter(lambda row: False))) == 0


# --- Linking -----------------------------------------------------------------------------------------------------


def test_no_more_pairs_are_linked_than_needed(tmp_path, aligner, caplog):
    corpus = read(write_pairs(tmp_path / "pairs.tsv", 20_000))
    with caplog.at_level("INFO", "utils.parallel"):
        sample = corpus.choose(MAX_WORDS, 2000, seed=1)
    assert len(sample.pairs["hi"]) == 2000
    assert all(int(word[1:]) % 2 == 0 for word in sources(sample))
    assert set(aligner.asked.values()) == {1}
    assert aligner.asked.total() < 1.15 * 2 * 2000
    assert f"for which {aligner.asked.total():,} of 20,000 were looked at" in caplog.text
    # It has seen all pairs before, as a statistical model must.
    assert aligner.shown == [20_000]


def test_links_are_cached(tmp_path, aligner):
    def sample(max_pairs: int, seed: int) -> list[str]:
        return sources(read(tmp_path / "pairs.tsv").choose(MAX_WORDS, max_pairs, seed))

    write_pairs(tmp_path / "pairs.tsv", 2000)
    drawn = sample(100, seed=1)
    aligner.asked.clear()
    aligner.shown.clear()
    assert sample(100, seed=1) == drawn
    assert not aligner.asked
    assert not aligner.shown
    # Where all pairs are wanted, every seed finds the same links.
    everything = sample(2000, seed=1)
    assert set(aligner.asked.values()) == {1}
    aligner.asked.clear()
    other = sample(3000, seed=2)
    assert not aligner.asked
    assert sorted(everything) == sorted(other) == sorted(f"s{k}" for k in range(0, 2000, 2))
    assert everything != other
    write_pairs(tmp_path / "pairs.tsv", 300)
    assert len(sample(2000, seed=1)) == 150


def test_long_pairs_are_not_even_linked(tmp_path, aligner):
    (tmp_path / "pairs.tsv").write_text("s0\te0\ns2 a b\te2\ns4\te4 a b\ns6\te6\n")
    assert sorted(sources(read(tmp_path / "pairs.tsv").choose(2, 10, seed=1))) == ["s0", "s6"]
    assert sorted(aligner.asked) == ["s0", "s6"]


def test_links_that_are_written_are_those_of_all_pairs(tmp_path, aligner):
    arguments = AlignerArguments("dictionary", dictionary_file=[__file__], write_links=[str(tmp_path / "all.links")])
    corpus = read(write_pairs(tmp_path / "pairs.tsv", 1000), arguments)
    corpus.write_links(arguments)
    sample = corpus.choose(MAX_WORDS, 50, seed=1)
    assert set(aligner.asked.values()) == {1}
    assert [links for _, links in read_pharaoh(tmp_path / "all.links")] == [[(0, 0)], []] * 500
    assert [links for _, links in read_pharaoh(tmp_path / "all.links", min_score=0.76)] == [[], []] * 500
    assert sources(sample) == sources(read(tmp_path / "pairs.tsv").choose(MAX_WORDS, 50, seed=1))


def test_pairs_are_held_out_before_they_are_linked(tmp_path, aligner):
    corpus = read(write_pairs(tmp_path / "pairs.tsv", 4000))
    rest, held_out = corpus.split(0.25)
    assert not aligner.asked
    in_order = [f"e{k}" for k in range(4000)]
    assert [words[0] for words in held_out.pairs["hi"]["english"]] == [
        word for word in in_order if zlib.crc32(word.encode()) < 0.25 * 2**32
    ]
    assert len(rest.pairs["hi"]) + len(held_out.pairs["hi"]) == 4000
    chosen = [part.choose(MAX_WORDS, 20, seed=1) for part in (rest, held_out)]
    assert aligner.asked.total() < 2 * 300
    assert aligner.shown == [4000]  # (the layer that an encoder links by is the same for both)
    assert not set(sources(chosen[0])) & set(sources(chosen[1]))


def test_nothing_usable(tmp_path, aligner):
    (tmp_path / "pairs.tsv").write_text("s1\te1\ns3\te3\n")
    with pytest.raises(InputError, match="None of the 2 pairs of hi can be used"):
        read(tmp_path / "pairs.tsv").choose(MAX_WORDS, 1, seed=1)


def lines(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def real_pairs(tmp_path) -> Path:
    path = tmp_path / "real.tsv"
    path.write_text("".join(f"{tiny.TEXT[k % 5 + 1]} {k}\t{tiny.TEXT[0]} {k}\n" for k in range(40)), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["encoder", "statistical", "dictionary", "dictionary+statistical+encoder"])
def test_links_made_in_parts_are_those_of_the_whole(monkeypatch, tmp_path, real_pairs, name):
    (tmp_path / "words.txt").write_text("viejo old\nмост bridge\ncây bridge\nпуть way\n")
    how = {"aligner": name}
    how |= {"statistical_model": "ibm1"} if "statistical" in name else {}
    how |= {"dictionary_file": [str(tmp_path / "words.txt")]} if "dictionary" in name else {}
    words = {"word_splitting": "space"}
    corpus = read(real_pairs, AlignerArguments(**how, write_links=["kept"]), **words)
    with monkeypatch.context() as patch:
        patch.setattr(linking, "BATCH", 7)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "another-cache")
        in_parts = read(real_pairs, AlignerArguments(**how, write_links=["kept"]), **words)
    source, english = zip(*([side.split() for side in line] for line in lines(real_pairs)))
    inputs = AlignerInputs(
        AlignerArguments(**how),
        str(tmp_path / "words.txt"),
        tiny.model(head=""),
        WordTokenizer(tiny.tokenizer(), max_length=64),
    )
    aligner = make_aligner(name, inputs)
    links = [[list(link) for link in pair] for pair in aligner.align(source, english)]
    assert sum(map(len, links)) > 10 or "+" in name
    assert list(corpus.pairs["hi"]["links"]) == list(in_parts.pairs["hi"]["links"]) == links


@pytest.mark.parametrize("limit", [None, 0.001])
@pytest.mark.parametrize("name", ["encoder+statistical", "dictionary+statistical+encoder"])
def test_a_slow_aligner_of_an_agreement_links_only_the_chosen_pairs(monkeypatch, tmp_path, real_pairs, name, limit):
    entries = [
        f"{word} {english}" for text in tiny.TEXT[1:] for word in text.split() for english in tiny.TEXT[0].split()
    ]
    (tmp_path / "words.txt").write_text("\n".join(entries), encoding="utf-8")
    how = {"aligner": name, "min_link_score": limit, "statistical_model": "ibm1", "symmetrization": "union"}
    how |= {"dictionary_file": [str(tmp_path / "words.txt")]} if "dictionary" in name else {}
    words = {"word_splitting": "space"}
    linked = []
    score = EncoderAligner.score
    monkeypatch.setattr(EncoderAligner, "score", lambda *args: linked.extend(args[1]) or score(*args))
    monkeypatch.setattr(choosing, "_FEWEST", 4)
    some = read(real_pairs, AlignerArguments(**how), **words).choose(MAX_WORDS, 4, 1).data["hi"]
    assert len(some) <= len(linked) < 40
    every = read(real_pairs, AlignerArguments(**how, write_links=["kept"]), **words).choose(MAX_WORDS, 4, 1).data["hi"]
    assert len(linked) >= 40
    assert len(some) == 4
    assert list(some) == list(every)


@pytest.mark.parametrize("name", ["encoder", "statistical", "encoder+statistical"])
def test_a_limit_keeps_the_same_links_in_every_way(tmp_path, real_pairs, name):
    how = {"aligner": name, **({"statistical_model": "ibm1"} if "statistical" in name else {})}
    words = {"word_splitting": "space"}
    written = AlignerArguments(**how, write_links=[str(tmp_path / "all.links")])
    corpus = read(real_pairs, written, **words)
    corpus.write_links(written)
    scored = [
        [(link, round(score, 4)) for link, score in zip(*pair)]
        for pair in zip(corpus.pairs["hi"]["links"], corpus.pairs["hi"]["scores"])
    ]
    limit = sorted({score for pair in scored for _, score in pair})[1]
    kept = [[link for link, score in pair if score >= limit] for pair in scored]
    assert 0 < sum(map(len, kept)) < sum(map(len, corpus.pairs["hi"]["links"]))
    limited = AlignerArguments(**how, min_link_score=limit, write_links=["kept"])
    of_file = AlignerArguments(links_file=written.write_links, min_link_score=limit)
    assert list(read(real_pairs, limited, **words).pairs["hi"]["links"]) == kept
    assert list(read(real_pairs, of_file, **words).pairs["hi"]["links"]) == kept


def test_a_corpus_is_linked_by_the_word_list_that_it_made(tmp_path, real_pairs):
    words, path = {"word_splitting": "space"}, str(tmp_path / "words.tsv")
    arguments = AlignerArguments("statistical", write_dictionary=[path], min_dictionary_count=3)
    corpus = read(real_pairs, arguments, **words)
    corpus.write_links(arguments)
    counts = Counter(
        (row["source"][i].casefold(), row["english"][j].casefold())
        for row in corpus.pairs["hi"]
        for i, j in choosing.one_to_one(row["links"])
    )
    entries = [line.split("\t") for line in Path(path).read_text().splitlines() if not line.startswith("#")]
    assert {(s, e): int(n) for s, e, n, *_ in entries} == {pair: n for pair, n in counts.items() if n >= 3}
    again = AlignerArguments("dictionary", dictionary_file=[path], min_link_score=0.3, write_links=["kept"])
    linked = read(real_pairs, again, **words).pairs["hi"]
    found = {(row["source"][i].casefold(), row["english"][j].casefold()) for row in linked for i, j in row["links"]}
    assert found <= {(s, e) for s, e, _, p, q in entries if float(p) * float(q) >= 0.09 - 1e-4}
    assert all(score >= 0.3 - 1e-6 for scores in linked["scores"] for score in scores)
    assert sum(map(len, linked["links"])) > 20


@pytest.mark.parametrize("argument", ["write_links", "write_dictionary"])
def test_where_links_and_word_lists_are_written(tmp_path, argument):
    (tmp_path / "old").write_text("")
    new, old = str(tmp_path / "new"), str(tmp_path / "old")
    check_links_to_write(AlignerArguments(**{argument: [new]}), ["hi"], overwrite=False)
    check_links_to_write(AlignerArguments(**{argument: [old]}), ["hi"], overwrite=True)
    with pytest.raises(InputError, match=f"--{argument} .*old exists already"):
        check_links_to_write(AlignerArguments(**{argument: [old]}), ["hi"], overwrite=False)
    with pytest.raises(InputError, match=f"--{argument} ru=FILE"):
        check_links_to_write(AlignerArguments(**{argument: [f"hi={new}"]}), ["hi", "ru"], overwrite=False)
    with pytest.raises(InputError, match="--min_dictionary_count"):
        AlignerArguments(min_dictionary_count=3)


def test_scores_are_not_among_the_chosen_pairs(real_pairs):
    linked_first = read(real_pairs, AlignerArguments(write_links=["kept"])).choose(MAX_WORDS, None, 1)
    assert list(linked_first.data["hi"]) == list(
        read(real_pairs, AlignerArguments()).choose(MAX_WORDS, None, 1).data["hi"]
    )
    assert linked_first.data["hi"].column_names == ["source", "english", "links"]


def test_the_layer_is_judged_on_the_whole_corpus(monkeypatch, tmp_path):
    """Whichever pairs are drawn, from whichever part."""
    seen = []
    monkeypatch.setattr(EncoderAligner, "most_links", lambda self, source, english: seen.append(len(source)) or 1)
    (tmp_path / "pairs.tsv").write_text("".join(f"río {k}\triver e{k}\n" for k in range(600)))
    for part in read(tmp_path / "pairs.tsv", AlignerArguments()).split(0.5):
        part.choose(MAX_WORDS, 3, seed=1)
    assert seen == [600]


def test_processes_share_the_work(tmp_path, monkeypatch):
    write_pairs(tmp_path / "pairs.tsv", 900)
    (tmp_path / "words.txt").write_text("".join(f"s{k} e{k}\n" for k in range(0, 900, 2)))
    links = AlignerArguments(aligner="dictionary", dictionary_file=[str(tmp_path / "words.txt")])
    encoded = []
    for n_processes in (None, 2):
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / f"cache{n_processes}")
        corpus = read(tmp_path / "pairs.tsv", links, preprocessing_num_workers=n_processes)
        corpus, held_out = corpus.split(0.1)
        assert len(corpus.pairs["hi"]) + len(held_out.pairs["hi"]) == 900
        sample = corpus.choose(MAX_WORDS, 400, 1, PairEncoder(WordTokenizer(tiny.tokenizer())))
        encoded.append(sample.rows["hi"].to_dict())
        assert len(sample.pairs["hi"]) == 400
    assert encoded[0] == encoded[1]


# --- Arrow files ---------------------------------------------------------------------------------------------------


def arrow_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.arrow"))


def test_a_pair_goes_through_two_arrow_files(tmp_path):
    """Read and split; linked, chosen and encoded. (A links file is kept in a third one beside the pairs.)"""
    write_pairs(tmp_path / "pairs.tsv", 900)
    (tmp_path / "words.txt").write_text("".join(f"s{k} e{k}\n" for k in range(0, 900, 2)))
    corpus = read(
        tmp_path / "pairs.tsv", AlignerArguments("dictionary", dictionary_file=[str(tmp_path / "words.txt")])
    )
    assert len(arrow_files(tmp_path)) == 1
    encoder = PairEncoder(WordTokenizer(tiny.tokenizer()))
    rest, held_out = corpus.split(0.5)
    chosen = [part.choose(MAX_WORDS, None, 1, encoder) for part in (rest, held_out)]
    assert len(arrow_files(tmp_path)) == 1 + len(chosen)
    for pairs in chosen:
        rows = encode_pairs(pairs.pairs["hi"], encoder.word_tokenizer)
        assert pairs.rows["hi"].to_dict() == pairs.all_rows.to_dict() == rows.to_dict()
        assert len(rows) == pairs.fingerprints()["hi"]["pairs"] > 100


# --- A file of links ---------------------------------------------------------------------------------------------


def test_a_file_of_links_is_read_beside_the_pairs(tmp_path):
    write_pairs(tmp_path / "pairs.tsv", 1500)
    path = tmp_path / "links"
    path.write_text("# a comment\n" + "0-0\n\n\n" * 500)
    arguments = AlignerArguments(links_file=[str(path)])
    corpus = read(tmp_path / "pairs.tsv", arguments)
    sample = corpus.choose(MAX_WORDS, 100, seed=1)
    assert len(sources(sample)) == 100
    assert all(int(word[1:]) % 3 == 0 for word in sources(sample))
    # What is made of them is found again.
    again = read(tmp_path / "pairs.tsv", arguments)
    assert again.pairs["hi"].cache_files == corpus.pairs["hi"].cache_files
    assert again.choose(MAX_WORDS, 100, seed=1).data["hi"].cache_files == sample.data["hi"].cache_files
    rest, held_out = corpus.split(0.5)
    assert sum(len(part.pairs["hi"]) for part in (rest, held_out)) == 1500
    for wrong, message in (
        ("0-0\n" * 1499, "has 1499 lines of links for 1500 sentence pairs"),
        ("0-0\n" * 1501, "has 1501 lines of links for 1500 sentence pairs"),
        ("0-0\n" * 1400 + "0-1\n" * 100, "Line 1401 of .* links English word 1 of a sentence with 1 words"),
    ):
        path.write_text(wrong)
        with pytest.raises(InputError, match=message):
            read(tmp_path / "pairs.tsv", arguments)


# --- Memory ------------------------------------------------------------------------------------------------------


def corpus_of(language: str, path, links: list[str] | None = None, **settings: str) -> ParallelCorpus:
    data = ParallelDataArguments([language], **settings)
    return ParallelCorpus.read(data, tiny.tokenizer(), "avg", [str(path)], links)


def test_links_count_words_between_ordinary_spaces(tmp_path):
    spaces = ["\u00a0", "\u202f", "\u200b", "\u3000", "\u2028"]
    path, links = tmp_path / "a.moses", tmp_path / "a.links"
    path.write_text("".join(f"10{space}000 lok aaye the ||| 10,000 people had come\n" for space in spaces))
    links.write_text("0-0 1-1 2-3\n" * len(spaces))
    arguments = AlignerArguments(links_file=[str(links)])
    chosen = corpus_of("hi", path, [str(links)]).linkable(arguments, None, None).choose(MAX_WORDS, None, seed=0)
    for row in chosen.pairs["hi"]:
        linked = [(row["source"][i], row["english"][j]) for i, j in row["links"]]
        assert [english for _, english in linked] == ["10,000", "people", "come"]
        assert [source for source, _ in linked][1:] == ["lok", "aaye"]
    assert chosen.fingerprints()["hi"]["word_splitting"] == "space"


UNSPACED = {"zh": "他昨天去了北京的图书馆", "ja": "私は毎朝りんごを食べています", "th": "เขาไปตลาดเมื่อวานนี้", "km": "ខ្ញុំចូលចិត្តញ៉ាំផ្លែប៉ោម",
            "lo": "ຂ້ອຍມັກກິນໝາກໂປມ", "my": "ကျွန်တော်ပန်းသီးစားရတာကြိုက်တယ်"}  # fmt: skip


@pytest.mark.parametrize("language", UNSPACED)
def test_languages_without_spaces(tmp_path, language):
    pytest.importorskip("icu4py")
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({language: UNSPACED[language] + "。", "en": "Some English words."}))
    corpus = corpus_of(language, path)
    assert len(corpus.pairs[language][0]["source"]) > 4
    assert corpus.splitting == {language: "icu"}
    assert corpus_of(f"{language}-XX", path).splitting == {f"{language}-XX": "icu"}
    for splitting in ("space", "punctuation"):
        with pytest.raises(InputError, match=f"words of {language} .*--word_splitting icu"):
            corpus_of(language, path, word_splitting=splitting)
    # The same under another code, and text whose words are separated.
    with pytest.raises(InputError, match="--word_splitting icu"):
        corpus_of("xx", path, source_column=language)
    separated = " ".join(corpus.pairs[language][0]["source"])
    path.write_text(json.dumps({language: separated, "en": "Some English words."}))
    read = corpus_of(language, path, word_splitting="space")
    assert read.pairs[language][0]["source"] == separated.split()


def test_the_first_pair_is_logged(tmp_path, caplog):
    path = tmp_path / "a.tsv"
    path.write_text("\t\nKaun hai?\tWho is it?\n")
    for _ in range(2):  # read, and found in the cache
        caplog.clear()
        with caplog.at_level("INFO", "utils"):
            corpus_of("hi", path)
        assert [line for line in caplog.messages if line[:3] in ("hi:", "en:")] == [
            "hi: Kaun hai ?",
            "en: Who is it ?",
        ]


@pytest.mark.parametrize("purpose", ["validation", "tracking"])
def test_the_first_pair_of_other_data_says_of_which(tmp_path, caplog, purpose):
    path = tmp_path / "a.tsv"
    path.write_text("Kaun hai?\tWho is it?\n")
    data = ParallelDataArguments(["hi"])
    with caplog.at_level("INFO", "utils"):
        ParallelCorpus.read(data, None, "avg", [str(path)], None, purpose)
    lines = [line for line in caplog.messages if "?" in line]
    assert [line.partition(": ")[2] for line in lines] == ["Kaun hai ?", "Who is it ?"]
    assert all(purpose in line for line in lines)


def test_lengths_and_columns_as_arrays():
    rows = datasets.Dataset.from_dict({"words": [["a"], [], ["b", "c"]], "length": [5, 6, 7]}).select([2, 0, 1])
    assert list_lengths(rows, "words").tolist() == [2, 1, 0]
    assert column_array(rows, "length").tolist() == [7, 5, 6]
    assert list_lengths(rows.select([]), "words").tolist() == []


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures memory as Linux shows it")
def test_memory_does_not_grow_with_the_corpus(tmp_path):
    """From the file to the first training steps, with 10,000 pairs more: as lists they would need 90 MiB."""
    script = [sys.executable, "benchmarks/bench_corpus.py", "--pairs", "5000", "15000", "--steps", "1"]
    script += ["--links", "dictionary", "--folder", tmp_path, "--json", tmp_path / "result.json"]
    subprocess.run(script, check=True, cwd=PROJECT, timeout=300)
    few, many = json.loads((tmp_path / "result.json").read_text())["results"]
    assert many["drawn"] > 14_000
    for step in ("read", "link", "choose", "record", "train"):
        assert many["anonymous"][step] - few["anonymous"][step] < 32, step


# --- Streams -----------------------------------------------------------------------------------------------------


def stream(folder: str) -> PairStream:
    return load_bitext(ParallelDataArguments(parallel_dataset=folder, streaming=True), "hi", split_on_spaces)


def stream_from(folder: str) -> LinkableCorpus:
    return read(folder, streaming=True)


def test_a_stream_is_read_as_far_as_needed(tmp_path, aligner, monkeypatch):
    folder = write_data_set(tmp_path / "data", 4000)
    monkeypatch.setattr(PairStream, "_SHUFFLE_BUFFER", 100)
    n_read = Counter()
    to_pair = data_sets.flat_row
    monkeypatch.setattr(data_sets, "flat_row", lambda row: n_read.update(rows=1) or to_pair(row))
    sample = stream_from(folder).choose(MAX_WORDS, 300, seed=1)
    assert len(sample.pairs["hi"]) == len(set(sources(sample))) == 300
    assert all(int(word[1:]) % 2 == 0 for word in sources(sample))
    assert set(aligner.asked.values()) == {1}
    # The columns are chosen; the pairs, a part too many at the end, what the aligner was shown.
    assert n_read["rows"] < 2 * SAMPLE + 2 * 300 + 256 + 512 + 10
    assert aligner.shown == [512]
    # In the order of the stream, but not quite.
    order = [int(word[1:]) for word in sources(sample)]
    assert order != sorted(order)
    assert max(order) < 2000
    # Another run, or process, finds what was read; another seed reads anew.
    n_read.clear()
    assert sources(stream_from(folder).choose(MAX_WORDS, 300, seed=1)) == sources(sample)
    assert n_read["rows"] <= SAMPLE
    assert sources(stream_from(folder).choose(MAX_WORDS, 300, seed=2)) != sources(sample)


@pytest.mark.parametrize("n_pairs", [40, 256, 300])
def test_a_stream_that_ends_early(tmp_path, aligner, n_pairs):
    sample = stream_from(write_data_set(tmp_path / "data", n_pairs)).choose(MAX_WORDS, 500, seed=1)
    assert sorted(sources(sample)) == sorted(f"s{k}" for k in range(0, n_pairs, 2))


def test_ranges_of_a_stream_in_any_order(tmp_path):
    folder = write_data_set(tmp_path / "data", 20)
    opened = stream(folder)
    assert [words[0] for words in opened.select(range(5, 8))["source"]] == ["s5", "s6", "s7"]
    assert [words[0] for words in opened.select(range(2, 4))["source"]] == ["s2", "s3"]
    assert [words[0] for words in opened.select(range(18, 30))["source"]] == ["s18", "s19"]
    assert len(opened.select(range(20, 30))) == 0


def test_a_stream_of_other_files_is_another_one(tmp_path):
    folder = write_data_set(tmp_path / "data", 20)
    before = stream(folder)
    assert stream(folder).fingerprint == before.fingerprint
    write_data_set(tmp_path / "data", 21)
    assert stream(folder).fingerprint != before.fingerprint


def test_held_out_pairs_of_a_stream(tmp_path, aligner):
    corpus = stream_from(write_data_set(tmp_path / "data", 2000))
    parts = [part.choose(MAX_WORDS, 2000, seed=1) for part in corpus.split(0.3)]
    rest, held_out = ({int(word[1:]) for word in sources(part)} for part in parts)
    assert held_out == {k for k in range(0, 2000, 2) if zlib.crc32(f"e{k}".encode()) < 0.3 * 2**32}
    assert sorted(rest | held_out) == list(range(0, 2000, 2))


def test_a_stream_gives_the_pairs_of_the_data_set(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [{"english": "the cat", "non_english": "el gato"}, {"english": None, "non_english": "nada"}]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = ParallelDataArguments(parallel_dataset=str(folder), streaming=True)
    pairs = load_bitext(data, "es", split_on_spaces).select(range(5))
    assert pairs.select_columns(["source", "english"]).to_dict() == {
        "source": [["el", "gato"], ["nada"]],
        "english": [["the", "cat"], []],
    }
    with pytest.raises(InputError, match="has no column de for the de sentences.*--source_column"):
        load_bitext(replace(data, source_column="de"), "de", split_on_spaces)
    (folder / "train.jsonl").write_text(json.dumps(rows[0]) + "\n{broken")
    with pytest.raises(InputError, match=r"The data set .*data \(default\) cannot be read any further .*check it"):
        load_bitext(data, "es", split_on_spaces).select(range(5))
    with pytest.raises(InputError, match="has no split test, only train"):
        load_bitext(data, "es", split_on_spaces, dataset_split="test")


def test_what_a_stream_cannot_do(tmp_path, aligner):
    folder = write_data_set(tmp_path / "data", 600)
    for written in ("write_links", "write_dictionary"):
        arguments = AlignerArguments("dictionary", dictionary_file=[__file__], **{written: ["x"]})
        with pytest.raises(InputError, match=f"--{written} needs the whole corpus.*leave --streaming out"):
            read(folder, arguments, streaming=True)
    with pytest.raises(InputError, match="--aligner statistical needs the whole corpus.*leave --streaming out"):
        read(folder, AlignerArguments("statistical"), streaming=True)
    (tmp_path / "links").write_text("0-0\n" * 600)
    with pytest.raises(InputError, match="--links_file .*links has a line for every pair.*leave one of the two out"):
        read(folder, AlignerArguments(links_file=[str(tmp_path / "links")]), streaming=True)
    with pytest.raises(InputError, match="--streaming needs --parallel_dataset"):
        read(write_pairs(tmp_path / "pairs.tsv", 3), streaming=True)
    (tmp_path / "data" / "train.jsonl").write_text('{"en": "e1", "hi": "s1"}\n' * 5000)
    with pytest.raises(InputError, match="None of the first pairs of hi can be used"):
        stream_from(folder).choose(MAX_WORDS, 50, seed=1)
    assert aligner.asked.total() == 256


# --- Which sentences are held out ---


@pytest.mark.parametrize("streaming", [False, True])
def test_held_out_sentences_do_not_depend_on_how_they_are_split(tmp_path, streaming):
    rows = [{"hi": f"{tiny.TEXT[1]} {k}", "en": f"{tiny.TEXT[0]}, no. {k} (of  200)!"} for k in range(200)]
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = []
    for splitting, pooling in (("space", "avg"), ("punctuation", "avg"), ("auto", "token")):
        data = ParallelDataArguments(
            languages=["hi"], parallel_dataset=str(tmp_path / "text"), word_splitting=splitting, streaming=streaming
        )
        corpus = ParallelCorpus.read(data, tiny.tokenizer(), pooling, None, None)
        linkable = corpus.linkable(
            AlignerArguments(), tiny.model(head=""), WordTokenizer(tiny.tokenizer(), max_length=64)
        )
        kept, held_out = ([pair["checksum"] for pair in part.pairs["hi"]] for part in linkable.split(0.3))
        assert len(kept) + len(held_out) == 200
        found.append(held_out)
    assert 30 < len(found[0]) < 90
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("columns", [("non_english", "english"), ("source", "target"), ("hi", "en")])
def test_two_languages_do_not_share_their_pairs(tmp_path, columns, streaming):
    folder = tmp_path / "text"
    folder.mkdir()
    rows = [dict(zip(columns, (f"{tiny.TEXT[1]} {k}", f"{tiny.TEXT[0]} {k}"))) for k in range(9)]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = ParallelDataArguments(parallel_dataset=str(folder), streaming=streaming)
    assert ParallelCorpus.read(replace(data, languages=["hi"]), tiny.tokenizer(), "avg", None, None).pairs.keys() == {
        "hi"
    }
    with pytest.raises(InputError, match="ru"):
        ParallelCorpus.read(replace(data, languages=["hi", "ru"]), tiny.tokenizer(), "avg", None, None)


def test_equal_files_of_two_languages_are_refused(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.tsv").write_text(
            "".join(f"one s{k}\ttwo e{k} {name if name == 'c' else ''}\n" for k in range(5))
        )
    data = ParallelDataArguments(languages=["hi", "ru"])
    different, equal = ([f"hi={tmp_path / 'a.tsv'}", f"ru={tmp_path / name}.tsv"] for name in "cb")
    assert ParallelCorpus.read(data, tiny.tokenizer(), "avg", different, None).pairs.keys() == {"hi", "ru"}
    with pytest.raises(InputError, match="hi and ru"):
        ParallelCorpus.read(data, tiny.tokenizer(), "avg", equal, None)


@pytest.mark.parametrize("usable", [range(0), [0], [4], [2, 3], range(4), range(5)], ids=str)
@pytest.mark.parametrize("in_links", [True, False])
def test_batches_without_a_usable_pair(tmp_path, monkeypatch, usable, in_links):
    """Whichever pairs can be used, also none of a batch, they are encoded and the others are left out."""
    monkeypatch.setattr(choosing, "_BATCH", 2)
    rows = [
        {
            "source": [f"s{k}"] if k in usable or in_links else [],
            "english": [f"e{k}"],
            "links": [[0, 0]] * (k in usable),
        }
        for k in range(5)
    ]
    features = datasets.Features({**choosing.SIDES, "links": LINKS})
    bitext = datasets.Dataset.from_list(rows, features)
    encode = PairEncoder(WordTokenizer(tiny.tokenizer(), max_length=20))
    for linked in (bitext, bitext.remove_columns("links")) if not in_links else (bitext,):
        chosen = choosing.choose_pairs(linked, encoder=encode, language="hi")
        assert chosen["source"][:] == [[f"s{k}"] for k in usable]
        assert list(map(len, chosen["source_input_ids"])) == [
            len(encode.word_tokenizer([[f"s{k}"]])["input_ids"][0]) for k in usable
        ]
    whole = LinkableCorpus({"hi": bitext}, {}, {"hi": {"word_splitting": "space"}})
    if not usable:
        with pytest.raises(InputError, match="None of the 5 pairs of hi"):
            whole.choose(9, None, 0, encode)


@pytest.mark.parametrize("n_pairs", [1, 99, 101])
@pytest.mark.parametrize("blank", [0, 1])
def test_sides_that_are_the_same_are_refused(tmp_path, n_pairs, blank):
    lines = [f"same {k} \tsame {k}" for k in range(n_pairs)] + ["\t"] * blank
    (tmp_path / "a.tsv").write_text("\n".join(lines))
    with pytest.raises(InputError, match="sentences of hi and their translations are the same"):
        corpus_of("hi", tmp_path / "a.tsv")
    (tmp_path / "a.tsv").write_text("\n".join([*lines, "same\tother"]))
    assert len(corpus_of("hi", tmp_path / "a.tsv").pairs["hi"]) == n_pairs + blank + 1
