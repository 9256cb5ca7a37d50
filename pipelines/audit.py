"""`thresher audit`: what a set of preference pairs would teach besides what it is meant to; a page, JSON and a gate."""

from pathlib import Path

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
    levels = ("block", "high", "warn", "never")
    parser.add_argument(
        "--fail-on", choices=levels, default="block", help="exit with 1 from this severity on (default: block)"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="the first N rows only")
    parser.add_argument("--redact", action="store_true", help="quote no rows on the page")
    given = parser.parse_args(words)
    from curation.audit import audit, refuses
    from curation.audit_features import texts
    from curation.audit_report import summary, write
    from curation.pair_source import read_pairs

    read = read_pairs(given.pairs, given.limit)
    done = audit(read.rows)
    files = write(done, texts(read.rows), Path(given.out), given.redact)
    print(summary(done))
    for reason, count in read.reasons().items():
        print(f"  left out  {count:,} rows: {reason}")
    print(f"wrote  {files[0]}")
    return 1 if refuses(done, given.fail_on) else 0
