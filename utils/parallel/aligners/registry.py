"""The word aligners by name, and their arguments."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedModel

from utils.alignment.words import WordTokenizer
from utils.core.arguments import arg
from utils.core.cache import cache_key
from utils.core.errors import InputError, look_up
from utils.core.files import file_fingerprint
from utils.models.encoders import weights_checksum
from utils.models.tokenizers import tokenizer_fingerprint
from utils.parallel.aligners.agreement import AgreementAligner
from utils.parallel.aligners.base import WordAligner
from utils.parallel.aligners.dictionary import DictionaryAligner
from utils.parallel.aligners.encoder import EncoderAligner
from utils.parallel.aligners.statistical import STATISTICAL_MODELS, SYMMETRIZATIONS, StatisticalAligner


@dataclass(frozen=True)
class AlignerSpec:
    """How an aligner is made."""

    make: Callable[[Any], WordAligner]  # of `AlignerInputs`
    settings: Sequence[str] = ()  # names of the `AlignerArguments` that its links depend on
    needs: Mapping[str, str] = field(default_factory=dict)  # required attributes of `AlignerInputs`: their argument
    learns_from_all: bool = False  # it links all pairs of a corpus at once, because it learns from them
    in_processes: bool = False  # several processes may link at once, each with its own aligner
    is_slow: bool = False  # where others have linked all pairs of a corpus, it links only those that are chosen


ALIGNERS = {
    "encoder": AlignerSpec(
        lambda given: EncoderAligner(given.encoder, given.word_tokenizer, given.arguments.aligner_layer),
        settings=["aligner_layer"],
        needs={"encoder": "--model NAME", "word_tokenizer": "--model NAME"},
        is_slow=True,
    ),
    "statistical": AlignerSpec(
        lambda given: StatisticalAligner(given.arguments.statistical_model, given.arguments.symmetrization),
        settings=["statistical_model", "symmetrization"],
        learns_from_all=True,
    ),
    "dictionary": AlignerSpec(
        lambda given: DictionaryAligner(given.dictionary_file),
        needs={"dictionary_file": "--dictionary_file FILE"},
        in_processes=True,
    ),
}


@dataclass
class AlignerArguments:
    """Where the word links come from."""

    aligner: str | None = arg(
        None,
        help="What links the words: `file` reads --links_file (the default if there is one); `encoder` links mutual "
        "nearest neighbors in a middle layer of the encoder (the default otherwise); `statistical` learns from the "
        "whole corpus, and needs memory in proportion to it (pip install sil-thot); `dictionary` looks the words up in "
        "--dictionary_file. Several joined by +, as in `encoder+statistical`: the links that all of them make.",
        hyperparameter=True,
        variant=lambda name: None if name == "file" else f"links {name}",
    )
    links_file: list[str] | None = arg(
        None,
        help="Word links in Pharaoh format, a line `0-0 1-2 …` per pair, source-English, as fast_align, eflomal, "
        "awesome-align and simalign write them, also with scores; or GIZA++'s A3. With several languages LANGUAGE=FILE each.",
    )
    reverse_links: bool = arg(False, help="The links file has English first.", hyperparameter=True)
    min_link_score: float | None = arg(
        None,
        help="Leave out links with a lower score. The score of `--aligner encoder` is the cosine of the two words in the layer "
        "that links (-1 to 1; which are high depends on encoder and layer: look at those that --write_links writes); of "
        "`statistical` the geometric mean of the probabilities of either word as the translation of the other (0 to 1), and of "
        "`dictionary` the same of a list with probabilities; of "
        "several joined by + the lowest; of a links file the number after the link (0-0:0.9).",
        hyperparameter=True,
    )
    dictionary_file: list[str] | None = arg(
        None,
        help="Word list for `--aligner dictionary`: source word, white space, English word on a line; or one of --write_dictionary, "
        "whose probabilities are the scores of links.",
    )
    aligner_layer: int | None = arg(
        None,
        help="Layer (index into hidden_states) that `--aligner encoder` compares. Default: the one that links most words.",
        hyperparameter=True,
    )
    statistical_model: str = arg(
        "eflomal",
        help="The model of `--aligner statistical`: eflomal is the most accurate, fast_align the fastest, and the paper's.",
        choices=list(STATISTICAL_MODELS),
        hyperparameter=True,
    )
    symmetrization: str = arg(
        "intersection",
        help="How `--aligner statistical` joins its two directions: intersection is the paper's.",
        choices=list(SYMMETRIZATIONS),
        hyperparameter=True,
    )
    write_links: list[str] | None = arg(
        None,
        help="Link the whole corpus, not only the pairs that are drawn, and write the links with their scores to this file, for "
        "--links_file of another run (with another seed, for example). With several languages LANGUAGE=FILE each.",
    )
    write_dictionary: list[str] | None = arg(
        None,
        help="Link the whole corpus, and write the one-to-one links as a word list to this file, for --dictionary_file: on each "
        "line source word, English word, how often they are linked, and the share of this count in all links of the source "
        "word and of the English word. With several languages LANGUAGE=FILE each.",
    )
    min_dictionary_count: int | None = arg(
        None, help="Write only words that are linked at least this many times. Default: 2.", at_least=1
    )

    def __post_init__(self) -> None:
        if self.links_file and self.aligner not in (None, "file"):
            raise InputError(f"--links_file is not read by --aligner {self.aligner}; leave one of the two out.")
        if self.min_dictionary_count is not None and not self.write_dictionary:
            raise InputError("--min_dictionary_count has no effect without --write_dictionary; give both.")
        self._check_settings()

    @property
    def source(self) -> str:
        """What links the words, also where it is not named: `file` or an aligner."""
        return aligner_name(self, has_links=bool(self.links_file))

    def check_links_files(self, of_held_out: Sequence[str] | None = None, trains: bool = False) -> None:
        """Raise `InputError` if links of a file are asked for, but no argument names one.

        Args:
            of_held_out: the links files of pairs that are only measured, if they have an argument of their own.
            trains: whether other pairs are linked as well, to learn from them. (One of their languages needs a file; the
                others have the links of the encoder.)
        """
        if self.aligner == "file" and not self.links_file and (trains or not of_held_out):
            raise InputError("--aligner file reads --links_file, which is missing; add it, or leave --aligner out.")
        if self.reverse_links and not (self.links_file or of_held_out):
            raise InputError("--reverse_links has no effect without --links_file; give both.")

    def _check_settings(self) -> None:
        """Raise `InputError` for a setting of another aligner than the one in use (also beside links files: not every
        language, and not every part of a corpus, needs to have one)."""
        name = aligner_name(self, has_links=False)
        in_use = aligner_spec(name)
        for other, spec in ALIGNERS.items():
            for setting in ({*spec.settings, *spec.needs} - {*in_use.settings, *in_use.needs}) & vars(self).keys():
                if getattr(self, setting) != self.__dataclass_fields__[setting].default:
                    raise InputError(
                        f"--{setting} does nothing with --aligner {name}; leave it out, or use --aligner {other}."
                    )


def aligner_name(arguments: AlignerArguments, has_links: bool) -> str:
    """The aligner in use: the one asked for; by default the links file if there is one, else the encoder."""
    if has_links:
        return "file"
    return "encoder" if arguments.aligner in (None, "file") else arguments.aligner


@dataclass(frozen=True)
class AlignerInputs:
    """What an aligner for one language can be made of; `AlignerSpec.needs` says what is required."""

    arguments: AlignerArguments
    dictionary_file: str | None = None
    encoder: PreTrainedModel | None = None
    word_tokenizer: WordTokenizer | None = None


def aligner_spec(name: str) -> AlignerSpec:
    """The entry of `ALIGNERS`, or for names joined by + what their agreement needs; an unknown name raises `InputError`."""
    parts = {part: look_up(ALIGNERS, part, "--aligner") for part in name.split("+")}
    specs = list(parts.values())
    if len(specs) != name.count("+") + 1:
        raise InputError(f"--aligner {name} names an aligner twice; name each once.")
    if len(specs) == 1:
        return specs[0]
    return AlignerSpec(
        lambda given: AgreementAligner([spec.make(given) for spec in specs]),
        settings=[setting for spec in specs for setting in spec.settings],
        needs={need: argument for spec in specs for need, argument in spec.needs.items()},
        learns_from_all=any(spec.learns_from_all for spec in specs),
        in_processes=all(spec.in_processes for spec in specs),
    )


def first_and_later(name: str) -> tuple[str, str]:
    """The aligners of an agreement that link all pairs of a corpus at once, and those that link the chosen pairs; or ''."""
    if not aligner_spec(name).learns_from_all:
        return "", name
    parts = name.split("+")
    first, later = ([part for part in parts if ALIGNERS[part].is_slow == slow] for slow in (False, True))
    return "+".join(first), "+".join(later)


def make_aligner(name: str, inputs: AlignerInputs) -> WordAligner:
    """The aligner with a name; `InputError` if it is unknown, or if something that it needs is missing or wrong."""
    spec = aligner_spec(name)
    for attribute, argument in spec.needs.items():
        if getattr(inputs, attribute) is None:
            raise InputError(f"--aligner {name} needs {argument}; add it.")
    aligner = spec.make(inputs)
    if inputs.arguments.min_link_score is not None and not aligner.has_scores:
        raise InputError(
            f"--min_link_score has no effect with --aligner {name}, whose links have no scores; leave it out."
        )
    return aligner


def links_key(name: str, inputs: AlignerInputs) -> str:
    """The `cache_key` of the links that an aligner makes of given pairs."""
    spec = aligner_spec(name)
    settings = [*spec.settings, "min_link_score"]
    facts: dict[str, Any] = {argument: getattr(inputs.arguments, argument) for argument in settings}
    if "dictionary_file" in spec.needs and inputs.dictionary_file:
        facts["dictionary_file"] = file_fingerprint(inputs.dictionary_file)
    if "encoder" in spec.needs and inputs.encoder and inputs.word_tokenizer:
        words = inputs.word_tokenizer
        facts["encoder"] = [weights_checksum(inputs.encoder), words.max_length, tokenizer_fingerprint(words.tokenizer)]
    return cache_key(make_aligner, spec.make, name=name, **facts)
