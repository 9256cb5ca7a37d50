"""All findings at a glance: pull against z, with z at equal length hanging from z by a thin line."""

import unicodedata
from collections.abc import Sequence

from curation.audit.charts import figure, line, text
from curation.audit.findings import SEVERITIES, Finding
from curation.audit.visible import exact

DRAWN = 300  # findings, gravest first
LABELS = 9
SIZES = {"info": 2.6, "warn": 3.8, "high": 4.6, "block": 5.4}
MIDDLE, HALF, GROUND, TALL = 250.0, 212.0, 530.0, 500.0


def volcano(findings: Sequence[Finding]) -> str:
    """Ring: z; dot: z at equal length. Roots of pulls are drawn, so that small ones do not crowd the middle."""
    drawn = sorted(findings[:DRAWN], key=lambda f: (SEVERITIES.index(f.severity), abs(f.pull), f.feature))
    wide = max([0.02, *(abs(f.pull) for f in drawn)])
    high = max([5.0, *(abs(z) for f in drawn for z in (f.z, f.z_length_adjusted))])
    parts, places = _axes(wide, high), []
    for f in drawn:
        x = _across(f.pull, wide)
        raw, adjusted = (GROUND - TALL * max(0.0, z) / high for z in (abs(f.z), f.z_length_adjusted * _side(f.z)))
        size = SIZES[f.severity]
        parts.append(
            f'<g class="{f.severity}">{line(x, raw, x, adjusted, "tie")}'
            f'<circle class="raw" cx="{x:.1f}" cy="{raw:.1f}" r="{size - 1:.1f}"/>'
            f'<circle class="adjusted" cx="{x:.1f}" cy="{adjusted:.1f}" r="{size:.1f}"/></g>'
        )
        places.append((exact(f.feature, 18), x, adjusted))
    parts += _labels(places[::-1])
    return figure(
        "volcano", "Volcano plot: pull of each finding against its z, raw and at equal length", 500, 578, "".join(parts)
    )


def _side(value: float) -> int:
    return 1 if value >= 0 else -1


def _across(pull: float, wide: float) -> float:
    return MIDDLE + HALF * _side(pull) * (abs(pull) / wide) ** 0.5


def _axes(wide: float, high: float) -> list[str]:
    parts = []
    for tick in (t for t in (0.01, 0.03, 0.1, 0.3, 1.0) if wide / 12 < t <= wide):
        for pull in (-tick, tick):
            x = _across(pull, wide)
            parts += [line(x, 30, x, GROUND + 4, "grid"), text(x, GROUND + 19, f"{pull:+g}")]
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 10**9) if high / s <= 6)
    for z in range(0, int(high) + 1, step):
        y = GROUND - TALL * z / high
        parts += [line(40, y, 460, y, "grid"), text(34, y + 4, str(z), "end")]
    parts += [line(MIDDLE, 22, MIDDLE, GROUND + 4, "axis"), line(40, GROUND, 460, GROUND, "axis")]
    parts += [text(MIDDLE, GROUND + 19, "0"), text(34, 18, "|z|", "end")]
    return [*parts, text(20, 570, "← to the rejected side", "start"), text(480, 570, "to the chosen side →", "end")]


def _labels(places: Sequence[tuple[str, float, float]]) -> list[str]:
    """Names beside the gravest dots, where there is room for them."""
    taken: list[tuple[float, float, float, float]] = []
    made: list[str] = []
    for words, x, y in places:
        width = sum(13.0 if unicodedata.east_asian_width(c) in "WF" else 7.0 for c in words)
        tries = [(anchor, y + lower) for anchor in ("start", "end") for lower in (4, -7, 15)]
        for anchor, base in tries if len(made) < LABELS else ():
            left = x + 8 if anchor == "start" else x - 8 - width
            box = (left, base - 11, left + width, base + 3)
            if (
                box[0] > 42
                and box[2] < 498
                and box[1] > 20
                and box[3] < GROUND
                and not any(_meet(box, t) for t in taken)
            ):
                taken.append(box)
                made.append(text(x + (8 if anchor == "start" else -8), base, words, anchor, "name"))
                break
    return made


def _meet(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]
