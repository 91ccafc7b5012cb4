"""The results of an experiment as the tables, sentences and figure of a notebook."""

from typing import TYPE_CHECKING

import pandas as pd

from ocensa_nb.experiments import report_tables, report_text
from ocensa_nb.experiments.effects import effects
from ocensa_nb.experiments.groups import baseline_of, grouped, monitored, pareto_front
from ocensa_nb.experiments.report import pareto_figure as figure_of
from ocensa_nb.experiments.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def sentences(results: Results) -> list[str]:
    """Return what there is to say of the results, in Spanish: the states, the best case, the simple model."""
    said = [report_text.summary(results), *results.problems]
    if not results.finished:
        return said
    groups, metric = grouped(results.finished), monitored(results.finished)
    notes = [f"⚠️ {note}" for note in report_text.linear_notes(results.finished)]
    return [*said, *notes, *report_text.headlines(groups, metric)]


def table(results: Results) -> pd.DataFrame:
    """Return one row per group, the best test score first; empty without a finished case."""
    groups, metric = grouped(results.finished), monitored(results.finished)
    front, baseline = pareto_front(groups, metric), baseline_of(groups)
    rows = [
        {
            "N.º": group.number,
            "configuración": group.title,
            "F1 prueba": report_tables.mean_sd(group.score(metric)),
            "F1 validación": report_tables.mean_sd(group.score(metric, "val")),
            "codificador solo": report_tables.mean_sd(group.score(metric, model="encoder")),
            "modelo simple": report_tables.mean_sd(group.score(metric, model="linear")),
            "segundos": report_tables.mean_sd(group.seconds(), 1),
            "veces más rápido": report_tables.times_faster(group, baseline),
            "frente de Pareto": "sí" if group.key in front else "no",
        }
        for group in groups
    ]
    return pd.DataFrame(rows)


def effects_table(results: Results) -> pd.DataFrame:
    """Return one row per change of a setting; empty without two cases that differ in one setting."""
    changes = effects(results.finished, monitored(results.finished))
    rows = [
        dict(zip(report_tables.EFFECT_TITLES, report_tables.effect_cells(change), strict=True)) for change in changes
    ]
    return pd.DataFrame(rows, columns=list(report_tables.EFFECT_TITLES))


def pareto_figure(results: Results) -> "Figure | None":
    """Return the figure of F1 against seconds; None without a finished case."""
    groups = grouped(results.finished)
    metric = monitored(results.finished)
    return figure_of(groups, metric) if pareto_front(groups, metric) else None
