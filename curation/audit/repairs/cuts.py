"""Taking a feature out of a text, or putting it in, so that what is left reads on: spaces, stops, capitals."""

import re
from collections.abc import Container

from curation.audit.repairs.places import Reader, Span
from curation.audit.repairs.targets import Target

ROUNDS = 8  # a cut may join what stood apart into the same feature again
SENTENCE_WORDS = 15  # a canned sentence is short
ENDS = ".!?…。！？"
STOPS = {"!": ".", "?": ".", "！": "。", "？": "。"}  # a sentence must end in something
SENTENCE_END = re.compile(rf"[{ENDS}]+[\"”')]*(?=\s|$)|\n+")
AFTER_OPENER = re.compile(r"^[ \t]*[,.!;:?，。！；：？—–-]*[ \t]*\s*")
BEGINS = re.compile(r"(?:^|[.!?…]\s+|\n[ \t]*)$")


def without(text: str, target: Target, reader: Reader, end: str = "", known: Container[str] = ()) -> str | None:
    """The text without a feature, or None where no cut takes it out. `end`: "opener" or "closer", which go with their
    whole sentence, where that is a canned one (`known`)."""
    for _ in range(ROUNDS):
        spans = reader.spans(text, target.number)
        if not spans:
            return text
        if target.family == "whitespace":
            text = text.strip("".join(map(chr, range(33))))
            continue
        raw = text.encode()
        for span in reversed(spans):
            whole = sentence(raw, span) if end else None
            canned = whole is not None and folded(raw[whole[0] : whole[1]].decode("utf-8", "replace")) in known
            wide = whole if whole and canned else _phrase(raw, span, target.feature.encode())
            before, cut, after = (part.decode("utf-8", "replace") for part in _parts(raw, wide))
            raw = joined(before, cut, after, end or target.family).encode()
        if raw.decode() == text:
            return None
        text = raw.decode()
    return None


def ends_of(text: str) -> tuple[str, str]:
    """The first and the last sentence of a text, folded."""
    found = list(SENTENCE_END.finditer(text))
    heads = [m.end() for m in found if text[m.end() :].strip()]
    return folded(text[: found[0].end()] if found else text), folded(text[heads[-1] :] if heads else text)


def folded(sentence: str) -> str:
    return " ".join(sentence.lower().split())


def inserted(text: str, target: Target, reader: Reader) -> str | None:
    """The text with the feature where it belongs, or None where it cannot be put."""
    phrase = target.feature.strip()
    forms = {
        "opener": (f"{phrase} {text.lstrip()}",),
        "closer": (f"{text.rstrip()} {phrase}",),
        "whitespace": (text.rstrip() + target.feature, target.feature + text.lstrip()),
    }
    return next((made for made in forms.get(target.family, ()) if reader.spans(made, target.number)), None)


def moved(side: str, other: str, target: Target, reader: Reader) -> tuple[str, str] | None:
    """Both texts with the feature moved from `side` to `other`, an opener or closer as it is, anything else in its
    sentence, to where that stood: in front or at the end."""
    if target.family in ("opener", "closer", "whitespace"):
        cut, put = without(side, target, reader), inserted(other, target, reader)
        return (cut, put) if cut is not None and cut.strip() and put is not None else None
    for _ in range(ROUNDS):
        spans = reader.spans(side, target.number)
        if not spans:
            return (side, other) if reader.spans(other, target.number) else None
        raw = side.encode()
        before, cut, after = (p.decode("utf-8", "replace") for p in _parts(raw, around(raw, spans[0])))
        first, apart = not before.strip(), " " if before.strip() and after.strip() else ""
        side = (before.rstrip(" ") + apart + after.lstrip(" ")).strip()
        other = f"{cut.strip()} {other.lstrip()}" if first else f"{other.rstrip()} {cut.strip()}"
        if not side:
            return None
    return None


def around(raw: bytes, span: Span) -> Span:
    """The sentence, or line, that a feature stands in."""
    text, at = raw.decode("utf-8", "replace"), len(raw[: span[0]].decode("utf-8", "replace"))
    after = at + len(raw[span[0] : span[1]].decode("utf-8", "replace"))
    heads = [m.end() for m in SENTENCE_END.finditer(text) if m.end() <= at]
    tail = SENTENCE_END.search(text, max(at, after - 1))
    low, high = heads[-1] if heads else 0, tail.end() if tail else len(text)
    return len(text[:low].encode()), len(text[:high].encode())


def editable(target: Target) -> bool:
    """Whether a cut can take the feature out: one of texts, and no code fence, which would leave its other end open."""
    return bool(target.key) and "```" not in target.feature


def joined(before: str, cut: str, after: str, family: str) -> str:
    """What stood around a cut, as one text."""
    capital = cut.lstrip()[:1].isupper() and not cut.rstrip().endswith(
        tuple(ENDS)
    )  # what follows a sentence is one already
    if not before.strip():
        rest = after if after.startswith("\n") else AFTER_OPENER.sub("", after, count=1)
        return _capital(rest.lstrip(), capital) if family == "opener" else before + _capital(rest, capital)
    if not after.strip():
        kept, head = before.rstrip() if family == "closer" else before.rstrip(" \t"), cut.strip()[:1]
        stop = STOPS.get(head, head if head in ENDS and len(cut.strip()) > 1 else "")
        return kept + stop + (after if family != "closer" else "")
    if "\n" in cut:
        return before.rstrip(" \t") + ("\n" if cut.strip("\n\r") or len(cut) > 1 else " ") + after.lstrip(" \t")
    if cut.strip()[:1] in STOPS and not any(c.isalnum() for c in cut):
        return before + STOPS[cut.strip()[0]] + after
    starts = bool(BEGINS.search(before))
    if starts:
        return before + _capital(AFTER_OPENER.sub("", after, count=1) if after[:1] in ",; " else after, capital)
    if before[-1:] in " \n" and after[:1] in " .,;:!?)\n":
        before = before.rstrip(" ") if after[:1] != " " else before[:-1] if before[-1] == " " else before
    return before + after


def _capital(text: str, wanted: bool) -> str:
    return text[:1].upper() + text[1:] if wanted and text[:1].islower() else text


def _parts(raw: bytes, span: Span) -> tuple[bytes, bytes, bytes]:
    return raw[: span[0]], raw[span[0] : span[1]], raw[span[1] :]


def _phrase(raw: bytes, span: Span, phrase: bytes) -> Span:
    """The finding's whole text where it stands around the feature, else the feature."""
    start, end = span
    at = raw.find(phrase, max(0, start - len(phrase)), end + len(phrase)) if len(phrase) > end - start else -1
    return (at, at + len(phrase)) if 0 <= at <= start and at + len(phrase) >= end else span


def sentence(raw: bytes, span: Span) -> Span | None:
    """The first or last sentence where a feature stands in one, if it is short and something is left without it."""
    low, high = around(raw, span)
    edge = not raw[:low].strip() or not raw[high:].strip()
    short = len(raw[low:high].split()) <= SENTENCE_WORDS
    if not (edge and short and (raw[:low] + raw[high:]).strip()):
        return None
    return (0, high) if not raw[:low].strip() else (low, len(raw))
