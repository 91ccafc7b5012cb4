"""The text of a notice, composed of the columns of its row; its canonical form, for every comparison."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from ocensa_nb.errors import CONTROL, UserError

# The role of a column with a repeated title, as SAP writes `Denominación` for a place and its component. Such columns
# are not in the text by default: on 7,100 real notices (TF-IDF and a linear SVM, 3 splits) the weighted F1, mean of the
# three labels, was 0.518 ± 0.004 with the first alone and 0.514 ± 0.007 with both; the paired difference is -0.0039
# with a standard error of 0.0023.
_REPEATED = re.compile(r"\.[1-9][0-9]?$")
MAX_CHARACTERS = 5_000  # SAP's long texts stay far below; a longer cell is a quote that was never closed
TITLES = {"familia_equipo": "Familia", "denominacion": "Denominación"}
# Letters of equipment tags that short texts separate from the number: mov 3702.
_TAG_PREFIXES = "mov|tk|bba|ba|p|hv|pcv|fcv|lcv|psv|sdv|esdv|pit|tit|lit|fit|pt|tt|lt|ft|fi|li|pi|ti|ms|me|ge|k|c|e|v"
# Tags and numbers in one piece: MOV-3702, 120. A match can start only at the start of a piece: otherwise an unbroken
# text is searched again from each of its characters.
_WITH_DIGIT = re.compile(r"(?<![\w-])[\w-]*?\d[\w-]*")
_MISSING = {"", "nan", "none", "null", "nat", "n/a", "na", "#n/a", "#n/d", "n/d", "<na>", "-"}


def blank_missing(table: pd.DataFrame) -> pd.DataFrame:
    """Replace every way of writing «no value» (`nan`, `N/A`, …) by empty text."""
    return table.apply(lambda column: column.where(~column.str.strip().str.lower().isin(_MISSING), ""))


def clean(column: pd.Series) -> pd.Series:
    return column.str.replace(CONTROL, " ", regex=True).str.strip()


def compose(
    table: pd.DataFrame,
    used: Mapping[str, str],
    text_fields: Sequence[str],
    heads: Sequence[str] = (),
    first_row: int = 2,
) -> pd.Series:
    """Compose the text of each row: the description, then each field that is not empty, as `. Equipo: …`."""
    text = table[used["descripcion"]].str.replace(rf"(?:\s|{CONTROL})+", " ", regex=True).str.strip()
    too_long = np.flatnonzero(text.str.len() > MAX_CHARACTERS)
    if len(too_long):
        row = int(too_long[0])
        raise UserError(
            f"La fila {row + first_row} tiene en «{used['descripcion']}» un texto de {len(text.iloc[row]):,} "
            f"caracteres; el máximo es {MAX_CHARACTERS:,}. Suele ser una comilla sin cerrar que une muchas filas: "
            "revise esa fila."
        )
    composed = text.copy()
    for role in appended(used, text_fields, heads):
        value = clean(table[used[role]])
        composed += (". " + _title(role) + ": " + value).where(value != "", "")
    return composed.where(text != "", "")


def field_of(role: str) -> str:
    """Return the text field of a role; that of `denominacion.1`, a column with a repeated title, is `denominacion`."""
    return _REPEATED.sub("", role)


def appended(used: Mapping[str, str], text_fields: Sequence[str], heads: Sequence[str] = ()) -> list[str]:
    """Return the roles in `used` that are appended to the description, in the order of the text."""
    labels = {used[head] for head in heads}
    roles = [role for field in text_fields for role in used if field in (role, field_of(role))]
    return [role for role in dict.fromkeys(roles) if used[role] not in labels]


def _title(role: str) -> str:
    field = field_of(role)
    title = TITLES.get(field, field.replace("_", " ").capitalize())
    return title if field == role else f"{title} {int(role.removeprefix(field + '.')) + 1}"


def group_texts(texts: Iterable[str]) -> np.ndarray:
    """Return the group of each text, int64 (texts,): texts of a group are equal after `normalise`."""
    return pd.factorize(pd.Series([normalise(text) for text in texts], dtype=object))[0]


def normalise(text: str) -> str:
    """Return what notices that repeat a text have in common."""
    plain = _WITH_DIGIT.sub("#", without_accents(text.lower()))
    plain = re.sub(rf"\b({_TAG_PREFIXES}) #", "#", plain)
    return re.sub(r"[\W_]+", " ", plain.replace("#", " 0 ")).strip()


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
