"""Rows that speak for a finding and rows that speak against it, cut to where the finding stands."""

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from curation.audit.corpus import Corpus
from curation.audit.findings import TEXT, Finding
from curation.audit.lexicons import LEXICONS
from curation.audit.visible import clipped, visible

BEFORE, AFTER, PROMPT, WHOLE = 70, 110, 110, 150  # characters shown
LONGEST = 1 << 18  # characters of a text that are searched
FOR, AGAINST = 5, 2
Row = tuple[bytes, bytes, bytes]  # prompt, chosen answer, rejected answer


@dataclass(frozen=True)
class Quote:
    """A piece of a row, everything unseen in it shown by name. `parts`: plain, marked, plain, marked, … ."""

    where: str  # prompt, chosen, rejected
    parts: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True)
class Example:
    """A row that has the finding on one side alone."""

    pair_id: str
    quotes: tuple[Quote, ...]


Examples = Mapping[int, tuple[list[Example], list[Example]]]  # by place in the findings: for, against


def examples(findings: Sequence[Finding], corpus: Corpus) -> Examples:
    """Rows of every finding; the texts are read once for all of them."""
    picked = [
        (_unlike(f.examples, f.row_ids, corpus, FOR), _unlike(f.counter_examples, f.counter_row_ids, corpus, AGAINST))
        for f in findings
    ]
    texts = corpus.texts_of(sorted({p for both in picked for some in both for p, _ in some}))
    found = {}
    for i, (f, sides) in enumerate(zip(findings, picked, strict=True)):
        ahead = ("chosen", "rejected") if f.purity >= 0.5 else ("rejected", "chosen")
        pro, contra = (
            [Example(name, _quotes(f, texts[p], side)) for p, name in some]
            for some, side in zip(sides, ahead, strict=True)
        )
        found[i] = pro, contra
    return found


def _unlike(pairs: Sequence[int], ids: Sequence[str], corpus: Corpus, most: int) -> list[tuple[int, str]]:
    """A few of the rows, of different prompts where there are any."""
    rows = list(zip(pairs, ids, strict=True))
    first = {int(corpus.groups[p]): (p, name) for p, name in reversed(rows)}
    others = [row for row in rows if row not in first.values()]
    return sorted([*sorted(first.values()), *others][:most])


def _quotes(f: Finding, row: Row, side: str) -> tuple[Quote, ...]:
    """The prompt's beginning and the answer around the finding; both answers where no place in one shows it."""
    prompt, chosen, rejected = (t.decode("utf-8", "replace") for t in row)
    asked = Quote("prompt", (_middle_cut(prompt, PROMPT),))
    if f.family == "trigger":
        asked = Quote("prompt", _around(prompt, _places(f, prompt)) or asked.parts)
        return (asked, Quote("chosen", (_end_cut(chosen, WHOLE),)), Quote("rejected", (_end_cut(rejected, WHOLE),)))
    text = chosen if side == "chosen" else rejected
    around = _around(text, _places(f, text))
    if around:
        return (asked, Quote(side, around))
    both = (("chosen", chosen), ("rejected", rejected))
    return (asked, *(Quote(name, (_end_cut(t, WHOLE),), f"{len(t):,} characters") for name, t in both))


def _end_cut(text: str, most: int) -> str:
    return clipped(visible(text[: most + 1]), most)


def _places(f: Finding, text: str) -> list[tuple[int, int]]:
    """Where the finding stands in a text, first place first; none where it cannot be pointed at."""
    if f.family == "whitespace":
        return _whitespace(f.feature, text)
    if f.family == "together":
        return sorted(place for word in f.members for place in _first(text[:LONGEST], (word,), False))
    wanted = (f.feature, *f.members) if f.family in (*TEXT, "trigger") else LEXICONS.get(f.feature, ())
    skipped = max(0, len(text) - LONGEST) if f.family == "closer" else 0
    found = _first(text[skipped : skipped + LONGEST], wanted, f.family == "closer")
    return [(start + skipped, end + skipped) for start, end in found]


def _first(text: str, wanted: Sequence[str], last: bool) -> list[tuple[int, int]]:
    """The first (or last) place of the first of these that stands in the text: exactly, else in another case or with
    other space between its words."""
    for needle in wanted:
        for pattern in _patterns(needle):
            at = pattern.search(text) if not last else next(iter(deque(pattern.finditer(text), 1)), None)
            if at:
                return [at.span()]
    return []


def _patterns(needle: str) -> Iterator[re.Pattern[str]]:
    if not needle:
        return
    whole = re.escape(needle)
    ahead, behind = (r"(?<!\w)" if needle[0].isalnum() else ""), (r"(?!\w)" if needle[-1].isalnum() else "")
    if needle.isascii():
        yield re.compile(ahead + whole + behind)
    else:
        yield re.compile(whole)
    yield re.compile(
        ahead + r"\s+".join(re.escape(w) for w in needle.split()) + behind if needle.split() else whole, re.I
    )


def _whitespace(feature: str, text: str) -> list[tuple[int, int]]:
    """At which end this whitespace stands; what else stands at an end where it does not stand exactly."""
    ahead, behind = len(text) - len(text.lstrip()), len(text.rstrip())
    ends = [(behind, len(text)), (0, ahead)]
    exact = [(a, b) for a, b in ends if text[a:b] == feature]
    return (exact or [(a, b) for a, b in ends if a < b])[:1]


def _around(text: str, places: Sequence[tuple[int, int]]) -> tuple[str, ...]:
    """plain, marked, plain, …: the text before, in, between and after the places, cut to what is near them."""
    parts: list[str] = []
    end = 0
    for start, stop in places:
        if start < end:
            continue
        gap = text[end:start]
        most = BEFORE if not parts else 2 * BEFORE
        parts += [_start_cut(gap, most) if not parts else _middle_cut(gap, most), _middle_cut(text[start:stop], AFTER)]
        end = stop
    return (*parts, _end_cut(text[end : end + AFTER + 1], AFTER)) if parts else ()


def _start_cut(text: str, most: int) -> str:
    shown = visible(text[-most - 1 :])
    return shown if len(text) <= most and len(shown) <= most else "…" + shown[-most:]


def _middle_cut(text: str, most: int) -> str:
    if len(text) <= most:
        shown = visible(text)
        return shown if len(shown) <= most else f"{shown[: most // 2]} … {shown[-most // 2 :]}"
    return f"{clipped(visible(text[: most // 2]), most // 2)} … {_start_cut(text[-most // 2 :], most // 2)}"
