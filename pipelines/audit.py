"""`thresher audit`: what preference pairs would teach besides what they are meant to."""

from pathlib import Path

from pipelines.audit_models import add_model_flags, ask_scorer, check_model_flags, from_models
from pipelines.config import OneLineParser, read_settings


def audit_command(words: list[str]) -> int:
    """Parse and run one `thresher audit` line; exit code 1 where the gate says no, or the set is worse than a baseline."""
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
        help="exit with 1 from this severity on (default: block; never where there is a --baseline)",
    )
    parser.add_argument(
        "--baseline", metavar="FILE", help="an earlier audit.json: exit with 1 where the set is worse than it was then"
    )
    parser.add_argument("--gold", metavar="PAIRS", help="pairs whose labels are trusted: do the findings hold there?")
    parser.add_argument(
        "--gates", metavar="FILE", help="YAML or TOML with other limits: {ngram_bits: [warn, block], …}"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="the first N rows only")
    parser.add_argument(
        "--redact", action="store_true", help="quote no rows in any file, and no ids that may hold text"
    )
    add_model_flags(parser)
    given = parser.parse_args(words)
    check_model_flags(given)
    from curation.audit import audit, refuses
    from curation.audit.baseline import compare, read_baseline
    from curation.audit.reading import read_corpus
    from curation.audit.report import summary, write
    from curation.audit.verdict import FailOn, as_gates

    earlier = read_baseline(given.baseline) if given.baseline else None  # a bad file is no reason to wait for the audit
    gates = as_gates(read_settings(Path(given.gates))) if given.gates else None
    gold = read_corpus(given.gold).corpus if given.gold else None
    read = read_corpus(given.pairs, given.limit)
    done = audit(read.corpus, gates=gates, gold=gold, **from_models(given, read.corpus))
    done = ask_scorer(given, read.corpus, done)
    compared = compare(done, earlier) if earlier is not None else None
    files = write(done, read.corpus, Path(given.out), given.redact, compared)
    print(summary(done, compared))
    for reason, count in read.reasons.items():
        print(f"  left out  {count:,} rows: {reason}")
    print(f"wrote  {files[0]}")
    # What was known is accepted: with a baseline the verdict alone refuses only where that was asked for.
    fail_on: FailOn = given.fail_on or ("never" if compared else "block")
    return 1 if refuses(done, fail_on) or (compared is not None and compared.worse) else 0
