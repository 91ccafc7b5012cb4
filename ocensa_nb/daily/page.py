"""A page for who decides in the plant: what a file's predictions say, what to review, and what changed."""

from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ocensa_nb.data.canonical import canonical
from ocensa_nb.errors import UserError, listed, num
from ocensa_nb.evaluation.predict import PredictedFile
from ocensa_nb.evaluation.rows import foreign_share
from ocensa_nb.evaluation.suggestion import ACCEPT, CHOOSE, REVIEW
from ocensa_nb.evaluation.verdict import NOT_YET, SUGGESTION, USEFUL, USEFUL_ABOVE, percent
from ocensa_nb.figures import daily
from ocensa_nb.figures.page import picture, template
from ocensa_nb.files.atomic import create_new, write_text
from ocensa_nb.paths import free_path
from ocensa_nb.runs.run import Run

TEMPLATE, RUN_TEMPLATE = (Path(__file__).with_name(f"{name}.html.j2") for name in ("page", "run"))
STATUS_WORDS = {
    USEFUL: "sirve como está",
    USEFUL_ABOVE: "sirve si está segura",
    SUGGESTION: "sirve para elegir entre pocas",
    NOT_YET: "todavía no sirve",
}
MOST_ROWS = 50  # of a table
SECONDS = 30  # to review a notice: an assumption, which the page lets change
EARLIEST = pd.Timestamp(1980, 1, 1)  # an earlier date is an error of typing
LEAST_DATED = 0.8  # share of the filled cells of a column that are dates
SURE, LEAST = 4.0, 0.01  # standard errors of the difference of two shares, and a difference that matters
FAMILIES = ("familia", "denominaci", "equipo")
LOCATIONS = ("ubicac", "planta", "estacion", "centro", "sitio")
DATES = ("fecha de aviso", "fecha aviso", "fecha", "inicio", "creado")


def write_page(run: Run, predicted: PredictedFile, out: str | Path) -> Path:
    """Write a page in Spanish about the predictions of a file, which needs no other file, and return its path.

    Raises
    ------
    UserError
        If the path exists, does not end in `.html`, or cannot be written, or no row has a text.
    """
    path = free_page(out)
    if not len(predicted.rows):
        raise UserError(f"«{predicted.file.path}» no tiene avisos con texto: no hay nada que contar.")
    with create_new(path) as temporary:
        temporary.write_text(template(TEMPLATE).render(_content(run, predicted)), encoding="utf-8")
    return path


def free_page(out: str | Path) -> Path:
    """Return the path of a new page; raises `UserError` if it exists or does not end in `.html`."""
    path = free_path(out)
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"«{path}» debe terminar en .html.")
    return path


def write_run_page(run: Run) -> Path:
    """Write `RUN/report.html`, in Spanish: which answers of a finished run to accept, and what to do next."""
    labels = [_label(run, head) for head in run.classes]
    path = run.path / "report.html"
    split, warnings = run.metadata["data"]["split"], run.metrics["warnings"]
    write_text(path, template(RUN_TEMPLATE).render(run=run, split=split, labels=labels, warnings=warnings))
    return path


def _label(run: Run, head: str) -> dict[str, Any]:
    verdict, measured = run.metrics["verdict"][head], run.metrics["suggestion"][head]
    accepted = measured["accepted"]
    classes = [
        (name, num(rows), num(100 * measured["by_class"][name]) if name in measured["by_class"] else "–")
        for name, rows in zip(run.classes[head], run.class_rows[head], strict=True)
    ]
    return {
        "head": head,
        "word": STATUS_WORDS[verdict["status"]],
        "first": 100 * measured["all"]["right"],
        "third": 100 * measured["top"][2] if len(run.classes[head]) > 3 else None,
        "accepted": 100 * accepted["rows"] / measured["all"]["rows"],
        "accepted_right": 100 * accepted["right"],
        "trusted": listed([f"«{name}»" for name in measured["trusted"]]),
        "advice": verdict["advice"],
        "sentence": verdict["sentence"],
        "classes": pd.DataFrame(classes, columns=["Clase", "Avisos al entrenar", "De cada 100"]),
    }


def _content(run: Run, predicted: PredictedFile) -> dict[str, Any]:
    file, tally, rows = predicted.file, predicted.tally, predicted.rows
    table = predicted.table.iloc[rows].reset_index(drop=True)
    cells = file.cells.iloc[rows].reset_index(drop=True)
    heads = list(run.classes)
    decisions = table[[f"decision_{head}" for head in heads]]
    accepted = (decisions == ACCEPT).all(axis=1)
    to_review = (decisions == REVIEW).any(axis=1)
    return {
        "name": file.path.name,
        "run": run.path.name,
        "today": f"{date.today():%d/%m/%Y}",
        "rows": tally.rows,
        "scored": tally.scored,
        "accepted": int(accepted.sum()),
        "to_choose": int((~accepted & ~to_review).sum()),
        "to_review": int(to_review.sum()),
        "seconds": SECONDS,
        "labels": {head: _shares(tally.decisions[head]) for head in heads},
        "notes": predicted.notes,
        "urgent": _urgent(run, predicted, table, cells),
        "changes": _changes(run, predicted),
        "foreign": _foreign(run, predicted),
        "figures": _figures(cells, table[f"pred_{heads[0]}"], heads[0]),
    }


def _shares(decisions: dict[str, int]) -> list[tuple[str, int, float]]:
    rows = sum(decisions.values())
    return [(kind, decisions.get(kind, 0), 100 * decisions.get(kind, 0) / rows) for kind in (ACCEPT, CHOOSE, REVIEW)]


