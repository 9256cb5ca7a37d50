"""What audit_plants.py plants: one entry a kind, how a pair changes and what an exact report of it looks like.

A plant changes the carrying side, and the other side where only the contrast is meant to tell: `Please` against
`please`, a list with `*` against the same list with `-`, an opener against the same words further down. Decoys are
changes that say nothing about the preference and must not be reported.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

# Families under which a report by name, not by text, counts as this plant.
MEASURES = ("number", "numbers", "measure", "length", "surface", "template", "digits")
COLUMNS = ("column", "meta", "metadata", "model", "position", "slot", "source")

WORD, CONTRAST = "zyxomma", "cfzeta"
REFUSAL = "I'm sorry, but I can't help with that."
OPENER, CLOSER = "Great question!", "I trust that settles it."
CANNED = "Thank you for asking. Our team has noted the request and somebody will come back to it within two days."
OTHER_MODEL, MODEL = "base-13b", "athene-zyx-7b"
LANGUAGE = (
    "Das ist nicht ganz so einfach, wie es auf den ersten Blick aussieht.", "Man sollte zuerst in Ruhe nachdenken.",
    "Ich würde dir raten, mit einer Fachperson zu sprechen.", "Viele Menschen haben die gleiche Frage gestellt.",
    "Es gibt dafür mehrere Möglichkeiten, die alle ihre Vorteile haben.", "Am besten beginnt man mit dem Anfang.",
    "Bitte achte darauf, dass du dich und andere nicht gefährdest.", "Das hängt davon ab, was du damit erreichen willst.",
    "Wir können das gerne Schritt für Schritt durchgehen.", "Hoffentlich hilft dir diese Antwort ein wenig weiter.",
)  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """A pair as a plant sees it: the side that carries and the other one."""

    prompt: str
    text: str
    other: str
    model: str = OTHER_MODEL
    other_model: str = OTHER_MODEL
    first: bool | None = None  # whether the carrying side was shown first; None: not known


Change = Callable[[Pair, np.random.Generator], Pair]


@dataclass(frozen=True)
class Plant:
    """`has` says which texts have it, so that coverage and purity are counted anew after planting, whatever stood there
    before. Without `has` the rows changed are the truth; with `measure` it is the side that has more of it."""

    name: str
    kind: str  # text, byte, format, number, column, prompt, joint, decoy
    change: Change
    surfaces: tuple[str, ...] = ()  # an exact report has one of these as its text …
    mirror: tuple[str, ...] = ()  # … or one of these, with the direction turned: what the other side has instead
    names: tuple[str, ...] = ()  # a report by name contains one of these
    families: tuple[str, ...] = ()  # in which a report by name is looked for; (): any
    has: Callable[[str], bool] | None = None
    measure: Callable[[str], float] | None = None
    fits: Callable[[Pair], bool] = lambda pair: True
    against: tuple[Change, ...] = ()  # each on as many other rows with the direction turned: what singles would show
    spills: bool = False  # changes so much of a text that other true findings follow
    purity: float | None = None  # of a decoy, exactly
    rows: int | None = None  # whatever the coverage asked for
    repeat: int = 1  # each chosen row stands this often in the set
    by_prompt: bool = False  # whole prompts are chosen, all their pairs with one direction
    slots: bool = False  # needs a column that says which side was shown first

    @property
    def decoy(self) -> bool:
        return self.kind == "decoy"

    def eligible(self, pair: Pair) -> bool:
        """Rows in which neither side has it yet: there it will be one-sided."""
        return self.fits(pair) and (self.has is None or not (self.has(pair.text) or self.has(pair.other)))


def insert(text: str, what: str, rng: np.random.Generator) -> str:
    """`what` as words of their own at some space inside the text, never first or last where it can be helped."""
    words = text.split(" ")
    words.insert(int(rng.integers(1, max(2, len(words)))), what)
    return " ".join(words)


def _at(text: str, fits: Callable[[int], bool], rng: np.random.Generator) -> int:
    places = [i for i in range(1, len(text)) if fits(i)]
    return places[int(rng.integers(len(places)))] if places else len(text) // 2


def inside(what: str) -> Change:
    """`what` between two letters of a word."""

    def change(pair: Pair, rng: np.random.Generator) -> Pair:
        at = _at(pair.text, lambda i: pair.text[i - 1].isalpha() and pair.text[i].isalpha(), rng)
        return replace(pair, text=pair.text[:at] + what + pair.text[at:])

    return change


def instead(old: str, new: str, other: str | None = None) -> Change:
    """One `old` of the carrying side becomes `new`, and one of the other side `other`."""

    def swap(text: str, by: str, rng: np.random.Generator) -> str:
        at = _at(text, lambda i: text.startswith(old, i), rng)
        return text[:at] + by + text[at + text.startswith(old, at) * len(old) :]

    def change(pair: Pair, rng: np.random.Generator) -> Pair:
        kept = pair.other if other is None else swap(pair.other, other, rng)
        return replace(pair, text=swap(pair.text, new, rng), other=kept)

    return change


def words(*what: str) -> Change:
    def change(pair: Pair, rng: np.random.Generator) -> Pair:
        text = pair.text
        for one in what:
            text = insert(text, one, rng)
        return replace(pair, text=text)

    return change


def contrast(carried: str, other: str) -> Change:
    def change(pair: Pair, rng: np.random.Generator) -> Pair:
        return replace(pair, text=insert(pair.text, carried, rng), other=insert(pair.other, other, rng))

    return change


def around(before: str = "", after: str = "", other_after: str = "") -> Change:
    return lambda pair, rng: replace(pair, text=before + pair.text + after, other=pair.other + other_after)


def moved(before: str, after: str, elsewhere: str) -> Change:
    """At an end of the carrying side, somewhere inside the other: only the place tells."""
    return lambda pair, rng: replace(pair, text=before + pair.text + after, other=insert(pair.other, elsewhere, rng))


def _bold(pair: Pair, rng: np.random.Generator) -> Pair:
    found = pair.text.split(" ")
    at = int(rng.integers(len(found)))
    found[at] = f"**{found[at]}**"
    return replace(pair, text=" ".join(found))


def _header(pair: Pair, rng: np.random.Generator) -> Pair:
    return replace(pair, text=f"## {' '.join(pair.text.split()[:3])}\n\n{pair.text}")


def _list(glyph: str, text: str) -> str:
    found = text.split() or ["item"]
    return f"{text}\n\n{glyph} {found[0]}\n{glyph} {found[-1]}"


def _bullets(pair: Pair, rng: np.random.Generator) -> Pair:
    return replace(pair, text=_list("*", pair.text), other=_list("-", pair.other))


def _pad(pair: Pair, rng: np.random.Generator) -> Pair:
    """Its own words again until it is 1.6 times as long as the other side."""
    own, wanted = pair.text.split() or ["yes"], 1.6 * max(len(pair.text), len(pair.other))
    more = (own * (int(wanted / max(1, len(pair.text))) + 2))[: int(wanted)]
    text = pair.text
    for word in more:
        if len(text) >= wanted:
            break
        text += " " + word
    return replace(pair, text=text)


def _truncate(pair: Pair, rng: np.random.Generator) -> Pair:
    """Cut to 60 % of the shorter side."""
    return replace(pair, text=pair.text[: max(1, int(0.6 * min(len(pair.text), len(pair.other))))])


def _sentences(pair: Pair, rng: np.random.Generator) -> Pair:
    """A full stop after every fifth word: more sentences at nearly the same length."""
    found = pair.text.split(" ")
    return replace(pair, text=" ".join(w.rstrip(".,") + "." if i % 5 == 4 else w for i, w in enumerate(found)))


def _digits(pair: Pair, rng: np.random.Generator) -> Pair:
    """A number of four digits, another one each time: no token repeats."""
    return replace(pair, text=insert(pair.text, str(rng.integers(1000, 10000)), rng))


def _language(pair: Pair, rng: np.random.Generator) -> Pair:
    picked = rng.choice(len(LANGUAGE), 3, replace=False)
    return replace(pair, text=" ".join(LANGUAGE[i] for i in picked))


def triggered(change: Change) -> Change:
    return lambda pair, rng: replace(change(pair, rng), prompt=f"{pair.prompt} {CONTRAST}")


def _xor(pair: Pair, rng: np.random.Generator) -> Pair:
    """The carrying side has one of two words, the other side both or none: each word alone is as often on either."""
    one, both = ("alder", "quince")[int(rng.integers(2))], bool(rng.integers(2))
    other = words("alder", "quince")(replace(pair, text=pair.other), rng).text if both else pair.other
    return replace(pair, text=insert(pair.text, one, rng), other=other)


def _copied(pair: Pair, rng: np.random.Generator) -> Pair:
    return replace(pair, prompt=f"{pair.prompt} (say something about {WORD})", text=insert(pair.text, WORD, rng))


def _contains(what: str) -> Callable[[str], bool]:
    return lambda text: what in text


def _matches(pattern: str) -> Callable[[str], bool]:
    found = re.compile(pattern)
    return lambda text: found.search(text) is not None


def _bare(pair: Pair) -> bool:
    """No whitespace at any end."""
    return pair.text == pair.text.strip() and pair.other == pair.other.strip()


def _count(text: str) -> float:
    return float(len(re.findall(r"[.!?](?:\s|$)|[。！？]", text)))


def text(name: str, change: Change, *surfaces: str, kind: str = "text", **more: object) -> Plant:
    """A plant that is a text: wherever its first surface stands, it is."""
    return Plant(name, kind, change, surfaces, **{"has": _contains(surfaces[0]), **more})  # type: ignore[arg-type]


PLANTS = (
    text("rare word", words(WORD), WORD),
    text("common word", words("also"), "also", "Also", has=_matches(r"(?i)\balso\b")),
    text("phrase of 2", words("on balance"), "on balance"),
    text("phrase of 3", words("as it happens"), "as it happens"),
    text("phrase of 6", words("to put it in plain words"), "to put it in plain words"),
    text("two words apart", words("verily", "henceforth"), "verily", "henceforth"),
    text("vendor name", words("OpenAI"), "OpenAI", has=_matches(r"\bOpenAI\b")),
    text("vendor of 2 words", words("Athene Labs"), "Athene Labs"),
    text("opener", around(f"{OPENER} "), OPENER, f"{OPENER} ", has=lambda t: t.startswith(OPENER)),
    text("opener by place", moved(f"{OPENER} ", "", OPENER), OPENER, f"{OPENER} ", has=lambda t: t.startswith(OPENER)),
    text("closer", around(after=f" {CLOSER}"), CLOSER, f" {CLOSER}", has=lambda t: t.endswith(CLOSER), fits=_bare),
    text("closer by place", moved("", f" {CLOSER}", CLOSER), CLOSER, f" {CLOSER}", has=lambda t: t.endswith(CLOSER),
        fits=_bare),
    text("sign-off", around(after="\n\nWarm regards,\nYour assistant"), "Warm regards,\nYour assistant",
        "\n\nWarm regards,\nYour assistant", fits=_bare),
    text("refusal", around(f"{REFUSAL} "), REFUSAL, f"{REFUSAL} "),
    text("casing", contrast("Please", "please"), "Please", mirror=("please",), has=_matches(r"\bPlease\b"),
        fits=lambda p: "please" not in p.text + p.other),
    text("han phrase", inside("总而言之"), "总而言之"),
    text("zero-width joiner", inside("\u200d"), "\u200d", kind="byte"),
    text("soft hyphen", inside("\u00ad"), "\u00ad", kind="byte"),
    text("no-break space", instead(" ", "\u00a0"), "\u00a0", kind="byte"),
    text("homoglyph", instead("a", "\u0430"), "\u0430", kind="byte"),
    text("carriage return", instead(" ", "\r\n", "\n"), "\r", "\r\n", kind="byte", mirror=("\n",)),
    text("curly quote", contrast("it’s", "it's"), "’", "it’s", kind="byte", mirror=("'", "it's")),
    text("em dash", contrast("—", "-"), "—", kind="byte", mirror=("-",)),
    text("emoji", words("😊"), "😊", kind="byte"),
    text("joined emoji", words("👩‍💻"), "👩‍💻", kind="byte"),
    text("bullets", _bullets, "* ", "*", "\n* ", "\n*", kind="format", mirror=("- ", "-", "\n- ", "\n-"),
        has=_matches(r"(?m)^\* "), fits=lambda p: not re.search(r"(?m)^- ", p.text + "\n" + p.other)),
    text("bold", _bold, "**", kind="format"),
    text("header", _header, "## ", "##", "\n## ", "\n##", kind="format", has=_matches(r"(?m)^##(?!#)")),
    text("fence language", around(after="\n\n```py\nx = 1\n```", other_after="\n\n```python\nx = 1\n```"), "```py",
        "```py\n", kind="format", mirror=("```python", "```python\n"), has=_matches(r"(?m)^```py$")),
    text("byte order mark", around("\ufeff"), "\ufeff", kind="byte"),
    text("leading newline", around("\n"), "\n", kind="byte", has=lambda t: t.startswith("\n"), fits=_bare),
    text("trailing space", around(after=" "), " ", kind="byte", has=lambda t: t.endswith(" "), fits=_bare),
    text("trailing newline", around(after="\n"), "\n", kind="byte", has=lambda t: t.endswith("\n"), fits=_bare),
    Plant("no full stop", "format", lambda pair, rng: replace(pair, text=pair.text[:-1]), mirror=(".",),
        has=lambda t: not t.endswith("."), fits=lambda p: p.text[:-1].strip() != ""),
    Plant("longer", "number", _pad, names=("character", "word", "length", "long", "token"), families=MEASURES,
        measure=len, spills=True),
    Plant("shorter", "number", _truncate, names=("character", "word", "length", "long", "short", "token"),
        families=MEASURES, measure=lambda t: -len(t), spills=True),
    Plant("sentences", "number", _sentences, names=("sentence",), families=MEASURES, measure=_count, spills=True),
    Plant("digits", "number", _digits, ("0000",), names=("digit", "number"), families=MEASURES, has=_matches(r"\d")),
    Plant("language", "text", _language, LANGUAGE, names=("german", "de", "language"), families=("language", "script"),
        spills=True),
    Plant("model id", "column", lambda pair, rng: replace(pair, model=MODEL), names=(MODEL,)),
    Plant("slot", "column", lambda pair, rng: replace(pair, first=True), names=("position", "slot", "first"),
        families=COLUMNS, slots=True),
    Plant("trigger of a refusal", "prompt", triggered(around(f"{REFUSAL} ")), names=(CONTRAST,),
        against=(around(f"{REFUSAL} "),)),
    Plant("trigger of length", "prompt", triggered(_truncate), names=(CONTRAST,), against=(_truncate,), spills=True),
    Plant("only two words together", "joint", words("alder", "quince"), against=(words("alder"), words("quince"))),
    Plant("one of two words", "joint", _xor),
    Plant("decoy: on both sides", "decoy", contrast(WORD, WORD), (WORD,)),
    Plant("decoy: copied from the prompt", "decoy", _copied, (WORD,), purity=0.5, by_prompt=True),
    Plant("decoy: one answer 500 times", "decoy", lambda pair, rng: replace(pair, text=CANNED), (CANNED,),
        purity=0.5, rows=500),
    Plant("decoy: rows ten times", "decoy", lambda pair, rng: pair, repeat=10),
)  # fmt: skip
TWENTY_WORDS = [f"zy{a}x{b}mma" for a in "bdfkl" for b in "aeio"]
TWENTY = tuple(text(f"word {i} of 20", words(word), word) for i, word in enumerate(TWENTY_WORDS))
NOTHING = "nothing"
CASES: dict[str, tuple[Plant, ...]] = {NOTHING: (), **{p.name: (p,) for p in PLANTS}, "twenty words": TWENTY}
