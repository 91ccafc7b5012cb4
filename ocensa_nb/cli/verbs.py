"""The verbs: parameters are options, the docstring is the help, the result is what `--json` writes."""

import logging
from collections.abc import Callable
from typing import Annotated, Any, Literal

from typing_extensions import Doc

from ocensa_nb.cli.daily_verbs import export, predict, report, review
from ocensa_nb.cli.options import AS_TRAINED, Columns, Out, RunFolder, Source, Verbose
from ocensa_nb.config import RECIPES, TEXT_FIELDS, TrainConfig
from ocensa_nb.errors import IncompleteError, UserError, num
from ocensa_nb.files.atomic import create_new
from ocensa_nb.paths import free_path

logger = logging.getLogger(__name__)

Recipe = Annotated[
    str, Doc(f"receta: auto (según la máquina), {', '.join(RECIPES)}; los demás parámetros tienen prioridad sobre ella")
]
MOST_ROWS = 5_000_000  # all rows are in memory at once


def generate(
    out: Out,
    rows: Annotated[int, Doc("cuántos avisos")] = 20_000,
    seed: Annotated[int, Doc("semilla: la misma da los mismos avisos")] = 42,
) -> dict[str, Any]:
    """Generar avisos sintéticos etiquetados."""
    from ocensa_nb.data import synthetic

    if not 1 <= rows <= MOST_ROWS or seed < 0:
        raise UserError(f"rows = {rows}, seed = {seed}: rows debe ser de 1 a {num(MOST_ROWS)}, y seed 0 como mínimo.")
    path = free_path(out)
    with create_new(path) as temporary:
        synthetic.write_csv(synthetic.generate(rows, seed), temporary)
    ceiling = _scores(synthetic.ceiling())
    logger.info(f"{num(rows)} avisos sintéticos en {path}. Ningún clasificador puede superar: {ceiling}.")
    return {"out": str(path), "rows": rows, "seed": seed, "ceiling": synthetic.ceiling()}


def train(recipe: Recipe = "auto", verbose: Verbose = False, **fields: Any) -> dict[str, Any]:
    """Entrenar un clasificador con avisos etiquetados."""
    from ocensa_nb.daily.page import write_run_page
    from ocensa_nb.evaluation.blend import describe_sources, read_blends
    from ocensa_nb.figures.training import training_gif
    from ocensa_nb.runs.resume import reject_finished
    from ocensa_nb.runtime import distributed
    from ocensa_nb.runtime.machine import configure
    from ocensa_nb.training import train as training
    from ocensa_nb.training.quality import report

    world = distributed.world()
    with world.agreed():
        config = configure(recipe, fields)
        reject_finished(config)
        notices = training.load_notices(config)
    logger.info(notices.report)
    logger.info(f"Receta {recipe}, codificador {config.model}{world.describe()}.")
    run = training.fit(config, notices)
    if not world.is_first:
        return {}
    training_gif(run)
    write_run_page(run)
    metrics, seconds = run.metrics, run.metadata["seconds"]
    logger.info("\n".join(report(metrics, verbose)))
    logger.info(f"Prueba: {_scores(metrics['test'])}. {describe_sources(read_blends(run))}")
    logger.info(
        f"Corrida en {run.path}, con su página report.html: se guardó la época {metrics['best_epoch']}, la mejor de "
        f"{metrics['epochs']}. El entrenamiento tardó {seconds['training']:.0f} s (previstos: "
        f"{seconds['expected']:.0f} s); en total, {seconds['total']:.0f} s."
    )
    return {"run": str(run.path), "recipe": recipe, "seconds": seconds, **metrics}


def evaluate(
    run: RunFolder,
    out: Out,
    data: Annotated[str, Doc("CSV o XLSX etiquetado; vacío = las filas de prueba de la corrida")] = "",
    with_: Source = "auto",
    columns: Columns = AS_TRAINED,
    verbose: Verbose = False,
) -> dict[str, Any]:
    """Evaluar una corrida: métricas, informe por clase y matrices de confusión."""
    from ocensa_nb.evaluation import evaluate as evaluation
    from ocensa_nb.figures import quality, style
    from ocensa_nb.runs.run import Run, free_folder

    trained = Run.load(run)
    path = free_folder(out)  # fail before the work, not after
    result = evaluation.evaluate(trained, data, with_, columns)
    with create_new(path) as folder:
        folder.mkdir()
        result.write(folder)
        for head in result.classes:
            figure = quality.confusion(result.confusion(head), f"Confusión: {head}")
            style.save(figure, folder / f"confusion_{head}.png")
    logger.info(f"Evaluación de {result.source} ({num(len(result.texts))}) en {path}.")
    logger.info(result.summary().round(3).to_string(decimal=","))
    logger.info("\n".join(result.notes + result.comparison * verbose))
    return {"out": str(path), **result.record()}


