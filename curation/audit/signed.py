"""Features of whole pairs: what can be said of both answers without reading them word by word.

numbers      the chosen side has more characters, more list items, a larger share of capitals
lexicons     the chosen side alone refuses, apologises, names a vendor
scripts, languages
columns      the chosen side is of model A, stood first, was written by annotator 7
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa

from curation.audit import measuring
from curation.audit.codes import SCRIPTS
from curation.audit.corpus import Corpus, codes_of
from curation.audit.features import Survey
from curation.audit.incidence import Signed
from curation.audit.lexicons import LANGUAGES, LEXICONS
from curation.pair_source import SIDES

MOST_VALUES = 200  # of a column of labels
SIDE = re.compile(r"^(chosen|rejected)[_-](.+)$|^(.+)[_-](chosen|rejected)$")
RATIOS = {  # measure: of what it is the share
    "distinct words": "words", "words of the prompt": "words", "capitals": "characters", "digits": "characters",
    "symbols": "characters", "non-ASCII characters": "characters", "characters": "words",
}  # fmt: skip
RATIO_NAMES = {
    "distinct words": "share of distinct words", "words of the prompt": "share of words from the prompt",
    "capitals": "share of capitals", "digits": "share of digits", "symbols": "share of symbols",
    "non-ASCII characters": "share of non-ASCII characters", "characters": "characters per word",
}  # fmt: skip
LENGTHS = ("characters", "words", "lines", "sentences")


def measure(seen: Survey, name: str) -> np.ndarray:
    """float64 (N, 2) of one measure: chosen, rejected. A text without a line break is one line."""
    found: np.ndarray = seen.measures[:, :, measuring.MEASURES.index(name)].astype(np.float64)
    return found + 1 if name == "lines" else found


def measures(seen: Survey, limit: int | None = None) -> Iterator[tuple[str, np.ndarray]]:
    """All counts and shares of the first `limit` pairs, one at a time: (name, float64 (limit, 2))."""
    part = replace(seen, measures=seen.measures[:limit])
    for name in measuring.MEASURES:
        yield name, measure(part, name)
    for name, of in RATIOS.items():
        yield RATIO_NAMES[name], measure(part, name) / np.maximum(1, measure(part, of))


def signed_features(corpus: Corpus, seen: Survey) -> list[Signed]:
    """Every feature of whole pairs that any pair has."""
    found = [
        Signed(
            "number",
            f"more {name}" if not name.startswith("share") else f"larger {name}",
            _sign(values[:, 0] - values[:, 1]),
        )
        for name, values in measures(seen)
    ]
    found += [Signed("lexicon", name, _bit(seen.hits, n)) for n, name in enumerate(LEXICONS)]
    found += [Signed("script", name, _bit(seen.hits, 32 + n)) for n, name in enumerate(SCRIPTS)]
    for n, name in enumerate(LANGUAGES, 1):
        found.append(Signed("language", name, _one_side(seen.languages == n)))
    found += list(column_features(corpus.columns))
    return [one for one in found if one.signs.any()]


def column_features(columns: Mapping[str, pa.DictionaryArray]) -> Iterator[Signed]:
    """Which side has which label: of columns chosen_x and rejected_x, or of one of them where it has two values."""
    for base, names in sided(columns).items():
        codes = {side: _codes(columns[name]) for side, name in names.items()}
        values = sorted({v for _, listed in codes.values() for v in listed})
        if len(values) > MOST_VALUES or (len(codes) == 1 and len(values) != 2):
            continue
        for value in values:
            has = {
                side: index == (listed.index(value) if value in listed else -2)
                for side, (index, listed) in codes.items()
            }
            known = [index >= 0 for index, _ in codes.values()]
            chosen = has["chosen"] if "chosen" in has else ~has["rejected"]
            rejected = has["rejected"] if "rejected" in has else ~has["chosen"]
            signs = (chosen.astype(np.int8) - rejected.astype(np.int8)) * np.all(known, axis=0)
            yield Signed("column", f"{base}={value}", signs.astype(np.int8))


def sided(columns: Mapping[str, pa.DictionaryArray]) -> dict[str, dict[str, str]]:
    """{what: {side: column}} of columns that speak of one side."""
    found: dict[str, dict[str, str]] = {}
    for name in columns:
        match = SIDE.match(name)
        if match:
            side, base = (match[1], match[2]) if match[1] else (match[4], match[3])
            found.setdefault(base, {})[side] = name
    return found


def strata_columns(columns: Mapping[str, pa.DictionaryArray], most: int = 64) -> list[str]:
    """Columns that speak of a pair as a whole and have 2 to `most` values, fewest first."""
    size = {n: len(c.dictionary) for n, c in columns.items() if not SIDE.match(n)}
    return [n for n in sorted(size, key=lambda n: (size[n], n)) if 2 <= size[n] <= most]


def _codes(column: pa.DictionaryArray) -> tuple[np.ndarray, list[str]]:
    return codes_of(column), column.dictionary.to_pylist()


def _bit(hits: np.ndarray, bit: int) -> np.ndarray:
    return _one_side((hits >> np.uint64(bit)) & np.uint64(1) != 0)


def _one_side(has: np.ndarray) -> np.ndarray:
    found: np.ndarray = has[:, 0].astype(np.int8) - has[:, 1].astype(np.int8)
    return found


def _sign(difference: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.sign(difference).astype(np.int8)
    return found


assert set(SIDES) == {"chosen", "rejected"}
