"""What was read from a file and dropped, as Spanish sentences."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class DataReport:
    """Counts of the rows that were read and dropped; every row of the file is counted."""

    source: str
    how: str
    columns: dict[str, str]
    rows: int
    without_text: int = 0
    without_label: dict[str, int] = field(default_factory=dict)
    kept: int = 0
    passed_over: dict[str, tuple[str, str]] = field(default_factory=dict)
    joined: dict[str, tuple[str, dict[str, int]]] = field(default_factory=dict)
    split: dict[str, int] = field(default_factory=dict)
    repeated_texts: int = 0

    def merged(self) -> dict[str, dict[str, str]]:
        """Return, per head, the class that each class with too few rows was merged into."""
        return {head: dict.fromkeys(rare, other) for head, (other, rare) in self.joined.items()}

    def lines(self) -> list[str]:
        """Return the report as Spanish sentences, one per line."""
        lines = [f"Archivo: {self.source} ({self.how}), {self.rows:,} filas."]
        lines.append("Columnas usadas: " + ", ".join(f"{role} ← «{name}»" for role, name in self.columns.items()) + ".")
        lines += [f"«{name}» no se usó como {role}: {why}." for name, (role, why) in self.passed_over.items()]
        if self.without_text:
            lines.append(f"Filas sin texto, descartadas: {self.without_text:,}.")
        if any(self.without_label.values()):
            counts = ", ".join(f"{head} {count:,}" for head, count in self.without_label.items() if count)
            dropped = self.rows - self.without_text - self.kept
            lines.append(f"Filas con texto y alguna etiqueta vacía, descartadas: {dropped:,} ({counts}).")
        lines.append(f"Filas útiles: {self.kept:,} de {self.rows:,}.")
        for head, (other, classes) in self.joined.items():
            names = ", ".join(f"{name} ({count})" for name, count in classes.items())
            lines.append(f"Clases de {head} con muy pocas filas, unidas en «{other}»: {names}.")
        if self.split:
            parts = " / ".join(f"{name} {count:,}" for name, count in self.split.items())
            lines.append(f"Reparto: {parts}; {self.repeated_texts:,} filas repiten un texto y van del mismo lado.")
        return lines

    def __str__(self) -> str:
        return "\n".join(self.lines())
