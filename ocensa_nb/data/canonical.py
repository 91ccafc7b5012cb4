"""One form for every comparison of texts, classes, titles and ids, however a program or a person has written them."""

import re
import unicodedata
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from ocensa_nb.errors import CONTROL

# Letters of equipment tags that short texts separate from the number: mov 3702.
_TAG_PREFIXES = "mov|tk|bba|ba|p|hv|pcv|fcv|lcv|psv|sdv|esdv|pit|tit|lit|fit|pt|tt|lt|ft|fi|li|pi|ti|ms|me|ge|k|c|e|v"
# Tags and numbers in one piece: MOV-3702, 120. A match can start only at the start of a piece: otherwise an unbroken
# text is searched again from each of its characters.
_WITH_DIGIT = re.compile(r"(?<![\w-])[\w-]*?\d[\w-]*")


# Characters that take no space: zero-width ones, the soft hyphen and a byte-order mark inside a text.
_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u2060\ufeff"))
_UNUSUAL = re.compile(f"[\u0300-\u036f{''.join(map(chr, _INVISIBLE))}]|{CONTROL}")
# A letter and its accents. No letter has more: NFC sorts them, in quadratic time.
_ACCENTED = re.compile("[^\u0300-\u036f][\u0300-\u036f]{1,4}(?![\u0300-\u036f])")
_WHOLE = re.compile(r"([+-]?\d+)[.,]0{1,2}")  # 2.0: pandas and Excel write a whole number so beside an empty cell
_SPANISH = {"true": "verdadero", "false": "falso"}  # pandas writes the one, Excel the other
_SCIENTIFIC = re.compile(r"\d(?:[.,]\d+)?e\+?\d{1,2}")


def plain(text: str) -> str:
    """Return a text as it is shown: composed accents, single spaces, no control or invisible characters."""
    if not (text.isascii() and text.isprintable()) and _UNUSUAL.search(text):
        visible = re.sub(CONTROL, " ", text.translate(_INVISIBLE))
        text = _ACCENTED.sub(lambda accented: unicodedata.normalize("NFC", accented[0]), visible)
    return " ".join(text.split())


def map_values(column: pd.Series, function: Callable[[str], str]) -> pd.Series:
    """Return a function of each cell; it is called once for each value, however often that is repeated."""
    codes, values = pd.factorize(column)
    return pd.Series(np.array([function(value) for value in values], object)[codes], column.index, column.dtype)


def canonical(text: str) -> str:
    """Return what the spellings of a value have in common: no case, accents or spaces; 2.0 and 02 are 2."""
    folded = whole(without_accents(plain(text)).casefold().replace(" ", ""))
    return (folded.lstrip("0") or "0") if folded.isdecimal() else _SPANISH.get(folded, folded)


def whole(number: str) -> str:
    """Return a whole number without decimals, and any other text as it is."""
    return match[1] if (match := _WHOLE.fullmatch(number)) else number


def canonical_id(number: str) -> str:
    """Return what the spellings of a notice's number have in common: 0010 and 10.0 are 10; "" if digits are lost."""
    folded = canonical(number)
    # 1,0E+09: what a spreadsheet shows of a long number, and writes to a CSV.
    return "" if _SCIENTIFIC.fullmatch(folded) else folded


def merge_spellings(values: pd.Series) -> tuple[pd.Series, dict[str, dict[str, int]]]:
    """Return values with the most frequent spelling of each, and the rows of each spelling of those with several."""
    counts = values[values != ""].value_counts()
    spellings: dict[str, dict[str, int]] = {}
    for name in sorted(counts.index, key=lambda name: (-counts[name], name)):
        spellings.setdefault(canonical(name), {})[name] = int(counts[name])
    shown = {name: next(iter(names)) for names in spellings.values() for name in names} | {"": ""}
    several = {next(iter(names)): names for names in spellings.values() if len(names) > 1}
    return values.map(shown) if several else values, several


def group_texts(texts: Iterable[str]) -> np.ndarray:
    """Return the group of each text, int64 (texts,): texts of a group are equal after `normalise`."""
    return pd.factorize(pd.Series([normalise(text) for text in texts], dtype=object))[0]


def normalise(text: str) -> str:
    """Return what notices that repeat a text have in common."""
    plain = _WITH_DIGIT.sub("#", without_accents(text.lower()))
    plain = re.sub(rf"\b({_TAG_PREFIXES}) #", "#", plain)
    return re.sub(r"[\W_]+", " ", plain.replace("#", " 0 ")).strip()


def fold(name: str) -> str:
    """Return the canonical form of a title: `Ubicac.técnica` is `ubicac_tecnica`; a repeated title has no number."""
    plain = without_accents(re.sub(r"\.\d+$", "", name)).lower()
    return re.sub(r"[^a-z0-9]+", "_", plain).strip("_")


class _Decomposed(dict[int, str]):
    """A table for `str.translate` that computes an entry when a character first occurs."""

    def __missing__(self, code: int) -> str:
        parts = unicodedata.normalize("NFKD", chr(code))
        dash = unicodedata.category(parts[-1]) == "Pd"
        self[code] = "-" if dash else "".join(part for part in parts if not unicodedata.combining(part))
        return self[code]


_TABLE = _Decomposed()


def without_accents(text: str) -> str:
    """Return the compatibility decomposition (NFKD) of a text without its combining characters."""
    return text.translate(_TABLE)
