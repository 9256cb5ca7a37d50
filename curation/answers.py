"""Finding the final answer in a completion, and reading it as a number. Model text is matched, never evaluated."""

import re
from decimal import Decimal, InvalidOperation
from fractions import Fraction

LONGEST = 100_000  # characters looked at, from the end: a final answer stands there
NUMBER = r"[-+−]?\s?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|[-+−]?\s?\.\d+"
_NUMBER = re.compile(NUMBER)
_FRACTION = re.compile(rf"\s*({NUMBER})\s*/\s*({NUMBER})\s*")
_MARKED = re.compile(
    r"####[ \t]*(?P<hash>[^\n]*)"
    r"|(?:^|\n)[ \t]*A:[ \t]*(?P<a>[^\n]*)"
    r"|(?i:(?:final\s+)?answer\s*(?:is|:|=)+)[ \t]*(?P<said>[^\n]*)"
)
_DECORATION = str.maketrans("", "", "$€£¥%*`\\ \t")


def final_answer(text: str) -> str | None:
    """The last marked answer: `#### x`, `\\boxed{x}`, `A: x`, "the answer is x"; None where none is marked.

    "5+7=12\\n#### 12" → "12"; "so \\boxed{\\frac12}" → "\\frac12".
    """
    tail = text[-LONGEST:]
    boxed = _last_boxed(tail)
    marked = None
    for marked in _MARKED.finditer(tail):  # noqa: B007 (the last one counts)
        pass
    if boxed is not None and (marked is None or boxed[0] > marked.start()):
        return boxed[1].strip() or None
    if marked is None:
        return None
    found = next((g for g in marked.groups() if g is not None), "").strip()
    return found.rstrip(" .") or None


def last_number(text: str) -> str | None:
    """The last number as written: "I have 3 cats and 1,204 dogs." → "1,204"."""
    found = _NUMBER.findall(text[-LONGEST:])
    return found[-1] if found else None


def as_number(text: str) -> Fraction | None:
    """The exact value of a text that is one number: "1,204" "$5.50" "-3/4" "12%" → Fraction; None for all else.

    A percent sign is a unit, as in the field's graders: 12% is 12. ASCII digits only.
    """
    if len(text) > 200 or not text.isascii():
        text = text.replace("−", "-")
        if len(text) > 200 or not re.fullmatch(r"[\x00-\x7f€£¥]*", text):
            return None
    bare = text.translate(_DECORATION).rstrip(".")
    both = _FRACTION.fullmatch(bare)
    try:
        if both:
            below = _exact(both[2])
            return _exact(both[1]) / below if below else None
        return _exact(bare) if _NUMBER.fullmatch(bare) else None
    except (InvalidOperation, ValueError):
        return None


def _exact(text: str) -> Fraction:
    return Fraction(Decimal(text.replace(",", "").replace("−", "-").replace(" ", "")))


def _last_boxed(text: str) -> tuple[int, str] | None:
    """(position, content) of the last \\boxed{…} whose braces close."""
    at = text.rfind("\\boxed{")
    while at >= 0:
        depth = 0
        for i in range(at + 6, len(text)):
            depth += (text[i] == "{") - (text[i] == "}")
            if depth == 0:
                return at, text[at + 7 : i]
        at = text.rfind("\\boxed{", 0, at)
    return None
