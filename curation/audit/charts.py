"""The page's charts as inline SVG, coloured by classes of report.css. Texts of the data are escaped and cut."""

import html
from collections.abc import Sequence

import numpy as np

from curation.audit.overview import Curve, Match
from curation.audit.probe import Residual
from curation.audit.sentences import percent
from curation.audit.statistics import wilson
from curation.audit.visible import exact


def bar(share: float, kind: str = "fill") -> str:
    """A bar of a table, as long as `share` of its cell."""
    return _beside(f'<rect class="{kind}" width="{100 * min(1.0, max(0.0, share)):.1f}" height="10"/>')


def diverging(rejected: float, chosen: float) -> str:
    """Rejected to the left of the middle, chosen to the right; shares of half the cell."""
    left, right = (50 * min(1.0, max(0.0, v)) for v in (rejected, chosen))
    return _beside(
        f'<rect class="rejected" x="{50 - left:.1f}" width="{left:.1f}" height="10"/>'
        f'<rect class="chosen" x="50" width="{right:.1f}" height="10"/>'
        '<rect class="axis" x="49.7" width=".6" height="10"/>'
    )


def _beside(inside: str) -> str:
    """Drawn beside the numbers it shows, so that nobody needs it read out."""
    return f'<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">{inside}</svg>'


def figure(kind: str, name: str, width: int, height: int, inside: str) -> str:
    """A drawing of its own, with a name for whoever does not see it."""
    title = f"<title>{html.escape(name)}</title>"
    return f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img">{title}{inside}</svg>'


def text(x: float, y: float, words: str, anchor: str = "middle", kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{html.escape(words)}</text>'


def line(a: float, b: float, c: float, d: float, kind: str) -> str:
    return f'<path class="{kind}" d="M{a:.1f} {b:.1f}L{c:.1f} {d:.1f}"/>'


def _way(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points)


def _dots(points: Sequence[tuple[float, float]]) -> str:
    return "".join(f'<circle class="dot" cx="{a:.1f}" cy="{b:.1f}" r="4"/>' for a, b in points)


def residual_chart(residual: Sequence[Residual]) -> str:
    """Bits left against how many phenomena are taken away."""
    top = max([0.1, *(r.bits for r in residual)])
    step = 300 / max(1, len(residual) - 1)
    points = [(44 + i * step, 170 - 140 * max(0.0, r.bits) / top) for i, r in enumerate(residual)]
    under = [*points, (points[-1][0], 170.0), (points[0][0], 170.0)]
    parts = [f'<path class="area" d="{_way(under)}Z"/><path class="way" d="{_way(points)}"/>', _dots(points)]
    for (x, y), r in zip(points, residual, strict=True):
        parts += [text(x, y - 10, f"{r.bits:.2f}", "middle", "value"), text(x, 187, str(r.removed))]
    parts += [line(30, 170, 356, 170, "axis"), text(194, 206, "strongest phenomena taken away")]
    return figure("residual", "Residual curve: bits per pair that words tell", 372, 214, "".join(parts))


def length_chart(lengths: Sequence[Curve]) -> str:
    """How many pairs have which ratio of lengths, and how often the longer answer is the chosen one."""
    step, most = 326 / max(1, len(lengths)), max([1, *(c.pairs for c in lengths)])
    parts, points = [], []
    for share, kind in ((0.0, "grid"), (0.5, "half"), (1.0, "grid")):
        y = 124 - 104 * share
        parts += [text(36, y + 4, percent(share, 0), "end"), line(42, y, 368, y, kind)]
    for i, c in enumerate(lengths):
        x, tall = 42 + (i + 0.5) * step, 56 * c.pairs / most
        box = f'x="{x - 0.4 * step:.1f}" y="{208 - tall:.1f}" width="{0.8 * step:.1f}" height="{tall:.1f}"'
        parts += [f'<rect class="fill" {box}/>', text(x, 203 - tall, f"{c.pairs:,}", "middle", "value")]
        parts.append(text(x, 223, f"×{c.at_least:g}" + ("" if c.below else "+")))
        if c.pairs:
            low, high = (float(v) for v in wilson(np.array(c.pairs * c.longer_chosen), np.array(c.pairs)))
            parts.append(line(x, 124 - 104 * low, x, 124 - 104 * high, "whisker"))
            points.append((x, 124 - 104 * c.longer_chosen))
    parts += [f'<path class="way" d="{_way(points)}"/>', _dots(points)] if points else []
    parts.append(text(205, 241, "so many times as long as the shorter answer"))
    name = "Lengths: how often the longer answer is chosen, and number of pairs, by ratio of lengths"
    return figure("lengths", name, 372, 248, "".join(parts))


def win_matrix(models: Sequence[Match]) -> str:
    """Who was chosen against whom, as a table: row against column, the most chosen first."""
    wins = {(m.model, m.against): (m.chosen, m.rejected) for m in models}
    wins |= {(b, a): (lost, won) for (a, b), (won, lost) in wins.items()}
    totals: dict[str, tuple[int, int]] = {}
    for (a, _), (won, lost) in wins.items():
        before = totals.get(a, (0, 0))
        totals[a] = before[0] + won, before[1] + lost
    share = {a: won / max(1, won + lost) for a, (won, lost) in totals.items()}
    names = sorted(share, key=lambda n: (-share[n], n))
    numbers = "".join(f'<th scope="col">{i}</th>' for i in range(1, len(names) + 1))
    rows = "".join(
        f'<tr><th scope="row"><b>{i}</b> {html.escape(exact(a, 40))}</th><td class="n">{percent(share[a], 0)}</td>'
        + "".join('<td class="none">·</td>' if a == b else _heat(*wins.get((a, b), (0, 0))) for b in names)
        + "</tr>"
        for i, a in enumerate(names, 1)
    )
    head = f'<thead><tr><th scope="col">row against column</th><th scope="col">all</th>{numbers}</tr></thead>'
    return f'<div class="box"><table class="heat">{head}<tbody>{rows}</tbody></table></div>'


def _heat(won: int, lost: int) -> str:
    if not won + lost:
        return '<td class="none"></td>'
    share = won / (won + lost)
    return f'<td class="n h{round(10 * share)}">{100 * share:.0f}<small>{won + lost:,}</small></td>'
