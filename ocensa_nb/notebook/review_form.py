"""Review one notice at a time in a notebook: a button per likely class, a drop-down for the others, and the keyboard.

A front end gives the focus to buttons with the tab key, but ipywidgets has no shortcuts. The text field takes one digit
per label instead, and keeps the focus. Works with ipywidgets 7.7 (Colab's) and 8.
"""

import json
import shlex
from collections.abc import Callable
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as ipw
import pandas as pd
from IPython.display import display

from ocensa_nb.data.corrections import ID, TEXT
from ocensa_nb.errors import UserError
from ocensa_nb.figures import tables
from ocensa_nb.figures.style import PANEL_CSS
from ocensa_nb.notebook import session
from ocensa_nb.review import workbook
from ocensa_nb.review.answers import Answers
from ocensa_nb.review.review import LIKELIEST, Review
from ocensa_nb.runs.run import Run
from ocensa_nb.runtime import machine

SHOWN = 20  # notices of the static table
OTHER = "otra clase…"
KEYS = "Teclado: un dígito por etiqueta y Enter ({example}); 0 deja una sin responder; d deshace; s salta el aviso."


def corrections_path(run: Run) -> Path:
    """Return the usual path of the answers about a run: beside its folder, so that a new session finds it."""
    return run.path.with_name(f"{run.path.name}-correcciones.csv")


def workbook_path(run: Run) -> Path:
    """Return the first free path of a workbook beside the folder of a run."""
    number = 1
    while (path := run.path.with_name(f"{run.path.name}-revision-{number}.xlsx")).exists():
        number += 1
    return path


def review_form(found: Review, run: Run, corrections: str = "", out: str = "") -> "ReviewForm | None":
    """Return the form of a review; without a user, show a table and save the workbook.

    Parameters
    ----------
    found
        From `review.review`.
    run
        The run.
    corrections
        Path of the CSV of answers; empty for `corrections_path`. If it exists, the review continues.
    out
        Path of a new workbook; empty for none with a user, and for `workbook_path` without one.

    Raises
    ------
    UserError
        If `out` exists, or `corrections` is another file.
    """
    with_user = session.is_interactive()
    if out or not with_user:
        print(f"Libro para revisar en Excel: {workbook.write(found, out or workbook_path(run))}.")
    if not with_user:
        display(tables.readable(summary(found).head(SHOWN)))
        return None
    return ReviewForm(found, Answers(found.doubtful, found.classes, corrections or corrections_path(run)))


def next_steps(run: Run, corrections: str = "", out: str = "") -> str:
    """Return, in Spanish, how to train with the answers: the command, and the parameter of notebook 03.

    Parameters
    ----------
    run, corrections, out
        As for `review_form`.
    """
    path = corrections or str(corrections_path(run))
    if not session.is_interactive():
        saved = run.path.parent.glob(f"{run.path.name}-revision-*.xlsx")
        path = str(out or max(saved, key=lambda file: file.stat().st_mtime, default=workbook_path(run)))
    changed = _changed_settings(run)
    more = json.dumps({"corrections": path, **changed}, ensure_ascii=False)
    data = ["--data", run.metadata["data"]["path"]] if run.config.data else []
    options = [word for name, value in changed.items() for word in (f"--{name.replace('_', '-')}", *_words(value))]
    command = shlex.join(["python", "-m", "ocensa_nb", "train", *data, "--corrections", path, *options])
    return "\n".join(
        [
            "En una terminal, con los mismos ajustes de la corrida:",
            command,
            "En el cuaderno 03, con el mismo archivo en data:",
            f"more_settings = {more!r}",
        ]
    )


def _changed_settings(run: Run) -> dict[str, Any]:
    """Return the settings of a run that differ from those of the recipe of this machine, but for its files."""
    usual = machine.configure("auto").to_dict()
    files = ("data", "out", "corrections")
    return {name: value for name, value in run.config.to_dict().items() if value != usual[name] and name not in files}


def _words(value: Any) -> list[str]:
    """Return a setting as words of the command line."""
    if isinstance(value, dict):
        return [str(part) for pair in value.items() for part in pair]
    return [str(part) for part in value] if isinstance(value, list) else [str(value)]


def summary(found: Review) -> pd.DataFrame:
    """Return the notices to review in a narrow table: the likeliest classes of a label in one cell."""
    table = found.doubtful[[ID, TEXT]].copy()
    for head in found.classes:
        options = [_options(found.doubtful, row, head) for row in range(len(table))]
        table[head] = [" · ".join(f"{name} ({share:.2f})" for name, share in pairs) for pairs in options]
    return table


