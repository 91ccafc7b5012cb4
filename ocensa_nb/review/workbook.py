"""The workbook of a review: predictions, `Dudosos` with drop-downs for the right classes, and `Resumen`.

The predictions are columns more in a copy of the user's book; a CSV or a book with macros is the sheet `Predicciones`.
"""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from openpyxl import Workbook
from openpyxl.utils import get_column_letter

from ocensa_nb.data.corrections import RIGHT, SHEET
from ocensa_nb.evaluation.predict import PREDICTIONS
from ocensa_nb.files.append import append_columns
from ocensa_nb.files.atomic import create_new
from ocensa_nb.files.write import CLASSES, add_choices, book_of, free_sheet, free_table
from ocensa_nb.review.review import Review

SUMMARY = "Resumen"
WHAT_TO_DO = (
    f"Corrija en la hoja {SHEET} la clase de cada aviso: en las columnas {RIGHT}… hay una lista. Lo que deje vacío no "
    "cuenta. Después entrene otra vez con este libro en corrections."
)


def write(review: Review, out: str | Path, prefill: bool = False) -> Path:
    """Write the workbook of a review to a new file and return its path; raises `UserError` as `free_table` does.

    With `prefill`, the cells of the right classes start with the predictions: every row then counts as reviewed.
    """
    doubtful = review.doubtful.copy()
    if prefill:
        for head in review.classes:
            doubtful[f"{RIGHT}{head}"] = doubtful[f"pred1_{head}"]
    # A row per notice, the most probable class first: a list inside a drop-down is limited to 255 characters.
    ordered = [np.array(names)[review.likeliest[head]] for head, names in review.classes.items()]
    lists = pd.DataFrame(np.hstack(ordered)).add_prefix("clase ")
    path, file = free_table(out, "xlsx"), review.file
    is_copy = file.copy_suffix == ".xlsx"
    taken = file.book if is_copy else None
    classes = free_sheet(CLASSES, taken)
    sheets = {
        SHEET: [("", doubtful)],
        free_sheet(SUMMARY, taken): [
            ("", pd.DataFrame({"Qué hacer": [WHAT_TO_DO]})),
            ("Qué esperar de las predicciones", pd.DataFrame({"": review.notes})),
            ("Avisos por clase predicha, y su parte en entrenamiento", review.counts),
        ],
        classes: [("", lists)],
    }
    finish = partial(_finish, classes=review.classes, lists=classes)
    if is_copy:
        added = review.predictions.iloc[:, file.table.shape[1] :]
        append_columns(file, added, path, book_of(sheets, path, finish))
    else:
        with create_new(path) as temporary:
            temporary.write_bytes(book_of({PREDICTIONS: [("", review.predictions)], **sheets}, path, finish))
    return path


def _finish(book: Workbook, classes: dict[str, list[str]], lists: str) -> None:
    sheet = book[SHEET]
    last = 0
    for head, names in classes.items():
        first, last = last + 1, last + len(names)
        # The reference moves with the row, so one rule gives each notice its own list.
        source = f"{lists}!${get_column_letter(first)}2:${get_column_letter(last)}2"
        add_choices(sheet, f"{RIGHT}{head}", source, names)
    sheet.freeze_panes = "C2"  # the id and the text stay in sight
    book[lists].sheet_state = "hidden"
    book.active = book.sheetnames.index(SHEET)
    for other in book.worksheets:
        other.sheet_view.tabSelected = other.title == SHEET
