"""The page's list of findings: one line each, with all that is known of it under the line."""

import html
from collections.abc import Sequence

from curation.audit.charts import diverging
from curation.audit.examples import Example, Examples, Quote
from curation.audit.findings import Finding
from curation.audit.markup import facts, fold, table
from curation.audit.sentences import FAMILIES, counted, percent
from curation.audit.visible import clipped, coded, visible

SHOWN = 60  # findings on the page; audit.json has all
UNFOLDED = 12  # of a family
MEMBERS = 12
EDITS = {
    "strip": "take the whitespace off both ends (thresher repair --method canonicalise)",
    "normalise": "write the plain sign instead (thresher repair --method canonicalise)",
    "delete": "take it out of the text, where it is no content",
    "": "nothing simple takes it out of a text",
}
KINDS = {
    "artifact": "artifact: no reader would prefer it",
    "style": "style: a way of writing, wanted or not",
    "content": "content: it may be what the labels are about",
    "undecided": "undecided: the evidence points both ways, or nowhere",
}
MEMBERS_ARE = {"trigger": "where", "together": "both of"}


def listing(findings: Sequence[Finding], rows: Examples) -> str:
    """The gravest findings by family."""
    if not findings:
        return "<p>No feature of the texts tells the sides apart beyond luck.</p>"
    shown = findings[:SHOWN]
    left = len(findings) - len(shown)
    more = (
        f"<p>The {len(shown)} gravest of {len(findings):,}; the other {left:,} are in audit.json.</p>" if left else ""
    )
    families = dict.fromkeys(f.family for f in shown)
    return more + "".join(
        _family(name, [(f, *rows.get(i, ([], []))) for i, f in enumerate(shown) if f.family == name])
        for name in families
    )


def _family(name: str, members: Sequence[tuple[Finding, list[Example], list[Example]]]) -> str:
    widest = max(max(f.chosen, f.rejected) for f, _, _ in members)
    lines = [_line(f, widest) + _inside(f, pro, contra) + "</details>" for f, pro, contra in members]
    rest = lines[UNFOLDED:]
    more = fold(f"{len(rest)} more", "".join(rest)) if rest else ""
    return f"<h3>{html.escape(FAMILIES.get(name, name.capitalize()))}</h3>{''.join(lines[:UNFOLDED])}{more}"


def _line(f: Finding, widest: int) -> str:
    low, high = f.purity_interval
    notes = [counted(len(f.members), "other form")] if f.members and f.family not in MEMBERS_ARE else []
    notes += ["mostly length"] if f.explained_by_length else []
    note = f"<small>{' · '.join(notes)}</small>" if notes else ""
    bars = diverging(f.rejected / widest, f.chosen / widest)
    return (
        f'<details class="finding"><summary><span class="badge {f.severity}">{f.severity}</span>'
        f'<span class="text">{coded(f.feature)}{note}</span>'
        f'<span class="pairs"><span>{f.rejected:,}</span>{bars}<span>{f.chosen:,}</span></span>'
        f"{_stat(percent(f.coverage), 'of pairs')}"
        f"{_stat(percent(f.purity), f'chosen ({100 * low:.0f}–{100 * high:.0f})')}"
        f"{_stat(f'{f.pull:+.3f}', 'pull')}"
        f"{_stat(f'{f.z:.1f} → {f.z_length_adjusted:.1f}', 'z → at equal length', ' long')}"
        f"{_stat(f.verdict, 'class')}</summary>"
    )


def _stat(value: str, name: str, kind: str = "") -> str:
    return f'<span class="stat{kind}"><b>{html.escape(value)}</b><small>{html.escape(name)}</small></span>'


def _inside(f: Finding, pro: Sequence[Example], contra: Sequence[Example]) -> str:
    return (
        f'<div class="inside"><div class="two"><div>{_evidence(f)}</div><div>{_sizes(f)}</div></div>'
        f"{_rows('Rows that speak for it', pro)}{_rows('Rows that speak against it', contra)}</div>"
    )


def _evidence(f: Finding) -> str:
    rows = [(html.escape(e.test), f"{e.value:.2f}", html.escape(e.says), html.escape(e.speaks_for)) for e in f.evidence]
    tests = table("test|value:n|what it says|speaks for", rows) if rows else "<p>No test could be made.</p>"
    return f"<h4>Evidence</h4><p>{html.escape(KINDS.get(f.verdict, f.verdict))}.</p>{tests}"


def _sizes(f: Finding) -> str:
    sizes = (
        ("pull", f.pull, f.pull_interval),
        ("log odds", f.log_odds, f.log_odds_interval),
        ("bits", f.bits, f.bits_interval),
    )
    rows = [(name, f"{value:+.3f}", f"{low:+.3f} to {high:+.3f}") for name, value, (low, high) in sizes]
    listed = [
        ("p, of such a z", f"{f.p:.1e}"),
        ("p, of any such z in the set", f"{f.p_adjusted:.1e}"),
        ("q", f"{f.q:.1e}"),
    ]
    if f.heterogeneity is not None:
        listed.append(("I² over kinds of prompts", percent(f.heterogeneity, 0)))
    listed += [("score", f"{f.score:.0f} of 100"), ("edit", html.escape(EDITS.get(f.edit, f.edit)))]
    if f.members:
        more = f" and {len(f.members) - MEMBERS} more" if len(f.members) > MEMBERS else ""
        forms = " ".join(coded(m, 60) for m in f.members[:MEMBERS])
        listed.append((MEMBERS_ARE.get(f.family, "other forms"), forms + more))
    return f"<h4>Sizes</h4>{table('size|value:n|95% interval:n', rows, '')}{facts(listed)}"


def _rows(title: str, rows: Sequence[Example]) -> str:
    if not rows:
        return ""
    return f'<h4>{title}</h4><ul class="rows">{"".join(f"<li>{_example(e)}</li>" for e in rows)}</ul>'


def _example(e: Example) -> str:
    name = f'<p class="id">pair {html.escape(clipped(visible(e.pair_id[:40]), 16))}</p>'
    return name + "".join(map(_quote, e.quotes))


def _quote(q: Quote) -> str:
    said = "".join(f"<mark>{html.escape(p)}</mark>" if i % 2 else html.escape(p) for i, p in enumerate(q.parts))
    note = f" <small>{html.escape(q.note)}</small>" if q.note else ""
    return f'<p><span class="side {q.where}">{q.where}</span><span class="said">{said}</span>{note}</p>'
