"""`bayling score`: metrics for outputs that any system wrote."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayling.commands import score_knowledge, score_reviews
from bayling.errors import UserError

if TYPE_CHECKING:
    from bayling.evaluate.significance import Difference
    from bayling.evaluate.suite import Row, Scored

_HELP = "metrics for outputs that any system wrote, in files"
_EPILOG = """examples:
  bayling score translation --hypotheses mine.zh --reference wmt22.zh --source wmt22.en \\
      --source-lang en --target-lang zh
  bayling score translation --hypotheses old.zh new.zh --reference wmt22.zh --target-lang zh
  bayling score translation --directions en-zh,de-en --hypotheses 'out/{source}-{target}.txt' \\
      --reference 'flores/{target}.devtest' --source 'flores/{source}.devtest'
  bayling score constrained outputs.jsonl --target-lang zh
  bayling score knowledge --predictions sat-en.out --labels agieval/sat-en.jsonl
  bayling score reviews reviews/*.jsonl

BLEU, chrF++ and TER are sacreBLEU's and run from 0 to 100; everything else is a share. Intervals
are 95 % of the bootstrap; the first of several systems is what the others are compared with.
"""
_COLUMNS = ("bleu", "chrf", "ter", "off_target", "copies", "empty", "loops", "length_ratio")
_FROM_0_TO_100 = ("bleu", "chrf", "ter")


def register(commands: Any) -> None:
    """Add the command to the parsers of `bayling`."""
    added = commands.add_parser(
        "score",
        help=_HELP,
        description=_HELP[0].upper() + _HELP[1:] + ".",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = added.add_subparsers(dest="verb", required=True, metavar="WHAT")
    _register_translation(verbs)
    _register_constrained(verbs)
    score_knowledge.register(verbs)
    score_reviews.register(verbs)


def _register_translation(verbs: Any) -> None:
    added = verbs.add_parser("translation", help="line-aligned translations beside references")
    added.set_defaults(work=_translation)
    added.add_argument(
        "--hypotheses", nargs="+", required=True, metavar="FILE", help="one for each system"
    )
    added.add_argument("--reference", required=True, metavar="FILE")
    added.add_argument("--source", metavar="FILE", help="for copies, examples and COMET")
    added.add_argument("--source-lang", metavar="LANG", help="BCP-47 or FLORES: en, zho_simpl")
    added.add_argument("--target-lang", metavar="LANG", help="default: told from the reference")
    added.add_argument(
        "--directions",
        metavar="SRC-TGT,…",
        help="several: the files' names then have {source} and {target} in them",
    )
    added.add_argument(
        "--no-ter", action="store_true", help="leave TER out, the slowest of the metrics"
    )
    added.add_argument(
        "--comet", metavar="MODEL", help="COMET with a model's folder or name (unbabel-comet)"
    )
    _register_common(added)


def _register_constrained(verbs: Any) -> None:
    added = verbs.add_parser(
        "constrained", help="rows of src, tgt, constraint[] and hypo: are the words in it?"
    )
    added.set_defaults(work=_constrained)
    added.add_argument("files", nargs="+", type=Path, metavar="FILE")
    added.add_argument(
        "--hypotheses",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="outputs line by line, one file for each FILE, where its rows have no hypo",
    )
    added.add_argument("--target-lang", metavar="LANG", help="default: told from the references")
    _register_common(added)


def _register_common(added: Any) -> None:
    added.add_argument(
        "--tokenize", metavar="NAME", help="sacreBLEU's tokenizer, in place of the language's own"
    )
    added.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")


def _translation(arguments: argparse.Namespace) -> None:
    from bayling.evaluate import comet, directions
    from bayling.evaluate.translation import Metrics

    pairs = _directions(arguments)
    tokenizers = {target: arguments.tokenize for _, target in pairs if arguments.tokenize}
    metrics = Metrics(
        tokenizers=tokenizers,
        ter=not arguments.no_ter,
        comet=comet.scorer(arguments.comet) if arguments.comet else None,
    )
    metrics.check([target for _, target in pairs])
    systems: dict[str, Scored] = {}
    for pattern in arguments.hypotheses:
        if pattern in systems:
            raise UserError(f"{pattern} is named twice")
        rows = [row for pair in pairs for row in _rows(arguments, pattern, *pair)]
        systems[pattern] = directions.score(rows, metrics)
    _write(arguments.json, systems)
    _show(systems, _COLUMNS)


def _directions(arguments: argparse.Namespace) -> list[tuple[str, str]]:
    from bayling import languages
    from bayling.evaluate.files import language_of, read_lines

    if arguments.directions is None:
        source = languages.parse(arguments.source_lang) if arguments.source_lang else "?"
        lines = [] if arguments.target_lang else read_lines(Path(arguments.reference))
        return [(source, language_of(lines, arguments.target_lang, arguments.reference))]
    if arguments.source_lang or arguments.target_lang:
        raise UserError("--directions names the languages: leave --source-lang, --target-lang out")
    found = []
    for part in arguments.directions.split(","):
        source, dash, target = part.strip().partition("-")
        if not dash:
            raise UserError(f"--directions takes en-zh,de-en, not {part!r}")
        # As they are written: that is what the files are called. Only checked.
        languages.parse(source), languages.parse(target)
        found.append((source, target))
    return found


def _rows(arguments: argparse.Namespace, hypotheses: str, source: str, target: str) -> list[Row]:
    from bayling import languages
    from bayling.evaluate.files import expanded, read_aligned

    slots = {"source": source, "target": target}
    paths = {"hypothesis": expanded(hypotheses, **slots)}
    paths["reference"] = expanded(arguments.reference, **slots)
    if arguments.source:
        paths["source"] = expanded(arguments.source, **slots)
    read = read_aligned(paths, never_empty=("reference",))
    sources: Sequence[str | None] = read.get("source") or [None] * len(read["reference"])
    return [
        {
            "id": f"{source}-{target}:{number}",
            "source_lang": source if source == "?" else languages.parse(source),
            "target_lang": languages.parse(target),
            "source": text,
            "target": reference,
            "outputs": [output],
        }
        for number, (text, reference, output) in enumerate(
            zip(sources, read["reference"], read["hypothesis"], strict=True), 1
        )
    ]


def _constrained(arguments: argparse.Namespace) -> None:
    from bayling.evaluate import constraints
    from bayling.evaluate.files import language_of, read_constrained, read_lines
    from bayling.evaluate.translation import Metrics

    given: Sequence[Path] | None = arguments.hypotheses
    if given is not None and len(given) != len(arguments.files):
        raise UserError(
            f"{len(arguments.files)} FILE and {len(given)} --hypotheses: one is needed for each"
        )
    systems: dict[str, Scored] = {}
    for index, path in enumerate(arguments.files):
        rows = read_constrained(path, answered=given is None)
        name = str(path)
        if given is not None:
            outputs = read_lines(given[index])
            if len(outputs) != len(rows):
                raise UserError(
                    f"{path} has {len(rows):,} rows and {given[index]} has {len(outputs):,} lines"
                )
            rows = [{**row, "outputs": [out]} for row, out in zip(rows, outputs, strict=True)]
            name = str(given[index])
        references = [row["target"] for row in rows]
        language = language_of(references, arguments.target_lang, str(path))
        metrics = Metrics({language: arguments.tokenize} if arguments.tokenize else {}, ter=False)
        metrics.check([language])
        systems[name] = constraints.score(rows, language, metrics)
    _write(arguments.json, systems)
    _show(systems, ("constraints_met", "sentences_met", "bleu", "chrf", "off_target", "empty"))


def _show(systems: dict[str, Scored], columns: Sequence[str]) -> None:
    """A table of figures and systems, one of directions, and how it was computed."""
    from rich.console import Console

    from bayling.evaluate.constraints import TITLES

    console = Console(highlight=False, markup=False)
    console.print(_overall(systems, columns))
    groups = next(iter(systems.values())).groups
    directions = [group for group, known in groups.items() if known["kind"] == "direction"]
    if len(directions) > 1:
        console.print(_by_direction(systems, directions))
    signatures = next(iter(systems.values())).details["signatures"]
    for text, value in signatures.items():
        # One language's signatures come by metric, several languages' by signature.
        one = isinstance(value, str)
        line = f"{TITLES[text]}|{value}" if one else f"{text}  {' '.join(value)}"
        console.print(line, style="dim", soft_wrap=True)


def _overall(systems: dict[str, Scored], columns: Sequence[str]) -> Any:
    """A row a figure; the systems after the first with what they gain or lose against it."""
    from rich.table import Table

    from bayling.evaluate.constraints import TITLES
    from bayling.evaluate.suite import ALL

    names = list(systems)
    table = Table()
    table.add_column("")
    for name in _short(names):
        table.add_column(name, justify="right", overflow="fold")
    made = [systems[name].as_dict()["groups"][ALL]["figures"] for name in names]
    against = [systems[name].against(systems[names[0]])[ALL] for name in names[1:]]
    for column in columns:
        if column not in made[0]:
            continue
        cells = []
        for index, figures in enumerate(made):
            low, value, high = (figures[column][key] for key in ("low", "value", "high"))
            interval = f"{_plain(column, low)}–{_plain(column, high)}"
            cell = f"{_number(column, value)} ({interval})"
            if index:
                cell += f"\n{_difference(column, against[index - 1][column])}"
            cells.append(cell)
        table.add_row(TITLES[column], *cells)
    table.add_row("sentences", *[f"{figures[columns[0]]['items']:,}" for figures in made])
    return table


def _by_direction(systems: dict[str, Scored], directions: Sequence[str]) -> Any:
    from rich.table import Table

    names = list(systems)
    table = Table()
    table.add_column("chrF++ / BLEU")
    for name in _short(names):
        table.add_column(name, justify="right", overflow="fold")
    for direction in directions:
        figures = [systems[name].samples[direction] for name in names]
        cells = [f"{one['chrf'].value:.2f} / {one['bleu'].value:.2f}" for one in figures]
        table.add_row(direction, *cells)
    return table


def _short(names: Sequence[str]) -> list[str]:
    """Files by their names alone, where that tells them apart."""
    short = [Path(name).name for name in names]
    return short if len(set(short)) == len(short) else list(names)


def _number(column: str, value: float) -> str:
    if column in _FROM_0_TO_100:
        return f"{value:.2f}"
    return f"{value:.2f}" if column == "length_ratio" else f"{value:.1%}"


def _plain(column: str, value: float) -> str:
    return _number(column, value).removesuffix("%")


def _difference(figure: str, made: Difference) -> str:
    if figure in _FROM_0_TO_100 or figure == "length_ratio":
        change = f"{made.difference:+.2f}"
    else:
        change = f"{100 * made.difference:+.1f} points"
    # That is as small as the test can tell.
    return f"{change}, p {f'= {made.p:.2g}' if made.p >= 0.001 else '< 0.001'}"


def _write(path: Path | None, systems: dict[str, Scored]) -> None:
    """The first system's figures under their names, and everything below `systems`."""
    from bayling.evaluate.suite import ALL
    from bayling.stage import write_json

    if path is None:
        return
    names = list(systems)
    first = systems[names[0]].as_dict()
    figures = first["groups"][ALL]["figures"]
    made: dict[str, Any] = {name: figure["value"] for name, figure in figures.items()}
    made["intervals"] = {name: [one["low"], one["high"]] for name, one in figures.items()}
    made["sentences"] = next(iter(figures.values()))["items"]
    made["systems"] = {
        name: {
            **(first if name == names[0] else systems[name].as_dict()),
            "against_first": {
                group: {figure: one.as_dict() for figure, one in those.items()}
                for group, those in systems[name].against(systems[names[0]]).items()
            }
            if name != names[0]
            else None,
        }
        for name in names
    }
    try:
        write_json(path, made)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
