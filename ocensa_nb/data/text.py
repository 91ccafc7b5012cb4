"""The text of a notice: composed of the columns of its row, and normalised to find repeated notices."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ocensa_nb.data.accents import without_accents
from ocensa_nb.errors import CONTROL, UserError

MAX_CHARACTERS = 5_000  # SAP's long texts stay far below; a longer cell is a quote that was never closed
TITLES = {"familia_equipo": "Familia", "denominacion": "Denominación"}
# Letters of equipment tags, as they stand apart from their number in short texts.
_TAG_PREFIXES = "mov|tk|bba|ba|p|hv|pcv|fcv|lcv|psv|sdv|esdv|pit|tit|lit|fit|pt|tt|lt|ft|fi|li|pi|ti|ms|me|ge|k|c|e|v"
# Tags and numbers in one piece: MOV-3702, 120. A match can start only at the start of a piece: otherwise an unbroken
# text is searched again from each of its characters.
_WITH_DIGIT = re.compile(r"(?<![\w-])[\w-]*?\d[\w-]*")
_MISSING = {"", "nan", "none", "null", "nat", "n/a", "na", "#n/a", "#n/d", "n/d", "<na>", "-"}


def blank_missing(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with every way of writing «no value» (`nan`, `N/A`, …) as empty text."""
    return table.apply(lambda column: column.where(~column.str.strip().str.lower().isin(_MISSING), ""))


def compose(
    table: pd.DataFrame, used: Mapping[str, str], text_fields: Sequence[str], heads: Sequence[str] = ()
) -> pd.Series:
    """Return the text of each row: the description, then each non-empty field as `. Equipo: …`.

    A row without a description gives an empty text.

    Raises
    ------
    UserError
        If a description exceeds `MAX_CHARACTERS`; the message names the row.
    """
    text = table[used["descripcion"]].str.replace(rf"(?:\s|{CONTROL})+", " ", regex=True).str.strip()
    too_long = np.flatnonzero(text.str.len() > MAX_CHARACTERS)
    if len(too_long):
        row = int(too_long[0])
        raise UserError(
            f"La fila {row + 2} tiene en «{used['descripcion']}» un texto de {len(text.iloc[row]):,} caracteres; el "
            f"máximo es {MAX_CHARACTERS:,}. Suele ser una comilla sin cerrar que junta muchas filas: revise ahí."
        )
    composed = text.copy()
    label_columns = {used[head] for head in heads}
    for role in text_fields:
        if role in used and used[role] not in label_columns:
            value = table[used[role]].str.replace(CONTROL, " ", regex=True).str.strip()
            title = TITLES.get(role, role.replace("_", " ").capitalize())
            composed += (". " + title + ": " + value).where(value != "", "")
    return composed.where(text != "", "")


def normalise(text: str) -> str:
    """Return a text without case, accents, tags or numbers; equal results count as the same notice."""
    plain = _WITH_DIGIT.sub("#", without_accents(text.lower()))
    plain = re.sub(rf"\b({_TAG_PREFIXES}) #", "#", plain)  # and apart from their letters: mov 3702
    return re.sub(r"[\W_]+", " ", plain.replace("#", " 0 ")).strip()
