"""Show the control panel of notebook 03: a control for each optimisation, and its predicted effect on this machine.

The panel does not train: its button starts the command it shows (`run_controller.py`). The effect of the settings is
explained by `settings.py` and `expected_time.py`. Works with ipywidgets 7.7 (Colab's) and 8.
"""

import contextlib
import logging
from collections.abc import Iterator
from html import escape
from pathlib import Path

import ipywidgets as ipw
import pandas as pd
from IPython.display import display

from ocensa_nb.benchmark.forecast import Encoder, Forecast
from ocensa_nb.config import RECIPES, TrainConfig, with_recipe
from ocensa_nb.data.notices import Notices
from ocensa_nb.errors import UserError
from ocensa_nb.figures.style import PANEL_CSS
from ocensa_nb.notebook import controls, session, settings, training_process
from ocensa_nb.notebook.controls import Note
from ocensa_nb.notebook.forecast import ExpectedTime, stop_measuring
from ocensa_nb.notebook.page_clock import guarded
from ocensa_nb.notebook.run_controller import Runner, print_stops_plainly
from ocensa_nb.paths import RUNS
from ocensa_nb.runs import resume
from ocensa_nb.runs.run import Run
from ocensa_nb.runtime import commands, machine
from ocensa_nb.runtime.precision import unavailable
from ocensa_nb.training import train

logger = logging.getLogger(__name__)


def control_panel(
    config: TrainConfig,
    notices: Notices | None = None,
    recipe: str = "auto",
    root: Path = RUNS,
    interactive: bool | None = None,
) -> "ControlPanel":
    """Return the panel of a config; display it in a notebook and train with its `run`.

    Parameters
    ----------
    config
        Initial settings.
    notices
        Data of the config; read from `config.data` if None.
    recipe
        Recipe that the config came from.
    root
        Folder of the numbered runs.
    interactive
        Whether a user can move the controls; None to detect it.

    Returns
    -------
    ControlPanel
        A `Panel` with widgets if interactive, otherwise a table.

    Raises
    ------
    UserError
        If the data is invalid.
    """
    if interactive is None:
        interactive = session.is_interactive()
    panel = Panel if interactive else ControlPanel
    return panel(config, notices or train.load_notices(config), machine.chosen_recipe(recipe), root)


class ControlPanel:
    """Train a config and show how to repeat it; non-interactive, displayed as a table."""

    def __init__(self, config: TrainConfig, notices: Notices, recipe: str, root: Path) -> None:
        self.config, self.notices, self.recipe, self.root = config, notices, recipe, root

    def run(self) -> Run:
        """Train with the config and return the finished run."""
        return train.fit(self.config, self.notices, root=self.root)

    def repeat(self, run: Run | None = None) -> str:
        """Return two shell commands, one per line, that train with the current config or that of `run`."""
        config = run.config.replace(out=self.config.out) if run else self.config
        return "\n".join(line(config, self.recipe) for line in (commands.command_line, commands.papermill_line))

    def _ipython_display_(self) -> None:
        display(pd.Series(self.config.to_dict(), name=f"receta {self.recipe}").to_frame())


