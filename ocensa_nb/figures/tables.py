"""Tables as a notebook shows them: text wraps at spaces only, numbers have few decimals, and no cell is HTML."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from pandas.io.formats.style import Styler

# JupyterLab and nbconvert fix the widths of the columns and break words to fit them.
_CELLS = {
    "white-space": "normal",
    "word-break": "normal",
    "overflow-wrap": "normal",
    "hyphens": "none",
    "vertical-align": "top",
    "padding": "4px 6px",
}


def readable(table: "pd.DataFrame") -> "Styler":
    """Return a table that a notebook shows in full, without an index that only numbers the rows."""
    import pandas as pd

    numbers = table.select_dtypes("number")
    small = [name for name in numbers.select_dtypes("floating") if 0 < numbers[name].abs().max() <= 1]
    texts = [name for name in table if name not in numbers]
    shown = table.style.format(precision=1, thousands=",", na_rep="–", escape="html")
    shown = shown.format("{:.3f}", subset=small, na_rep="–")
    for axis in (0, 1):
        shown = shown.format_index(escape="html", axis=axis)
    shown = shown.set_table_styles(
        [
            {"selector": "", "props": [("table-layout", "auto")]},
            {"selector": "td, th", "props": list(_CELLS.items())},
            {"selector": "th.row_heading", "props": [("text-align", "left")]},
        ]
    )
    shown = shown.set_table_styles(
        {name: [{"selector": "", "props": [("text-align", "left")]}] for name in texts}, overwrite=False
    )
    return shown.hide(axis="index") if isinstance(table.index, pd.RangeIndex) else shown
