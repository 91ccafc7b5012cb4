"""Write report.html: what an experiment measured, in Spanish, in one file that needs no network.

The parts of the page are in `report_tables.py` (tables) and `report_text.py` (what the numbers say).
"""

from pathlib import Path
from typing import TYPE_CHECKING

from ocensa_nb.experiments import effects, report_tables, report_text
from ocensa_nb.experiments.case_files import FAILED
from ocensa_nb.experiments.groups import Group, grouped, monitored, pareto_front
from ocensa_nb.experiments.html_page import Html, bullets, element, page, picture
from ocensa_nb.experiments.results import Results, read_results
from ocensa_nb.figures import experiments
from ocensa_nb.figures.experiments import PHONE, WIDE, Bar, Point
from ocensa_nb.files.atomic import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPORT = "report.html"
MODELS = ("encoder", "linear", "blend")


def write_report(out: str | Path) -> Path:
    """Write report.html of an experiment, finished or not, and return its path."""
    results = read_results(out)
    path = results.path / REPORT
    write_text(path, render(results))
    return path


def render(results: Results) -> str:
    """Return the report as an HTML page."""
    groups, metric = grouped(results.finished), monitored(results.finished)
    changes = effects.effects(results.finished, metric)
    sections = [element("p", report_text.summary(results))]
    sections += [element("p", note, class_="warn") for note in results.problems]
    if groups:
        sections += [element("p", note, class_="warn") for note in report_text.linear_notes(results.finished)]
        sections += _quality(groups, metric) + _effects(changes)
        sections += [element("h2", "Qué cambia entre las configuraciones"), report_tables.configurations(groups)]
    sections += [element("h2", "Los casos"), report_tables.cases(results)]
    sections += _failures(results)
    not_measured = report_text.not_measured(results.path)
    if not_measured:
        sections += [element("h2", "Sin medir"), report_tables.not_measured(not_measured)]
    sections += [element("h2", "Cómo leer este informe"), bullets(report_text.explanations(results.finished, metric))]
    return page("Resultados de los experimentos", *sections)


def pareto_figure(groups: list[Group], metric: str, width: float = WIDE) -> "Figure":
    """Return the figure of F1 against seconds of some groups, of which one or more has a score."""
    front = pareto_front(groups, metric)
    points = []
    for group in groups:
        seconds, score = group.seconds(), group.score(metric)
        if score:
            spreads = (seconds.sd or 0.0, score.mean, score.sd or 0.0)
            points.append(Point(group.number, seconds.mean, *spreads, group.key in front))
    linear = [score.mean for group in groups if (score := group.score(metric, model="linear"))]
    same = linear and max(linear) - min(linear) < 0.0005  # the simple model does not depend on the encoder's settings
    return experiments.f1_against_seconds(points, linear[0] if same else None, width)


def models_figure(groups: list[Group], metric: str, width: float = WIDE) -> "Figure":
    """Return the figure of the F1 of each model of some groups, one or more."""
    scores = [
        (group.number, {model: score.mean for model in MODELS if (score := group.score(metric, model=model))})
        for group in groups
    ]
    return experiments.f1_by_model(scores, width)


def _quality(groups: list[Group], metric: str) -> list[Html]:
    """Return the table of the groups and its figures."""
    front = pareto_front(groups, metric)
    return [
        element("h2", "Calidad y tiempo"),
        *(element("p", sentence) for sentence in report_text.headlines(groups, metric)),
        report_tables.groups(groups, metric, front),
        *(_figures(groups, metric, front) if front else []),
        element("h2", "F1 por etiqueta"),
        report_tables.labels(groups),
    ]


def _figures(groups: list[Group], metric: str, front: set[str]) -> list[Html]:
    """Return the figures of F1 against seconds and of the models."""
    return [
        picture(
            *(pareto_figure(groups, metric, width) for width in (WIDE, PHONE)),
            alt=report_text.front_alt(groups, metric, front),
            caption="F1 de prueba contra segundos. Los números son los de la tabla; las barras, la desviación estándar "
            "entre semillas. En azul, el frente de Pareto: ningún otro es a la vez tan bueno y tan rápido.",
        ),
        picture(
            *(models_figure(groups, metric, width) for width in (WIDE, PHONE)),
            alt=report_text.models_alt(groups, metric),
            caption="F1 de prueba del codificador solo, del modelo simple y de la mezcla de los dos.",
        ),
    ]


def _effects(changes: list[effects.Effect]) -> list[Html]:
    """Return what each setting changes."""
    content: list[Html] = [element("h2", "Qué ajustes importan"), element("p", report_text.effects_note(changes))]
    if not changes:
        return content
    content.append(report_tables.effects(changes))
    bars = [
        Bar(f"{change.field}: {change.before} → {change.after}", known.mean, known.low, known.high, clear)
        for change in changes
        if (known := change.score)
        for clear in [not known.low <= 0 <= known.high]
    ]
    if bars:
        content.append(
            picture(
                *(experiments.differences(bars, width) for width in (WIDE, PHONE)),
                alt="Diferencia de F1 de cada cambio, con su intervalo. Los mismos números están en la tabla anterior.",
                caption="Diferencia de F1 de prueba e intervalo del 95 %. En gris, lo que no se distingue del ruido.",
            )
        )
    return content


def _failures(results: Results) -> list[Html]:
    """Return the failed cases, if there are any."""
    failed = [case for case in results.cases if case.state["status"] == FAILED]
    return [element("h2", "Casos fallidos"), report_tables.failures(failed)] if failed else []
