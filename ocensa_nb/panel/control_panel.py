"""Show the control panel of notebook 03: a control for each optimisation, and its predicted effect on this machine.

The panel does not train: its button starts the command it shows (`run_controller.py`), and
`benchmark/time_prediction.py` predicts the effect of the settings. Works with ipywidgets 7.7 (Colab's) and 8.
"""

import logging
from html import escape
from pathlib import Path

import ipywidgets as ipw
import pandas as pd
from IPython.display import display

from ocensa_nb.benchmark.time_prediction import Forecast
from ocensa_nb.config import RECIPES, TrainConfig, baseline_of, with_recipe
from ocensa_nb.data.notices import Notices
from ocensa_nb.encoders import loading
from ocensa_nb.errors import UserError
from ocensa_nb.figures.style import PANEL_CSS
from ocensa_nb.notebook import session
from ocensa_nb.panel import commands, controls, training_process
from ocensa_nb.panel.controls import Control
from ocensa_nb.panel.run_controller import Runner, guarded
from ocensa_nb.paths import RUNS
from ocensa_nb.runtime import environment
from ocensa_nb.runtime.precision import unavailable
from ocensa_nb.storage import resume
from ocensa_nb.storage.run_folder import Run
from ocensa_nb.training import train

logger = logging.getLogger(__name__)

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
PRECISIONS = {name: name for name in ("auto", "fp32", "tf32", "bf16", "fp16")}
NOTHING_FROZEN = "Sin capas congeladas no hay nada que guardar."
PADDINGS = {"dynamic": "al más largo del batch", "max_length": "todos iguales"}


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
    return panel(config, notices or train.load_notices(config), environment.chosen_recipe(recipe), root)


class ControlPanel:
    """Train a config and show how to repeat it; non-interactive, displayed as a table.

    Parameters
    ----------
    config
        Settings of the training.
    notices
        Data to train on.
    recipe
        Name of the recipe that the config came from, not `auto`.
    root
        Folder of the numbered runs.
    """

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
        self._device = environment.device()
        self._forecast = Forecast(notices)
        self._moving = False  # True while the code, not the user, sets the widgets
        self.recipe_choice = controls.dropdown("Receta", _recipes(), "Un punto de partida: fija todos los ajustes")
        self.controls = _controls(config)
        self._memory, self._expected, self._repeat = ipw.HTML(), ipw.HTML(), ipw.HTML()
        self.reset = ipw.Button(description="Restablecer", tooltip="Vuelve a los ajustes con que se abrió el panel")
        self.runner = Runner(notices, root, lambda: (self.recipe, self.config), self._lock)
        self.box = self._arrange()
        self._put(config)
        self.recipe_choice.value = recipe
        self.recipe_choice.on_change(lambda: guarded(self._take_recipe, self.runner.say))
        for name, control in self.controls.items():
            control.on_change(lambda name=name: guarded(lambda: self._take(name), self.runner.say))
        self.reset.on_click(lambda _: guarded(self._restore, self.runner.say))

    def run(self) -> Run:
        """Return a finished run of the panel's settings; train in this cell if there is none.

        A running training of this session is followed, and an interrupted one is resumed. See `Runner.train` for the
        effect of interrupting the cell, and for the errors.
        """
        if training := training_process.running():
            self._adopt(training)
        elif run := self._finished():
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
        self.runner.start.disabled = True  # a click while this cell measures would run after the cells below
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
            "Codificador y precisión": ("model", "precision", "freeze_layers", "cache_trunk", "cls_only"),
            "Textos y batches": ("max_length", "padding", "batch_size", "gradient_accumulation_steps"),
            "Entrenamiento": ("epochs", "patience", "label_smoothing", "class_weights"),
        }
        parts = [ipw.HTML(f"<style>{PANEL_CSS}</style>"), self.recipe_choice.row]
        for title, names in groups.items():
            parts += [ipw.HTML(f'<div class="ocensa-title">{title}</div>'), *(c[name].row for name in names)]
        buttons = ipw.HBox([self.runner.start, self.runner.stop, self.reset], layout={"flex_flow": "row wrap"})
        box = ipw.VBox([*parts, self._memory, self._expected, buttons, self.runner.box, self._repeat])
        box.add_class("ocensa-panel")
        return box

    def _take(self, name: str) -> None:
        """Update the config from a control that the user has moved."""
        if not self._moving:
            self.config = self.config.replace(**{name: self.controls[name].value})
            self.runner.say("")
            self._tell()

    def _take_recipe(self) -> None:
        if not self._moving:
            self.recipe = self.recipe_choice.value
            self._put(with_recipe(self.config, self.recipe))
            self._tell()

    def _restore(self) -> None:
        config, self.recipe = self._initial
        self._put(config)
        self._tell()

    def _put(self, config: TrainConfig) -> None:
        """Set every control from a config."""
        self.config = config
        self._moving = True
        try:
            self.recipe_choice.value = self.recipe
            for name, control in self.controls.items():
                control.value = getattr(config, name)
        finally:
            self._moving = False

    def _tell(self, measuring: bool = True) -> None:
        """Update the notes, disable unavailable options and predict the time; measure only if `measuring`."""
        config, c = self.config, self.controls
        self.runner.name_start()
        c["precision"].widget.disable(unavailable(self._device))
        try:
            encoder = self._forecast.encoder(config.model)
        except UserError as error:  # training is still possible: it downloads the encoder
            c["model"].say(str(error))
            self._show_price("Tiempo previsto: se sabrá cuando el codificador esté en este equipo.")
            self._memory.value = ""
            self._show_repeat()
            return
        c["model"].say("" if encoder.here else "No está en este equipo: se descarga al entrenar.")
        frozen = min(config.freeze_layers, encoder.depth)
        self._moving = True
        try:
            c["freeze_layers"].widget.max = encoder.depth  # the widget clips its value by itself
            c["max_length"].widget.max = min(max(512, config.max_length), encoder.positions)
        finally:
            self._moving = False
        self.config = config = config.replace(
            freeze_layers=frozen, max_length=min(config.max_length, c["max_length"].widget.max)
        )
        c["cache_trunk"].disable("" if frozen else NOTHING_FROZEN)
        c["cache_trunk"].say("" if frozen else NOTHING_FROZEN)
        hidden = frozen and config.cache_trunk
        c["padding"].widget.disable(
            {"max_length": "Con las capas congeladas ya calculadas no hay relleno fijo"} if hidden else {}
        )
        cut = self._forecast.cut_share(config.model, config.max_length)
        counted = "" if encoder.here else f", contados con {encoder.counted_with}"
        c["max_length"].say(f"tokens: se corta el {100 * cut:.1f} % de sus avisos{counted}")
        trainable, total = self._forecast.parameters(config)
        c["freeze_layers"].say(
            f"de {encoder.depth}: entrena {_millions(trainable)} de {_millions(total)} M de parámetros "
            f"({100 * trainable / total:.0f} %)"
        )
        c["gradient_accumulation_steps"].say(f"batch efectivo: {config.effective_batch_size} avisos por paso")
        self._memory.value = f'<div class="ocensa ocensa-memory">{escape(self._forecast.memory(config))}</div>'
        self._show_repeat()
        self._price(measuring)

    def _show_repeat(self) -> None:
        self._repeat.value = (
            '<details class="ocensa"><summary>Lo mismo desde una terminal</summary>'
            f"<pre>{escape(self.repeat())}</pre></details>"
        )

    def _price(self, measuring: bool) -> None:
        """Show the predicted time of this training and of the baseline; measure what is missing if `measuring`."""
        base = baseline_of(self.config)
        if not (self._forecast.is_measured(self.config) and self._forecast.is_measured(base)):
            if not measuring:
                self._show_price("Tiempo previsto: se mide al mover un control.")
                return
            self._show_price("Tiempo previsto: midiendo unos pasos en esta máquina…")
        try:
            own, theirs = self._forecast.expected(self.config), self._forecast.expected(base)
        except Exception:
            self._show_price("Tiempo previsto: no se pudo medir.")
            raise
        measured, times = self._forecast.measured_seconds(self.config, base), theirs.seconds / own.seconds
        self._show_price(
            f"<b>Tiempo previsto: {own}</b><br>Punto de partida de la guía (baseline): {theirs}, "
            f"{times:.{0 if times >= 10 else 1}f} veces más. Calculado de pasos medidos aquí durante {measured:.1f} s, "
            "sin contar el arranque; si deja de mejorar antes, será menos."
        )

    def _show_price(self, html: str) -> None:
        self._expected.value = f'<div class="ocensa ocensa-expected">{html}</div>'

    def _lock(self, running: bool) -> None:
        for widget in (self.reset, self.recipe_choice.widget, *(c.widget for c in self.controls.values())):
            for part in widget.children if isinstance(widget, ipw.Box) else (widget,):
                part.disabled = running
        if not running:  # measuring would delay the cells below
            guarded(lambda: self._tell(measuring=False), self.runner.say)


