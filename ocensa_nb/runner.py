"""The panel's buttons: start a training in the background, show how it goes, stop it, and leave its picture behind."""

import threading
import time
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as ipw
from IPython.display import display

from ocensa_nb import background, claims, live, plots
from ocensa_nb.background import Training
from ocensa_nb.config import TrainConfig
from ocensa_nb.errors import UserError
from ocensa_nb.notices import Notices
from ocensa_nb.runs import HISTORY, Run

REDRAW_SECONDS = 2.0  # between two pictures of a training
WATCH_SECONDS = 0.2  # between two looks at whether it has ended


def guarded(work: Callable[[], None], say: Callable[[str], None]) -> None:
    """Do some work of a button or a thread, and say what goes wrong: nobody would see an exception there."""
    try:
        work()
    except UserError as error:
        say(f"⛔ {error}")
    except Exception as error:
        say(f"⛔ Error inesperado, que conviene comunicar: {type(error).__name__}: {error}")


class Runner:
    """Entrenar, Detener, and the live view of one panel.

    choose: returns the recipe and the config to train; lock: told True when a training begins and False when it ends.
    """

    def __init__(
        self,
        notices: Notices,
        root: Path,
        choose: Callable[[], tuple[str, TrainConfig]],
        lock: Callable[[bool], None],
    ) -> None:
        self.notices, self.root, self._choose, self._lock = notices, root, choose, lock
        self.training: Training | None = None
        self._picture: Any = None
        self.start = ipw.Button(description="Entrenar", button_style="success", tooltip="Entrena con estos ajustes")
        self.stop = ipw.Button(
            description="Detener", disabled=True, tooltip="Termina el paso en curso y guarda dónde quedó"
        )
        self.start.on_click(lambda _: guarded(self._start, self.say))
        self.stop.on_click(lambda _: guarded(self._stop, self.say))
        self._status, self.view = ipw.HTML(), ipw.HTML()

    @property
    def box(self) -> ipw.VBox:
        """What is shown below the buttons."""
        return ipw.VBox([self._status, self.view])

    def show_picture(self) -> None:
        """Make a place, below the panel, for the picture that a saved notebook keeps: it keeps no widget."""
        self._picture = display({"text/plain": ""}, raw=True, display_id=True)

    def say(self, sentence: str) -> None:
        """Show a sentence under the buttons."""
        self._status.value = f'<div class="ocensa ocensa-state">{escape(sentence)}</div>'

    def name_start(self) -> None:
        """Name the button after what it would do: begin, or go on from where a training was cut off."""
        _, config = self._choose()
        goes_on = claims.goes_on(config, self.notices.fingerprint, self.root)
        self.start.description = "Continuar" if goes_on else "Entrenar"

    def watch(self, training: Training) -> None:
        """Show how a training goes, and let it be stopped, until it ends."""
        self.training = training
        self._show_running(True)
        threading.Thread(target=lambda: guarded(lambda: self._follow(training), self.say), daemon=True).start()

    def _start(self) -> None:
        if self.start.disabled:  # a second click, made before the first was answered
            return
        recipe, config = self._choose()
        if background.running():
            raise UserError("Ya hay un entrenamiento en marcha en este cuaderno: ejecute otra vez la celda del panel.")
        folder = claims.folder_of(config.validate(), self.notices.fingerprint, self.root)
        self.say(f"Preparando el entrenamiento en «{_short(folder)}»…")
        self.watch(Training(config, recipe, folder.resolve()))

    def _stop(self) -> None:
        self.stop.disabled = True
        if not self.training.is_running:
            return
        self.training.stop()
        self.say("Se detiene al terminar este paso y guarda dónde quedó…")

    def _show_running(self, running: bool) -> None:
        self.start.disabled, self.stop.disabled = True, not running
        self._lock(running)  # names the button too, before it can be pressed
        self.start.disabled = running

    def _follow(self, training: Training) -> None:
        """Redraw the live view until the training has ended, and say how it did."""
        config = training.config
        history = live.History(training.folder / HISTORY, list(config.heads))
        steps = config.epochs * config.steps_an_epoch(len(self.notices.split["train"]))

        def redraw() -> None:
            if history.update() and not self.stop.disabled:
                self.say(f"Entrenando en «{_short(training.folder)}».")
            words = "" if history.step else training.last_words()  # of what comes before the first step
            self.view.value = live.view(history, steps, config.epochs, words, over=training.exit_code == 0)

        while training.is_running:
            guarded(redraw, self.say)
            drawn = time.monotonic()
            while training.is_running and time.monotonic() - drawn < REDRAW_SECONDS:
                time.sleep(WATCH_SECONDS)
        try:
            redraw()
            self._say_the_end(training)
        finally:
            self._show_running(False)

    def _say_the_end(self, training: Training) -> None:
        if training.was_asked_to_stop and claims.goes_on(training.config, self.notices.fingerprint, self.root):
            self.say(f"Detenido. Lo hecho queda en «{_short(training.folder)}»: pulse Continuar y sigue desde ahí.")
        elif training.was_asked_to_stop:
            self.say(f"Detenido. Lo hecho queda en «{_short(training.folder)}».")
        elif training.was_refused:
            self.say(f"⛔ {training.last_words()}")
        elif training.exit_code:
            self.say(
                f"⛔ El entrenamiento terminó de golpe (código {training.exit_code}); suele ser falta de memoria. Use "
                "un batch menor o congele más capas, y pulse Entrenar: sigue desde lo último que guardó."
            )
        else:
            run = Run.load(training.folder)
            scores = ", ".join(f"{head} {run.metrics['test'][f'{head}_f1']:.3f}" for head in run.classes)
            if self._picture:
                self._picture.update(plots.learning_curves(run))
            best, made = run.metrics["best_epoch"], run.metrics["epochs"]
            self.say(
                f"✅ Listo, en «{_short(run.path)}». Mejor época: {best} de {made}. F1 de prueba: {scores}. Siga con "
                "las celdas de abajo."
            )


def _short(path: Path) -> Path:
    """Return a path from the notebook's own folder, where it is inside."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
