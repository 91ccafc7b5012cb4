"""The command line: one function per verb; tyro derives the flags from the signatures and from `TrainConfig`.

Exit codes: 0; 1 for a `UserError`, with only its message on stderr; 2 for arguments that cannot be parsed; 128 plus the
number of the signal that stopped the process.
"""

import argparse
import contextlib
import functools
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import tyro

from ocensa_nb.config import RECIPES, TrainConfig
from ocensa_nb.errors import AskedToStopError, UserError
from ocensa_nb.files.atomic import create_new
from ocensa_nb.paths import free_path, reason
from ocensa_nb.runtime import logs
from ocensa_nb.runtime.streams import SafeStream, safe_output

Out = Annotated[str, tyro.conf.arg(help="dónde se escribe; nunca sobre algo que ya existe")]
Data = Annotated[str, tyro.conf.arg(help="CSV o XLSX")]
MOST_ROWS = 5_000_000  # all rows are in memory at once
RunFolder = Annotated[str, tyro.conf.arg(help="carpeta de una corrida terminada")]


def generate(out: Out, rows: int = 20_000, seed: int = 42) -> dict[str, Any]:
    """Generar avisos sintéticos etiquetados."""
    from ocensa_nb.data import synthetic

    if not 1 <= rows <= MOST_ROWS or seed < 0:
        raise UserError(f"rows = {rows}, seed = {seed}: rows debe ser de 1 a {MOST_ROWS:,}, y seed 0 como mínimo.")
    path = free_path(out)
    with create_new(path) as fresh:
        synthetic.write_csv(synthetic.generate(rows, seed), fresh)
    print(f"{rows:,} avisos sintéticos en {path}. Ningún clasificador puede pasar de: {_scores(synthetic.ceiling())}.")
    return {"out": str(path), "rows": rows, "seed": seed, "ceiling": synthetic.ceiling()}


def train(
    config: Annotated[TrainConfig, tyro.conf.arg(name="")],
    recipe: Annotated[str, tyro.conf.arg(help=f"auto (según el equipo), {', '.join(RECIPES)}")] = "auto",
) -> dict[str, Any]:
    """Entrenar un clasificador con avisos etiquetados."""
    from ocensa_nb.figures import plots
    from ocensa_nb.storage.resume import reject_finished
    from ocensa_nb.training import train as training

    reject_finished(config.validate())
    notices = training.load_notices(config)
    print(notices.report)
    print(f"Receta {recipe}, codificador {config.model}.", flush=True)
    run = training.fit(config, notices)
    plots.training_gif(run)
    metrics, seconds = run.metrics, run.metadata["seconds"]
    print(f"Corrida en {run.path}: se guardó la época {metrics['best_epoch']}, la mejor de {metrics['epochs']}.")
    print(
        f"Entrenar tardó {seconds['training']:.0f} s, de {seconds['expected']:.0f} s previstos; todo, "
        f"{seconds['total']:.0f} s."
    )
    print(f"Prueba: {_scores(metrics['test'])}.")
    return {"run": str(run.path), "recipe": recipe, "seconds": seconds, **metrics}


def evaluate(run: RunFolder, out: Out, data: Data = "") -> dict[str, Any]:
    """Evaluar una corrida: métricas, informe por clase, confusión (sin data: sus filas de prueba)."""
    from ocensa_nb.evaluation import evaluate as evaluation
    from ocensa_nb.figures import plots
    from ocensa_nb.storage.run_folder import Run, free_folder

    trained = Run.load(run)
    path = free_folder(out)  # fail before the work, not after
    found = evaluation.evaluate(trained, data)
    with create_new(path) as folder:
        folder.mkdir()
        found.write(folder)
        for head in found.classes:
            plots.save(plots.confusion(found.confusion(head), f"Confusión: {head}"), folder / f"confusion_{head}.png")
    print(f"Evaluación de {found.source} ({len(found.texts):,}) en {path}.")
    if found.left_out:
        print(found.left_out_note())
    print(found.summary().round(3).to_string())
    return {
        "out": str(path),
        "rows": len(found.texts),
        "left_out": found.left_out,
        "unknown_labels": found.unknown,
        "metrics": found.metrics,
    }


def predict(run: RunFolder, data: Data, out: Out) -> dict[str, Any]:
    """Predecir las etiquetas de avisos nuevos; el archivo sale con todas sus filas y columnas."""
    from ocensa_nb.data.write_table import free_table
    from ocensa_nb.evaluation import predict as prediction
    from ocensa_nb.storage.run_folder import Run

    trained = Run.load(run)
    free_table(out)  # fail before the work, not after
    table = prediction.predict(trained, data)
    path = prediction.save(table, out)
    scored = int((table[f"pred_{next(iter(trained.classes))}"] != "").sum())
    blank = f"; las otras {len(table) - scored:,} no tienen texto" if scored < len(table) else ""
    print(f"{scored:,} de {len(table):,} filas con predicción en {path}{blank}.")
    return {"out": str(path), "rows": len(table), "scored": scored}