def _millions(count: int) -> str:
    return f"{count / 1e6:.{1 if count >= 1e6 else 3}f}"


def _recipes() -> list[tuple[str, str]]:
    """Return the recipes as (text, name), the one recommended for this machine first."""
    best, _ = environment.recommend(environment.hardware())
    return [(f"{best} (la recomendada aquí)", best), *((name, name) for name in RECIPES if name != best)]


def _controls(config: TrainConfig) -> dict[str, Control]:
    """Return the control of each field that the panel shows."""
    names = [n for n in loading.CATALOGUE if n not in loading.BUILT_HERE or n == config.model]
    places = {True: "en este equipo", False: "se descarga"}
    known = [(f"{name} · {loading.CATALOGUE[name].about} · {places[loading.is_here(name)]}", name) for name in names]
    if config.model not in names:
        known.append((config.model, config.model))
    return {
        "model": controls.dropdown("Codificador", known, "El modelo ya entrenado del que se parte"),
        "precision": controls.choice(
            "Precisión", PRECISIONS, config.precision, "Aritmética del entrenamiento; auto mide y elige"
        ),
        "freeze_layers": controls.slider("Capas congeladas", 0, 12, "Las de abajo no se entrenan; 0 = ninguna"),
        "cache_trunk": controls.switch("Calcular las capas congeladas una sola vez", "Exacto: mismo resultado"),
        "cls_only": controls.switch("Última capa solo para [CLS]", "Exacto: calcula solo lo que se lee"),
        "max_length": controls.slider("Largo máximo", 16, 512, "Tokens por aviso; lo que sobra se corta", 8),
        "padding": controls.choice("Relleno", PADDINGS, config.padding, "Hasta dónde se rellenan los textos cortos"),
        "batch_size": controls.steps("Micro-batch", BATCHES, "Avisos a la vez en memoria"),
        "gradient_accumulation_steps": controls.steps(
            "Acumulación", BATCHES[:6], "Micro-batches por paso del optimizador"
        ),
        "epochs": controls.slider("Épocas", 1, 30, "Vueltas a los datos, como máximo"),
        "patience": controls.slider("Paciencia", 1, 10, "Épocas sin mejora antes de parar"),
        "label_smoothing": controls.slider("Suavizado", 0.0, 0.3, "Suavizado de etiquetas, de 0 a 1", 0.01),
        "class_weights": controls.switch("Pesar las clases raras de la causa", "Regla balanced de scikit-learn"),
    }
