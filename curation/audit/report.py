"""An audit as a page, as Markdown and as files. The page is one file without scripts or outside sources.

Texts of the data are hostile: every character that could be markup is escaped, whatever cannot be seen is shown by name.
"""

import html
import json
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from curation.audit import Audit
from curation.audit_features import Texts
from curation.audit_findings import Finding
from curation.errors import one_line

SHOWN = 60  # findings on the page; audit.json has all
WHY = 8  # reasons shown unfolded
EXAMPLES = 3
CONTEXT = 60  # bytes of text before and after a highlighted span
NAMES = {"\n": "⏎", "\r": "␍", "\t": "⇥", " ": "␠"}
STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:64rem;margin:auto;padding:1rem;color:#1b1f24;background:#fff}
h1 span{padding:.1em .5em;border-radius:.3em;color:#fff}
.pass{background:#1a7f37}.warn{background:#b06a00}.block,.high{background:#b3261e}
.info{background:#57606a}td span{padding:0 .4em;border-radius:.3em;color:#fff;font-size:.85em}
table{border-collapse:collapse;width:100%;display:block;overflow-x:auto}
td,th{padding:.3em .6em;text-align:left;border-bottom:1px solid #d0d7de}
td.n{text-align:right;font-variant-numeric:tabular-nums}code,mark{font-family:ui-monospace,monospace;white-space:pre-wrap;overflow-wrap:anywhere}
mark{background:#ffd33d}.bar{height:1.1em;background:#0969da;min-width:1px}svg{max-width:100%;height:auto}details{margin:.4em 0}
.muted{color:#57606a}@media print{details{display:block}body{max-width:none}}
"""


def write(done: Audit, given: Texts, out: Path, redact: bool = False) -> list[Path]:
    """audit.json, audit.md, audit.html and flagged.parquet in `out`. With `redact` no text of the rows is quoted."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "audit.json").write_text(json.dumps(done.as_dict(), indent=1, ensure_ascii=True, allow_nan=False) + "\n")
    (out / "audit.md").write_text(markdown(done))
    (out / "audit.html").write_text(page(done, given, redact))
    pq.write_table(done.rows, out / "flagged.parquet")
    return [out / name for name in ("audit.html", "audit.json", "audit.md", "flagged.parquet")]


def visible(text: str) -> str:
    """The text with everything that cannot be seen, or that would move the cursor, shown: ⏎ for a line break."""
    if not text.strip(" "):
        return "".join(NAMES.get(c, c) for c in text)
    named = (NAMES.get(c, c) if c != " " else c for c in text)
    return "".join(c if c.isprintable() else f"[{unicodedata.name(c, f'U+{ord(c):04X}')}]" for c in named)


def limits(done: Audit) -> str:
    """The detection limit in words."""
    parts = [
        f"{float(purity):.0%} one-sided from {least:.2%} of pairs on"
        if least is not None
        else f"{float(purity):.0%} one-sided never"
        for purity, least in done.detection_limit.items()
    ]
    return f"{done.pairs:,} pairs could have shown: " + "; ".join(parts) + "."


def summary(done: Audit, most: int = 12) -> str:
    """What the terminal says."""
    lines = [
        f"{done.verdict.upper()}  {done.pairs:,} pairs of {done.prompts:,} prompts, "
        f"{done.tried:,} features could have been findings"
    ]
    lines += [f"  {one_line(reason, 160)}" for reason in done.reasons[:most]]
    lines += [f"  … and {len(done.reasons) - most} more"] if len(done.reasons) > most else []
    lines.append("  probe  " + "  ".join(f"{r.name} {r.accuracy:.3f} ({r.bits:+.2f} bits)" for r in done.probe))
    return "\n".join([*lines, "  " + limits(done)])


def markdown(done: Audit) -> str:
    """The audit as Markdown, for a pull request or a data card."""
    rows = [
        f"| {f.severity} | {_cell(f.feature)} | {f.family} | {f.coverage:.1%} | {f.purity:.1%} | {f.pull:+.3f} | "
        f"{f.z_length_adjusted:.1f} | {f.p_adjusted:.1e} |"
        for f in done.findings[:SHOWN]
    ]
    return "\n".join([
        f"# Shortcut audit: {done.verdict}", "", limits(done), "", *(f"- {_cell(r)}" for r in done.reasons), "",
        "| probe | accuracy | bits per pair |", "|---|---|---|",
        *(f"| {r.name} | {r.accuracy:.3f} | {r.bits:.3f} |" for r in done.probe), "",
        "| severity | feature | family | coverage | chosen | pull | z, length-adjusted | p |",
        "|---|---|---|---|---|---|---|---|",
        *rows, "",
    ])  # fmt: skip


def _cell(text: str) -> str:
    return html.escape(one_line(visible(text), 160)).replace("|", "&#124;").replace("`", "&#96;")


def page(done: Audit, given: Texts, redact: bool = False) -> str:
    """The self-contained page."""
    at = {i: n for n, i in enumerate(given.ids)}
    parts = [
        f'<h1>Shortcut audit <span class="{done.verdict}">{done.verdict}</span></h1><p>{_e(limits(done))}</p>',
        f"<p>{done.pairs:,} pairs of {done.prompts:,} prompts. A finding says that a feature predicts which side was chosen, "
        "not that it is wrong; silence says nothing of what no word shows.</p>",
        _why(done.reasons),
        "<h2>What answers alone give away</h2>", _ladder(done), "<h2>Findings</h2>", _volcano(done.findings),
        _rules(done), _table(done.findings[:SHOWN]),
        "<h2>Rows</h2>" if done.findings and not redact else "",
        *([] if redact else [_examples(f, given, at) for f in done.findings[:SHOWN]]),
    ]  # fmt: skip
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width"><title>Shortcut audit</title>'
        f"<style>{STYLE}</style>{''.join(parts)}</html>\n"
    )


_e: Callable[[str], str] = html.escape


def _why(reasons: Sequence[str]) -> str:
    """The gravest reasons; the rest folded away."""
    items = [f"<li>{_e(visible(r))}</li>" for r in reasons[:SHOWN]]
    more = f"<details><summary>{len(reasons) - WHY} more</summary><ul>{''.join(items[WHY:])}</ul></details>"
    return f"<h2>Why</h2><ul>{''.join(items[:WHY])}</ul>{more if len(reasons) > WHY else ''}" if reasons else ""


def _ladder(done: Audit) -> str:
    rows = "".join(
        f'<tr><td>{r.name}<td class="n">{r.accuracy:.3f}<td class="n">{r.bits:+.3f}'
        f'<td style="width:50%"><div class="bar" style="width:{max(0.0, min(1.0, r.bits)):.1%}"></div>'
        for r in done.probe
    )
    return f"<table><tr><th>features<th>accuracy<th>bits per pair<th>of 1 bit{rows}</table>"


def _rules(done: Audit) -> str:
    if not done.rules:
        return ""
    items = "".join(
        f"<li><code>{_e(visible(f))}</code> on one side: it is the {side} one. Decides {n:,} pairs, {right / n:.1%} rightly."
        for f, side, n, right in done.rules
    )
    return f"<h3>If you had to guess</h3><ol>{items}</ol>"


def _table(found: Sequence[Finding]) -> str:
    rows = "".join(
        f'<tr><td><span class="{f.severity}">{f.severity}</span><td><code>{_e(visible(f.feature))}</code>'
        f'<td>{f.family}<td class="n">{f.chosen:,}<td class="n">{f.rejected:,}'
        f'<td class="n">{f.coverage:.2%}<td class="n">{f.purity:.1%}'
        f'<td class="n">{f.pull:+.3f}<td class="n">{f.z:.1f}<td class="n">{f.z_length_adjusted:.1f}'
        f"<td>{'length explains it' if f.explained_by_length else ''}"
        for f in found
    )
    head = "<th>severity<th>feature<th>family<th>chosen alone<th>rejected alone"
    head += "<th>coverage<th>chosen<th>pull<th>z<th>z, length-adjusted<th>"
    return f"<table><tr>{head}{rows}</table>" if found else "<p>None.</p>"


def _volcano(found: Sequence[Finding]) -> str:
    """Pull against length-adjusted z, one dot a finding."""
    if not found:
        return ""
    wide = max(0.02, *(abs(f.pull) for f in found))
    high = max(5.0, *(abs(f.z_length_adjusted) for f in found))
    colours = {"info": "#57606a", "warn": "#b06a00", "high": "#b3261e", "block": "#b3261e"}
    dots = "".join(
        f'<circle cx="{320 + 290 * f.pull / wide:.1f}" cy="{280 - 250 * abs(f.z_length_adjusted) / high:.1f}" r="5" '
        f'fill="{colours[f.severity]}" fill-opacity=".6"><title>{_e(visible(f.feature))}</title></circle>'
        for f in found
    )
    axes = '<path d="M20 280H620M320 20V280" stroke="#8c959f" fill="none"/><text x="20" y="298">rejected side</text>'
    axes += '<text x="620" y="298" text-anchor="end">chosen side</text><text x="326" y="30">|z|, length-adjusted</text>'
    return f'<svg viewBox="0 0 640 305" role="img" aria-label="pull against z" font-size="12">{axes}{dots}</svg>'


def _examples(f: Finding, given: Texts, at: dict[str, int]) -> str:
    quoted = "".join(_quote(f, given, at[i]) for i in f.row_ids[:EXAMPLES])
    return f"<details><summary><code>{_e(visible(f.feature))}</code></summary>{quoted}</details>"


def _quote(f: Finding, given: Texts, pair: int) -> str:
    """The place in the side that has the feature, a few words around it."""
    needle = f.feature.encode()
    for side, name in ((0, "chosen"), (1, "rejected")):
        text = given.text(pair, side)
        folded, wanted = (text, needle) if needle in text else (text.lower(), needle.lower())
        found = folded.rfind(wanted) if f.family in ("closer", "whitespace") else folded.find(wanted)
        if found >= 0 and wanted not in given.text(pair, 1 - side):
            end = found + len(needle)
            before, inside, after = (
                part.decode("utf-8", "replace")
                for part in (text[max(0, found - CONTEXT) : found], text[found:end], text[end : end + CONTEXT])
            )
            shown = f"{_e(visible(before))}<mark>{_e(visible(inside))}</mark>{_e(visible(after))}"
            return f'<p><span class="muted">{name}, {_e(given.ids[pair][:12])}</span><br><code>{shown}</code></p>'
    return ""
