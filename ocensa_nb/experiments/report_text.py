"""What the numbers of an experiment say, in Spanish sentences."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ocensa_nb.evaluation.blend import AUTO
from ocensa_nb.experiments.case_files import STATES, counted
from ocensa_nb.experiments.case_result import CaseResult
from ocensa_nb.experiments.effects import FEWEST, Effect
from ocensa_nb.experiments.groups import BASELINE, Group, baseline_of, chosen, speedup
from ocensa_nb.experiments.results import Results
from ocensa_nb.files.verify import LARGEST_JSON, read_regular

GRID = "grid.yaml"
_NOT_MEASURED = re.compile(r"^# *sin medir: ([^:\n]+):(.+)$", re.MULTILINE)


def summary(results: Results) -> str:
    """Return how many cases there are, in which state, and the time that the cache saved."""
    counts = Counter(case.state["status"] for case in results.cases)
    states = ", ".join(counted(counts[status], name) for status, name in STATES.items() if counts[status])
    said = f"{counted(len(results.cases), 'caso')}: {states}."
    if not results.finished:
        return f"{said} Todavía no hay ningún resultado."
    reused = [case for case in results.finished if case.saved_seconds() > 0]
    if reused:
        saved = sum(case.saved_seconds() for case in reused)
        said += (
            f" Guardar una sola vez las capas congeladas ahorró {saved:.1f} s en {counted(len(reused), 'caso')}: son "
            "los segundos que tardó en calcularlas el primero, menos los que tardaron los demás en leerlas."
        )
    return said


def headlines(groups: list[Group], metric: str) -> list[str]:
    """Return the configuration that validation chooses, and what there is to say of the baseline."""
    best = chosen(groups, metric)
    test, val = best.score(metric), best.score(metric, "val")
    said = []
    if test and val:
        said.append(
            f"La mejor en validación es «{best.title}» (n.º {best.number}): {metric} {val.mean:.3f} en validación y "
            f"{test.mean:.3f} en prueba. La tabla está ordenada por la prueba, que no se usa para elegir: la primera "
            "fila puede serlo por azar."
        )
    baseline = baseline_of(groups)
    if baseline is None:
        return [*said, _HOW_TO_ADD]
    if all(speedup(group, baseline) is None for group in groups if group is not baseline) and len(groups) > 1:
        said.append(
            f"Ningún caso se puede comparar en tiempo con «{BASELINE}»: se midieron en otra máquina, con otro número "
            "de hilos o de procesos a la vez, o con otras semillas."
        )
    return said


_SETTING = f"recipe: {BASELINE}"
_HOW_TO_ADD = (
    f"No hay un caso «{BASELINE}» terminado en esta carpeta, y por eso no se dice cuántas veces más rápido es cada "
    f"uno. Para añadirlo, escriba en la cuadrícula, dentro de cases, un caso con «name: {BASELINE}» y los ajustes del "
    f"punto de partida («{_SETTING}»), y ejecute el mismo comando: los casos terminados se conservan."
)


def linear_notes(cases: Sequence[CaseResult]) -> list[str]:
    """Return, if the encoder adds little or nothing to the simple model, a warning: then the grid decides little."""
    heads = list(dict.fromkeys(head for case in cases for head in case.heads))
    better = {head: [case for case in cases if _beats_linear(case, head)] for head in heads}
    measured = {head: [case for case in cases if case.metrics.get("comparison", {}).get(head)] for head in heads}
    if not any(measured.values()):
        return []
    if not any(better.values()):
        return [
            "El modelo simple (TF-IDF, que se ajusta en segundos) da lo mismo: en ninguna etiqueta de ningún caso "
            "predice mejor la corrida de forma que se distinga del ruido. Con estos avisos, elegir entre estos ajustes "
            "del codificador no mejora lo que se obtiene."
        ]
    said = [
        f"{head}, en {len(better[head])} de {len(measured[head])} casos"
        for head in heads
        if len(better[head]) < len(measured[head])
    ]
    if not said:
        return []
    return [
        "La corrida supera al modelo simple (TF-IDF), de forma que se distinga del ruido, solo en: "
        f"{'; '.join(said)}. En los demás casos no se distinguen, o el modelo simple va mejor."
    ]


def effects_note(changes: Sequence[Effect]) -> str:
    """Return how many comparisons were made, and how many of them chance alone would single out."""
    if not changes:
        return "No hay dos casos con la misma semilla que difieran en un solo ajuste: no se puede saber."
    count = sum(change.score is not None for change in changes)
    if not count:
        return (
            f"No se puede saber: ningún cambio tiene {FEWEST} pares de casos. Añada semillas en seeds y ejecute el "
            "mismo comando."
        )
    noise = sum(change.verdict == "no se distingue del ruido" for change in changes)
    return (
        f"Comparaciones con intervalo: {count}. No se distinguen del ruido: {noise}. Si ningún ajuste tuviera efecto, "
        f"con intervalos del 95 % se señalarían por azar unas {0.05 * count:.1f}: por eso se dice «mejora» o "
        "«empeora», sin más, solo si tampoco contiene el 0 el intervalo corregido por las "
        f"{count} comparaciones (Bonferroni)."
    )


def explanations(cases: Sequence[CaseResult], metric: str) -> list[str]:
    """Return how to read the report."""
    lines = [
        f"{metric}: la métrica que se vigila en cada entrenamiento (monitor). «f1» es la media del "
        "F1 ponderado de las etiquetas. Mide lo que predice la corrida: por etiqueta, la mezcla del codificador y el "
        "modelo simple, o uno solo si en validación es claramente mejor. Con predict_with, es de ese modelo.",
        "Segundos: entrenar, con sus evaluaciones, más calcular las capas congeladas, más ajustar el modelo simple. No "
        "incluyen leer los avisos, guardar, ni ejecutar los cuadernos. Si otro caso había calculado ya las capas "
        "congeladas, se cuentan los segundos que tardó él.",
        "Veces más rápido: los segundos del punto de partida entre los del caso, con la misma semilla; media, con el "
        "menor y el mayor. Solo entre casos de esta carpeta medidos en la misma máquina, con los mismos hilos y "
        "procesos.",
        f"Pares: dos casos con la misma semilla e iguales en todo menos un ajuste. Con menos de {FEWEST} no se calcula "
        "un intervalo. Los de una misma semilla comparten los avisos de prueba: con tres semillas o más, el intervalo "
        "es entre semillas; con menos, es entre pares y no incluye el azar de otra división de los avisos.",
    ]
    if any(case.is_resumed for case in cases):
        lines.append("↻: el entrenamiento se interrumpió y continuó; sus segundos son menos exactos.")
    if any(case.beside for case in cases):
        lines.append("∥: se ejecutó al mismo tiempo que otros casos, y sus segundos dependen de ellos.")
    return lines


def not_measured(out: Path) -> dict[str, str]:
    """Return what the grid of an experiment says that it does not measure, and why.

    A grid says so in comments such as `# sin medir: GPU en la nube: aquí no hay GPU.`
    """
    try:
        text = read_regular(out / GRID, LARGEST_JSON).decode("utf-8-sig", "replace")
    except OSError:
        return {}
    return {name.strip(): why.strip() for name, why in _NOT_MEASURED.findall(text)}


def front_alt(groups: Sequence[Group], metric: str, front: set[str]) -> str:
    """Return the text alternative of the figure of F1 against seconds."""
    points = [
        f"«{group.title}», {score.mean:.3f} en {group.seconds().mean:.1f} s"
        for group in groups
        if group.key in front and (score := group.score(metric))
    ]
    return f"F1 de prueba contra segundos de {len(groups)} configuraciones. Frente de Pareto: {'; '.join(points)}."


def models_alt(groups: Sequence[Group], metric: str) -> str:
    """Return the text alternative of the figure of the F1 of each model."""
    found = [
        f"n.º {group.number}: codificador {encoder.mean:.3f}, modelo simple {linear.mean:.3f}"
        for group in groups
        if (encoder := group.score(metric, model="encoder")) and (linear := group.score(metric, model="linear"))
    ]
    return f"F1 de prueba por modelo. {'; '.join(found)}."


def _beats_linear(case: CaseResult, head: str) -> bool:
    """Return whether what a case predicts a label with is better than the simple model, beyond noise."""
    source = case.metrics.get("sources", {}).get(head) if case.predicts_with == AUTO else case.predicts_with
    entry = case.metrics.get("comparison", {}).get(head, {}).get(f"{source}-linear", {})
    return entry.get("f1", {}).get("low", 0.0) > 0
