"""The model card of a run, `RUN/README.md`: all of it from what the run stores, nothing computed again."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ocensa_nb.config import RECIPES
from ocensa_nb.errors import listed, num
from ocensa_nb.evaluation.metrics import MODEL_TITLES
from ocensa_nb.evaluation.verdict import describe_near, describe_sets
from ocensa_nb.files.atomic import write_text
from ocensa_nb.models.catalogue import CATALOGUE
from ocensa_nb.runs.run import Run
from ocensa_nb.runtime.commands import changes, command_line

CARD, TASK = "README.md", "text-classification"
F1_NAMES = {"f1": "F1 ponderado", "f1_macro": "F1 macro", "accuracy": "Exactitud"}


def write_card(run: Run, metrics: Mapping[str, Any]) -> None:
    """Write the card of a run with the content of its metrics.json, after the block that Hugging Face's hub reads."""
    run.check_held()
    write_text(run.path / CARD, f"---\n{_hub_block(run, metrics)}\n---\n\n{model_card(run, metrics)}")


def model_card(run: Run, metrics: Mapping[str, Any]) -> str:
    """Return the card of a run in Spanish, as Markdown: data, quality, limits, and the command that repeats it."""
    heads, data, config = list(run.classes), run.metadata["data"], run.config
    trained = run.metadata["parameters"]
    recipe = min(RECIPES, key=lambda name: len(changes(config, name)))
    parts = [
        f"# Avisos de mantenimiento: {listed(heads)}",
        "Un clasificador del texto de los avisos, en español. Esta ficha dice con qué se entrenó y para qué sirve.",
        "## Para qué sirve",
        _bullets(*(f"{verdict['sentence']} {verdict['advice']}" for verdict in metrics["verdict"].values())),
        _table(
            ["Etiqueta", "Predice", *F1_NAMES.values(), "F1 frente al modelo simple (95 %)", "Error de calibración"],
            [_quality(head, metrics) for head in heads],
        ),
        f"En {num(data['split']['test'])} avisos de prueba, cuyo texto no se usó al entrenar. El error de "
        "calibración es lo que la confianza se aparta de los aciertos, de 0 a 1.",
        _bullets(
            *describe_near(metrics["near_duplicates"]),
            *(describe_sets(head, measured) for head, measured in metrics["suggestion"].items()),
        ),
        "## Datos",
        _bullets(
            f"«{Path(data['path']).name}»: {num(data['split']['train'])} avisos de entrenamiento, "
            f"{num(data['split']['val'])} de validación y {num(data['split']['test'])} de prueba.",
            "Columnas: " + ", ".join(f"{role} ← «{name}»" for role, name in data["columns"].items()) + ".",
            *(_classes(head, names, data["class_rows"][head]) for head, names in run.classes.items()),
            *(line for choice in metrics["fields"].values() for line in choice["lines"]),
        ),
        "## Modelo",
        _bullets(
            f"Codificador {config.model}: se entrenaron {num(trained['trainable'])} de "
            f"{num(trained['total'])} parámetros; capas congeladas: {run.metadata['frozen_layers']}.",
            f"Mejor época: {metrics['best_epoch']} de {metrics['epochs']}, en {run.metadata['precision']}. A su "
            "lado, un modelo simple (TF-IDF), y la mezcla de los dos.",
        ),
        "## Límites",
        _bullets(
            *metrics["warnings"],
            "Vale para avisos como los de ese archivo. En otra planta, o más adelante, mídalo con evaluate.",
            "No conoce otras clases, y las que tienen pocos avisos casi nunca las predice.",
        ),
        "## Para repetirlo y para usarlo",
        _code(command_line(config.replace(out=""), recipe)),
        _code(f"python -m ocensa_nb predict --run {run.path.name} --data nuevos.xlsx --out predicciones.xlsx"),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _quality(head: str, metrics: Mapping[str, Any]) -> list[str]:
    source = metrics["sources"][head]
    pair = metrics["comparison"].get(head, {}).get(f"{source}-linear")
    ends = [num(pair["f1"][name], 3, "+") for name in ("difference", "low", "high")] if pair else []
    gain = "{} ({} a {})".format(*ends) if ends else "—"
    scores = [num(metrics["test"][f"{head}_{name}"], 3) for name in F1_NAMES]
    return [head, MODEL_TITLES[source], *scores, gain, num(metrics["calibration"][head]["after"], 3)]


def _classes(head: str, names: Sequence[str], rows: Sequence[int]) -> str:
    """Return the classes of a label and their training rows, the most frequent first."""
    most = sorted(zip(names, rows, strict=True), key=lambda part: -part[1])
    return f"{head}: {len(names)} clases: {listed(f'{name} ({num(count)})' for name, count in most)}."


def _hub_block(run: Run, metrics: Mapping[str, Any]) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    name, path = run.config.model, Path(run.metadata["data"]["path"])
    base = CATALOGUE[name].hub_id if name in CATALOGUE else name if re.fullmatch(r"[\w.-]+/[\w.-]+", name) else ""
    results = []
    for head in run.classes:
        names = {"task_name": head, "dataset_config": head, "dataset_split": "test"}
        for metric, title in F1_NAMES.items():
            kind, value = metric.removesuffix("_macro"), round(metrics["test"][f"{head}_{metric}"], 4)
            results.append(EvalResult(TASK, "csv", path.name, kind, value, **names, metric_name=f"{title}, {head}"))
    known = {"base_model": base} if base and not Path(name).exists() else {}
    common = {"language": "es", "pipeline_tag": TASK, "model_name": run.path.name}
    return ModelCardData(**common, **known, eval_results=results).to_yaml()


def _table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(map(_plain, row)) for row in (titles, *rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _bullets(*sentences: str) -> str:
    return "\n".join(f"- {_plain(sentence)}" for sentence in sentences)


def _code(command: str) -> str:
    return "\n".join(f"    {line}" for line in command.splitlines())


def _plain(text: str) -> str:
    """Return a text with what Markdown, HTML or MathJax could read as markup replaced by character references."""
    return re.sub(
        r"[&<>|\\`*\[\]$#~{}!]|(?<![^\W_])_|_(?![^\W_])", lambda found: f"&#{ord(found[0])};", " ".join(text.split())
    )
