"""Pieces of the page. Whatever is called `…_html` or is a cell is markup already; all else is escaped here."""

import html
from collections.abc import Iterable, Sequence

FOLDED_FROM = 6  # items of a list that are shown unfolded
LISTED = 200  # at all


def table(head: str, rows: Iterable[Sequence[str]], kind: str = "wide") -> str:
    """A table in a box that scrolls. `head`: our names of the columns between bars, ":n" after those of numbers, ":draw"
    after those of bars; `rows`: cells, the first of which names the row."""
    columns = [(name, f' class="{of}"' if of else "") for name, _, of in (c.partition(":") for c in head.split("|"))]
    heads = "".join(f'<th scope="col"{of}>{html.escape(name)}</th>' for name, of in columns)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>'
        + "".join(f"<td{of}>{cell}</td>" for (_, of), cell in zip(columns[1:], row[1:], strict=True))
        + "</tr>"
        for row in rows
    )
    return f'<div class="box"><table class="{kind}"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def section(name: str, title: str, inside_html: str, kind: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<section id="{name}"{style}><h2>{title}</h2>{inside_html}</section>'


def folded(items_html: Sequence[str]) -> str:
    """A list, all but the first few of it folded away."""
    items = [f"<li>{i}</li>" for i in items_html[:LISTED]]
    first, rest = items[:FOLDED_FROM], items[FOLDED_FROM:]
    if not rest:
        return f"<ul>{''.join(first)}</ul>"
    inside = "<ul>" + "".join(rest) + "</ul>"
    inside += "<p>The others are in audit.json.</p>" if len(items_html) > LISTED else ""
    title = f"{len(items_html) - len(first):,} more"
    return f"<ul>{''.join(first)}</ul>{fold(title, inside)}"


def fold(title: str, inside_html: str) -> str:
    return f'<details class="fold"><summary>{title}</summary>{inside_html}</details>'


def key(*entries: tuple[str, str]) -> str:
    """What the colours of a drawing mean: (class, words)."""
    spans = "".join(f'<span><i class="{kind}"></i>{html.escape(words)}</span>' for kind, words in entries)
    return f'<p class="key">{spans}</p>'


def facts(entries_html: Iterable[tuple[str, str]]) -> str:
    """Names and what they are."""
    listed = "".join(f"<dt>{html.escape(name)}</dt><dd>{what}</dd>" for name, what in entries_html)
    return f'<dl class="facts">{listed}</dl>'