def compare(
    out: Out,
    data: Annotated[str, Doc("CSV o XLSX con los avisos; vacío = los datos sintéticos incluidos")] = "",
    model: Annotated[str, Doc("codificador con el que se mide")] = "minilm",
    steps: Annotated[int, Doc("rondas; en cada una se mide un paso de cada técnica")] = 3,
) -> dict[str, Any]:
    """Medir cuánto gana cada optimización en esta máquina y con sus datos: por separado y acumuladas."""
    from ocensa_nb.benchmark import compare as comparison
    from ocensa_nb.figures import comparison as speedup_figures
    from ocensa_nb.runs import run as run_folder

    path = run_folder.free_folder(out)  # fail before the work, not after
    results = comparison.compare(TrainConfig(data=data, model=model), steps)
    logger.info(comparison.table(results).to_string(index=False))
    logger.info("\nCada técnica por separado:\n" + comparison.table(results, "alone").to_string(index=False) + "\n")
    logger.info("\n".join(comparison.summaries(results)))
    speedup_figures.save(results, path)
    logger.info(f"Tablas y figuras en {path}.")
    return results


def audit(
    out: Out,
    data: Annotated[str, Doc("CSV o XLSX con los avisos; vacío = los datos sintéticos incluidos")] = "",
    heads: Annotated[tuple[str, ...], Doc("etiquetas que se revisan")] = ("modo", "causa", "prioridad"),
    columns: Annotated[dict[str, str], Doc('columnas con otro nombre, p. ej. causa "Mi columna"')] = {},  # noqa: B006
    text_fields: Annotated[tuple[str, ...], Doc("columnas que se añaden a la descripción, si existen")] = TEXT_FIELDS,
    fields: Annotated[tuple[str, ...], Doc("columnas que puede leer el modelo simple, además de las de SAP")] = (),
    min_class_count: Annotated[int, Doc("con 6 clases o más, las de menos filas se unen en «Other»")] = 2,
    seed: Annotated[int, Doc("semilla; con la de un entrenamiento, la misma prueba si no faltan etiquetas")] = 42,
) -> dict[str, Any]:
    """Ver antes de entrenar si las etiquetas se pueden aprender: contradicciones, códigos, clases raras y errores."""
    from ocensa_nb.audit import audit as auditing
    from ocensa_nb.figures import audit as audit_plots
    from ocensa_nb.runs.run import free_folder

    path = free_folder(out)  # fail before the work, not after
    settings = {"columns": columns, "text_fields": text_fields, "fields": fields, "min_class_count": min_class_count}
    result = auditing.audit(auditing.settings(data, heads, seed=seed, **settings))
    audit_plots.save_audit(result, path)
    logger.info(result.summary().round(3).to_string(index=False, decimal=","))
    logger.info("\n".join(result.lines()))
    logger.info(f"Tablas, figuras y listas para revisar en {path}.")
    return {"out": str(path), **result.to_dict()}


def suite(out: Out) -> dict[str, Any]:
    """Ejecutar los cuadernos 01 a 04, 06 y 09 de forma automática, con el modelo y los datos incluidos."""
    from ocensa_nb.notebook import suite as headless

    results = headless.suite(out)
    logger.info(f"Prueba: {_scores(results['test'])}.")
    logger.info("Segundos: " + ", ".join(f"{name} {seconds:.0f}" for name, seconds in results["seconds"].items()) + ".")
    logger.info(f"Cuadernos ejecutados y copias HTML en {results['out']}.")
    return results


def lab(
    out: Annotated[
        str, Doc("carpeta de las copias, si el paquete está instalado y no es una copia del proyecto")
    ] = "cuadernos",
    prepare_only: Annotated[bool, Doc("copiar los cuadernos y no abrir JupyterLab")] = False,
) -> dict[str, Any]:
    """Abrir los cuadernos en JupyterLab."""
    from ocensa_nb.notebook import session

    if not prepare_only:
        session.require_lab()
    folder, beside = session.notebooks_folder(out)
    if beside:
        logger.info(
            f"Los suyos no se tocan; los de esta versión quedan al lado: {', '.join(path.name for path in beside)}."
        )
    logger.info(f"Cuadernos en {folder.resolve()}.")
    if not prepare_only:
        logger.info("Para cerrar JupyterLab, pulse Ctrl+C aquí.")
        session.run_lab(folder)
    return {"out": str(folder), "beside": [str(path) for path in beside]}


def experiments(
    grid: Annotated[str, Doc("YAML con base, grid, cases y seeds")],
    out: Annotated[str, Doc("carpeta nueva, o la de los mismos experimentos para continuarlos")],
    jobs: Annotated[int, Doc("casos a la vez en esta máquina, que se reparten sus núcleos y GPU; 0 = uno por GPU")] = 0,
    backend: Annotated[
        Literal["local", "dask"], Doc("dask: un caso por worker de un clúster de dask.distributed")
    ] = "local",
    scheduler: Annotated[str, Doc("con dask, la dirección de su scheduler, p. ej. tcp://10.0.0.1:8786")] = "",
) -> dict[str, Any]:
    """Ejecutar una cuadrícula de entrenamientos; repetir el comando la continúa."""
    from ocensa_nb.experiments import run as runner

    result = runner.run_grid(grid, out, jobs, backend, scheduler)
    if summary := runner.failures(result):
        raise IncompleteError(summary, result)
    return result


_ALL = (generate, train, evaluate, predict, review, report, export, compare, audit, suite, lab, experiments)
VERBS: dict[str, Callable[..., dict[str, Any]]] = {verb.__name__: verb for verb in _ALL}


def _scores(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {num(value, 3)}" for name, value in metrics.items() if name.endswith("_f1"))
