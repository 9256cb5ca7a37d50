"""`thresher audit`: what preference pairs would teach besides what they are meant to."""

from pathlib import Path

from curation.errors import InputError
from curation.stage import Outcome
from pipelines.config import OneLineParser


def audit_command(words: list[str]) -> int:
    """Parse and run one `thresher audit` line; exit code 1 where the gate says no."""
    parser = OneLineParser(prog="thresher audit", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "pairs", metavar="PAIRS", help="a file, folder, glob, shard set or Hub id with chosen and rejected"
    )
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="where audit.html, .json, .md and flagged.parquet go"
    )
    parser.add_argument(
        "--fail-on",
        choices=("block", "high", "warn", "never"),
        default="block",
        help="exit with 1 from this severity on (default: block)",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="the first N rows only")
    parser.add_argument("--redact", action="store_true", help="quote no rows on the page")
    given = parser.parse_args(words)
    from curation.audit_features import texts
    from curation.audit_report import summary, write

    from curation.audit import audit, refuses
    from curation.pair_source import read_pairs

    read = read_pairs(given.pairs, given.limit)
    _refuse_nothing(given.pairs, read)
    done = audit(read.rows)
    files = write(done, texts(read.rows), Path(given.out), given.redact)
    print(summary(done))
    for reason, count in read.reasons().items():
        print(f"  left out  {count:,} rows: {reason}")
    print(f"wrote  {files[0]}")
    return 1 if refuses(done, given.fail_on) else 0


def _refuse_nothing(path: str, read: Outcome) -> None:
    """Raises InputError where no row is a pair, with the commonest reason."""
    if read.rows.num_rows == 0:
        reason = next(iter(read.reasons().items()), ("no rows", 0))
        raise InputError(
            path, f"no pairs ({reason[0]}: {reason[1]} rows)", "rows with chosen and rejected answers",
            "see `thresher show` for what is in it",
        )  # fmt: skip