def compare(
    out: Out,
    data: Data = "",
    model: Annotated[str, tyro.conf.arg(help="codificador que se mide")] = "minilm",
    steps: Annotated[int, tyro.conf.arg(help="rondas: en cada una se mide un paso de cada técnica")] = 3,
    quality: Annotated[bool, tyro.conf.arg(help="además, entrenamientos cortos con su F1")] = False,
    epochs: Annotated[int, tyro.conf.arg(help="épocas de esos entrenamientos")] = 3,
    seeds: Annotated[int, tyro.conf.arg(help="semillas de cada uno")] = 2,
) -> dict[str, Any]:
    """Medir qué gana cada optimización aquí, con sus datos: sola y una sobre otra."""
    from ocensa_nb.benchmark import compare as comparison
    from ocensa_nb.benchmark import quality_cost as trainings
    from ocensa_nb.figures import comparison_report
    from ocensa_nb.storage import run_folder

    trainings.check(epochs, seeds)
    path = run_folder.free_folder(out)  # fail before the work, not after
    config = TrainConfig(data=data, model=model)
    results = comparison.compare(config, steps)
    print(comparison.table(results).to_string(index=False))
    print("\nCada técnica sola:\n" + comparison.table(results, "alone").to_string(index=False) + "\n")
    print("\n".join(comparison.summaries(results)))
    try:
        if quality:
            results["quality"] = trainings.quality(config, results, epochs, seeds)
            print(trainings.reading(results["quality"]))
    finally:  # save the measurements even if a training stops
        comparison_report.save(results, path)
    print(f"Tablas y figuras en {path}.")
    return results


def suite(out: Out) -> dict[str, Any]:
    """Ejecutar los cuadernos 01 a 04 sin pantalla, con el modelo y los datos incluidos."""
    from ocensa_nb.notebook import headless

    results = headless.suite(out)
    print(headless.results_table(results).to_string())
    print("Segundos: " + ", ".join(f"{name} {seconds:.0f}" for name, seconds in results["seconds"].items()) + ".")
    print(f"Cuadernos ejecutados y copias HTML en {results['out']}.")
    return results


def publish(
    repository: Annotated[str, tyro.conf.arg(help="dirección https del proyecto; vacía la quita")],
    version: Annotated[str, tyro.conf.arg(help="tag o commit; vacío: el último commit que cambió el paquete")] = "",
) -> dict[str, Any]:
    """Para quien mantiene el proyecto: escribir su dirección en cuadernos, insignias y pyproject.toml."""
    from ocensa_nb import publish as publishing

    address, ref, changed = publishing.publish(repository, version)
    print(f"Escrito: {', '.join(changed)}." if changed else "Ya estaba escrito: no cambia nada.")
    print(publishing.next_step(address, ref))
    return {"repository": address, "version": ref, "changed": changed}


ABOUT = "Avisos de mantenimiento → modo de falla, causa y prioridad. Todo verbo acepta --json ARCHIVO (- = pantalla)."

VERBS: dict[str, Callable[..., dict[str, Any]]] = {
    "generate": generate,
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "compare": compare,
    "suite": suite,
    "publish": publish,
}


REGISTRY = tyro.constructors.ConstructorRegistry()


@REGISTRY.primitive_rule
def _pairs(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec | None:
    """Parse a dict field from `--heads causa 0.6 modo 0.4`; the given pairs replace all defaults."""
    if get_origin(info.type) is not dict:
        return None
    _, kind = get_args(info.type)

    def parse(words: list[str]) -> dict[str, Any]:
        if len(words) % 2:
            raise ValueError("se esperan pares NOMBRE VALOR")
        return {name: kind(value) for name, value in zip(words[::2], words[1::2], strict=True)}

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="NOMBRE VALOR",
        instance_from_str=parse,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda pairs: [str(word) for pair in pairs.items() for word in pair],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code; `arguments` defaults to `sys.argv[1:]`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a Windows code page may lack a character
            stream.reconfigure(errors="replace")
    logs.configure(
        rank=int(os.environ.get("RANK", 0)),  # of torchrun
        line_seconds=float(os.environ.get("OCENSA_LINE_SECONDS", logs.LINE_SECONDS)),  # of the panel
    )
    with safe_output() as screen:
        try:
            _run(sys.argv[1:] if arguments is None else list(arguments), screen)
        except AskedToStopError as error:
            print(error, file=sys.stderr)
            return 128 + error.signal  # the shell convention for a process ended by a signal
        except UserError as error:
            print(error, file=sys.stderr)
            return 1
        except MemoryError:
            print(
                "No hay memoria suficiente. Cierre otros programas, o use menos filas o un modelo menor.",
                file=sys.stderr,
            )
            return 1
        except KeyboardInterrupt:
            print("Interrumpido.", file=sys.stderr)
            return 130
    return 0


def _run(arguments: list[str], screen: SafeStream) -> None:
    """Run one verb and write its result."""
    # Two flags are parsed before tyro: --json, and --recipe, which sets the defaults of the fields.
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--json", default="")
    own, rest = first.parse_known_args(arguments)
    first.add_argument("--recipe", default="auto")
    if own.json not in ("", "-"):
        free_path(own.json)  # fail before the work, not after
    verbs = dict(VERBS)
    if rest[:1] == ["train"]:
        from ocensa_nb.runtime.environment import configure

        recipe = first.parse_known_args(rest)[0].recipe
        verbs["train"] = functools.partial(train, config=configure(recipe))
    # With the JSON result on stdout, messages to the user go to stderr.
    with contextlib.redirect_stdout(sys.stderr) if own.json == "-" else contextlib.nullcontext():
        result = tyro.extras.subcommand_cli_from_dict(
            verbs,
            prog="python -m ocensa_nb",
            description=ABOUT,
            args=rest,
            config=(tyro.conf.FlagConversionOff,),
            registry=REGISTRY,
        )
    _write_json(result, own.json, screen)


def _write_json(result: dict[str, Any], target: str, screen: SafeStream) -> None:
    text = json.dumps(result, ensure_ascii=False, indent=2) + "\n"
    if target == "-":
        print(text, end="", flush=True)
        if screen.failure:
            raise UserError(f"No se puede escribir el resultado en la salida: {reason(screen.failure)}.")
    elif target:
        with create_new(Path(target)) as fresh:
            fresh.write_text(text, encoding="utf-8")


def _scores(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in metrics.items() if name.endswith("_f1"))
