"""The tables of the report of an experiment."""

from collections.abc import Mapping, Sequence

from ocensa_nb.experiments.case_files import CASES, STATES
from ocensa_nb.experiments.case_result import CaseResult
from ocensa_nb.experiments.effects import Effect, Interval
from ocensa_nb.experiments.groups import Group, Spread, baseline_of, speedup
from ocensa_nb.experiments.html_page import Html, command, element, folded, joined, link, table
from ocensa_nb.experiments.results import Results, run_folder

HTML_COPIES = {"03": "03_train.html", "04": "04_evaluate.html"}
EMPTY = "–"
EFFECT_TITLES = ("Ajuste", "De", "A", "Pares (semillas)", "Diferencia de F1", "Lectura", "Segundos: veces")
_NOT_A_SETTING = ("data", "corrections", "out", "seed", "resume", "checkpoint_minutes", "num_workers")


def groups(found: Sequence[Group], metric: str, front: set[str]) -> Html:
    """Return the table of the groups, the best mean test score first, with their notebooks and commands."""
    baseline = baseline_of(list(found))
    titles = ["N.º", "Configuración", "F1 de prueba", "F1 de validación", "Codificador solo", "Modelo simple"]
    titles += ["Segundos", "Veces más rápido", "Frente de Pareto", "Cuadernos", "Comando"]
    rows = []
    for group in found:
        scores = [group.score(metric), group.score(metric, "val")]
        scores += [group.score(metric, model=model) for model in ("encoder", "linear")]
        rows.append(
            [
                group.number,
                group.title,
                *(mean_sd(score) for score in scores),
                mean_sd(group.seconds(), 1) + _marks(group.cases),
                times_faster(group, baseline),
                "sí" if group.key in front else "no",
                joined([element("span", f"semilla {case.seed}: ", notebooks(case)) for case in group.cases]),
                folded("Mostrar", *(command(case.state["command"]) for case in group.cases)),
            ]
        )
    marked = [place for place, group in enumerate(found) if group.key in front]
    return table(_CAPTION.format(metric=metric), titles, rows, marked, name=1)


_CAPTION = (
    "Una fila por configuración, de mayor a menor {metric} de prueba: media ± desviación estándar entre semillas "
    "(número de semillas). Resaltado: el frente de Pareto."
)


def labels(found: Sequence[Group]) -> Html:
    """Return the test F1 of each label and group."""
    heads = list(dict.fromkeys(head for group in found for case in group.cases for head in case.heads))
    rows = [
        [group.number, group.title, *(mean_sd(group.score(name)) for name in (*(f"{h}_f1" for h in heads), "f1_macro"))]
        for group in found
    ]
    titles = ["N.º", "Configuración", *heads, "F1 macro medio"]
    return table("F1 ponderado de prueba de cada etiqueta, media ± desviación estándar.", titles, rows, name=1)


def configurations(found: Sequence[Group]) -> Html:
    """Return the settings that differ between the groups, one column each."""
    settings = [{**group.cases[0].config, **group.cases[0].settings} for group in found]
    names = sorted({name for own in settings for name in own} - set(_NOT_A_SETTING))
    differ = [name for name in names if len({str(own.get(name)) for own in settings}) > 1]
    if not differ:
        return element("p", "Nada: todas las configuraciones tienen los mismos ajustes.")
    rows = [
        [group.number, group.title, *(str(own.get(name, EMPTY)) for name in differ)]
        for group, own in zip(found, settings, strict=True)
    ]
    return table(
        "Solo los ajustes que difieren entre dos configuraciones.", ["N.º", "Configuración", *differ], rows, name=1
    )


def effects(changes: Sequence[Effect]) -> Html:
    """Return what each change of a setting does to the score and to the seconds."""
    caption = "Diferencias entre casos iguales en todo lo demás, con intervalos del 95 %."
    return table(caption, EFFECT_TITLES, [effect_cells(change) for change in changes])


def effect_cells(change: Effect) -> list[str]:
    """Return the cells of a change of a setting, one per title of `EFFECT_TITLES`."""
    pairs = f"{change.pairs} ({change.seeds})"
    return [
        *(change.field, change.before, change.after, pairs),
        *(_difference(change), change.verdict, _ratio(change.time)),
    ]


