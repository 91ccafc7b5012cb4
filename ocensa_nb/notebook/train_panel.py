"""The panel of notebook 03: a control for each optimisation, its predicted effect here, and the training."""

import contextlib
import logging
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as ipw
import pandas as pd
from IPython.display import display

from ocensa_nb.benchmark.forecast import Encoder, Forecast
from ocensa_nb.config import RECIPES, TrainConfig, with_recipe
from ocensa_nb.data.notices import Notices
from ocensa_nb.errors import UserError, num
from ocensa_nb.figures import training as plots
from ocensa_nb.notebook import controls, live_view, session
from ocensa_nb.notebook.controls import Note, button, guarded, in_terminal
from ocensa_nb.notebook.forecast import ExpectedTime, stop_measuring
from ocensa_nb.notebook.process_panel import ChildProcess, ProcessPanel, print_stops_plainly
from ocensa_nb.paths import RUNS
from ocensa_nb.runs import resume
from ocensa_nb.runs.run import HISTORY, LAST, Run
from ocensa_nb.runtime import commands, machine
from ocensa_nb.runtime.precision import unavailable
from ocensa_nb.training import train

logger = logging.getLogger(__name__)

CRASHED = "Suele ser falta de memoria: use un batch menor o congele más capas. Al entrenar otra vez, continúa."


def control_panel(
    config: TrainConfig, notices: Notices, recipe: str = "auto", root: Path = RUNS, interactive: bool | None = None
) -> "SettingsTable":
    """Return the panel of a config, without a user a table; display it in a notebook and train with its `run`.

    Parameters
    ----------
    recipe
        The recipe that the initial settings came from.
    interactive
        Whether a user can move the controls; None to detect it.
    """
    with_user = session.is_interactive() if interactive is None else interactive
    return (TrainPanel if with_user else SettingsTable)(config, notices, machine.chosen_recipe(recipe), root)


class SettingsTable:
    """The settings as a table; they train in the kernel."""

    def __init__(self, config: TrainConfig, notices: Notices, recipe: str, root: Path) -> None:
        self.config, self.notices, self.recipe, self.root = config, notices, recipe, root

    def run(self) -> Run:
        return train.fit(self.config, self.notices, root=self.root)

    def repeat(self, run: Run | None = None) -> str:
        """Return two shell commands, one per line, that train with the current config or that of `run`."""
        config = run.config.replace(out=self.config.out) if run else self.config
        return "\n".join(line(config, self.recipe) for line in (commands.command_line, commands.papermill_line))

    def _ipython_display_(self) -> None:
        display(pd.Series(self.config.to_dict(), name=f"receta {self.recipe}").to_frame())


class Training(ChildProcess):
    """A training in a background process."""

    def __init__(self, config: TrainConfig, recipe: str, folder: Path) -> None:
        self.config, self.recipe = config, recipe
        super().__init__(commands.arguments(config.replace(out=str(folder)), recipe), folder)

    def outcome(self, data_fingerprint: str, root: Path = RUNS) -> Run:
        # A run is complete whatever the exit code: a stop may arrive when it is.
        if self.was_refused or not resume.find_finished(self.config.replace(out=str(self.folder)), data_fingerprint):
            stopped = "Detenido antes del primer paso."
            if (self.folder / LAST).exists():
                stopped = f"Detenido. El avance quedó guardado en «{_short(self.folder)}»."
            if resume.will_resume(self.config, data_fingerprint, root):
                stopped += " Para continuar, pulse Continuar en el panel o ejecute otra vez run = panel.run()."
            self.require_success(stopped, CRASHED)
        return Run.load(self.folder)


