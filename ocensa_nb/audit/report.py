"""What an audit found out about each label: its tables, its verdicts and its files."""

from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ocensa_nb.audit.label_errors import REVIEW_COLUMNS, OutOfFold
from ocensa_nb.audit.repeats import Repeats
from ocensa_nb.audit.rows import AuditRows
from ocensa_nb.audit.verdict import ExpectedF1, Verdict
from ocensa_nb.config import TrainConfig
from ocensa_nb.data.corrections import RIGHT
from ocensa_nb.errors import num
from ocensa_nb.files.atomic import write_json, write_text
from ocensa_nb.files.write import write_table
from ocensa_nb.training.field_choice import FieldChoice

EXACT, NORMALISED = "idéntico", "igual sin códigos ni números"  # what counts as the same text


@dataclass(frozen=True)
class NearEffect:
    """Near-duplicates of one label across the split of a training."""

    close: int
    asked: int
    agreement: float | None
    f1: float
    f1_without: float


@dataclass(frozen=True)
class Audit:
    """What was measured of each label of a file; a label that could not be measured has classes and a verdict only."""

    config: TrainConfig
    data: AuditRows
    repeats: dict[str, dict[str, Repeats]]
    columns: dict[str, pd.DataFrame]
    classes: dict[str, pd.DataFrame] = field(default_factory=dict)
    answers: dict[str, OutOfFold] = field(default_factory=dict)
    expected: dict[str, ExpectedF1] = field(default_factory=dict)
    near: dict[str, NearEffect] = field(default_factory=dict)
    doubled: dict[str, float] = field(default_factory=dict)
    review: dict[str, pd.DataFrame] = field(default_factory=dict)
    suspects: dict[str, int] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    choices: dict[str, FieldChoice] = field(default_factory=dict)

    def summary(self) -> pd.DataFrame:
        """Return one row per label: its rows, the simple model's F1, the expected range and the verdict, in Spanish."""
        rows = []
        for head, label in self.data.labels.items():
            row = {"etiqueta": head, "avisos": len(label.rows), "clases": len(label.classes)}
            if head in self.expected:
                expected = self.expected[head]
                row |= {
                    "siempre la más frecuente": expected.majority,
                    "modelo simple": expected.linear_f1,
                    "F1 esperado": _range(expected.f1),
                    "F1 macro esperado": _range(expected.f1_macro),
                }
            rows.append(row | {"veredicto": self.verdicts[head].level})
        return pd.DataFrame(rows)

    def contradictions(self) -> pd.DataFrame:
        """Return the repeated texts of each label, and the ceiling that they imply, in Spanish."""
        rows = []
        for head, kinds in self.repeats.items():
            for kind, repeats in kinds.items():
                ceiling = repeats.ceiling
                rows.append(
                    {
                        "etiqueta": head,
                        "texto": kind,
                        "avisos que repiten un texto": repeats.rows,
                        "de ellos, contradictorios": repeats.contradictory_rows,
                        "techo en ellos": "–" if ceiling is None else f"{num(ceiling[1], 2)} ({_range(ceiling[::2])})",
                        "techo de exactitud": repeats.accuracy,
                        "techo de F1": repeats.f1,
                        "techo de F1 macro": repeats.f1_macro,
                    }
                )
        return pd.DataFrame(rows)

    def near_duplicates(self) -> pd.DataFrame:
        """Return the near-duplicates across the split, and how much they inflate the score, in Spanish."""
        return pd.DataFrame(
            [
                {
                    "etiqueta": head,
                    "avisos de validación y prueba": near.asked,
                    "casi iguales a uno de entrenamiento": near.close,
                    "con su misma clase": near.agreement,
                    "F1": near.f1,
                    "F1 sin ellos en entrenamiento": near.f1_without,
                    "inflan": near.f1 - near.f1_without,
                }
                for head, near in self.near.items()
            ]
        )

    @cached_property
    def rules(self) -> dict[str, pd.DataFrame]:
        """The most frequent class for each combination of values of a label's columns, if they give it, in Spanish."""
        tables = {}
        for head, fields in ((head, choice.fields) for head, choice in self.choices.items() if choice.is_rule):
            label = self.data.labels[head]
            cells = self.data.file.fields[fields].iloc[label.rows].replace("", "(vacía)")
            names = cells.assign(clase=np.array(label.classes)[label.labels]).groupby(fields)["clase"]
            rule = names.agg(**{head: lambda part: part.mode()[0], "avisos": "size"})
            rule["parte con esa clase"] = names.agg(lambda part: part.value_counts(normalize=True).iloc[0])
            tables[head] = rule.reset_index()
        return tables

    def lines(self) -> list[str]:
        """Return, in Spanish, `field_lines` and `label_lines`."""
        return self.field_lines() + self.label_lines()

    def field_lines(self) -> list[str]:
        """Return, in Spanish, what columns add to the text, and how to use another that helps."""
        return [line for head, choice in self.choices.items() for line in choice.lines(head, self.config)]

    def label_lines(self) -> list[str]:
        """Return, in Spanish, the expected F1 of each label, why, and what to do."""
        lines = []
        for verdict in self.verdicts.values():
            lines += [verdict.sentence, *(f"  · {reason}" for reason in verdict.reasons)]
            lines += [f"  → {action}" for action in verdict.actions]
        return lines

    def to_dict(self) -> dict[str, Any]:
        labels = {}
        for head, label in self.data.labels.items():
            columns = self.columns[head].head(10)
            labels[head] = {
                "rows": len(label.rows),
                "classes": len(label.classes),
                "repeats": {kind: asdict(values) for kind, values in self.repeats.get(head, {}).items()},
                "fields": asdict(self.choices[head]) if head in self.choices else None,
                "columns": dict(zip(columns["columna"], columns["F1"].astype(float), strict=True)),
                "rare_classes": self.classes[head].query("nota != ''")["clase"].tolist(),
                "expected": asdict(self.expected[head]) if head in self.expected else None,
                "near_duplicates": asdict(self.near[head]) if head in self.near else None,
                "doubled_rows_gain": self.doubled.get(head),
                "suspects": self.suspects.get(head),
                "verdict": asdict(self.verdicts[head]),
            }
        return {"source": str(self.data.file.path), "rows": len(self.data.file.table), "labels": labels}

    def write(self, folder: Path) -> None:
        """Write the results, tables, verdicts and lists for review to a folder that has none of them."""
        write_json(folder / "audit.json", self.to_dict())
        write_text(folder / "verdicts.txt", "\n".join(self.lines()) + "\n")
        tables = {
            "summary": self.summary(),
            "contradictions": self.contradictions(),
            "near_duplicates": self.near_duplicates(),
            "review_columns": review_columns(),
        }
        for kind, by_label in (
            ("columns", self.columns),
            ("classes", self.classes),
            ("review", self.review),
            ("rule", self.rules),
        ):
            tables |= {f"{kind}_{head}": table for head, table in by_label.items()}
        for name, table in tables.items():
            write_table(table, folder / f"{name}.csv", self.data.file.csv_format)
        for head, table in self.review.items():
            write_table(
                table, folder / f"review_{head}.xlsx", choices={RIGHT + head: sorted(self.data.labels[head].classes)}
            )


def review_columns() -> pd.DataFrame:
    """Return what each column of a list for review is, in Spanish."""
    return pd.DataFrame(REVIEW_COLUMNS.items(), columns=["columna", "qué es"])


def _range(bounds: tuple[float, float]) -> str:
    return f"{num(bounds[0], 2)} a {num(bounds[1], 2)}"
