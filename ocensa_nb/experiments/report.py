"""The report of an experiment: the tables of notebook 07, results.csv and report.html, and what they say."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ocensa_nb.config import SOURCES
from ocensa_nb.errors import num
from ocensa_nb.experiments.case import CASES, STATES, Case
from ocensa_nb.experiments.effects import FEWEST, Interval, effects
from ocensa_nb.experiments.results import (
    BASELINE,
    GRID,
    Group,
    Results,
    baseline_of,
    chosen,
    grouped,
    pareto_front,
    seconds_to_target,
    speedup,
    summary,
)
from ocensa_nb.figures import comparison
from ocensa_nb.figures.page import WIDE, picture, template
from ocensa_nb.files.atomic import atomic_write, write_text
from ocensa_nb.files.notice_file import SPANISH_EXCEL
from ocensa_nb.files.verify import LARGEST_JSON, read_regular
from ocensa_nb.files.write import DECIMALS, inert
from ocensa_nb.runtime.commands import as_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS, REPORT, TEMPLATE = "results.csv", "report.html", "report.html.j2"
EMPTY = "–"
_NOT_A_SETTING = {"data", "corrections", "out", "seed", "resume", "checkpoint_minutes", "num_workers"}
_NOT_MEASURED = re.compile(r"^# *sin medir: ([^:\n]+):(.+)$", re.MULTILINE)


def quality_table(results: Results) -> pd.DataFrame:
    """Return one row per group, the best test score first; empty without a finished case."""
    groups, metric, reached = grouped(results), results.metric, seconds_to_target(results)
    points, baseline = pareto_front(groups, metric), baseline_of(groups)
    front = points.index[points["on_front"]]
    rows = [
        {
            "N.º": group.number,
            "configuración": group.title,
            "F1 de prueba": _mean_sd(group.score(metric)),
            "F1 de validación": _mean_sd(group.score(metric, "val")),
            "codificador solo": _mean_sd(group.score(metric, model="encoder")),
            "modelo simple": _mean_sd(group.score(metric, model="linear")),
            "segundos": _mean_sd(group.seconds(), 1) + _marks(group.cases),
            "veces más rápido": _times_faster(group, baseline),
            "segundos hasta el 95 %": _until_target([reached[case.name] for case in group.cases]),
            "frente de Pareto": "sí" if group.number in front else "no",
        }
        for group in groups
    ]
    return pd.DataFrame(rows)


def labels_table(results: Results) -> pd.DataFrame:
    heads = list(dict.fromkeys(head for case in results.finished for head in case.heads))
    metrics = {**{head: f"{head}_f1" for head in heads}, "F1 macro medio": "f1_macro"}
    return pd.DataFrame(
        {"N.º": group.number, "configuración": group.title}
        | {title: _mean_sd(group.score(metric)) for title, metric in metrics.items()}
        for group in grouped(results)
    )


def settings_table(results: Results) -> pd.DataFrame:
    groups = grouped(results)
    settings = [{**group.cases[0].config, **group.cases[0].settings} for group in groups]
    table = pd.DataFrame([{name: as_text(value) or EMPTY for name, value in group.items()} for group in settings])
    table = table.fillna(EMPTY)[sorted(table.columns.difference(_NOT_A_SETTING))]
    table = table.loc[:, table.nunique() > 1]
    table.insert(0, "N.º", [group.number for group in groups])
    table.insert(1, "configuración", [group.title for group in groups])
    return table


def effects_table(results: Results) -> pd.DataFrame:
    """Return one row per change of a setting; empty without two cases that differ in one setting."""
    columns = ["ajuste", "de", "a", "pares (semillas)", "diferencia de F1", "lectura", "segundos: veces"]
    rows = []
    for e in effects(results):
        difference = _with_ends(e.score, "+") if e.score else num(e.mean, 3, "+")
        ratio = _with_ends(e.time, form="g") if e.time else EMPTY
        rows.append((e.field, e.before, e.after, f"{e.pairs} ({e.seeds})", difference, e.verdict, ratio))
    return pd.DataFrame(rows, columns=columns)


def cases_table(results: Results) -> pd.DataFrame:
    """Return one row per case: its settings, state, metrics, seconds, notebooks and command."""
    table = pd.DataFrame([_case_row(case) for case in results.cases])
    last = [*(name for name in table if name.startswith("ajuste_")), "error", "carpeta", "comando"]
    return table[[*(name for name in table if name not in last), *last]]


def _case_row(case: Case) -> dict[str, Any]:
    metric = case.monitor
    row = {"caso": case.name, "configuracion": case.title, "grupo": case.content["group"], "semilla": case.seed}
    row |= {"estado": STATES[case.status], "metrica": metric}
    row |= {"validacion": case.score(metric, "val"), "prueba": case.score(metric)}
    row |= {"prueba_codificador": case.score(metric, model="encoder")}
    row |= {"prueba_modelo_simple": case.score(metric, model="linear")}
    row |= {f"prueba_{head}_f1": case.score(f"{head}_f1") for head in case.heads}
    parts = case.seconds() if case.is_finished else dict.fromkeys(("training", "frozen", "linear", "total"))
    row |= {"segundos_entrenamiento": parts["training"], "segundos_capas_congeladas": parts["frozen"]}
    row |= {"segundos_modelo_simple": parts["linear"], "segundos_total": parts["total"]}
    row |= {"segundos_ahorrados": case.saved_seconds()} if case.is_finished else {}
    row |= {"notas": _notes(case)}
    row |= {f"ajuste_{name}": as_text(value) for name, value in case.settings.items()}
    return row | {"error": case.error, "carpeta": f"{CASES}/{case.name}", "comando": case.content["command"]}


def headlines(results: Results) -> list[str]:
    """Return the configuration that validation chooses, and what there is to say of the baseline."""
    groups, metric = grouped(results), results.metric
    best, baseline = chosen(groups, metric), baseline_of(groups)
    test, val = best.score(metric), best.score(metric, "val")
    notes = []
    if test.count() and val.count():
        notes.append(
            f"La mejor en validación es «{best.title}» (n.º {best.number}): {metric} {num(val.mean(), 3)} en "
            f"validación y {num(test.mean(), 3)} en prueba. La tabla está ordenada por la prueba: la primera puede "
            "serlo por azar."
        )
    if baseline is None:
        notes.append(
            f"No hay un caso «{BASELINE}» terminado en esta carpeta, y por eso no se dice cuántas veces más rápido es "
            f"cada uno. Añada a la cuadrícula, dentro de cases, un caso con «name: {BASELINE}» y «recipe: {BASELINE}», "
            "y ejecute el mismo comando: los casos terminados se conservan."
        )
    elif len(groups) > 1 and all(speedup(group, baseline).empty for group in groups if group is not baseline):
        notes.append(
            f"Ningún caso se puede comparar en tiempo con «{BASELINE}»: otra máquina, otros hilos, procesos o semillas."
        )
    return notes


def warnings(results: Results) -> list[str]:
    """Return, if the encoder adds little or nothing to the simple model, a warning: then the grid decides little."""
    compared = {}
    for case in results.finished:
        for head in case.heads:
            if (better := case.beats_linear(head)) is not None:
                compared.setdefault(head, []).append(better)
    if compared and not any(map(any, compared.values())):
        return [
            "El modelo simple (TF-IDF, que se ajusta en segundos) da lo mismo: en ninguna etiqueta de ningún caso "
            "predice mejor la corrida de forma que se distinga del ruido. Elegir entre estos ajustes no mejora nada."
        ]
    some = [f"{head}, en {sum(wins)} de {len(wins)} casos" for head, wins in compared.items() if not all(wins)]
    note = (
        "La corrida supera al modelo simple (TF-IDF), de forma que se distinga del ruido, solo en: "
        f"{'; '.join(some)}. En los demás casos no se distinguen, o el modelo simple va mejor."
    )
    return [note] if some else []


def sentences(results: Results) -> list[str]:
    """Return what there is to say of the results, in Spanish: the states, the best case, the simple model."""
    notes = [summary(results), *results.problems]
    if not results.finished:
        return notes
    return [*notes, *(f"⚠️ {note}" for note in warnings(results)), *headlines(results)]


def not_measured(out: Path) -> pd.DataFrame:
    """Return what a grid says that it does not measure, in comments such as `# sin medir: GPU en la nube: por qué`."""
    try:
        text = read_regular(out / GRID, LARGEST_JSON).decode("utf-8-sig", "replace")
    except OSError:
        text = ""
    rows = [(name.strip(), why.strip()) for name, why in _NOT_MEASURED.findall(text)]
    return pd.DataFrame(rows, columns=["técnica", "por qué, y cómo medirla"])


def pareto_figure(results: Results, width: float = WIDE) -> "Figure | None":
    """Return the figure of F1 against seconds; None if no case has a score."""
    groups, metric = grouped(results), results.metric
    points = pareto_front(groups, metric)
    linear = pd.Series([group.score(metric, model="linear").mean() for group in groups], dtype=float)
    same = linear.max() - linear.min() < 0.0005  # the simple model does not depend on the encoder's settings
    return None if points.empty else comparison.f1_against_seconds(points, linear.mean() if same else None, width)


def _models_figure(results: Results, width: float) -> "Figure":
    groups, metric = grouped(results), results.metric
    scores = {model: [group.score(metric, model=model).mean() for group in groups] for model in SOURCES}
    return comparison.f1_by_model(pd.DataFrame(scores, [group.number for group in groups]), width)


def _differences_figure(results: Results, width: float) -> "Figure | None":
    changes = [
        (f"{e.field}: {e.before} → {e.after}", e.score.mean, e.score.low, e.score.high, e.score.is_clear)
        for e in effects(results)
        if e.score
    ]
    bars = pd.DataFrame(changes, columns=["title", "mean", "low", "high", "is_clear"])
    return None if bars.empty else comparison.differences(bars, width)


def write_results(results: Results) -> Path:
    """Write results.csv, one row per case, as Excel in Spanish opens it, and return its path."""
    path, form = results.path / RESULTS, SPANISH_EXCEL
    table = inert(cases_table(results).round(DECIMALS))
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False, sep=form.separator, decimal=form.decimal, encoding=form.encoding)
    return path


def write_report(results: Results) -> Path:
    """Write report.html, which needs no other file and no network, and return its path."""
    groups = grouped(results)
    content: dict[str, Any] = {"warnings": []}
    if groups:
        parts = {"headlines": headlines, "warnings": warnings, "quality": quality_table, "labels": labels_table}
        parts |= {"settings": settings_table, "effects": effects_table}
        content = {name: part(results) for name, part in parts.items()}
        content["intervals"] = [effect.score for effect in effects(results) if effect.score]
        content["on_front"] = np.flatnonzero(content["quality"]["frente de Pareto"] == "sí").tolist()
        drawn = {"front": pareto_figure, "models": _models_figure, "differences": _differences_figure}
        content["pictures"] = {
            name: picture(partial(draw, results)) for name, draw in drawn.items() if content["on_front"]
        }
    text = template(Path(__file__).with_name(TEMPLATE)).render(
        **content,
        shown=_shown,
        results=results,
        groups=groups,
        summary=summary(results),
        cases=cases_table(results),
        not_measured=not_measured(results.path),
        links=_links,
        fewest=FEWEST,
    )
    path = results.path / REPORT
    write_text(path, text)
    return path


def _shown(table: pd.DataFrame, columns: Mapping[str, tuple[str, int]]) -> pd.DataFrame:
    """Return some columns of a table as text; `columns` has the title and the decimals of each, 0 for no number."""
    return pd.DataFrame(
        {
            title: [EMPTY if pd.isna(v) or v == "" else num(v, places) if places else str(v) for v in table[name]]
            for name, (title, places) in columns.items()
        }
    )


def _links(case: Case) -> list[tuple[str, str]]:
    """Return the executed notebooks of a case, relative to the report; 03 may be of another case."""
    files = {"03": case.run.parent / "03_train.html", "04": case.folder / "04_evaluate.html"}
    return [(number, f"{CASES}/{file.parent.name}/{file.name}") for number, file in files.items() if file.is_file()]


def _mean_sd(values: pd.Series, decimals: int = 3) -> str:
    known = values.dropna()
    if known.empty:
        return EMPTY
    deviation = f" ± {num(known.std(), decimals)}" if len(known) > 1 else ""
    return f"{num(known.mean(), decimals)}{deviation} ({len(known)})"


def _times_faster(group: Group, baseline: Group | None) -> str:
    if baseline is None:
        return "sin baseline"
    if (times := speedup(group, baseline)).empty:
        return "no comparable"
    if group is baseline:
        return "1"
    mean, low, high = (num(value, 3, form="g") for value in (times.mean(), times.min(), times.max()))
    return f"{mean} ({low} a {high})" if len(times) > 1 else mean


def _until_target(seconds: Sequence[float | None]) -> str:
    missed = seconds.count(None)
    if missed == len(seconds):
        return "no llega"
    return _mean_sd(pd.Series(seconds, dtype=float), 1) + (f"; {missed} sin llegar" if missed else "")


def _with_ends(interval: Interval, sign: str = "", form: str = "f") -> str:
    mean, low, high = (num(value, 3, sign, form) for value in (interval.mean, interval.low, interval.high))
    return f"{mean} ({low} a {high})"


def _marks(cases: Sequence[Case]) -> str:
    notes = "".join(map(_notes, cases))
    return "".join(f" {mark}" for mark in "↻∥" if mark in notes)


def _notes(case: Case) -> str:
    notes = {
        "↻ se interrumpió y continuó": case.is_resumed,
        "∥ al mismo tiempo que otros": case.beside and case.is_finished,
        "usa la corrida de otro caso": not case.owns_run,
        f"capas congeladas de otro caso: ahorró {num(case.saved_seconds(), 1)} s": case.saved_seconds() > 0,
    }
    return "; ".join(note for note, applies in notes.items() if applies)
