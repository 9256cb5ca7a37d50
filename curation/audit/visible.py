"""Texts of the data made fit to print: nothing unseen, nothing that moves a cursor or is markup, nothing endless."""

import html
import re
import unicodedata

from curation.errors import one_line

NAMES = {"\n": "⏎", "\r": "[CR]", "\t": "⇥", " ": "␣"}  # signs that common fonts have
LONGEST = 160  # characters of a feature


def visible(text: str) -> str:
    """The text with everything that cannot be seen, or that would move the cursor, shown: ⏎ for a line break."""
    if not text.strip(" "):
        return "".join(NAMES.get(c, c) for c in text)
    named = (NAMES.get(c, c) if c != " " else c for c in text)
    return "".join(c if c.isprintable() else f"[{unicodedata.name(c, f'U+{ord(c):04X}')}]" for c in named)


def exact(text: str, most: int = LONGEST) -> str:
    """`visible`, with spaces at the ends shown too, cut at `most` characters: "* " is "*␣"."""
    text = text[: most + 1]
    bare = text.strip(" ")
    if not bare:
        return clipped(visible(text), most)
    ahead, behind = len(text) - len(text.lstrip(" ")), len(text) - len(text.rstrip(" "))
    return clipped(NAMES[" "] * ahead + visible(bare) + NAMES[" "] * behind, most)


def clipped(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def coded(text: str, most: int = LONGEST) -> str:
    """A feature as HTML."""
    return f"<code>{html.escape(exact(text, most))}</code>"


def quoted(text: str, most: int = 60) -> str:
    """A feature in a line of plain text."""
    return f"“{one_line(exact(text, most), most + 20)}”"


def cell(text: str, most: int = LONGEST) -> str:
    """A feature in Markdown."""
    return f"<code>{plain(exact(text, most))}</code>"


def plain(text: str) -> str:
    """A text in Markdown, in a table or not: no markup, no link, nobody called by name."""
    shown = re.sub(r"[|`*_~\\\[\]]", lambda m: f"&#{ord(m[0])};", html.escape(one_line(visible(text), 400)))
    return re.sub(r"://|@|www\.", lambda m: f"{m[0][0]}<!-- -->{m[0][1:]}", shown, flags=re.IGNORECASE)
