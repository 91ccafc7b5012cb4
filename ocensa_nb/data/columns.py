"""The columns of an export, under any of their usual names, and what a row says in them: text, labels, id."""

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd

from ocensa_nb.data.canonical import canonical, fold, map_values, plain, whole, without_accents
from ocensa_nb.errors import LISTED, UserError, clipped, listed, num, unknown

FEW_VALUES = 10  # with so few, values that do not repeat prove nothing

# The usual names of each column, folded; the first that suits is used.
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
    "parada": ("parada",),
}
ID_ALIASES = ("id_aviso", "aviso", "n_aviso", "no_aviso", "nro_aviso", "num_aviso", "numero_aviso", "numero_de_aviso")
Columns = Mapping[str, str]  # the name of a column per role
# The role of a column with a repeated title, as SAP writes `Denominación` for a place and its component. Such columns
# are not in the text by default: on 7,100 real notices (TF-IDF and a linear SVM, 3 splits) the weighted F1, mean of the
# three labels, was 0.518 ± 0.004 with the first alone and 0.514 ± 0.007 with both; the paired difference is -0.0039
# with a standard error of 0.0023.
_REPEATED = re.compile(r"\.[1-9][0-9]?$")
TITLES = {"familia_equipo": "Familia", "denominacion": "Denominación"}
LABEL_COLUMNS = {"modo": "modo_falla", "causa": "causa_falla"}


def title_predicate(roles: Iterable[str], columns: Columns) -> Callable[[str], bool]:
    """Return the function that tells `read_table` whether a cell is the title of a column of notices."""
    known = {alias for aliases in (*ALIASES.values(), ID_ALIASES, map(fold, roles)) for alias in aliases if alias}
    names = {canonical(name) for name in columns.values()} - {""}
    return lambda cell: fold(cell) in known or canonical(cell) in names


def same_title(name: str, titles: Collection[str]) -> str:
    """Return the title that a person has typed, perhaps with another case, other accents or spaces."""
    return name if name in titles else next((t for t in titles if canonical(t) == canonical(name)), name)


def find_columns(
    table: pd.DataFrame,
    heads: Sequence[str],
    text_fields: Sequence[str],
    columns: Columns,
    source: str,
    recorded: Collection[str] | None = None,
) -> tuple[dict[str, str], dict[str, tuple[str, str]]]:
    """Find the column of the description, each text field and each label.

    Of several columns for a label, the first of its `ALIASES` that is filled in most rows and repeats its values is
    used. A column has one role, so a label never enters the text. Of repeated titles, the first is used; `columns` may
    add the second, as `denominacion.1`. Only roles in `recorded`, those of a trained run, are used in the text.

    Return the column name per role and, for each other column with such a name, its role and the reason in Spanish.
    Raises `UserError` if a column is missing, or `columns` has an unknown role or column.
    """
    used: dict[str, str] = {}
    passed_over: dict[str, tuple[str, str]] = {}
    repeated = [role for role in columns if field_of(role) != role and field_of(role) in text_fields]
    fields = [field for field in (*text_fields, *repeated) if field not in heads]
    for role in columns:
        if role not in (known := ["descripcion", *text_fields, *repeated, *heads]):
            raise UserError(unknown("En columns, el papel", role, known))
    roles = dict.fromkeys(
        ["descripcion", *(field for field in fields if recorded is None or field in recorded), *heads]
    )
    for role in roles:
        if role in columns:
            if columns[role] not in table.columns:
                raise UserError(f"{source}: " + unknown(f"La columna de {role},", columns[role], table.columns))
            used[role] = columns[role]
            continue
        taken = {*used.values(), *columns.values()}
        names = _named(role, [name for name in table.columns if name not in taken])
        if role in (*heads, "descripcion") and len(names) > 1:
            unsuitable = _not_a_label if role in heads else not_a_text
            reasons = {name: unsuitable(table[name]) for name in names}
            names = [name for name in names if not reasons[name]] or names
            passed_over |= {name: (role, why or f"se prefiere «{names[0]}»") for name, why in reasons.items()}
        if names:
            used[role] = names[0]
        elif role not in text_fields:
            others = {name for other in roles if other != role for name in _named(other, list(table.columns))}
            raise UserError(f"{source}: {_not_found(table, role, role in heads, taken | others)}")
        if role in fields:
            number = sum(field_of(other) == role for other in repeated) + 1
            for free, name in enumerate(names[1:LISTED], number):
                how = f'para añadirla al texto: --columns {role}.{free} "{clipped(name)}"'
                passed_over[name] = role, f"se usa «{clipped(names[0])}»; {how}"
    return used, {name: why for name, why in passed_over.items() if name not in used.values()}