class Panel(ControlPanel):
    """The interactive panel: controls with notes about their effect on these notices and this machine."""

    def __init__(self, config: TrainConfig, notices: Notices, recipe: str, root: Path) -> None:
        super().__init__(config, notices, recipe, root)
        self._initial = config, recipe
        self._device = machine.device()
        self._forecast = Forecast(notices)
        self._moving = False  # True while the code, not the user, sets the widgets
        self._recipes = settings.recipes()
        self.recipe_choice = controls.dropdown("Receta", self._recipes, "Un punto de partida: fija todos los ajustes")
        self.controls = settings.make_controls(config)
        self._memory, self._repeat = ipw.HTML(), ipw.HTML()
        self.expected = ExpectedTime(self._forecast, lambda sentence: self.runner.say(sentence))
        self.reset = ipw.Button(description="Restablecer", tooltip="Vuelve a los ajustes con que se abrió el panel")
        self.runner = Runner(notices, root, lambda: (self.recipe, self.config), self._lock, self.expected)
        self.box = self._arrange()
        self._put(config)
        self.recipe_choice.on_change(lambda: guarded(self._take_recipe, self.runner.say))
        for name, control in self.controls.items():
            control.on_change(lambda name=name: guarded(lambda: self._take(name), self.runner.say))
        self.reset.on_click(lambda _: guarded(self._restore, self.runner.say))

    def run(self) -> Run:
        """Return a finished run of the panel's settings; train in this cell if there is none.

        A running training of this session is followed, and an interrupted one is resumed. See `Runner.train` for the
        effect of interrupting the cell, and for the errors.
        """
        stop_measuring()  # the cells below compute too
        if training := training_process.running():
            self._adopt(training)
        elif run := self._finished():
            self.expected.note_taken(run)
            return run
        return self.runner.train(training)

    def _finished(self) -> Run | None:
        """Return the finished run of the current settings, from this panel or another session; None if missing."""
        training = self.runner.training
        if training and training.exit_code == 0 and training.config == self.config:
            return Run.load(training.folder)
        if self.config.resume == "never":
            return None
        if path := resume.find_finished(self.config, self.notices.fingerprint, self.root):
            logger.info(f"«{path}»: se entrenó antes, con estos mismos ajustes y avisos.")
            return Run.load(path)
        return None

    def _adopt(self, training: training_process.Training) -> None:
        """Set the panel to the settings of a running training."""
        self.recipe = training.recipe
        self._put(training.config)

    def _ipython_display_(self) -> None:
        print_stops_plainly()
        self.runner.start.disabled = True  # a click while this cell executes would be handled after the cells below
        display(self.box)
        self.runner.show_picture()
        if training := training_process.running():  # started before this cell was executed again
            self._adopt(training)
            self.runner.watch(training)
        else:
            guarded(self._tell, self.runner.say)
            self.runner.start.disabled = False

    def _arrange(self) -> ipw.VBox:
        c = self.controls
        groups = {
            "Codificador y formato numérico": ("model", "precision", "freeze_layers", "cache_features", "cls_only"),
            "Textos y batches": ("max_length", "padding", "batch_size", "gradient_accumulation_steps"),
            "Entrenamiento": ("epochs", "patience", "label_smoothing", "class_weights"),
        }
        parts = [ipw.HTML(f"<style>{PANEL_CSS}</style>"), self.recipe_choice.row]
        for title, names in groups.items():
            parts += [ipw.HTML(f'<div class="ocensa-title">{title}</div>'), *(c[name].row for name in names)]
        buttons = ipw.HBox([self.runner.start, self.runner.stop, self.reset], layout={"flex_flow": "row wrap"})
        box = ipw.VBox([*parts, self._memory, self.expected.box, buttons, self.runner.box, self._repeat])
        box.add_class("ocensa-panel")
        return box

    def _take(self, name: str) -> None:
        """Update the config from a control that the user has moved."""
        if not self._moving:
            self.config = self.config.replace(**{name: self.controls[name].value})
            self.runner.say("")
            self._tell()

    def _take_recipe(self) -> None:
        if not self._moving and self.recipe_choice.value in RECIPES:
            self.recipe = self.recipe_choice.value
            self._put(with_recipe(self.config, self.recipe))
            self._tell()

    def _restore(self) -> None:
        config, self.recipe = self._initial
        self._put(config)
        self._tell()

    @contextlib.contextmanager
    def _setting_widgets(self) -> Iterator[None]:
        """Ignore the changes of the widgets inside the block: the code makes them, not the user."""
        self._moving = True
        try:
            yield
        finally:
            self._moving = False

    def _put(self, config: TrainConfig) -> None:
        """Set every control from a config."""
        self.config = config
        with self._setting_widgets():
            for name, control in self.controls.items():
                control.value = getattr(config, name)
        self._name_recipe()

    def _name_recipe(self) -> None:
        """Select the recipe, or an additional option `(modificada)` if the settings differ from it.

        The encoder and the data are not part of a recipe.
        """
        name, options = self.recipe, self._recipes
        if self.config != with_recipe(self.config, self.recipe):
            name = f"{self.recipe} (modificada)"
            options = [(name, name), *options]  # the recipe itself can still be chosen
        with self._setting_widgets():
            if list(self.recipe_choice.widget.options) != options:
                self.recipe_choice.widget.options = options
            self.recipe_choice.value = name

    def _tell(self, measuring: bool = True) -> None:
        """Update everything that depends on the settings; measure the time only if `measuring`."""
        self.controls["precision"].widget.disable(unavailable(self._device))
        try:
            encoder = self._forecast.encoder(self.config.model)
        except UserError as error:  # training is still possible: it downloads the encoder
            self.controls["model"].say(Note(str(error)))
            self.expected.show_unknown("se sabrá cuando el codificador esté en esta máquina.")
            self._memory.value = ""
        else:
            self._limit(encoder)
            for name, note in settings.notes(self.config, self._forecast).items():
                self.controls[name].say(note)
            self._memory.value = f'<div class="ocensa ocensa-memory">{escape(self._forecast.memory(self.config))}</div>'
            self.expected.show(self.config, measuring)
        self.runner.name_start()
        self._name_recipe()
        self._repeat.value = (
            '<details class="ocensa"><summary>Lo mismo desde una terminal</summary>'
            f"<pre>{escape(self.repeat())}</pre></details>"
        )

    def _limit(self, encoder: Encoder) -> None:
        """Limit the controls to what the encoder has, and disable those without effect."""
        c = self.controls
        with self._setting_widgets():
            c["freeze_layers"].widget.limit(encoder.depth, shown=encoder.depth)
            c["max_length"].widget.limit(encoder.positions, shown=min(512, encoder.positions))
        self.config = self.config.replace(freeze_layers=c["freeze_layers"].value, max_length=c["max_length"].value)
        frozen = self.config.freeze_layers
        c["cache_features"].disable("" if frozen else settings.NOTHING_FROZEN)
        fixed = {"max_length": "Con las capas congeladas ya calculadas no hay relleno fijo"}
        c["padding"].widget.disable(fixed if frozen and self.config.cache_features else {})

    def _lock(self, running: bool) -> None:
        for widget in (self.reset, self.recipe_choice.widget, *(c.widget for c in self.controls.values())):
            for part in widget.children if isinstance(widget, ipw.Box) else (widget,):
                part.disabled = running
        if running:
            guarded(lambda: self.expected.show(self.config, measuring=False), self.runner.say)
        else:  # measuring would slow the cells below
            guarded(lambda: self._tell(measuring=False), self.runner.say)
