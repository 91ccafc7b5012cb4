"""Score new notices with a finished run: the file that came in, with a prediction and its confidence per label."""

from pathlib import Path

import numpy as np
import pandas as pd

from ocensa_nb.data.columns import find_columns
from ocensa_nb.data.notices import blank_missing, compose
from ocensa_nb.data.read_table import read_table
from ocensa_nb.data.write_table import free_table, write_table
from ocensa_nb.errors import UserError
from ocensa_nb.evaluation import inference
from ocensa_nb.storage.run_folder import Run


def predict(run: Run, data: str | Path) -> pd.DataFrame:
    """Return the table of a CSV or XLSX, every row and column in its order, with `pred_` and `conf_` columns per head.

    `conf_` is the probability the model gives its prediction, from 0 to 1, uncalibrated. Rows without text keep
    their place, with the new columns blank. Raises `UserError` for a file without a description column.
    """
    config = run.config
    table, _ = read_table(data)
    added = [f"{kind}_{head}" for head in run.classes for kind in ("pred", "conf")]
    if taken := [name for name in added if name in table.columns]:
        raise UserError(
            f"«{data}» ya tiene estas columnas: {', '.join(taken)}. Quítelas o cámbieles el nombre, y repita."
        )
    named = {role: name for role, name in config.columns.items() if role not in config.heads and name in table.columns}
    # Only the fields the run was trained with; a column it learnt as a label is never text.
    trained = run.metadata["data"]["columns"]
    labels = [trained[head] for head in run.classes]
    fields = [field for field in config.text_fields if field in trained and field not in run.classes]
    filled = blank_missing(table)
    used, _ = find_columns(filled.drop(columns=labels, errors="ignore"), (), fields, named, str(data))
    texts = compose(filled, used, fields)
    rows = np.flatnonzero(texts != "")

    result = table.copy()
    result.attrs["text_column"] = used["descripcion"]
    for name in added:
        result[name] = ""
    if len(rows):
        found = inference.score_texts(run, texts.iloc[rows].tolist(), "Prediciendo")
        for head, values in found.items():
            shares = inference.probabilities(values)
            result.loc[result.index[rows], f"pred_{head}"] = np.array(run.classes[head])[shares.argmax(axis=1)]
            result.loc[result.index[rows], f"conf_{head}"] = [f"{share:.4f}" for share in shares.max(axis=1)]
    return result


def save(table: pd.DataFrame, out: str | Path) -> Path:
    """Write predictions as XLSX or CSV; raises `UserError` if the file exists or cannot be written."""
    return write_table(table, free_table(out))
