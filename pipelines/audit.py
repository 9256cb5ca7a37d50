"""`thresher audit` and `thresher repair`: what preference pairs would teach besides what they are meant to."""

import json
from pathlib import Path

import pyarrow.parquet as pq

from curation.errors import InputError
from curation.stage import Outcome
from pipelines.audit_models import add_model_flags, ask_scorer, check_model_flags, from_models
from pipelines.config import OneLineParser


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
    parser.add_argument("--limit", type=int, metavar="N", help="the first N rows only")
    parser.add_argument(
        "--redact", action="store_true", help="quote no rows in any file, and no ids that may hold text"
    )
    add_model_flags(parser)
    given = parser.parse_args(words)
    check_model_flags(given)
    from curation.audit import audit, refuses
    from curation.audit.baseline import compare, read_baseline
    from curation.audit.gate import FailOn
    from curation.audit.reading import read_corpus
    from curation.audit.report import summary, write

    earlier = read_baseline(given.baseline) if given.baseline else None  # a bad file is no reason to wait for the audit
    read = read_corpus(given.pairs, given.limit)
    done = ask_scorer(given, read.corpus, audit(read.corpus, **from_models(given, read.corpus)))
    compared = compare(done, earlier) if earlier is not None else None
    files = write(done, read.corpus, Path(given.out), given.redact, compared)
    print(summary(done, compared))
    for reason, count in read.reasons.items():
        print(f"  left out  {count:,} rows: {reason}")
    print(f"wrote  {files[0]}")
    # What was known is accepted: with a baseline the verdict alone refuses only where that was asked for.
    fail_on: FailOn = given.fail_on or ("never" if compared else "block")
    return 1 if refuses(done, fail_on) or (compared is not None and compared.worse) else 0


def _refuse_nothing(path: str, read: Outcome) -> None:
    """Raises InputError where no row is a pair, with the commonest reason."""
    if read.rows.num_rows == 0:
        reason = next(iter(read.reasons().items()), ("no rows", 0))
        raise InputError(
            path, f"no pairs ({reason[0]}: {reason[1]} rows)", "rows with chosen and rejected answers",
            "see `thresher show` for what is in it",
        )  # fmt: skip


def repair_command(words: list[str]) -> int:
    """Parse and run one `thresher repair` line."""
    parser = OneLineParser(prog="thresher repair", description="Mend pairs that an audit found wanting, and prove it.")
    parser.add_argument("pairs", metavar="PAIRS", help="the pairs that were audited")
    parser.add_argument(
        "--audit", required=True, metavar="FILE", help="audit.json: its findings from warn on are mended"
    )
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="where pairs.parquet, manifest.parquet and the new audit go"
    )
    parser.add_argument("--method", choices=("balance", "canonicalise"), default="balance", help="(default: balance)")
    parser.add_argument(
        "--tolerance", type=float, default=0.01, metavar="T", help="largest |pull| left (default: 0.01)"
    )
    given = parser.parse_args(words)
    from curation.audit_features import texts
    from curation.audit_repair import repair
    from curation.audit_report import summary, visible, write

    from curation.pair_source import read_pairs

    read = read_pairs(given.pairs)
    _refuse_nothing(given.pairs, read)
    rows = read.rows
    made = repair(rows, given.method, _wanted(given.audit, rows.num_rows), given.tolerance)
    out = Path(given.out)
    write(made.after, texts(made.outcome.rows), out)
    pq.write_table(made.outcome.rows, out / "pairs.parquet")
    pq.write_table(made.manifest, out / "manifest.parquet")
    for (family, feature), (was, now) in made.pulls.items():
        print(f"  {family} {visible(feature)}  pull {was:+.3f} -> {now:+.3f}")
    print(
        f"kept {made.outcome.rows.num_rows:,} of {rows.num_rows:,} pairs ({made.kept:.1%}); was {made.before.verdict}, now:"
    )
    print(summary(made.after))
    if made.kept < 0.5:
        print("  most pairs had to go: one side is another model's; sample both sides from one model instead")
    print(f"wrote  {out / 'pairs.parquet'}")
    return 0


def _wanted(path: str, pairs: int) -> set[tuple[str, str]]:
    """Family and text of an audit's findings from warn on. Raises InputError."""
    expected = "audit.json of these pairs"
    try:
        found = json.loads(Path(path).read_text())
        listed = {(f["family"], f["feature"]) for f in found["findings"] if f["severity"] != "info"}
        audited = found["pairs"]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise InputError(path, f"{type(e).__name__}: {e}", expected, "run `thresher audit` first") from e
    if audited != pairs:
        raise InputError(path, f"an audit of {audited} pairs", f"one of these {pairs}", "run `thresher audit` on them")
    return listed