def _named(role: str, names: Sequence[str]) -> list[str]:
    folded = {name: fold(name) for name in names}
    aliases = ALIASES[role] if role in ALIASES else (fold(role),)
    return [name for alias in aliases for name in names if folded[name] == alias]


def _not_found(table: pd.DataFrame, role: str, is_label: bool, taken: Collection[str]) -> str:
    """Return the message, in Spanish, about a role without a column: the likely columns and how to name one."""
    wanted = LABEL_COLUMNS.get(role, role)
    ranked, likely, is_misspelt = rank_columns(table, wanted, role if is_label else "", taken)
    hint = f" ¿Quiso decir «{clipped(likely)}»?" if is_misspelt else ""
    message = f"La columna «{wanted}» no existe.{hint}"
    if ranked:
        message += f" Columnas del archivo, las más probables primero: {listed(ranked)}."
    if likely:
        message += f' Indíquela con --columns, p. ej. --columns {role} "{clipped(likely)}".'
    elif is_label:
        message += f" Si el archivo no tiene esa etiqueta, quite «{role}» de heads."
    return message


def compose(table: pd.DataFrame, used: Columns, text_fields: Sequence[str], heads: Sequence[str] = ()) -> pd.Series:
    """Compose the text of each row: the description, then each field that is not empty, as `. Equipo: …`."""
    text = map_values(table[used["descripcion"]], plain)
    composed = text.to_numpy(object)
    for role in appended(used, text_fields, heads):
        composed = composed + map_values(table[used[role]], partial(_named_value, field_title(role))).to_numpy(object)
    return pd.Series(composed, text.index, text.dtype).where(text != "", "")


def _named_value(title: str, cell: str) -> str:
    value = whole(plain(cell))
    return value and f". {title}: {value}"


def field_of(role: str) -> str:
    """Return the text field of a role; that of `denominacion.1`, a column with a repeated title, is `denominacion`."""
    return _REPEATED.sub("", role)


def appended(used: Columns, text_fields: Sequence[str], heads: Sequence[str] = ()) -> list[str]:
    """Return the roles in `used` that are appended to the description, in the order of the text."""
    labels = {used[head] for head in heads}
    roles = [role for field in text_fields for role in used if field in (role, field_of(role))]
    return [role for role in dict.fromkeys(roles) if used[role] not in labels]


def field_title(role: str) -> str:
    field = field_of(role)
    title = TITLES.get(field, field.replace("_", " ").capitalize())
    return title if field == role else f"{title} {int(role.removeprefix(field + '.')) + 1}"


RULE = r"[-=_*·–—|+.\s]+"
COUNTED = r"(?:registros|avisos|[óo]rdenes|filas|entradas)"
TOTAL = (
    rf"(?i)[\s*]*(?:(?:(?:sub)?total(?:es)?|suma|recuento|(?:n[úu]mero|cantidad)(?= de {COUNTED}))"
    rf"(?: de)?(?: \w+)?[\s:*=\d.,]*|\d[\d.,]* {COUNTED}(?: \w+)?\W*)"
)
PAGE = r"(?i).*\bp[áa]g(?:ina|\.)?\s*:?\s*\d+(?:\s*(?:de|/)\s*\d+)?\W*"
LONGEST_LINE = 200  # characters of a total or a head
SPARSE = 0.5  # of the cells of the typical row: fewer make a total or the head of a page


def find_other_lines(cells: pd.DataFrame, description: str, source: str, first_row: int) -> dict[str, np.ndarray]:
    """Return which rows are no notices, bool (rows,), by kind in Spanish: lists joined or printed have such lines.

    Raises `UserError` if the titles are repeated in another order: the rows below them would be read as other columns.
    """
    text = cells[description]
    filled = (cells != "").sum(axis=1).to_numpy()
    sparse = filled <= SPARSE * np.median(filled)
    # A repeated title may have lost its accents, or have a byte-order mark before it.
    names = {form for name in cells for form in (name.lower(), without_accents(name).lower())}
    again = text.map(lambda cell: " ".join(cell.strip("\ufeff").lower().split()) in names).astype(bool)
    titles = [fold(name) for name in cells]
    for row in np.flatnonzero(again):
        pairs = [(fold(cell), title) for cell, title in zip(cells.iloc[row], titles, strict=True) if cell]
        own, known = sum(cell == title for cell, title in pairs), sum(cell in titles for cell, _ in pairs)
        if known > max(own + 1, len(pairs) / 2):
            raise UserError(
                f"{source}, fila {row + first_row}: repite los títulos en otro orden. El archivo une tablas con las "
                "columnas en distinto lugar: sepárelas, o ponga las columnas en el mismo orden."
            )
        again.iloc[row] = 2 * own >= len(pairs)
    values = cells.to_numpy(object)[sparse]
    first = pd.Series("", cells.index, dtype=object)
    first[sparse] = [cell[:LONGEST_LINE] for cell in values[np.arange(len(values)), (values != "").argmax(axis=1)]]
    kinds = {
        "repiten los títulos": again,
        "son rayas o puntos": text.str.fullmatch(RULE) | first.str.fullmatch(RULE),
        "son totales": first.str.fullmatch(TOTAL),
        "son encabezados de página": first.str.fullmatch(PAGE),
        "están en blanco": pd.Series(filled == 0, cells.index),
    }
    left, lines = np.ones(len(cells), bool), {}
    for kind, rows in kinds.items():
        lines[kind] = rows.to_numpy(bool) & left
        left &= ~lines[kind]
    return {kind: rows for kind, rows in lines.items() if rows.any()}