class TrainPanel(SettingsTable, ProcessPanel):
    """The settings as controls, with notes on their effect; the shown command trains in another process."""

    def __init__(self, config: TrainConfig, notices: Notices, recipe: str, root: Path) -> None:
        SettingsTable.__init__(self, config, notices, recipe, root)
        ProcessPanel.__init__(self, "Entrenar", "Entrena con estos ajustes")
        self._initial = config, recipe
        self._forecast = Forecast(notices)
        self._moving = False  # True while the code, not the user, sets the widgets
        self._recipes = controls.recipes()
        self.recipe_choice = controls.dropdown("Receta", self._recipes, "Un punto de partida: fija todos los ajustes")
        self.controls = controls.make_controls(config)
        self._memory, self._command = ipw.HTML(), ipw.HTML()
        self._picture: Any = None  # an output below the panel: saved notebooks do not include widgets
        self.expected = ExpectedTime(self._forecast, self.say)
        about = "Vuelve a los ajustes con que se abrió el panel"
        self.reset = button("Restablecer", self._restore, self.say, about)
        self.box = self._arrange()
        self._put(config, recipe)
        self.recipe_choice.on_change(lambda: guarded(self._take_recipe, self.say))
        for name, control in self.controls.items():
            control.on_change(lambda name=name: guarded(lambda: self._take(name), self.say))

    def run(self) -> Run:
        """Return a finished run of the settings; otherwise train, resume or follow one (see `follow_in_cell`)."""
        stop_measuring()  # the cells below compute too
        training = next(iter(Training.running()), None)
        if training:
            self._put(training.config, training.recipe)
        elif run := self._finished():
            self.expected.note_taken(run)
            return run
        return self.follow_in_cell(training)

    def _finished(self) -> Run | None:
        if self.process and self.process.exit_code == 0 and self.process.config == self.config:
            return Run.load(self.process.folder)
        path = resume.find_finished(self.config, self.notices.fingerprint, self.root)
        if not path or self.config.resume == "never":
            return None
        logger.info(f"«{path}»: se entrenó antes, con estos mismos ajustes y avisos.")
        return Run.load(path)

    def _ipython_display_(self) -> None:
        print_stops_plainly()
        self.start.disabled = True  # a click while this cell executes would be handled after the cells below
        display(self.box)
        self._picture = display({"text/plain": ""}, raw=True, display_id=True)
        if training := next(iter(Training.running()), None):  # started before this cell was executed again
            self._put(training.config, training.recipe)
            self.watch(training)
        else:
            guarded(self._tell, self.say)
            self.start.disabled = False

    def _launch(self) -> Training:
        if Training.running():
            raise UserError("Ya hay un entrenamiento en marcha en este cuaderno: ejecute otra vez la celda del panel.")
        folder = resume.resolve_run_dir(self.config.validate(), self.notices.fingerprint, self.root)
        self.say(f"Preparando el entrenamiento en «{_short(folder)}»…")
        stop_measuring()  # two computations would slow each other down
        return Training(self.config, self.recipe, folder.resolve())

    def _attend(self, process: Training) -> None:
        config = process.config
        self._history = live_view.History(process.folder / HISTORY, list(config.heads))
        self._steps = config.epochs * config.steps_an_epoch(len(self.notices.split["train"]))
        super()._attend(process)

    def _show_running(self, running: bool) -> None:
        for widget in (self.reset, self.recipe_choice.widget, *(c.widget for c in self.controls.values())):
            for part in widget.children if isinstance(widget, ipw.Box) else (widget,):
                part.disabled = running
        if running:
            guarded(lambda: self.expected.show(self.config, measuring=False), self.say)
        else:  # measuring would slow the cells below
            guarded(lambda: self._tell(measuring=False), self.say)
        super()._show_running(running)

    def _update(self) -> bool:
        self._history.update()
        if self.process.is_running and (pace := self._history.seconds_per_step()):
            self.expected.show_pace(pace * self._steps)
        return self._history.step > 0

    def _html(self, sentence: str) -> str:
        over = self.process.exit_code == 0
        return live_view.view(self._history, self._steps, self.process.config.epochs, sentence, over)

    def _where(self) -> str:
        return f"Entrenando en «{_short(self.process.folder)}»."

    def _outcome(self) -> tuple[Run, str]:
        run = self.process.outcome(self.notices.fingerprint, self.root)
        self.expected.note_taken(run)
        scores = ", ".join(f"{head} {num(run.metrics['test'][f'{head}_f1'], 3)}" for head in run.classes)
        best, epochs = run.metrics["best_epoch"], run.metrics["epochs"]
        return run, f"✅ Listo, en «{_short(run.path)}». Mejor época: {best} de {epochs}. F1 de prueba: {scores}."

    def _show_below(self, run: Run) -> None:
        if self._picture:
            self._picture.update(plots.learning_curves(run))

    def _arrange(self) -> ipw.VBox:
        c = self.controls
        groups = {
            "Codificador y formato numérico": ("model", "precision", "freeze_layers", "cache_features", "cls_only"),
            "Textos y batches": ("max_length", "padding", "batch_size", "gradient_accumulation_steps"),
            "Entrenamiento": ("epochs", "patience", "label_smoothing", "class_weights"),
        }
        parts = [self.recipe_choice.row]
        for title, names in groups.items():
            parts += [ipw.HTML(f'<div class="ocensa-title">{title}</div>'), *(c[name].row for name in names)]
        self.buttons.children += (self.reset,)
        return controls.panel(*parts, self._memory, self.expected.box, self.buttons, self.following, self._command)

    def _take(self, name: str) -> None:
        if not self._moving:
            self.config = self.config.replace(**{name: self.controls[name].widget.value})
            self.say("")
            self._tell()

    def _take_recipe(self) -> None:
        recipe = self.recipe_choice.widget.value
        if not self._moving and recipe in RECIPES:
            self._put(with_recipe(self.config, recipe), recipe)
            self._tell()

    def _restore(self) -> None:
        self._put(*self._initial)
        self._tell()

    @contextlib.contextmanager
    def _setting_widgets(self) -> Iterator[None]:
        """Ignore the changes of the widgets inside the block: the code makes them, not the user."""
        self._moving = True
        try:
            yield
        finally:
            self._moving = False

    def _put(self, config: TrainConfig, recipe: str) -> None:
        self.config, self.recipe = config, recipe
        with self._setting_widgets():
            for name, control in self.controls.items():
                control.widget.value = getattr(config, name)
        self._name_recipe()

    def _name_recipe(self) -> None:
        """Select the recipe, or `(modificada)` if the settings differ from it; encoder and data are not part of one."""
        name, options = self.recipe, self._recipes
        if self.config != with_recipe(self.config, self.recipe):
            name = f"{self.recipe} (modificada)"
            options = [(name, name), *options]  # the recipe itself can still be chosen
        with self._setting_widgets():
            if list(self.recipe_choice.widget.options) != options:
                self.recipe_choice.widget.options = options
            self.recipe_choice.widget.value = name

    def _tell(self, measuring: bool = True) -> None:
        """Update everything that depends on the settings; measure the time only if `measuring`."""
        self.controls["precision"].widget.disable(unavailable(machine.device()))
        try:
            encoder = self._forecast.encoder(self.config.model)
        except UserError as error:  # training is still possible: it downloads the encoder
            self.controls["model"].say(Note(str(error)))
            self.expected.show_unknown("se sabrá cuando el codificador esté en esta máquina.")
            self._memory.value = ""
        else:
            self._limit(encoder)
            for name, note in controls.notes(self.config, self._forecast).items():
                self.controls[name].say(note)
            self._memory.value = f'<div class="ocensa ocensa-memory">{escape(self._forecast.memory(self.config))}</div>'
            self.expected.show(self.config, measuring)
        will_resume = resume.will_resume(self.config, self.notices.fingerprint, self.root)
        self.start.description = "Continuar" if will_resume else "Entrenar"
        self._name_recipe()
        self._command.value = in_terminal(self.repeat())

    def _limit(self, encoder: Encoder) -> None:
        frozen, length = self.controls["freeze_layers"].widget, self.controls["max_length"].widget
        with self._setting_widgets():
            frozen.limit(encoder.depth, shown=encoder.depth, least=1 - encoder.depth)
            length.limit(encoder.positions, shown=min(512, encoder.positions))
        self.config = self.config.replace(freeze_layers=frozen.value, max_length=length.value)
        self.controls["cache_features"].disable("" if frozen.value else controls.NOTHING_FROZEN)
        fixed = {"max_length": "Con las capas congeladas ya calculadas no hay relleno fijo"}
        self.controls["padding"].widget.disable(fixed if frozen.value and self.config.cache_features else {})


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
