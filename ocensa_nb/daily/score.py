"""Score a file of any size: write a copy with predictions, in parts, and continue it after an interruption."""

import contextlib
import dataclasses
import logging
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ocensa_nb.config import AUTO
from ocensa_nb.daily.partial import Partial, partial
from ocensa_nb.daily.parts import split
from ocensa_nb.data.columns import Columns, title_predicate
from ocensa_nb.data.report import left_out_line
from ocensa_nb.errors import UserError, num
from ocensa_nb.evaluation.predict import PredictedFile, Tally, predict_file, read_unlabelled, save
from ocensa_nb.evaluation.predictor import Predictor, require_source
from ocensa_nb.evaluation.suggestion import TARGET
from ocensa_nb.files.append import append_to_csv
from ocensa_nb.files.notice_file import NoticeFile, Part, is_workbook, read_table, table_suffix
from ocensa_nb.files.verify import sha256
from ocensa_nb.files.write import csv_bytes, free_table
from ocensa_nb.paths import plain_path, reason
from ocensa_nb.runs.manifest import MANIFEST
from ocensa_nb.runs.run import Run
from ocensa_nb.runtime import distributed
from ocensa_nb.runtime.logs import only_errors, progress

logger = logging.getLogger(__name__)

STANDARD = "-"  # the standard input as data, the standard output as out


def score(
    predictor: Predictor,
    data: str | Path,
    out: str | Path,
    kind: str = "auto",
    source: str = AUTO,
    columns: Columns | None = None,
    target: float = TARGET,
) -> dict[str, Any]:
    """Write a copy of a CSV or XLSX file with the predictions of its notices; see `evaluation.predict.predict`.

    The memory is bounded if a CSV is read and written. If the same call was interrupted, it continues with the first
    chunk of notices that was not scored. Returns the path, the rows, those with a text, and the notes.

    Raises
    ------
    UserError
        If the result exists, or another process writes it; see `evaluation.predict.predict`.
    """
    require_source(source)
    run, world, path = predictor.run, distributed.world(), plain_path(data)
    with world.agreed():
        result = free_table(out, kind, table_suffix(path))
    made_of = {
        "run": sha256(run.path / MANIFEST),
        "data": [str(path.resolve()), *([path.stat().st_size, path.stat().st_mtime_ns] if path.is_file() else [])],
        "settings": [source, target, dict(columns or {}), world.size],
    }
    with contextlib.ExitStack() as stack:
        done = None
        with world.agreed():
            if world.is_first:
                classes = {head: len(names) for head, names in run.classes.items()}
                done = stack.enter_context(partial(result, classes, made_of))
        ended, kept = world.on_first(lambda: (done.parts, done.kept))
        tally = Tally(**kept) if kept else None
        first: NoticeFile | None = None
        parts = split(path, _is_title(run, columns)) if result.suffix == ".csv" else [None]
        for number, part in enumerate(parts):
            if ended > number > 0:
                continue  # the first one is read in any case: it decides what the columns of the others are
            if part and not number:
                logger.info(f"«{path}» se lee en partes, para que quepa en la memoria. Lo que sigue es de la primera.")
            with world.agreed(), only_errors() if number else contextlib.nullcontext():
                file = _read(run, path, part, columns, first, tally.rows if number else 0)
            if number and file.notes != first.notes:
                logger.info(f"Parte {number + 1}: {file.notes}.")
            first = first or file
            if number < ended:
                continue
            if done and done.bar is None:
                rows = len(file.table) * path.stat().st_size // len(part.content) if part else len(file.table)
                before = (tally.rows if tally else 0) + done.rows
                if before:
                    logger.info(f"Continúa donde quedó: ya había {num(before)} filas con predicción.")
                done.bar = stack.enter_context(progress(None, "Prediciendo", "aviso", total=rows, initial=before))
            predicted = predict_file(predictor, file, source, target, done if world.size == 1 else None)
            if tally:
                tally.add(predicted.tally)
            else:
                tally = predicted.tally
            with world.agreed():
                if done:
                    done.end_part(_written(run, predicted, part, first, done), dataclasses.asdict(tally))
    if number and tally.left_out:
        logger.info(left_out_line(tally.left_out))
    notes = tally.notes(predictor, source, target)
    return {"out": str(result), "rows": tally.rows, "scored": tally.scored, "notes": notes}


def _is_title(run: Run, columns: Columns | None) -> Any:
    return title_predicate((*run.classes, *run.config.text_fields), {**run.config.columns, **(columns or {})})


def _read(
    run: Run, path: Path, part: Part | None, columns: Columns | None, first: NoticeFile | None, before: int
) -> NoticeFile:
    """Read a file or a part of it; the columns and the format are those of the first part."""
    if part is None:
        return read_unlabelled(run, path, columns)
    table = read_table(path, _is_title(run, columns), part=dataclasses.replace(part, before=before))
    file = read_unlabelled(run, table, first.columns if first else columns)
    if first:
        quoted = file.csv_format.quoted
        file = dataclasses.replace(file, csv_format=dataclasses.replace(first.csv_format, quoted=quoted))
    return file


def _written(run: Run, predicted: PredictedFile, part: Part | None, first: NoticeFile, done: Partial) -> bytes | None:
    """Return a part of the result; None if the file was no part, and the result is written."""
    if part is None:
        save(predicted, done.result)
        return None
    file, titles = predicted.file, not part.separator
    added, encoding = predicted.table.iloc[:, file.table.shape[1] :], first.csv_format.encoding
    names = [*added.columns, *(name for names in run.classes.values() for name in names)]
    try:
        "".join(names).encode(encoding)
    except UnicodeEncodeError:
        if titles:
            logger.info(f"Se escribe en UTF-8, que Excel también abre: {encoding} no tiene todas las letras.")
        return csv_bytes(predicted.table, first.csv_format, titles)
    return append_to_csv(file, part.content, added, titles)


@contextlib.contextmanager
def as_files(data: str, out: str) -> Iterator[tuple[str | Path, str | Path]]:
    """Yield the paths to read and to write: for `-`, temporary ones, of the standard input and for the output."""
    if STANDARD not in (data, out):
        yield data, out
        return
    with tempfile.TemporaryDirectory() as name:
        read, write = Path(name, "entrada"), Path(name, "salida")
        try:
            if data == STANDARD:
                with open(read, "wb") as copy:
                    shutil.copyfileobj(sys.stdin.buffer, copy)
                with open(read, "rb") as copy:
                    suffix = ".xlsx" if is_workbook(read, copy.read(2**26)) else ".csv"
                read = read.rename(read.with_suffix(suffix))
            yield (read if data == STANDARD else data), (write if out == STANDARD else out)
            if out == STANDARD:
                with open(next(Path(name).glob("salida.*")), "rb") as result:
                    shutil.copyfileobj(result, sys.__stdout__.buffer)
                sys.__stdout__.flush()
        except OSError as error:
            raise UserError(f"No se puede leer la entrada o escribir la salida: {reason(error)}.") from error