def notice_ids(table: pd.DataFrame, first_row: int = 2) -> pd.Series:
    """Return what identifies each notice: the column of its number, or its row in a spreadsheet, as `fila 2`."""
    column = next((name for alias in ID_ALIASES for name in table if fold(name) == alias), None)
    numbers = pd.Series("", table.index) if column is None else table[column].str.strip()
    rows = np.flatnonzero(numbers == "")
    numbers.iloc[rows] = [f"fila {row + first_row}" for row in rows]
    return numbers


def _not_a_label(column: pd.Series) -> str:
    values = column[column.str.strip() != ""].str.strip()
    if len(values) < len(column) / 2:
        return f"vacía en {num(len(column) - len(values))} de {num(len(column))} filas"
    if values.str.fullmatch(r"[\d.,]+").all():
        return "solo tiene números"
    if len(values) > FEW_VALUES and values.nunique() > len(values) / 2:
        return "sus valores casi no se repiten"
    return ""


SAMPLED_ROWS = 1_000
FEW_LETTERS = 10  # different ones, in a column of many values: EST BOM 101, EST BOM 102
MOST_WORDS = 10  # of a cell; more words do not make a column more likely to be the description
TYPO = 0.85  # similarity of names, from 0 to 1, that suggests a spelling error: causa_fala, descripcon


def text_score(column: pd.Series) -> float:
    values = _filled(column)
    if not_a_text(values):
        return 0.0
    words = min(float(values.str.split().str.len().mean()), MOST_WORDS)
    letters = values.str.count(r"[^\W\d_]").sum() / values.str.len().sum()
    return values.nunique() / len(column) * words * float(letters)


def not_a_text(column: pd.Series) -> str:
    """Return why a column is not the description, in Spanish: it has no words, or its values are codes."""
    values = _filled(column).head(SAMPLED_ROWS)
    if values.empty:
        return "está vacía"
    letters = set(filter(str.isalpha, "".join(values).lower()))
    alike = len(letters) < FEW_LETTERS and values.nunique() > FEW_VALUES
    few_words = (values.str.count(r"[^\W\d_]{2,}\S*") < 2).mean() > 0.5
    return "tiene códigos y no un texto" if alike or few_words else ""


def label_score(column: pd.Series) -> float:
    values = _filled(column)
    if values.nunique() < 2 or values.str.contains(r"[^\W\d_]").mean() < 0.5:
        return 0.0
    return (len(values) - values.nunique()) / len(column)


def rank_columns(table: pd.DataFrame, wanted: str, label: str, taken: Collection[str]) -> tuple[list[str], str, bool]:
    """Return the columns, the likeliest for a role first, that one if it suits, and whether it has a misspelt name."""
    sample = table.head(SAMPLED_ROWS)
    score = label_score if label else text_score
    scores = {name: 0.0 if name in taken else score(sample[name]) for name in sample}
    plain = {name: without_accents(name[:100]).lower() for name in sample}
    likeness = {name: difflib.SequenceMatcher(None, plain[name], wanted).ratio() for name in sample}
    # Many columns repeat their values about as much as a label does: among those, the name decides.
    digits = 1 if label else 6

    def order(name: str) -> tuple[bool, bool, bool, float, float]:
        suits = scores[name] > 0
        mentioned = suits and bool(label) and label in without_accents(name).lower()
        misspelt = suits and likeness[name] >= TYPO
        return misspelt, name not in taken, mentioned, round(scores[name], digits), likeness[name]

    ranked = sorted(sample, key=order, reverse=True)
    likely = next((name for name in ranked[:1] if scores[name] > 0), "")
    return ranked, likely, bool(likely) and order(likely)[0]


def _filled(column: pd.Series) -> pd.Series:
    values = column.str.strip()
    return values[values != ""]
