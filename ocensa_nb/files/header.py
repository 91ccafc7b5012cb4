"""Find the row of the titles in a table that has other rows above them, such as «Reporte de avisos 2024»."""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from ocensa_nb.errors import UserError, listed, num

SCANNED_ROWS = 100
MOST_ABOVE = 20  # rows that are skipped; known titles further down are an error
LONGEST_TITLE = 100  # characters
LEAST_FILLED = 0.75  # titles per cell of the typical row below them
FEWEST_TITLES = 3  # of a header without known titles, or under a row that has some

IsTitle = Callable[[str], bool]


class Header(NamedTuple):
    """The row of the titles."""

    row: int = 0
    titles: tuple[str, ...] = ()
    known: int = 0
    certain: bool = True

    def outweighs(self, first: "Header") -> bool:
        """Return whether this is the header although the first row has known titles, such as names of column groups."""
        return self.known >= max(FEWEST_TITLES, 2 * first.known) and len(self.titles) >= 2 * len(first.titles)


def find_header(rows: Sequence[Sequence[str]], is_title: IsTitle) -> Header:
    """Find the row of the titles: the first, unless a lower one has far more known titles or the shape of a header."""
    cells = [tuple(text for cell in row if (text := cell.strip())) for row in rows[:SCANNED_ROWS]]
    if not cells:
        return Header()
    known = [len({text for text in row if len(text) <= LONGEST_TITLE and is_title(text)}) for row in cells]
    first = Header(0, cells[0], known[0])
    for row in range(1, len(cells)):
        # Fewer cells than the rows below: a parameter, such as «Equipo: BOMBA». A single title: a value, perhaps.
        is_value = known[row] == 1 and not _are_sparse(cells[:row], len(cells[row]))
        if is_value or (_is_narrow(cells, row) and known[row] < FEWEST_TITLES):
            known[row] = 0
    # The first row too may be a parameter, if every row above the titles has far fewer cells than they.
    if _is_narrow(cells, 0) and known[0] < FEWEST_TITLES and any(known[1:]):
        row = known.index(max(known[1:]), 1)
        if _are_sparse(cells[:row], len(cells[row])):
            return Header(row, cells[row], known[row], row <= MOST_ABOVE)
    best = known.index(max(known))
    if not known[best]:
        best = _header_by_shape(cells)
    header = Header(best, cells[best], known[best], best <= MOST_ABOVE)
    return first if first.known and not header.outweighs(first) else header


def check_certain(path: Path, header: Header, above: int) -> None:
    """Raise `UserError` if the row found may be a row of data."""
    if not header.certain:
        raise UserError(
            f"«{path}»: los títulos parecen estar en la fila {above + header.row + 1} ({listed(header.titles)}), "
            "demasiado abajo para darlo por seguro. Si las filas que están encima no son avisos, bórrelas y guarde el "
            "archivo de nuevo; si lo son, ponga los títulos en la primera fila."
        )


def skipped_note(skipped: int) -> str:
    if not skipped:
        return ""
    rows = "se saltó 1 fila" if skipped == 1 else f"se saltaron {num(skipped)} filas"
    return f"los títulos están en la fila {num(skipped + 1)}; {rows}"


def _is_narrow(cells: Sequence[tuple[str, ...]], row: int) -> bool:
    """Return whether a row has clearly fewer cells than the typical row below it."""
    return len(cells[row]) < LEAST_FILLED * _typical_width(cells[row + 1 :])


def _header_by_shape(cells: Sequence[tuple[str, ...]]) -> int:
    """Return the first row of distinct names over rows of data and under rows that are mostly empty; else 0."""
    for row, titles in enumerate(cells[: MOST_ABOVE + 1]):
        if (
            row
            and len(titles) >= FEWEST_TITLES
            and len(set(titles)) == len(titles)
            and all(any(character.isalpha() for character in title) for title in titles)
            and _are_sparse(cells[:row], len(titles))
            and len(titles) / 3 <= _typical_width(cells[row + 1 :]) <= len(titles) / LEAST_FILLED
        ):
            return row
    return 0


def _typical_width(rows: Sequence[tuple[str, ...]]) -> float:
    return median([len(row) for row in rows if row] or [0])


def _are_sparse(above: Sequence[tuple[str, ...]], titles: int) -> bool:
    return all(len(row) <= max(1, titles // 2) for row in above)


MAX_COLUMNS = 1_000  # an export of SAP has 30 to 200; pandas takes a millisecond per column, and more if names repeat


def check_width(path: Path, columns: int) -> None:
    if columns > MAX_COLUMNS:
        raise UserError(
            f"«{path}» tiene {num(columns)} columnas, y se leen {num(MAX_COLUMNS)} como máximo. Deje las de los avisos "
            "(texto, etiquetas, equipo, …), y compruebe que la tabla no esté girada, con una fila por columna."
        )