class ReviewForm:
    """The form: a notice, its likely classes, and what the person answers."""

    def __init__(self, found: Review, answers: Answers) -> None:
        self.answers, self._doubtful = answers, found.doubtful.reset_index(drop=True)
        self.row = answers.next_open() or 0
        self._moving = False  # True while the code, not the user, sets the widgets
        self._notice, self._state = ipw.HTML(), ipw.HTML()
        self.progress = ipw.IntProgress(max=len(self._doubtful), layout={"width": "300px"})
        self.buttons: dict[str, list[ipw.Button]] = {}
        self.others: dict[str, ipw.Dropdown] = {}
        lines = [self._line(head, names) for head, names in found.classes.items()]
        heads = list(found.classes)
        example = "".join("121"[place % 3] for place in range(len(heads)))
        self.keys = ipw.Text(placeholder=example, continuous_update=False, layout={"width": "120px"})
        self.keys.observe(lambda change: self._guarded(partial(self._type, change["new"])), "value")
        self.accept = self._button(
            "Aceptar lo más probable", self._accept, "La primera clase de cada etiqueta sin responder"
        )
        self.back = self._button("Anterior", lambda: self._go(self.row - 1), "El aviso anterior de la lista")
        self.skip = self._button("Saltar", lambda: self._go(self.row + 1), "Al aviso siguiente, sin responder este")
        self.undo = self._button("Deshacer", self._take_back, "Quita la última respuesta de esta sesión")
        help_text = ipw.HTML(f'<div class="ocensa-note">{escape(KEYS.format(example=example))}</div>')
        row = {"flex_flow": "row wrap", "align_items": "center"}
        self.box = ipw.VBox(
            [
                ipw.HTML(f"<style>{PANEL_CSS}</style>"),
                ipw.HBox([self.progress, self._state], layout=row),
                self._notice,
                *lines,
                ipw.HBox([self.accept, self.back, self.skip, self.undo], layout=row),
                ipw.HBox([self.keys, help_text], layout=row),
            ]
        )
        self.box.add_class("ocensa-panel")
        self._show()

    def _ipython_display_(self) -> None:
        display(self.box)

    def _button(self, text: str, work: Callable[[], None], tooltip: str) -> ipw.Button:
        button = ipw.Button(description=text, tooltip=tooltip, layout={"width": "auto"})
        button.on_click(lambda _: self._guarded(work))
        return button

    def _line(self, head: str, names: list[str]) -> ipw.HBox:
        """Return the row of a label: its name, a button per likely class, and the drop-down of all classes."""
        self.buttons[head] = [
            self._button("", partial(self._choose, head, place), f"Clase {place + 1} de {head}")
            for place in range(min(LIKELIEST, len(names)))
        ]
        self.others[head] = ipw.Dropdown(options=[OTHER, *names], value=OTHER, layout={"width": "150px"})
        self.others[head].observe(lambda change: self._guarded(partial(self._pick, head, change["new"])), "value")
        label = ipw.HTML(f'<div class="ocensa-label">{escape(head)}</div>')
        return ipw.HBox(
            [label, *self.buttons[head], self.others[head]], layout={"flex_flow": "row wrap", "align_items": "center"}
        )

    def _choose(self, head: str, place: int) -> None:
        self._answer({head: _options(self._doubtful, self.row, head)[place][0]})

    def _pick(self, head: str, name: str) -> None:
        if not self._moving and name != OTHER:
            self._answer({head: name})

    def _accept(self) -> None:
        given = self.answers.given[self.row]
        self._answer(
            {head: _options(self._doubtful, self.row, head)[0][0] for head in self.buttons if head not in given}
        )

    def _type(self, text: str) -> None:
        """Take what was typed: a digit per label, `d` to undo or `s` to skip."""
        if self._moving or not text:
            return
        self._clear_keys()
        if text.strip().lower() in ("d", "s"):
            return self._take_back() if text.strip().lower() == "d" else self._go(self.row + 1)
        digits = text.replace(" ", "")
        limits = {head: len(buttons) for head, buttons in self.buttons.items()}
        valid = len(digits) == len(limits) and digits.isdecimal()
        if not valid or any(int(digit) > most for digit, most in zip(digits, limits.values(), strict=True)):
            raise UserError(
                f"«{text}» no es válido: escriba {len(limits)} dígitos, uno por etiqueta ({', '.join(limits)}), "
                f"de 0 a {min(limits.values())}."
            )
        self._answer(
            {
                head: _options(self._doubtful, self.row, head)[int(digit) - 1][0]
                for head, digit in zip(limits, digits, strict=True)
                if digit != "0"
            }
        )

    def _answer(self, right: dict[str, str]) -> None:
        """Record answers; with all labels answered, go to the next open notice."""
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

    def _clear_keys(self) -> None:
        self._moving = True
        try:
            self.keys.value = ""
        finally:
            self._moving = False

    def _show(self) -> None:
        """Show the current notice; the widgets stay the same, so the focus stays too."""
        given, count = self.answers.given[self.row], len(self._doubtful)
        number, text = self._doubtful.loc[self.row, [ID, TEXT]]
        self._notice.value = f'<div class="ocensa-memory"><small>{escape(number)}</small><br>{escape(text)}</div>'
        self._moving = True
        try:
            for head, buttons in self.buttons.items():
                options = _options(self._doubtful, self.row, head)
                for button, (name, share) in zip(buttons, options, strict=True):
                    button.description = f"{name} · {share:.2f}"
                    button.button_style = "success" if given.get(head) == name else ""
                likely = given.get(head) in [name for name, _ in options]
                self.others[head].value = OTHER if likely else given.get(head, OTHER)
        finally:
            self._moving = False
        self.progress.value = self.answers.done
        ended = " Terminado: entrene otra vez con estas correcciones." if self.answers.done == count else ""
        self._say(f"Aviso {self.row + 1} de {count}; revisados: {self.answers.done}. En {self.answers.path}.{ended}")

    def _say(self, sentence: str) -> None:
        self._state.value = f'<div class="ocensa-state">{escape(sentence)}</div>'

    def _guarded(self, work: Callable[[], None]) -> None:
        """Run the work of a callback and show its error, which the notebook would not."""
        try:
            work()
        except UserError as error:
            self._say(f"⛔ {error}")
        except Exception as error:
            self._say(f"⛔ Error inesperado, que conviene comunicar: {type(error).__name__}: {error}")


def _options(doubtful: pd.DataFrame, row: int, head: str) -> list[tuple[str, float]]:
    """Return the likeliest classes of a label of a notice, with their probabilities."""
    places = [place for place in range(1, LIKELIEST + 1) if f"pred{place}_{head}" in doubtful]
    return [
        (doubtful[f"pred{place}_{head}"].iloc[row], float(doubtful[f"conf{place}_{head}"].iloc[row]))
        for place in places
    ]