def _urgent(run: Run, predicted: PredictedFile, table: pd.DataFrame, cells: pd.DataFrame) -> dict[str, Any] | None:
    """Return the notices of the first priority, the surest first; None if no label says by its numbers which it is."""
    names = run.classes.get("prioridad", [])
    if not names or not all(name[:1].isdigit() for name in names):
        return None
    most = min(names)
    chosen = table[table["pred_prioridad"] == most].sort_values("conf_prioridad", ascending=False, kind="stable")
    ids = predicted.file.ids.iloc[predicted.rows].reset_index(drop=True)
    shown = chosen.index[:MOST_ROWS]
    columns = {"Aviso": ids[shown], "Texto": cells.loc[shown, predicted.file.columns["descripcion"]]}
    if place := _column(cells, (*FAMILIES, *LOCATIONS)):
        columns[place] = cells.loc[shown, place]
    for head in run.classes:
        columns[head.capitalize()] = chosen.loc[shown, f"pred_{head}"]
    columns["Confianza de la prioridad"] = [percent(share) for share in chosen.loc[shown, "conf_prioridad"]]
    return {"class": most, "rows": len(chosen), "table": pd.DataFrame(columns).astype(str)}


def _changes(run: Run, predicted: PredictedFile) -> pd.DataFrame:
    """Return the classes that are predicted more or less often than in the test rows, beyond what chance explains.

    Predictions are compared with predictions: a class that a model predicts too often differs from its labels anyway.
    """
    found = []
    for head, names in run.classes.items():
        here, before = np.array(predicted.tally.classes[head], float), predicted.expected[head].astype(float)
        n, m = here.sum(), before.sum()
        pooled = (here + before) / (n + m)
        error = np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
        difference = here / n - before / m
        for place in np.flatnonzero(np.abs(difference) > np.maximum(SURE * error, LEAST)):
            found.append((abs(difference[place]), head, names[place], here[place] / n, before[place] / m))
    return pd.DataFrame(
        [(head, name, percent(here), percent(before)) for _, head, name, here, before in sorted(found, reverse=True)],
        columns=["Etiqueta", "Clase", "En estos avisos", "En los de prueba"],
    ).head(MOST_ROWS)


def _foreign(run: Run, predicted: PredictedFile) -> str:
    """Return the share of the texts that have little in common with those of the training."""
    share = foreign_share(run, predicted.predictor.linear, predicted.file.texts.iloc[predicted.rows].tolist())
    return f"El {percent(share)}" if share >= 0.01 else "Menos del 1 %"


def _figures(cells: pd.DataFrame, modes: pd.Series, head: str) -> list[dict[str, Any]]:
    """Return the figures of the first label: their title, addresses and a sentence about each; or why there is none."""
    counts = modes.value_counts()
    few = int(np.searchsorted(counts.cumsum() / len(modes), 0.8) + 1)
    figures = [
        {
            "title": f"Los más frecuentes: {head}",
            "picture": picture(partial(daily.pareto, modes)),
            "sentence": f"{num(few)} de {num(len(counts))} clases suman el 80 % de los avisos; la primera es "
            f"«{counts.index[0]}», con el {num(100 * counts.iloc[0] / len(modes))} %.",
        }
    ]
    for title, names in (("Por familia o equipo", FAMILIES), ("Por ubicación", LOCATIONS)):
        column = _column(cells, names)
        filled = cells[column] != "" if column else None
        if column is None or cells[column][filled].nunique() < 2:
            figures.append({"title": title, "picture": None, "sentence": "El archivo no tiene una columna para esto."})
            continue
        groups, values = cells[column][filled], modes[filled]
        pairs = pd.crosstab(groups, values).loc[groups.value_counts().index[: daily.MOST_BARS]].stack()
        (group, mode), rows = pairs.idxmax(), int(pairs.max())
        figures.append(
            {
                "title": f"{title}: «{column}»",
                "picture": picture(partial(daily.heat_map, groups, values)),
                "sentence": f"Donde más se repite: «{group}» con «{mode}», {num(rows)} avisos.",
            }
        )
    return [*figures, _trend(cells, modes)]


def _trend(cells: pd.DataFrame, modes: pd.Series) -> dict[str, Any]:
    title, dates = "Por mes", None
    for name in sorted(cells, key=lambda name: _rank(name, DATES)):
        if _rank(name, DATES) < len(DATES):
            filled = cells[name] != ""
            parsed = pd.to_datetime(cells[name].where(filled), dayfirst=True, format="mixed", errors="coerce", utc=True)
            parsed = parsed.dt.tz_localize(None)
            parsed = parsed.where(parsed.between(EARLIEST, pd.Timestamp.now() + pd.DateOffset(years=1)))
            if filled.any() and parsed.notna().sum() >= LEAST_DATED * filled.sum():
                title, dates = f"Por mes: «{name}»", parsed
                break
    if dates is None or dates.dropna().dt.to_period("M").nunique() < 2:
        return {"title": title, "picture": None, "sentence": "El archivo no tiene fechas de dos meses o más."}
    known = dates.notna()
    counts = dates[known].dt.to_period("M").value_counts()
    return {
        "title": title,
        "picture": picture(partial(daily.months, dates[known], modes[known])),
        "sentence": f"El mes con más avisos es {counts.idxmax():%m/%Y}, con {num(int(counts.max()))}; la mediana es "
        f"{num(float(counts.median()))}.",
    }


def _column(cells: pd.DataFrame, names: tuple[str, ...]) -> str | None:
    """Return the column whose title says one of some names, the first of them if it can."""
    best = min(cells, key=lambda title: _rank(title, names), default=None)
    return best if best is not None and _rank(best, names) < len(names) else None


def _rank(title: str, names: tuple[str, ...]) -> int:
    return next((place for place, name in enumerate(names) if name in canonical(title)), len(names))
