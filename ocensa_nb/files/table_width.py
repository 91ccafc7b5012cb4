"""Reject a table with too many columns by its header, before its cells are read."""

from pathlib import Path

from ocensa_nb.errors import UserError

MAX_COLUMNS = 1_000  # an export of SAP has 30 to 200; pandas takes a millisecond per column, and more if names repeat


def check_width(path: Path, columns: int) -> None:
    """Raise `UserError` if a table has more than `MAX_COLUMNS` columns."""
    if columns > MAX_COLUMNS:
        raise UserError(
            f"«{path}» tiene {columns:,} columnas, y se leen {MAX_COLUMNS:,} como máximo. Deje las de los avisos "
            "(texto, etiquetas, equipo, …), y compruebe que la tabla no esté girada, con una fila por columna."
        )
