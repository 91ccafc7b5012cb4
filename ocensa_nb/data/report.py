"""What was read from a file and dropped, as Spanish sentences."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from ocensa_nb.errors import listed, num
from ocensa_nb.files.notice_file import NoticeFile

FEW_TEXTS = 200  # distinct ones, below which test scores say little: 20 of test or fewer
FEW_TEST_ROWS = 20
SIDES = {"train": "entrenamiento", "val": "validación", "test": "prueba"}


@dataclass(frozen=True)
class CorrectionsReport:
    """What the corrections of a file did."""

    source: str
    rows: int
    changed: dict[str, int]
    labelled: int
    added: int
    other_text: tuple[str, ...]  # numbers of notices with another text in the file
    other_id: tuple[str, ...]  # numbers of corrections whose text is in the file under another number
    absent: tuple[str, ...]  # columns of answers that the file does not have
    lost: tuple[int, ...]  # rows of corrections without a text, or that could be of several notices
    incomplete: tuple[str, ...]
    table: pd.DataFrame = field(repr=False, compare=False)
    left_test: int = 0

    def lines(self) -> list[str]:
        changed = ", ".join(f"{head} {num(count)}" for head, count in self.changed.items())
        lines = [
            f"Correcciones: {self.source}, {num(self.rows)} avisos. Cambian de clase: {changed}. Avisos que no tenían "
            f"todas las etiquetas y ahora sirven: {num(self.labelled)}; nuevos, que no estaban: {num(self.added)}."
        ]
        if self.absent:
            lines.append(f"Las correcciones no tienen {listed(self.absent)}: esas etiquetas no se corrigen.")
        new, lost = "Se añadieron como avisos nuevos", [f"fila {row}" for row in self.lost]
        without_key = "sin texto, o sin id_aviso entero (vacío, 1,0E+09) y con el texto de varios avisos"
        for what, which, advice in (
            ("cuyo id_aviso está en el archivo con otro texto", self.other_text, f"{new}; la fila no cambia."),
            ("cuyo texto está en el archivo con otro id_aviso", self.other_id, f"{new}; si son los mismos, corríjalo."),
            (f"que no se usaron, {without_key}", lost, "Complete su id_aviso y su texto."),
            ("descartadas porque al aviso le falta otra etiqueta", self.incomplete, "Complete su fila."),
        ):
            if which:
                lines.append(f"Correcciones {what}: {num(len(which))} ({listed(which)}). {advice}")
        if self.left_test:
            lines.append(
                "Avisos de prueba que pasan a entrenamiento por estar corregidos, o ser los últimos de su clase: "
                f"{num(self.left_test)}. Eran de los más difíciles: parte de lo que suba el F1 de prueba se debe a eso."
            )
        return lines


def reading_lines(file: NoticeFile) -> list[str]:
    """Return, in Spanish, how a file was read: its format and its columns, the rows left out, and spellings merged."""
    lines = [f"Archivo: {file.path} ({file.notes}), {num(len(file.table))} filas."]
    lines.append("Columnas usadas: " + ", ".join(f"{role} ← «{name}»" for role, name in file.columns.items()) + ".")
    description, *others = (f"«{name}»" for name in file.text_columns)
    *first, last = others or ("",)
    names = f"a continuación {', '.join(first)} y {last}" if first else f"a continuación {last}"
    after = f", y {names}, si no están vacías." if others else ", sin otras columnas."
    lines.append(f"El texto de cada aviso es {description}{after}")
    lines += [f"«{name}» no se usó como {role}: {why}." for name, (role, why) in file.passed_over.items()]
    if file.left_out:
        lines.append(left_out_line(file.left_out))
    for head, classes in file.spellings.items():
        names = "; ".join(
            listed(f"{name} ({num(rows)})" for name, rows in several.items()) for several in classes.values()
        )
        lines.append(f"En {head} se leyeron como la misma clase: {names}.")
    return lines


def left_out_line(left_out: Mapping[str, int]) -> str:
    kinds = ", ".join(f"{num(rows)} {kind}" for kind, rows in left_out.items())
    return f"Filas que no son avisos, y no se usaron: {kinds}."


@dataclass(frozen=True)
class DataReport:
    """Counts of the rows that were read and dropped; every row of the file is counted."""

    source: str
    reading: list[str]  # from `reading_lines`
    columns: dict[str, str]
    filled: dict[str, float]
    values: dict[str, list[str]]  # of the fields in which values repeat, as those of a catalogue do
    rows: int
    left_out: int = 0  # rows that are no notices
    without_text: int = 0
    without_label: dict[str, int] = field(default_factory=dict)
    kept: int = 0
    joined: dict[str, tuple[str, dict[str, int]]] = field(default_factory=dict)
    split: dict[str, int] = field(default_factory=dict)
    repeated_texts: int = 0
    corrections: CorrectionsReport | None = None

    def merged(self) -> dict[str, dict[str, str]]:
        """Return, per head, the class that each class with too few rows was merged into."""
        return {head: dict.fromkeys(rare, other) for head, (other, rare) in self.joined.items()}

    def lines(self) -> list[str]:
        lines = list(self.reading)
        if self.without_text:
            lines.append(f"Filas sin texto, descartadas: {num(self.without_text)}.")
        if any(self.without_label.values()):
            counts = ", ".join(f"{head} {num(count)}" for head, count in self.without_label.items() if count)
            dropped = self.rows - self.left_out - self.without_text - self.kept
            lines.append(f"Filas con texto y alguna etiqueta vacía, descartadas: {num(dropped)} ({counts}).")
        lines.append(f"Filas útiles: {num(self.kept)} de {num(self.rows)}.")
        if self.corrections:
            lines += self.corrections.lines()
        for head, (other, classes) in self.joined.items():
            names = ", ".join(f"{name} ({num(count)})" for name, count in classes.items())
            lines.append(f"Clases de {head} con muy pocas filas, unidas en «{other}»: {names}.")
        if self.split:
            parts = ", ".join(f"{SIDES[name]} {num(count)}" for name, count in self.split.items()).capitalize()
            lines.append(f"{parts}; filas que repiten un texto, y quedan juntas: {num(self.repeated_texts)}.")
            texts = self.kept - self.repeated_texts
            if texts < FEW_TEXTS or self.split["test"] < FEW_TEST_ROWS:
                lines.append(
                    f"Atención: filas útiles {num(self.kept)}, textos distintos {num(texts)}, y solo "
                    f"{num(self.split['test'])} filas de prueba. Con tan pocos, los resultados de prueba son poco "
                    f"fiables. Reúna al menos {FEW_TEXTS} avisos con textos distintos."
                )
        return lines

    def __str__(self) -> str:
        return "\n".join(self.lines())
