"""The answers of a person to a review, in a CSV that is complete after each of them."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from ocensa_nb.data.corrections import ID, RIGHT, TEXT, find_class, find_keys, read_corrections, write_corrections
from ocensa_nb.errors import UserError
from ocensa_nb.files.notice_file import read_table
from ocensa_nb.paths import plain_path


class Answers:
    """The right classes that a person has given, in a CSV for `train --corrections` that is written at each change.

    If the file exists, the review continues, and its answers about other notices stay. Raises `UserError` if the path
    is not that of a CSV, or the file has other columns.
    """

    def __init__(self, doubtful: pd.DataFrame, classes: Mapping[str, list[str]], path: str | Path) -> None:
        self.classes, self.path = {head: list(names) for head, names in classes.items()}, plain_path(path)
        self.notices = doubtful[[ID, TEXT]].reset_index(drop=True)
        self.given: list[dict[str, str]] = [{} for _ in range(len(doubtful))]
        self._others = pd.DataFrame(columns=[ID, TEXT, *self.classes])
        self._undo: list[tuple[int, dict[str, str]]] = []
        if self.path.suffix.lower() != ".csv":
            raise UserError(
                f"«{path}» no es un CSV: las respuestas se guardan en uno. Elija en corrections un nombre que termine "
                "en .csv. Un libro ya revisado se usa directamente con --corrections."
            )
        if self.path.exists():
            self._read()

    @property
    def done(self) -> int:
        return sum(self.is_done(row) for row in range(len(self.given)))

    def is_done(self, row: int) -> bool:
        return len(self.given[row]) == len(self.classes)

    def next_open(self, start: int = 0) -> int | None:
        """Return the first notice without all answers, from `start` on and then from 0; None if all are done."""
        order = [*range(start, len(self.given)), *range(start)]
        return next((row for row in order if not self.is_done(row)), None)

    def answer(self, row: int, right: Mapping[str, str]) -> None:
        """Record the right classes of a notice; none if the file cannot be written, which raises `UserError`."""
        before = self.given[row]
        self._change(row, {**before, **right})
        self._undo.append((row, before))

    def undo(self) -> int | None:
        """Take back the last answer of this session and return its notice; None if there is none."""
        if not self._undo:
            return None
        row, before = self._undo[-1]
        self._change(row, before)
        self._undo.pop()
        return row

    def _change(self, row: int, right: dict[str, str]) -> None:
        given = [*self.given[:row], right, *self.given[row + 1 :]]
        answers = self.notices.assign(**{head: [right.get(head, "") for right in given] for head in self.classes})
        table = pd.concat([self._others, answers[[bool(right) for right in given]]], ignore_index=True)
        if table.empty:  # every answer was taken back
            self.path.unlink(missing_ok=True)
        else:
            write_corrections(table, self.classes, self.path)
        self.given = given

    def _read(self) -> None:
        columns = {ID, TEXT, *(f"{RIGHT}{head}" for head in self.classes)}
        if set(read_table(self.path).table.columns) != columns:
            raise UserError(
                f"«{self.path}» ya existe y tiene otras columnas que {', '.join(sorted(columns))}: no se ha cambiado. "
                "Elija otro nombre en corrections."
            )
        earlier = read_corrections(self.path, self.classes).table
        rows = {key: row for row, key in enumerate(find_keys(self.notices))}
        others = []
        for number, key in zip(earlier.index, find_keys(earlier), strict=True):
            answers = {head: earlier.at[number, head] for head in self.classes if earlier.at[number, head]}
            right = {head: find_class(answer, self.classes[head]) for head, answer in answers.items()}
            if key in rows and None not in right.values():
                self.given[rows[key]] = right
            else:
                others.append(number)
        self._others = earlier.loc[others, [ID, TEXT, *self.classes]]
