"""Review one notice at a time; ipywidgets has no shortcuts, so a text field takes one digit per label."""

import json
import re
from collections.abc import Callable
from functools import partial
from html import escape
from itertools import count
from pathlib import Path

import ipywidgets as ipw
import numpy as np
import pandas as pd
from IPython.display import display

from ocensa_nb.data.corrections import ID, TEXT
from ocensa_nb.errors import UserError, num
from ocensa_nb.evaluation.suggestion import SEPARATOR
from ocensa_nb.figures import style
from ocensa_nb.notebook import session
from ocensa_nb.notebook.controls import ROW, button, guarded, panel
from ocensa_nb.review import workbook
from ocensa_nb.review.answers import Answers
from ocensa_nb.review.review import LIKELIEST, Review
from ocensa_nb.runs.run import Run
from ocensa_nb.runtime import commands

SHOWN = 20  # notices of the static table
OTHER = "otra clase…"
KEYS = "Teclado: un dígito por etiqueta y Enter ({example}); 0 deja una sin responder; d deshace; s salta el aviso."


def review_form(review: Review, run: Run, corrections: str = "", out: str = "") -> "ReviewForm | None":
    """Return the form of a review; without a user, show a table and save the workbook.

    Parameters
    ----------
    corrections
        Path of the CSV of answers; empty for one beside the run. If it exists, the review continues.
    out
        Path of a new workbook; empty for none with a user, and for one beside the run without one.
    """
    with_user = session.is_interactive()
    if out or not with_user:
        print(f"Libro para revisar en Excel: {workbook.write(review, out or _workbook_path(run))}.")
    if not with_user:
        display(style.readable(_summary(review).head(SHOWN)))
        return None
    return ReviewForm(review, Answers(review.doubtful, review.classes, corrections or _corrections_path(run)))


def next_steps(run: Run, corrections: str = "", out: str = "") -> str:
    """Return, in Spanish, how to train with the answers of `review_form`."""
    path = corrections or str(_corrections_path(run))
    if not session.is_interactive():
        saved = run.path.parent.glob(f"{run.path.name}-revision-*.xlsx")
        path = str(out or max(saved, key=lambda file: file.stat().st_mtime, default=_workbook_path(run)))
    data = run.metadata["data"]["path"] if run.config.data else ""
    config = run.config.replace(data=data, out="", corrections=path)
    more = {name: value for name, value in commands.changes(config, "auto").items() if name != "data"}
    return "\n".join(
        [
            "En una terminal, con los mismos ajustes de la corrida:",
            commands.command_line(config, "auto"),
            "En el cuaderno 03, con el mismo archivo en data:",
            f"more_settings = {json.dumps(more, ensure_ascii=False)!r}",
        ]
    )


def _corrections_path(run: Run) -> Path:
    return run.path.with_name(f"{run.path.name}-correcciones.csv")


def _workbook_path(run: Run) -> Path:
    paths = (run.path.with_name(f"{run.path.name}-revision-{number}.xlsx") for number in count(1))
    return next(path for path in paths if not path.exists())


def _summary(review: Review) -> pd.DataFrame:
    table = review.doubtful[[ID, TEXT]].copy()
    for head in review.classes:
        options = [_options(review.doubtful, row, head) for row in range(len(table))]
        table[head] = [" · ".join(f"{name} ({num(share, 2)})" for name, share in pairs) for pairs in options]
    return table


