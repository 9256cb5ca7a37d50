"""The page: one file without scripts or outside sources, for a desk, a phone or paper.

It says first what would be learned and what could have been missed, then why, then everything that was found.
Texts of the data are hostile: all are escaped, shown with what is unseen in them by name, and stand in no attribute.
"""

import base64
import hashlib
import html
from collections.abc import Sequence
from pathlib import Path

from curation.audit import charts
from curation.audit.baseline import Comparison
from curation.audit.corpus import Corpus
from curation.audit.examples import Examples, examples
from curation.audit.listing import SHOWN, listing
from curation.audit.markup import facts, folded, key, section, table
from curation.audit.sentences import (
    HEADLINES,
    compared,
    counted,
    learned,
    meaning,
    missed,
    of_rung,
    percent,
    size,
    taught,
)
from curation.audit.visible import clipped, coded, visible
from curation.audit.volcano import DRAWN, volcano
from curation.audit.whole import Audit

STYLE = Path(__file__).with_name("report.css").read_text()
NAV = (
    ("why", "Why"), ("rules", "Rules"), ("probe", "Probe"), ("residual", "Residual"), ("volcano", "Volcano"),
    ("lengths", "Lengths"), ("findings", "Findings"), ("models", "Models"), ("numbers", "Numbers"), ("untested", "Not tested"),
    ("terms", "What it means"),
)  # fmt: skip
TERMS = (
    ("chosen alone, rejected alone", "Pairs in which only that side has the feature. What both have cancels out."),
    ("of pairs", "Share of all pairs in which one side alone has it."),
    ("chosen", "Of those, how often it is the chosen side; 95% interval. 0% and 100% are worst: no counter-example."),
    ("pull", "(chosen alone − rejected alone) / all pairs: how fast it is learned."),
    ("log odds", "How far it goes; without counter-examples nothing in the loss but its KL term bounds it."),
    ("bits", "How much of the label it explains, of 1 bit a pair."),
    ("z", "Sign test, signs summed within a prompt first: thirty pairs of one prompt are not thirty witnesses."),
    ("z at equal length", "The same against features as rare at that ratio of lengths. Near 0: length in disguise."),
    ("p of any such z", "Chance of such a z anywhere in the set if labels did not depend on the text."),
    ("q", "Share of false ones among findings at least as strong (Benjamini-Hochberg)."),
    ("I²", "How much of the variation between kinds of prompts luck does not explain. Low: holds whatever was asked."),
    (
        "severity",
        "How large, from the cautious ends of the intervals. Look at block, high and warn; info is real but small.",
    ),
    (
        "class",
        "What the evidence speaks for: artifact, style, content. Severity says how large, class says of what kind.",
    ),
    ("probe", "Logistic models of the difference of both answers, judged on prompts they have not seen."),
)
REDACTED = "<p>Rows are not quoted and not named here (--redact). The findings are texts of the data all the same.</p>"
KEY = (("block", "block"), ("high", "high"), ("warn", "warn"), ("info", "info"), ("raw", "before, at equal length"))


def page(done: Audit, corpus: Corpus, redact: bool = False, baseline: Comparison | None = None) -> str:
    """The whole page; with `redact` without a text of the rows."""
    rows = {} if redact else examples(done.findings[:SHOWN], corpus)
    sections = [
        _against(baseline) if baseline else "", _two(_learned(done), _missed(done)), _why(done.reasons),
        _two(_rules(done), _ladder(done)), _two(_residual(done), _volcano(done), _lengths(done)),
        _findings(done, rows, redact), _models(done), _numbers(done), _untested(done),
    ]  # fmt: skip
    body = "".join(sections)
    links = "".join(f'<a href="#{at}">{name}</a>' for at, name in NAV if f'<section id="{at}"' in body or at == "terms")
    own = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{own}'; base-uri 'none'; form-action 'none'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"/>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        '<meta name="color-scheme" content="light dark"/>'
        f"<title>Shortcut audit: {done.verdict}</title><style>{STYLE}</style></head><body>"
        f"{_header(done, links)}<main>{body}</main>{_footer()}</body></html>\n"
    )


def _two(*sections: str) -> str:
    """Side by side where there is room."""
    return f'<div class="two">{"".join(sections)}</div>'


def _shown(text: str, most: int) -> str:
    """A sentence that may hold texts of the data."""
    return html.escape(clipped(visible(text[: most + 1]), most))


def _header(done: Audit, links: str) -> str:
    return (
        '<header><p class="eyebrow">Shortcut audit</p>'
        f'<h1><span class="badge {done.verdict}">{done.verdict}</span> {HEADLINES[done.verdict].capitalize()}</h1>'
        f'<p>{size(done)}</p><nav aria-label="Sections">{links}</nav></header>'
    )


def _against(c: Comparison) -> str:
    told = compared(c, lambda t: coded(t, 60))
    title = "Worse than the earlier audit" if c.worse else "No worse than the earlier audit"
    return section("baseline", title, folded(told) if told else "<p>Nothing changed.</p>", "worse" if c.worse else "")


def _learned(done: Audit) -> str:
    more, less = taught(done.findings)
    chips = "".join(
        f'<p class="soft">{title}</p><ul class="chips {kind}">{"".join(f"<li>{coded(f, 60)}</li>" for f in side)}</ul>'
        for title, kind, side in (("It learns to write", "more", more), ("It learns to avoid", "less", less))
        if side
    )
    said = "".join(f"<p>{s}</p>" for s in learned(done, lambda t: coded(t, 60)))
    return section("learned", "What a model would learn", said + chips)


