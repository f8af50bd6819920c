#!/usr/bin/env python
"""Cut the parallel text for the grids of this folder into training and held-out pairs, and link their words once.

    python grids/prepare_data.py hi=en-hi.jsonl.gz hi-Latn=en-hi-Latn.jsonl.gz --output_dir runs/grid-data

Writes `pairs.LANGUAGE.jsonl` and `held.LANGUAGE.jsonl` with word links beside them (`.links`), so that all variants of a grid
learn from the same links and are measured on the same ones; and a word list of the links to learn from (`pairs.LANGUAGE.tsv`).
Links are learned from all pairs, by the statistical aligner. A language that has all files is passed over.
"""

import sys
from dataclasses import dataclass
from itertools import islice
from pathlib import Path


sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.alignment.words import split_on_punctuation
from utils.core.arguments import arg, parse_arguments
from utils.core.errors import InputError, run_script
from utils.core.files import write_json_lines
from utils.core.next_steps import command, say_next
from utils.core.tables import one_path_each, read_rows
from utils.parallel.aligners.dictionary import write_dictionary
from utils.parallel.aligners.pharaoh import write_pharaoh
from utils.parallel.aligners.statistical import StatisticalAligner
from utils.parallel.choosing import one_to_one


@dataclass
class PrepareArguments:
    """Which pairs."""

    files: list[str] = arg(
        default_factory=list, help="LANGUAGE=FILE each, with the columns `en` and the language's code."
    )
    output_dir: str = arg("runs/grid-data", help="Folder for the files.")
    max_pairs: int = arg(8000, help="The first N pairs of each file are read.", at_least=2)
    held_out: int = arg(1000, help="The last N of them are held out.", at_least=1)


def main() -> None:
    (args,) = parse_arguments(PrepareArguments, description=__doc__, positional="files")
    folder = Path(args.output_dir)
    languages = [word.partition("=")[0] for word in args.files]
    for language, path in one_path_each(args.files, languages, "--files").items():
        if (folder / f"pairs.{language}.tsv").exists():
            continue
        rows = [{"en": row["en"], language: row[language]} for _, row in islice(read_rows(path), args.max_pairs)]
        cut = len(rows) - args.held_out
        if cut < 1:
            raise InputError(
                f"{path} has {len(rows):,} pairs; give more, or a --held_out of fewer than {args.held_out:,}."
            )
        source, english = ([split_on_punctuation(row[side]) for row in rows] for side in (language, "en"))
        links = StatisticalAligner().align(source, english)
        for name, part in (("pairs", slice(cut)), ("held", slice(cut, None))):
            write_json_lines(folder / f"{name}.{language}.jsonl", rows[part])
            header = {"word_splitting": "punctuation", "aligner": "statistical", "pairs": len(rows[part])}
            write_pharaoh(folder / f"{name}.{language}.links", links[part], header)
        linked = zip(source[:cut], english[:cut], map(one_to_one, links[:cut]))
        write_dictionary(folder / f"pairs.{language}.tsv", linked, 2, header)
        print(f"{language}: {cut:,} pairs, and {args.held_out:,} held out, in {folder}")
    say_next(command("replicate", "grids/options.yaml"))


if __name__ == "__main__":
    run_script(main)
