"""What was read from a file and dropped, as Spanish sentences."""

from dataclasses import dataclass, field

import pandas as pd

from ocensa_nb.errors import listed

FEW_ROWS = 200  # labelled rows below which test scores say little: 20 test rows or fewer
SIDES = {"train": "entrenamiento", "val": "validación", "test": "prueba"}


@dataclass(frozen=True)
class CorrectionsReport:
    """What the corrections of a file did."""

    source: str
    rows: int
    changed: dict[str, int]
    labelled: int
    added: int
    other_text: tuple[str, ...]
    incomplete: tuple[str, ...]
    table: pd.DataFrame = field(repr=False, compare=False)
    left_test: int = 0

    def lines(self) -> list[str]:
        changed = ", ".join(f"{head} {count:,}" for head, count in self.changed.items())
        lines = [
            f"Correcciones: {self.source}, {self.rows:,} avisos. Cambian de clase: {changed}. Avisos que no tenían "
            f"todas las etiquetas y ahora sirven: {self.labelled:,}; añadidos porque no estaban en el archivo: "
            f"{self.added:,}."
        ]
        if self.other_text:
            lines.append(
                f"Correcciones cuyo id_aviso está en el archivo con otro texto: {len(self.other_text):,} "
                f"({listed(self.other_text)}). Se añadieron como avisos nuevos; la fila del archivo no cambia."
            )
        if self.incomplete:
            lines.append(
                f"Correcciones descartadas porque al aviso le falta otra etiqueta: {len(self.incomplete):,} "
                f"({listed(self.incomplete)}). Complete su fila."
            )
        if self.left_test:
            lines.append(
                f"Avisos de prueba que pasan a entrenamiento por estar corregidos: {self.left_test:,}. Eran de los "
                "más difíciles: parte de lo que suba el F1 de prueba se debe a eso."
            )
        return lines


@dataclass(frozen=True)
class DataReport:
    """Counts of the rows that were read and dropped; every row of the file is counted."""

    source: str
    how: str
    columns: dict[str, str]
    rows: int
    text: tuple[str, ...] = ()
    without_text: int = 0
    without_label: dict[str, int] = field(default_factory=dict)
    kept: int = 0
    passed_over: dict[str, tuple[str, str]] = field(default_factory=dict)
    joined: dict[str, tuple[str, dict[str, int]]] = field(default_factory=dict)
    split: dict[str, int] = field(default_factory=dict)
    repeated_texts: int = 0
    corrections: CorrectionsReport | None = None

    def merged(self) -> dict[str, dict[str, str]]:
        """Return, per head, the class that each class with too few rows was merged into."""
        return {head: dict.fromkeys(rare, other) for head, (other, rare) in self.joined.items()}

    def lines(self) -> list[str]:
        lines = [f"Archivo: {self.source} ({self.how}), {self.rows:,} filas."]
        lines.append("Columnas usadas: " + ", ".join(f"{role} ← «{name}»" for role, name in self.columns.items()) + ".")
        if self.text:
            lines.append(self._text_line())
        lines += [f"«{name}» no se usó como {role}: {why}." for name, (role, why) in self.passed_over.items()]
        if self.without_text:
            lines.append(f"Filas sin texto, descartadas: {self.without_text:,}.")
        if any(self.without_label.values()):
            counts = ", ".join(f"{head} {count:,}" for head, count in self.without_label.items() if count)
            dropped = self.rows - self.without_text - self.kept
            lines.append(f"Filas con texto y alguna etiqueta vacía, descartadas: {dropped:,} ({counts}).")
        lines.append(f"Filas útiles: {self.kept:,} de {self.rows:,}.")
        if self.corrections:
            lines += self.corrections.lines()
        for head, (other, classes) in self.joined.items():
            names = ", ".join(f"{name} ({count})" for name, count in classes.items())
            lines.append(f"Clases de {head} con muy pocas filas, unidas en «{other}»: {names}.")
        if self.split:
            parts = ", ".join(f"{SIDES[name]} {count:,}" for name, count in self.split.items()).capitalize()
            lines.append(f"{parts}; {self.repeated_texts:,} filas repiten un texto y quedan juntas.")
            if self.kept < FEW_ROWS:
                lines.append(
                    f"Atención: hay pocas filas útiles, {self.kept}, y solo {self.split['test']} son de prueba. Con "
                    f"tan pocas, los resultados de prueba son poco fiables. Reúna al menos {FEW_ROWS} filas."
                )
        return lines

    def _text_line(self) -> str:
        description, *others = (f"«{name}»" for name in self.text)
        if not others:
            return f"El texto de cada aviso es {description}, sin otras columnas."
        *first, last = others
        names = f"{', '.join(first)} y {last}" if first else last
        return f"El texto de cada aviso es {description}, y a continuación {names}, si no están vacías."

    def __str__(self) -> str:
        return "\n".join(self.lines())