class ReviewForm:
    """The form: a notice, its likely classes, and what the person answers."""

    def __init__(self, review: Review, answers: Answers) -> None:
        self.answers, self._doubtful = answers, review.doubtful.reset_index(drop=True)
        self._ordered = {head: np.array(names)[review.likeliest[head]] for head, names in review.classes.items()}
        self.row = answers.next_open() or 0
        self._notice, self._state = ipw.HTML(), ipw.HTML()
        self.progress = ipw.IntProgress(max=len(self._doubtful), layout={"width": "300px"})
        self.buttons: dict[str, list[ipw.Button]] = {}
        self.others: dict[str, ipw.Dropdown] = {}
        lines = [self._line(head, names) for head, names in review.classes.items()]
        example = "".join("121"[number % 3] for number in range(len(review.classes)))
        self.keys = ipw.Text(placeholder=example, continuous_update=False, layout={"width": "120px"})
        self.keys.observe(lambda change: guarded(partial(self._type, change["new"]), self._say), "value")
        likeliest = "La primera clase de cada etiqueta sin responder"
        self.accept = self._button("Aceptar lo más probable", self._accept, likeliest)
        self.back = self._button("Anterior", lambda: self._go(self.row - 1), "El aviso anterior de la lista")
        self.skip = self._button("Saltar", lambda: self._go(self.row + 1), "Al aviso siguiente, sin responder este")
        self.undo = self._button("Deshacer", self._take_back, "Quita la última respuesta de esta sesión")
        below = ipw.HBox([self.accept, self.back, self.skip, self.undo], layout=ROW)
        help_text = ipw.HTML(f'<div class="ocensa-note">{escape(KEYS.format(example=example))}</div>')
        above, typing = ipw.HBox([self.progress, self._state], layout=ROW), ipw.HBox([self.keys, help_text], layout=ROW)
        self.box = panel(above, self._notice, *lines, below, typing)
        self._show()

    def _ipython_display_(self) -> None:
        display(self.box)

    def _button(self, text: str, work: Callable[[], None], tooltip: str) -> ipw.Button:
        return button(text, work, self._say, tooltip, layout={"width": "auto"})

    def _line(self, head: str, names: list[str]) -> ipw.HBox:
        self.buttons[head] = [
            self._button("", partial(self._choose, head, rank), f"Clase {rank + 1} de {head}")
            for rank in range(min(LIKELIEST, len(names)))
        ]
        self.others[head] = ipw.Dropdown(options=[OTHER, *names], value=OTHER, layout={"width": "150px"})
        self.others[head].observe(lambda change: guarded(partial(self._pick, head, change["new"]), self._say), "value")
        label = ipw.HTML(f'<div class="ocensa-label">{escape(head)}</div>')
        return ipw.HBox([label, *self.buttons[head], self.others[head]], layout=ROW)

    def _choose(self, head: str, rank: int) -> None:
        self._answer({head: _options(self._doubtful, self.row, head)[rank][0]})

    def _pick(self, head: str, name: str) -> None:
        if name not in (OTHER, self.answers.given[self.row].get(head)):  # otherwise `_show` has chosen it
            self._answer({head: name})

    def _accept(self) -> None:
        answered = self.answers.given[self.row]
        self._answer(
            {head: _options(self._doubtful, self.row, head)[0][0] for head in self.buttons if head not in answered}
        )

    def _type(self, text: str) -> None:
        """Take what was typed: a digit per label, `d` to undo or `s` to skip."""
        if not text:
            return
        self.keys.value = ""
        if text.strip().lower() in ("d", "s"):
            return self._take_back() if text.strip().lower() == "d" else self._go(self.row + 1)
        digits = text.replace(" ", "")
        limits = {head: len(buttons) for head, buttons in self.buttons.items()}
        if not re.fullmatch("".join(f"[0-{most}]" for most in limits.values()), digits):
            raise UserError(
                f"«{text}» no es válido: escriba {len(limits)} dígitos, uno por etiqueta ({', '.join(limits)}), "
                f"de 0 a {min(limits.values())}."
            )
        chosen = {head: int(digit) for head, digit in zip(limits, digits, strict=True) if digit != "0"}
        self._answer({head: _options(self._doubtful, self.row, head)[rank - 1][0] for head, rank in chosen.items()})

    def _answer(self, right: dict[str, str]) -> None:
        if right:
            self.answers.answer(self.row, right)
        if self.answers.is_done(self.row):
            following = self.answers.next_open(self.row)
            self.row = self.row if following is None else following
        self._show()

    def _take_back(self) -> None:
        row = self.answers.undo()
        if row is None:
            raise UserError("No hay nada que deshacer en esta sesión.")
        self._go(row)

    def _go(self, row: int) -> None:
        self.row = row % len(self._doubtful)
        self._show()

    def _show(self) -> None:
        """Show the current notice; the widgets stay the same, so the focus stays too."""
        right, rows = self.answers.given[self.row], len(self._doubtful)
        number, text = self._doubtful.loc[self.row, [ID, TEXT]]
        self._notice.value = f'<div class="ocensa-memory"><small>{escape(number)}</small><br>{escape(text)}</div>'
        for head, buttons in self.buttons.items():
            options = _options(self._doubtful, self.row, head)
            suggested = self._doubtful.loc[self.row, f"conjunto_{head}"].split(SEPARATOR)
            for choice, (name, share) in zip(buttons, options, strict=True):
                choice.description = f"{name} · {num(share, 2)}"
                choice.button_style = "success" if right.get(head) == name else "info" if name in suggested else ""
            self.others[head].options = [OTHER, *self._ordered[head][self.row]]
            likely = right.get(head) in [name for name, _ in options]
            self.others[head].value = OTHER if likely else right.get(head, OTHER)
        self.progress.value = self.answers.done
        ended = " Terminado: entrene otra vez con estas correcciones." if self.answers.done == rows else ""
        self._say(f"Aviso {self.row + 1} de {rows}; revisados: {self.answers.done}. En {self.answers.path}.{ended}")

    def _say(self, sentence: str) -> None:
        self._state.value = f'<div class="ocensa-state">{escape(sentence)}</div>'


def _options(doubtful: pd.DataFrame, row: int, head: str) -> list[tuple[str, float]]:
    notice = doubtful.iloc[row]
    ranks = [rank for rank in range(1, LIKELIEST + 1) if f"pred{rank}_{head}" in doubtful]
    return [(notice[f"pred{rank}_{head}"], float(notice[f"conf{rank}_{head}"])) for rank in ranks]