def _missed(done: Audit) -> str:
    def share(least: float | None) -> str:
        if least is None:
            return "never"
        return f"{percent(least)} <small>({counted(round(least * done.pairs), 'pair')})</small>"

    limit, shape = done.detection_limit, done.detection_limit_shape
    rows = [(percent(float(purity), 0), share(least), share(shape.get(purity))) for purity, least in limit.items()]
    said = (
        "<p>A finding says that a feature predicts which side was chosen, not that it is wrong. Silence says nothing of "
        "what no word shows: flattery, vagueness, mistakes.</p>"
    )
    limits = table("on one side|word seen from:n|opener, format … from:n", rows)
    return section("missed", "What could have been missed", f"<p>{missed(done)}</p>{limits}{said}")


def _why(reasons: Sequence[str]) -> str:
    return section("why", "Why", folded([_shown(r, 200) for r in reasons])) if reasons else ""


def _rules(done: Audit) -> str:
    if not done.rules:
        return section("rules", "If you had to guess", "<p>No single feature decides pairs better than luck.</p>")
    rows = [
        (
            coded(feature, 60), side, f"{decided:,}", percent(right / decided),
            charts.bar(decided / done.pairs, "fill" if side == "chosen" else "fill rejected"),
        )
        for feature, side, decided, right in done.rules
    ]  # fmt: skip
    decided, right = sum(r[2] for r in done.rules), sum(r[3] for r in done.rules)
    said = (
        f"<p>{counted(len(done.rules), 'rule')}, one after the other, each for the pairs that none before it decided. "
        f"Together: {percent(min(1.0, decided / done.pairs), 0)} of the pairs, {percent(right / decided, 0)} of them rightly.</p>"
    )
    head = "the answer with|is the|pairs:n|right:n|share of all pairs:draw"
    return section("rules", "If you had to guess", said + table(head, rows))


def _ladder(done: Audit) -> str:
    rows = [(html.escape(of_rung(r)), percent(r.accuracy), f"{r.bits:+.3f}", charts.bar(r.bits)) for r in done.probe]
    said = (
        "<p>How well the chosen side of new prompts is told from the answers alone. 0 bits: no better than a coin; "
        "what the last step alone adds depends on the question and is no shortcut.</p>"
    )
    ladder = table("the probe knows|right:n|bits:n|of 1 bit a pair:draw", rows)
    return section("probe", "What answers alone give away", said + ladder)


def _residual(done: Audit) -> str:
    said = f"<p>{html.escape(meaning(done.residual)[1])}</p>"
    return section("residual", "Would edits help?", said + charts.residual_chart(done.residual))


def _volcano(done: Audit) -> str:
    if not done.findings:
        return section("volcano", "All findings at a glance", "<p>There are none.</p>", "tall")
    cut = f" The {DRAWN} gravest of {len(done.findings):,} are drawn." if len(done.findings) > DRAWN else ""
    said = (
        "<p>To the right what pulls to the chosen side, to the left what pulls to the rejected; the higher, the surer. A long "
        f"thin line down from ring to dot: length explains much of it.{cut}</p>"
    )
    return section("volcano", "All findings at a glance", said + volcano(done.findings) + key(*KEY), "tall")


def _lengths(done: Audit) -> str:
    n = sum(c.pairs for c in done.lengths)
    longer = sum(c.pairs * c.longer_chosen for c in done.lengths) / n if n else 0.5
    said = f"<p>The longer answer is the chosen one in {percent(longer)} of {counted(n, 'pair')} of unlike length.</p>"
    return section("lengths", "Length", said + charts.length_chart(done.lengths))


def _findings(done: Audit, rows: Examples, redact: bool) -> str:
    said = "<p>Gravest first in each family. Open a line for its evidence and rows.</p>" + (REDACTED if redact else "")
    bars = key(("rejected", "pairs in which the rejected side alone has it"), ("chosen", "the chosen side alone"))
    return section("findings", "Findings", said + (bars if done.findings else "") + listing(done.findings, rows))


def _models(done: Audit) -> str:
    said = (
        "<p>How often (in %) the model of the row was chosen over that of the column, and in how many pairs. Where one model "
        "nearly always wins, any habit of it becomes a shortcut.</p>"
    )
    return section("models", "Model against model", said + charts.win_matrix(done.models)) if done.models else ""


def _numbers(done: Audit) -> str:
    rows = [
        (
            html.escape(name), _number(v["chosen_mean"]), _number(v["rejected_mean"]), percent(v["chosen_more"], 0),
            percent(v["differ"], 0),
        )
        for name, v in done.numbers.items()
    ]  # fmt: skip
    head = "mean of|chosen:n|rejected:n|chosen has more:n|in pairs that differ:n"
    return section("numbers", "Numbers", table(head, rows, ""))


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.4f}"


def _untested(done: Audit) -> str:
    items = "".join(f"<li>{_shown(t, 400)}</li>" for t in done.not_tested)
    always = "<li>what no word shows: whether an answer is true, flatters, or evades</li>"
    said = f"<p>Kinds of prompts were told apart by: {_shown(done.strata, 80)}.</p>"
    return section("untested", "What could not be tested", f"<ul>{items}{always}</ul>{said}")


def _footer() -> str:
    terms = facts((name, html.escape(what)) for name, what in TERMS)
    more = "<p>More in docs/audit.md. Everything on this page is in audit.json, the rows in flagged.parquet.</p>"
    return f'<footer id="terms">{section("meaning", "What each number means", terms + more)}</footer>'
