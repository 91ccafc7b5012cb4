"""The verbs, continued: what is done with a finished run."""

import logging
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from typing_extensions import Doc

from ocensa_nb.cli.arguments import BadArgumentsError
from ocensa_nb.cli.options import AS_TRAINED, Columns, Data, RunFolder, Source, Target
from ocensa_nb.errors import UserError, num

logger = logging.getLogger(__name__)

TEXT_OR_FILE = (
    "Indique --data y --out, para un archivo, o solo --text, para un aviso.\nAyuda: python -m ocensa_nb predict --help"
)


def predict(
    run: RunFolder,
    data: Annotated[str, Doc("CSV o XLSX con los avisos, una carpeta de ellos, o - para la entrada estándar")] = "",
    out: Annotated[
        str, Doc("archivo nuevo, o carpeta si data lo es; sin extensión, se le pone la de su formato; - = la salida")
    ] = "",
    format: Annotated[
        Literal["auto", "csv", "xlsx"], Doc("auto: el de la extensión de out o, sin ella, el de data")
    ] = "auto",
    with_: Source = "auto",
    target: Target = 0.9,
    columns: Columns = AS_TRAINED,
    text: Annotated[str, Doc("un solo aviso, en lugar de data y out: se predice y se explica por qué")] = "",
    field: Annotated[tuple[str, ...], Doc("con text, otra columna del aviso, p. ej. equipo=BOMBA; se repite")] = (),
    backend: Annotated[
        Literal["local", "dask"], Doc("de una carpeta: dask = un archivo por worker de un clúster de dask.distributed")
    ] = "local",
    scheduler: Annotated[str, Doc("con dask, la dirección de su scheduler, p. ej. tcp://10.0.0.1:8786")] = "",
) -> dict[str, Any]:
    """Predecir las etiquetas de avisos nuevos; se conservan todas las filas y columnas. Repetido, continúa."""
    if (data or out) if text else not (data and out):
        raise BadArgumentsError(TEXT_OR_FILE)
    if text:
        return _explain(run, text, field, with_, target)
    from ocensa_nb.daily import folder
    from ocensa_nb.daily.score import STANDARD, as_files, score
    from ocensa_nb.evaluation.predictor import Predictor
    from ocensa_nb.paths import plain_path
    from ocensa_nb.runs.run import Run
    from ocensa_nb.runtime import distributed

    settings = {"kind": format, "source": with_, "columns": columns, "target": target}
    with distributed.world().agreed():
        is_folder = data != STANDARD and plain_path(data).is_dir()
        if (backend == "dask") != bool(scheduler) or (scheduler and not is_folder):
            raise UserError("backend = dask necesita scheduler, su dirección, y en data una carpeta de archivos.")
        predictor = Predictor.load(Run.load(run))
    if is_folder:
        return folder.score_folder(predictor, plain_path(data), out, scheduler, **settings)
    with as_files(data, out) as (source, target_file):
        result = score(predictor, source, target_file, **settings)
    rows, scored = result["rows"], result["scored"]
    blank = f" Filas sin texto, que quedan sin predicción: {num(rows - scored)}." if scored < rows else ""
    logger.info(f"{num(scored)} de {num(rows)} filas con predicción en {result['out']}.{blank}")
    logger.info("\n".join(result["notes"]))
    return result


def _explain(run: str, text: str, fields: Sequence[str], source: str, target: float) -> dict[str, Any]:
    from ocensa_nb.evaluation import explain
    from ocensa_nb.evaluation.predictor import Predictor
    from ocensa_nb.runs.run import Run

    predictor = Predictor.load(Run.load(run))
    explained = explain.explain(predictor, text, explain.parse_fields(fields), source, target)
    logger.info("\n".join(explained.lines()))
    return explained.to_dict()


def review(
    run: RunFolder,
    data: Data,
    out: Annotated[str, Doc("libro XLSX nuevo: los avisos con su predicción, y las hojas Dudosos y Resumen")],
    rows: Annotated[int, Doc("cuántos avisos se eligen para revisar")] = 200,
    prefill: Annotated[
        bool, Doc("llenar las clases correctas con lo predicho; todas las filas cuentan como revisadas")
    ] = False,
    target: Target = 0.9,
    columns: Columns = AS_TRAINED,
) -> dict[str, Any]:
    """Elegir los avisos que conviene revisar a mano, y predecir los demás; con lo corregido se entrena otra vez."""
    from ocensa_nb.files.write import free_table
    from ocensa_nb.review import review as reviewing
    from ocensa_nb.review import workbook
    from ocensa_nb.runs.run import Run

    trained = Run.load(run)
    path = free_table(out, "xlsx")  # fail before the work, not after
    chosen = reviewing.review(trained, data, rows, columns, target)
    workbook.write(chosen, path, prefill)
    logger.info("\n".join(chosen.notes))
    logger.info(
        f"{num(len(chosen.doubtful))} avisos para revisar en la hoja Dudosos de {path}. Elija ahí la clase correcta de "
        f"cada etiqueta y entrene otra vez, con los mismos ajustes y --corrections {path}."
    )
    return {
        "out": str(path),
        "rows": len(chosen.predictions),
        "selected": len(chosen.doubtful),
        "notes": chosen.notes,
        "counts": chosen.counts.to_dict("records"),
    }


def report(
    run: RunFolder,
    data: Data,
    out: Annotated[str, Doc("página nueva, .html")],
    with_: Source = "auto",
    target: Target = 0.9,
    columns: Columns = AS_TRAINED,
) -> dict[str, Any]:
    """Escribir una página con lo que dicen los avisos: qué usar, qué revisar, lo urgente y lo que cambió."""
    from ocensa_nb.daily.page import free_page, write_page
    from ocensa_nb.evaluation.predict import predict as predict_table
    from ocensa_nb.runs.run import Run

    trained = Run.load(run)
    free_page(out)  # fail before the work, not after
    predicted = predict_table(trained, data, with_, columns, target)
    path = write_page(trained, predicted, out)
    logger.info(f"Página de {num(predicted.tally.rows)} filas en {path}. Ábrala en un navegador.")
    return {"out": str(path), "rows": predicted.tally.rows, "scored": predicted.tally.scored, "notes": predicted.notes}


def export(
    run: RunFolder,
    out: Annotated[str, Doc("carpeta nueva")],
    format: Annotated[Literal["onnx"], Doc("ONNX, para onnxruntime, Triton y otros")] = "onnx",
    int8: Annotated[bool, Doc("pesos de 8 bits: un archivo cuatro veces menor, que no da lo mismo")] = False,
) -> dict[str, Any]:
    """Exportar el codificador de una corrida para otras máquinas, con un script que puntúa un CSV."""
    from ocensa_nb.daily import export as exporting
    from ocensa_nb.runs.run import Run

    return exporting.export(Run.load(run), out, int8)