def cases(results: Results) -> Html:
    """Return all cases: state, score, seconds in parts, notebooks and command."""
    titles = ["Caso", "Semilla", "Estado", "F1 de prueba", "Entrenar, s", "Capas congeladas, s", "Modelo simple, s"]
    titles += ["Total, s", "Notas", "Cuadernos", "Comando"]
    rows = []
    for case in results.cases:
        parts = case.seconds() if case.is_finished else {}
        shown = [f"{parts[name]:.1f}" if parts else EMPTY for name in ("training", "frozen", "linear", "total")]
        score = case.score(case.monitor) if case.is_finished else None
        rows.append(
            [
                case.title,
                case.seed,
                STATES[case.state["status"]],
                EMPTY if score is None else f"{score:.3f}",
                *shown,
                _notes(case) or EMPTY,
                notebooks(case),
                folded("Mostrar", command(case.state["command"])),
            ]
        )
    return table("Un caso por configuración y semilla.", titles, rows)


def failures(failed: Sequence[CaseResult]) -> Html:
    """Return the failed cases, with the cell and the last line of the error."""
    rows = []
    for case in failed:
        error = case.state.get("error")
        error = error if isinstance(error, dict) else {}
        found = [str(error.get(name) or EMPTY) for name in ("notebook", "cell", "line")]
        rows.append([case.title, case.seed, *found, notebooks(case)])
    return table(
        "Estos casos no terminaron. El mismo comando los repite.",
        ["Caso", "Semilla", "Cuaderno", "Celda", "Última línea", "Cuadernos"],
        rows,
    )


def not_measured(techniques: Mapping[str, str]) -> Html:
    """Return what the grid names as not measured, with the reason and how to measure it."""
    return table("Lo que este experimento no mide.", ["Técnica", "Por qué, y cómo medirla"], list(techniques.items()))


def notebooks(case: CaseResult) -> Html:
    """Return links to the executed notebooks of a case, relative to the report; 03 may be of another case."""
    owner = run_folder(case).parent
    folders = {"03": owner, "04": case.folder}
    found = [
        link(f"{CASES}/{folder.name}/{HTML_COPIES[number]}", number)
        for number, folder in folders.items()
        if (folder / HTML_COPIES[number]).is_file()
    ]
    return joined(found) if found else Html(EMPTY)


def mean_sd(values: Spread | None, decimals: int = 3) -> str:
    """Return a mean, its standard deviation and the number of values; a single value has no deviation."""
    if values is None:
        return EMPTY
    deviation = "" if values.sd is None else f" ± {values.sd:.{decimals}f}"
    return f"{values.mean:,.{decimals}f}{deviation} ({values.count})"


def times_faster(group: Group, baseline: Group | None) -> str:
    """Return the speed-up over the baseline with its smallest and largest value."""
    if baseline is None:
        return "sin baseline"
    found = speedup(group, baseline)
    if found is None:
        return "no comparable"
    if group is baseline:
        return "1"
    low, high = f"{found.low:.3g}", f"{found.high:.3g}"
    return f"{found.mean:.3g}" + (f" ({low} a {high})" if found.count > 1 else "")


def _marks(found: Sequence[CaseResult]) -> str:
    """Return the marks of the seconds of some cases; they are explained below the table."""
    resumed = " ↻" if any(case.is_resumed for case in found) else ""
    return resumed + (" ∥" if any(case.beside for case in found) else "")


def _notes(case: CaseResult) -> str:
    notes = {
        "↻ se interrumpió y continuó": case.is_resumed,
        "∥ al mismo tiempo que otros": case.beside and case.is_finished,
        "usa la corrida de otro caso": case.shares_run,
        f"capas congeladas ya calculadas por otro caso: ahorró {case.saved_seconds():.1f} s": case.saved_seconds() > 0,
    }
    return "; ".join(note for note, applies in notes.items() if applies)


def _difference(change: Effect) -> str:
    if change.score is None:
        return f"{change.mean:+.3f}"
    return f"{change.score.mean:+.3f} ({change.score.low:+.3f} a {change.score.high:+.3f})"


def _ratio(time: Interval | None) -> str:
    return EMPTY if time is None else f"{time.mean:.3g} ({time.low:.3g} a {time.high:.3g})"
