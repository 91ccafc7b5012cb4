"""Remove accents from text, in linear time.

`unicodedata.normalize` sorts the combining characters of a sequence by insertion, which is quadratic in its length.
Those characters are dropped here, so their order does not matter and each character can be decomposed by itself.
"""

import unicodedata


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
