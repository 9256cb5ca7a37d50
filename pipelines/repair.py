"""`thresher repair`: audited pairs mended, with the proof of it."""

from pathlib import Path
from typing import Any, get_args

from curation.errors import InputError
from pipelines.config import OneLineParser
from pipelines.models import EngineKind

METHODS = ("balance", "canonicalise", "reweight", "mismatch", "edit", "rewrite", "offset")
HELP = """
  canonicalise  both sides of every pair: ends, invisible characters, quotes, bullets; listed openers, closers, vendors
  balance       drop the fewest pairs; says how many any subset could keep
  reweight      a weight for every pair, for `thresher train dpo`
  mismatch      add every chosen answer over another prompt's
  edit          take the listed features out of the side that has them alone; --copies adds counter-examples instead
  rewrite       both sides by --model
  offset        a margin for every pair, for `thresher train dpo`"""


def repair_command(words: list[str]) -> int:
    """Parse and run one `thresher repair` line."""
    given = _parser().parse_args(words)
    if not 0 < given.tolerance < 1:
        raise InputError("--tolerance", str(given.tolerance), "a number between 0 and 1", "0.01 is usual")
    if (given.method == "rewrite") != bool(given.model):
        raise InputError(
            "--model", given.model or "none", "a model for --method rewrite, and for that alone", "mend the line"
        )
    if given.copies and given.method != "edit":
        raise InputError("--copies", f"--method {given.method}", "--method edit", "leave it out")
    from curation.audit.repairs.files import summary_lines, write
    from curation.audit.repairs.pairs import pairs_of
    from curation.audit.repairs.repair import repair
    from curation.audit.repairs.targets import read_targets
    from curation.pair_source import read_pairs

    read = read_pairs(given.pairs)
    if read.rows.num_rows == 0:
        reason = next(iter(read.reasons().items()), ("no rows", 0))
        raise InputError(
            given.pairs, f"no pairs ({reason[0]}: {reason[1]} rows)", "rows with chosen and rejected answers",
            "see `thresher show` for what is in it",
        )  # fmt: skip
    corpus = pairs_of(read.rows)[0].corpus
    targets = read_targets(given.audit, corpus.pairs, corpus.content(), given.only)
    made = repair(read.rows, _method(given), targets, given.only)
    files = write(made, Path(given.out), given.redact)
    print(f"{'PROVEN' if made.proof.proven else 'NOT PROVEN'}  repair by {given.method}")
    for line in (*summary_lines(made), *made.proof.says, *made.proof.advice):
        print(f"  {line}")
    for why, count in read.reasons().items():
        print(f"  left out  {count:,} rows: {why}")
    print(f"wrote  {files[0]}")
    return 0


def _parser() -> OneLineParser:
    parser = OneLineParser(prog="thresher repair", description=(__doc__ or "").split("\n")[0])
    parser.epilog = f"methods:{HELP}"
    parser.add_argument("pairs", metavar="PAIRS", help="the pairs that were audited")
    parser.add_argument(
        "--audit", required=True, metavar="FILE", help="audit.json: its findings from warn on are mended"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="where pairs, manifest, proof and the new audit go")
    parser.add_argument("--method", choices=METHODS, default="balance", help="(default: balance)")
    parser.add_argument(
        "--tolerance", type=float, default=0.01, metavar="T", help="largest |pull| left (default: 0.01)"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="TEXT",
        help="these findings alone, by the text or name audit.json gives them",
    )
    parser.add_argument(
        "--copies", action="store_true", help="edit: add counter-examples and leave the pairs as they are"
    )
    parser.add_argument("--model", metavar="M", help="rewrite: a folder, a Hub id, URL#MODEL or toy:teacher")
    parser.add_argument("--engine", choices=get_args(EngineKind), default="auto", help="rewrite: what runs the model")
    parser.add_argument("--redact", action="store_true", help="quote no rows on the page of the new audit")
    return parser


def _method(given: Any) -> Any:
    from curation.audit.repairs.methods import METHODS as MADE

    if given.method == "rewrite":
        from pipelines.models import engine_for

        return MADE["rewrite"](engine_for(given.model, given.engine), tolerance=given.tolerance)
    more = {"copies": True} if given.copies else {}
    return MADE[given.method](tolerance=given.tolerance, **more)
