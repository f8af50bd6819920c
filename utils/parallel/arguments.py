"""Where parallel sentences come from: the arguments."""

from dataclasses import dataclass

from utils.core.arguments import arg
from utils.core.errors import InputError
from utils.core.romanization import HELP, in_place
from utils.parallel.sides import EACH, ENGLISH


@dataclass
class ParallelDataArguments:
    """Where the parallel sentences come from, and which of them are used."""

    languages: list[str] = arg(
        default_factory=list,
        aliases=["--language"],
        help="Language(s) pulled to English, by code: `--language hi`; several at once share one model: "
        "`--languages es ru vi hi`.",
        hyperparameter=True,
    )
    anchor_language: str = arg(
        ENGLISH,
        help="The other side of the pairs, to which languages are pulled in place of English: `--languages uk "
        "--anchor_language ru`. Its words are those that the regularizer keeps. `each`: every one of --languages to every "
        "other one, in a table with a column for each, named by its code.",
        hyperparameter=True,
        variant=lambda anchor: f"to {anchor}",
    )
    parallel_dataset: str | None = arg(None, help="Parallel corpus: a data set on the Hub or in a local folder.")
    parallel_config: str | None = arg(
        None,
        help="Its configuration; {language} stands for the language. Default: the first of en-{language}, "
        "{language}-en, {language} that the data set has (with --anchor_language ru, for uk: ru-uk, uk-ru).",
    )
    parallel_split: str = arg("train", help="Its split.")
    streaming: bool = arg(
        False,
        help="Stream --parallel_dataset: read only as much as is needed for --max_train_pairs, drawn from a shuffle "
        "buffer of 10,000 pairs. For --aligner encoder or dictionary; needs a connection to the Hub in every run.",
    )
    parallel_file: list[str] | None = arg(
        None,
        help="Parallel corpus in a file: .tsv (with or without a header), .csv, .jsonl, .parquet, or .txt with "
        "lines `source ||| English` (Moses), each also compressed; or two files aligned line by line: `--parallel_file corpus.hi "
        "corpus.en`. With several languages LANGUAGE=FILE each: `--parallel_file hi=a.tsv ru=b.ru,b.en`.",
    )
    source_column: str | None = arg(
        None, help="Column of the source sentences, if it is not named by the language's code."
    )
    english_column: str | None = arg(
        None,
        aliases=["--anchor_column"],
        help="Column of the English sentences, if it is not named `en` (or of those of --anchor_language).",
    )
    word_splitting: str = arg(
        "auto",
        help="How sentences are split into words: `space` for tokenized text, `punctuation` also separates "
        "punctuation marks, `icu` also the words of Chinese, Japanese, Thai, Lao, Khmer and Burmese (pip install icu4py); "
        "`auto`: as the links file says, else `space` with a links file, `icu` for these languages, `punctuation` for others.",
        choices=["auto", "space", "punctuation", "icu"],
        hyperparameter=True,
    )
    romanize: list[str] = arg(
        default_factory=list,
        help=HELP.format(example="--languages hi hi-Latn --romanize hi-Latn"),
        hyperparameter=True,
        variant=in_place,
    )
    max_words: int = arg(
        64, help="Drop pairs with more words than this on either side.", hyperparameter=True, at_least=1
    )
    max_train_pairs: int | None = arg(
        250_000,
        help="Pairs per language, drawn at random from all usable ones; only as many pairs are linked as it takes to "
        "find them. The paper adjusts with 250,000 and keeps 30,000 for continual learning.",
        hyperparameter=True,
        at_least=1,
    )
    preprocessing_num_workers: int | None = arg(
        None, help="Processes that prepare the pairs. Default: one.", at_least=1, at_most=256
    )

    @property
    def directions(self) -> dict[str, tuple[str, str]]:
        """By name, the language and the anchor of everything that is read: one for each language, or for each two."""
        if self.anchor_language != EACH:
            return {language: (language, self.anchor_language) for language in self.languages}
        return {f"{one}-{other}": (one, other) for other in self.languages for one in self.languages if one != other}

    def _check_each(self) -> None:
        if len(self.languages) < 2:
            raise InputError("--anchor_language each needs two --languages or more; name them all.")
        for name in ("source_column", "english_column", "streaming", "romanize"):
            if getattr(self, name):
                raise InputError(
                    f"--{name} does not go with --anchor_language each, which reads a column per language, named by its "
                    "code, of a whole table; leave it out."
                )

    def __post_init__(self) -> None:
        if self.anchor_language == EACH:
            self._check_each()
        if len(set(self.languages)) < len(self.languages) or self.anchor_language in self.languages:
            raise InputError(
                f"--languages {' '.join(self.languages)}: name each once, and not {self.anchor_language}, which is the "
                "other side."
            )
        if self.parallel_dataset and self.parallel_file:
            raise InputError("--parallel_dataset and --parallel_file are both given; leave one out.")
        if self.streaming and not (self.parallel_dataset and self.max_train_pairs):
            missing = "--max_train_pairs" if self.parallel_dataset else "--parallel_dataset"
            raise InputError(f"--streaming needs {missing}; add it, or leave --streaming out.")
