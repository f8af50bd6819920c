"""The word aligners by name."""

from dataclasses import dataclass

from transformers import PreTrainedModel

from utils.alignment.words import WordTokenizer
from utils.core.arguments import arg
from utils.core.errors import InputError
from utils.parallel.aligners.base import WordAligner
from utils.parallel.aligners.dictionary import DictionaryAligner
from utils.parallel.aligners.encoder import EncoderAligner
from utils.parallel.aligners.pharaoh import FileAligner
from utils.parallel.aligners.statistical import StatisticalAligner


ALIGNERS = ("file", "encoder", "statistical", "dictionary")


def make_aligner(
    name: str,
    *,
    links_file: str | None = None,
    reverse_links: bool = False,
    dictionary_file: str | None = None,
    statistical_model: str = "eflomal",
    symmetrization: str = "intersection",
    model: PreTrainedModel | None = None,
    word_tokenizer: WordTokenizer | None = None,
    layer: int | None = None,
) -> WordAligner:
    """The aligner that `--aligner` names.

    Args:
        name: one of `ALIGNERS`.
        links_file, reverse_links: for `file`, see `FileAligner`.
        dictionary_file: for `dictionary`, see `DictionaryAligner`.
        statistical_model, symmetrization: for `statistical`, see `StatisticalAligner`.
        model, word_tokenizer, layer: for `encoder`, see `EncoderAligner`.

    Raises:
        InputError: if something that this aligner needs is missing.
    """
    if name == "file" and links_file:
        return FileAligner(links_file, reverse_links)
    if name == "encoder" and model is not None and word_tokenizer is not None:
        return EncoderAligner(model, word_tokenizer, layer)
    if name == "statistical":
        return StatisticalAligner(statistical_model, symmetrization)
    if name == "dictionary" and dictionary_file:
        return DictionaryAligner(dictionary_file)
    needs = {"file": "--links_file FILE", "encoder": "--model NAME", "dictionary": "--dictionary_file FILE"}
    if name in needs:
        raise InputError(f"--aligner {name} needs {needs[name]}; add it.")
    raise InputError(f"--aligner {name} is unknown; choose one of {', '.join(ALIGNERS)}.")


@dataclass
class AlignerArguments:
    """Where the word links come from."""

    aligner: str | None = arg(
        None,
        help="Who links the words: `file` reads --links_file (the default where there is one); `encoder` asks "
        "the encoder itself: mutual nearest words in its middle layer (the default otherwise); `statistical` "
        "learns from the corpus alone, all of it, and alone needs memory that grows with it (pip install sil-thot); "
        "`dictionary` looks them up in --dictionary_file.",
        choices=list(ALIGNERS),
        hyperparameter=True,
    )
    links_file: list[str] | None = arg(
        None,
        help="Word links in Pharaoh format, a line `0-0 1-2 …` per pair, source-English, as fast_align, "
        "eflomal, awesome-align and simalign write them. With several languages LANGUAGE=FILE each.",
    )
    reverse_links: bool = arg(False, help="The links file has English first.")
    dictionary_file: list[str] | None = arg(
        None, help="Word list for `--aligner dictionary`: foreign word, white space, English word on a line."
    )
    aligner_layer: int | None = arg(
        None, help="Layer (index into hidden_states) that `--aligner encoder` compares.", hyperparameter=True
    )
    statistical_model: str = arg(
        "eflomal",
        help="What `--aligner statistical` learns: eflomal (the most exact one), fast_align (the quickest, and "
        "the paper's), hmm, ibm1, ibm2, ibm3, ibm4.",
    )
    symmetrization: str = arg(
        "intersection",
        help="How `--aligner statistical` joins its two directions: intersection (the paper's), union, och, "
        "grow, grow-diag, grow-diag-final, grow-diag-final-and.",
    )
    write_links: list[str] | None = arg(
        None,
        help="Link the whole corpus, not only the pairs that are drawn, and keep the links in this file, to be "
        "given as --links_file next time (with another seed, for example). With several languages "
        "LANGUAGE=FILE each.",
    )

    def __post_init__(self) -> None:
        if self.links_file and self.aligner not in (None, "file"):
            raise InputError(f"--links_file is not read by --aligner {self.aligner}; leave one of the two out.")
