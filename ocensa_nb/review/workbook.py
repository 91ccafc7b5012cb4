"""The workbook of a review: `Predicciones`, `Dudosos` with drop-downs for the right classes, and `Resumen`."""

from pathlib import Path

import pandas as pd
from openpyxl import Workbook
from openpyxl.styles import PatternFill
from openpyxl.utils import get_column_letter
from openpyxl.worksheet.datavalidation import DataValidation

from ocensa_nb.data.corrections import RIGHT, SHEET
from ocensa_nb.files.write import free_table, write_book
from ocensa_nb.review.review import Review

PREDICTIONS, SUMMARY, CLASSES = "Predicciones", "Resumen", "Clases"
EDITABLE = PatternFill("solid", fgColor="FFF2CC")
NO_ESTIMATE = "Error esperado: sin estimar, porque falta el archivo con que se entrenó la corrida."


def write(review: Review, out: str | Path, prefill: bool = False) -> Path:
    """Write the workbook of a review to a new file and return its path; raises `UserError` as `free_table` does.

    With `prefill`, the cells of the right classes start with the predictions: every row then counts as reviewed.
    """
    doubtful = review.doubtful.copy()
    if prefill:
        for head in review.classes:
            doubtful[f"{RIGHT}{head}"] = doubtful[f"pred1_{head}"]
    error = f"Error esperado: estimado con {review.tested_on}." if review.tested_on else NO_ESTIMATE
    # A column per label: a list inside a drop-down is limited to 255 characters.
    lists = pd.DataFrame({head: pd.Series(names) for head, names in review.classes.items()}).fillna("")
    sheets = {
        PREDICTIONS: [("", review.predictions)],
        SHEET: [("", doubtful)],
        SUMMARY: [
            (f"Qué se puede automatizar, según la confianza. {error}", review.automation),
            ("Avisos por clase predicha, y su parte en entrenamiento", review.counts),
        ],
        CLASSES: [("", lists)],
    }
    return write_book(sheets, free_table(out, "xlsx"), lambda book: _finish(book, review.classes, len(doubtful)))


def _finish(book: Workbook, classes: dict[str, list[str]], rows: int) -> None:
    sheet = book[SHEET]
    titles = {cell.value: cell.column for cell in sheet[1]}
    for number, (head, names) in enumerate(classes.items(), 1):
        source = f"{CLASSES}!${get_column_letter(number)}$2:${get_column_letter(number)}${len(names) + 1}"
        letter = get_column_letter(titles[f"{RIGHT}{head}"])
        choice = DataValidation("list", formula1=source, allow_blank=True, showErrorMessage=True)
        choice.errorTitle, choice.error = "Clase desconocida", "Elija una clase de la lista, o deje la celda vacía."
        choice.add(f"{letter}2:{letter}{rows + 1}")
        sheet.add_data_validation(choice)
        sheet.column_dimensions[letter].width = max(map(len, names)) + 4
        for row in range(1, rows + 2):
            sheet[f"{letter}{row}"].fill = EDITABLE
    for name, column in titles.items():
        if name.startswith("conf"):
            for row in range(2, rows + 2):
                sheet.cell(row, column).number_format = "0.00"
    sheet.freeze_panes = "C2"  # the id and the text stay in sight
    book[CLASSES].sheet_state = "hidden"
    book.active = book.sheetnames.index(SHEET)
    for other in book.worksheets:
        other.sheet_view.tabSelected = other.title == SHEET
