"""The canonical forms of texts and titles, for every comparison."""

import re
import unicodedata
from collections.abc import Iterable

import numpy as np
import pandas as pd

# Letters of equipment tags that short texts separate from the number: mov 3702.
_TAG_PREFIXES = "mov|tk|bba|ba|p|hv|pcv|fcv|lcv|psv|sdv|esdv|pit|tit|lit|fit|pt|tt|lt|ft|fi|li|pi|ti|ms|me|ge|k|c|e|v"
# Tags and numbers in one piece: MOV-3702, 120. A match can start only at the start of a piece: otherwise an unbroken
# text is searched again from each of its characters.
_WITH_DIGIT = re.compile(r"(?<![\w-])[\w-]*?\d[\w-]*")


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
        self[code] = "".join(part for part in parts if not unicodedata.combining(part))
        return self[code]


_TABLE = _Decomposed()


def without_accents(text: str) -> str:
    """Return the compatibility decomposition (NFKD) of a text without its combining characters."""
    return text.translate(_TABLE)
