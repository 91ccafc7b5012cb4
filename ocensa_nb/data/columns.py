"""Which column of an export is which: description, labels and text fields, under any of the names they go by."""

import re
from collections.abc import Mapping, Sequence

import pandas as pd

from ocensa_nb.data.accents import without_accents
from ocensa_nb.errors import UserError, unknown

FEW_VALUES = 10  # of so few it cannot be said that they do not repeat

# Every name a column is known by, folded; the first that serves wins.
ALIASES: dict[str, tuple[str, ...]] = {
    "descripcion": ("descripcion", "texto_breve", "descripcion_aviso", "descripcion_del_aviso", "texto"),
    "modo": ("modo_iso_label", "modo_falla", "modo_de_falla", "modo"),
    "causa": ("causa_iso_label", "causa_falla", "causa_de_falla", "causa"),
    "prioridad": ("prioridad_label", "prioridad"),
    "equipo": ("equipo",),
    "familia_equipo": ("familia_equipo", "familia_de_equipo", "familia"),
    "denominacion": ("denominacion", "denominacion_equipo", "denominacion_del_equipo"),
    "problema": ("problema", "textocodproblem", "texto_cod_problem"),
    "componente": ("componente", "textocodpartobj", "texto_cod_part_obj"),
}
ID_ALIASES = ("id_aviso", "aviso", "n_aviso", "no_aviso", "nro_aviso", "num_aviso", "numero_aviso", "numero_de_aviso")
LABEL_COLUMNS = {"modo": "modo_falla", "causa": "causa_falla"}


def fold(name: str) -> str:
    """Return a column name without accents, case, punctuation or pandas' mark of a repeated name (`.1`)."""
    plain = without_accents(re.sub(r"\.\d+$", "", name)).lower()
    return re.sub(r"[^a-z0-9]+", "_", plain).strip("_")


def find_columns(
    table: pd.DataFrame, heads: Sequence[str], text_fields: Sequence[str], columns: Mapping[str, str], source: str
) -> tuple[dict[str, str], dict[str, tuple[str, str]]]:
    """Return the column of each role, and the columns passed over with the reason, in Spanish.

    A label may stand in several columns (a normalised one beside SAP's free text): the first known name that is
    filled in most rows and repeats its values is taken. A column named for one role serves no other, so that a label
    never enters the text. Raises `UserError` where a needed column is not there.
    """
    used: dict[str, str] = {}
    passed_over: dict[str, tuple[str, str]] = {}
    roles = ["descripcion", *(field for field in text_fields if field not in heads), *heads]
    for role in columns:
        if role not in roles:
            raise UserError(unknown("En columns, el papel", role, roles))
    for role in roles:
        if role in columns:
            if columns[role] not in table.columns:
                raise UserError(f"{source}: " + unknown(f"La columna de {role},", columns[role], table.columns))
            used[role] = columns[role]
            continue
        aliases = ALIASES.get(role, (fold(role),))
        taken = {*used.values(), *columns.values()}
        names = [name for name in table.columns if name not in taken]
        found = [name for alias in aliases for name in names if fold(name) == alias]
        if role in heads and len(found) > 1:
            reasons = {name: _not_a_label(table[name]) for name in found}
            found = [name for name in found if not reasons[name]] or found
            passed_over |= {name: (role, why or f"se prefiere «{found[0]}»") for name, why in reasons.items()}
        if found:
            used[role] = found[0]
        elif role not in text_fields:
            wanted = LABEL_COLUMNS.get(role, role)
            names = unknown("La columna", wanted, table.columns)
            raise UserError(
                f'{source}: {names} Diga cuál es con columns, p. ej. --columns {role} "nombre de la columna".'
            )
    return used, {name: why for name, why in passed_over.items() if name not in used.values()}


def notice_ids(table: pd.DataFrame) -> pd.Series:
    """Return what identifies each notice: the column of its number, or its row in a spreadsheet, as `fila 2`.

    Parameters
    ----------
    table
        The file, all text.

    Returns
    -------
    Series of str
        One per row; an empty number is replaced by the row.
    """
    rows = pd.Series([f"fila {number}" for number in range(2, len(table) + 2)], table.index)  # row 1 has the titles
    own = next((name for alias in ID_ALIASES for name in table if fold(name) == alias), None)
    return rows if own is None else table[own].str.strip().where(lambda numbers: numbers != "", rows)


def _not_a_label(column: pd.Series) -> str:
    """Say in Spanish why a column does not look like a label, or nothing if it does."""
    values = column[column.str.strip() != ""].str.strip()
    if len(values) < len(column) / 2:
        return f"vacía en {len(column) - len(values):,} de {len(column):,} filas"
    if values.str.fullmatch(r"[\d.,]+").all():
        return "solo tiene números"
    if len(values) > FEW_VALUES and values.nunique() > len(values) / 2:
        return "sus valores casi no se repiten"
    return ""
