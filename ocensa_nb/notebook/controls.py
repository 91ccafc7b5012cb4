"""The widgets of all panels, and the settings as widgets: numbers to type or slide, choices, and notes on a value."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import ipywidgets as ipw
import traitlets
from IPython.display import display

from ocensa_nb.benchmark.forecast import Forecast
from ocensa_nb.config import PRECISIONS, RECIPES, TrainConfig
from ocensa_nb.errors import AskedToStopError, UserError, num
from ocensa_nb.figures.style import PANEL_CSS
from ocensa_nb.models import catalogue
from ocensa_nb.notebook import session
from ocensa_nb.runtime import machine

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
PADDINGS = {"dynamic": "al más largo del batch", "max_length": "todos iguales"}
NOTHING_FROZEN = "Sin capas congeladas no hay nada que guardar."
CUT_CAUTION, CUT_HARM = 0.2, 0.5  # of the notices
SMOOTHING_CAUTION = 0.2
SMOOTHED = "tanto suavizado frena el aprendizaje y baja las confianzas"
BATCH_CAUTION = 0.25  # of the training rows, in one step
CAUTION, HARM = "ocensa-caution", "ocensa-harm"  # CSS classes of `figures.style.PANEL_CSS`
LABEL = {"description_width": "140px"}
WIDE = {"width": "400px", "max_width": "calc(100% - 4px)"}  # a widget has a margin of 2 px
SLIDER = {"width": "324px", "flex": "0 1 auto"}  # with the number, as wide as the other widgets
TYPED = {"width": "72px", "flex": "0 0 auto"}
ROW = {"flex_flow": "row wrap", "align_items": "center"}


@dataclass(frozen=True)
class Note:
    """A sentence beside a control, and `CAUTION` or `HARM` if the value may do harm."""

    text: str = ""
    level: str = ""


def guarded(work: Callable[[], Any], say: Callable[[str], None]) -> None:
    """Run a widget callback and report its exceptions, which the notebook would not show."""
    try:
        work()
    except UserError as error:
        say(describe(error))
    except Exception as error:
        say(f"⛔ Error inesperado, que conviene comunicar: {type(error).__name__}: {error}")


def describe(error: UserError) -> str:
    return str(error) if isinstance(error, AskedToStopError) else f"⛔ {error}"


def button(text: str, work: Callable[[], Any], say: Callable[[str], None], tooltip: str, **traits: Any) -> ipw.Button:
    """Return a button that calls `work`, guarded."""
    made = ipw.Button(description=text, tooltip=tooltip, **traits)
    made.on_click(lambda _: guarded(work, say))
    return made


def panel(*parts: ipw.Widget) -> ipw.VBox:
    """Return the box of a panel, with its style."""
    box = ipw.VBox([ipw.HTML(f"<style>{PANEL_CSS}</style>"), *parts])
    box.add_class("ocensa-panel")
    return box


def in_terminal(command: str) -> str:
    """Return a command as HTML that a click unfolds."""
    words = f"<summary>Lo mismo desde una terminal</summary><pre>{escape(command)}</pre>"
    return f'<details class="ocensa">{words}</details>'


class Choice(ipw.HBox):
    """A row of buttons with exactly one selected; a disabled option shows the reason as its tooltip."""

    value = traitlets.Any()

    def __init__(self, title: str, options: Mapping[str, str], value: str, tooltip: str) -> None:
        self._tooltip = tooltip
        self._buttons = {
            name: ipw.ToggleButton(description=text, tooltip=tooltip, layout={"width": "auto"})
            for name, text in options.items()
        }
        label = ipw.HTML(f'<div class="ocensa-label">{escape(title)}</div>')
        super().__init__([label, *self._buttons.values()], layout=ROW)
        self.value = value
        for name, toggle in self._buttons.items():
            toggle.observe(lambda change, name=name: self._pressed(name, change["new"]), "value")

    def disable(self, reasons: Mapping[str, str]) -> None:
        for name, toggle in self._buttons.items():
            toggle.disabled = name in reasons
            toggle.tooltip = reasons.get(name, self._tooltip)

    @traitlets.observe("value")
    def _show(self, _: Any) -> None:
        for name, toggle in self._buttons.items():
            toggle.value = name == self.value

    def _pressed(self, name: str, down: bool) -> None:
        if down:
            self.value = name
        elif name == self.value:
            self._buttons[name].value = True  # clicking the selected button keeps it selected


class Number(ipw.HBox):
    """A slider with the number beside it, which can be typed; a valid number beyond the slider extends it."""

    value = traitlets.Any()  # setting it extends the range of the slider and of what can be typed

    def __init__(self, slider: Any, least: float, most: float) -> None:
        self.slider, self._least, self._most = slider, least, most
        self._moving = False  # True while the code, not the user, moves the slider
        self.on_invalid: Callable[[str], None] = lambda _: None
        kind = ipw.IntText if isinstance(slider.value, int) else ipw.FloatText
        self.text = kind(slider.value, step=getattr(slider, "step", 1), layout=TYPED)
        # ipywidgets' readout of a list cannot be typed into; that of an `IntSlider` clips a number without a word.
        slider.readout = False
        super().__init__([slider, self.text], layout={"align_items": "center", "max_width": WIDE["max_width"]})
        self.value = slider.value
        slider.observe(lambda change: self._moving or self._take(change["new"]), "value")
        self.text.observe(lambda change: self._type(change["new"]), "value")

    def limit(self, most: int, shown: int, least: int | None = None) -> None:
        """Set the largest number that can be typed, and that of the slider; a value outside is moved to the limit."""
        self._least, self._most = self._least if least is None else least, most
        self.value = max(self._least, min(self.value, most))
        self.slider.min, self.slider.max = self._least, max(shown, self.value)

    def _take(self, value: float) -> None:
        self.value = round(value, 4)  # a slider's fraction has rounding noise

    def _type(self, value: float) -> None:
        """Take a typed number; restore the previous one if it is out of range."""
        if self._least <= value <= self._most:
            self.value = value
        else:
            self.text.value = before = self.value
            self.on_invalid(f"{value:g} no es válido: use de {self._least:g} a {self._most:g}. Sigue en {before:g}.")

    @traitlets.observe("value")
    def _show(self, _: Any) -> None:
        value, slider = self.value, self.slider
        self._least, self._most = min(self._least, value), max(self._most, value)
        self._moving = True
        try:
            if not isinstance(slider, ipw.SelectionSlider):
                slider.max, slider.min = max(slider.max, value), min(slider.min, value)
            elif value not in slider.options:
                slider.options = sorted({*slider.options, value})
            slider.value = self.text.value = value
        finally:
            self._moving = False


class Control:
    """One setting: a widget, and an HTML note beside it."""

    def __init__(self, widget: Any, tooltip: str = "") -> None:
        self.widget, self._tooltip = widget, tooltip
        self.note = ipw.HTML()
        if isinstance(widget, Number):
            widget.on_invalid = lambda message: self.say(Note(message, CAUTION))
        if tooltip:  # a `Choice` sets those of its buttons
            _explain(widget.slider if isinstance(widget, Number) else widget, tooltip)
        self.row = ipw.HBox([widget, self.note], layout=ROW)

    def on_change(self, watcher: Callable[[], None]) -> None:
        self.widget.observe(lambda _: watcher(), "value")

    def disable(self, reason: str) -> None:
        """Disable the control with a reason as its tooltip; enable it if the reason is empty."""
        self.widget.disabled = bool(reason)
        _explain(self.widget, reason or self._tooltip)

    def say(self, note: Note) -> None:
        sign = "⚠ " if note.level else ""
        self.note.value = f'<span class="ocensa-note {note.level}">{sign}{escape(note.text)}</span>'


def slider(title: str, least: float, shown: float, tooltip: str, step: float = 1, most: float | None = None) -> Control:
    """Return a number on a slider from `least` to `shown`; larger ones, up to `most`, can be typed."""
    kind = ipw.IntSlider if step >= 1 else ipw.FloatSlider
    widget = kind(min=least, max=shown, step=step, value=least, description=title, style=LABEL, layout=SLIDER)
    return Control(Number(widget, least, shown if most is None else most), tooltip)


def steps(title: str, options: Sequence[int], most: int, tooltip: str) -> Control:
    """Return a number on a slider over a list of integers; others, up to `most`, can be typed."""
    layout = {**SLIDER, "margin": "2px"}  # that of the other sliders
    widget = ipw.SelectionSlider(options=list(options), description=title, style=LABEL, layout=layout)
    return Control(Number(widget, options[0], most), tooltip)


def dropdown(title: str, options: Iterable[tuple[str, str]], tooltip: str) -> Control:
    layout = {**WIDE, "width": "760px"}
    return Control(ipw.Dropdown(options=list(options), description=title, style=LABEL, layout=layout), tooltip)


def switch(title: str, tooltip: str) -> Control:
    layout = {"width": "auto", "margin": "2px 2px 2px 150px"}
    return Control(ipw.Checkbox(description=title, indent=False, layout=layout), tooltip)


def recipes() -> list[tuple[str, str]]:
    """Return the recipes as (text, name), the one recommended for this machine first."""
    best, _ = machine.recommend(machine.hardware())
    return [(f"{best} (la recomendada aquí)", best), *((name, name) for name in RECIPES if name != best)]


def make_controls(config: TrainConfig) -> dict[str, Control]:
    names = [n for n in catalogue.CATALOGUE if n not in catalogue.BUILT_HERE or n == config.model]
    where = {True: "en esta máquina", False: "se descarga"}
    encoders = [
        (f"{name} · {catalogue.CATALOGUE[name].about} · {where[catalogue.is_here(name)]}", name) for name in names
    ]
    if config.model not in names:
        encoders.append((config.model, config.model))
    numbers = {name: name for name in PRECISIONS}
    return {
        "model": dropdown("Codificador", encoders, "El modelo ya entrenado del que se parte"),
        "precision": Control(
            Choice("Formato numérico", numbers, config.precision, "Formato de los cálculos; auto mide y elige")
        ),
        "freeze_layers": slider(
            "Capas congeladas", -11, 12, "Las de abajo no se entrenan; 0 = ninguna, -1 = todas menos la última"
        ),
        "cache_features": switch("Calcular las capas congeladas una sola vez", "Exacto: mismo resultado"),
        "cls_only": switch("Última capa solo para [CLS]", "Exacto: calcula solo lo que se lee"),
        "max_length": slider("Largo máximo", 16, 512, "Tokens por aviso; lo que sobra se corta", 8),
        "padding": Control(Choice("Relleno", PADDINGS, config.padding, "Hasta dónde se rellenan los textos cortos")),
        "batch_size": steps("Micro-batch", BATCHES, 1024, "Avisos a la vez en memoria"),
        "gradient_accumulation_steps": steps("Acumulación", BATCHES[:6], 256, "Micro-batches por paso del optimizador"),
        "epochs": slider("Épocas", 1, 30, "Vueltas a los datos, como máximo", most=100),
        "patience": slider("Paciencia", 1, 10, "Épocas sin mejora antes de parar", most=100),
        "label_smoothing": slider("Suavizado", 0.0, 0.3, "Suavizado de etiquetas, de 0 a 1", 0.01, most=0.9),
        "class_weights": switch("Pesar las clases raras de la causa", "Regla balanced de scikit-learn"),
    }


def notes(config: TrainConfig, forecast: Forecast) -> dict[str, Note]:
    """Return the note of each setting that has one; the encoder must be here or in the catalogue."""
    encoder, never_early = forecast.encoder(config.model), config.patience >= config.epochs > 1
    return {
        "model": Note("" if encoder.here else "No está en esta máquina: se descarga al entrenar."),
        "freeze_layers": _frozen(config, forecast),
        "cache_features": Note("" if config.freeze_layers else NOTHING_FROZEN),
        "max_length": _cut(config, forecast),
        "batch_size": Note(),
        "gradient_accumulation_steps": _batch(config, len(forecast.notices.split["train"])),
        "epochs": Note("una sola vuelta: el modelo apenas aprende", CAUTION) if config.epochs == 1 else Note(),
        "patience": Note(f"no para antes: son {config.epochs} épocas como máximo" if never_early else ""),
        "label_smoothing": Note(SMOOTHED, CAUTION) if config.label_smoothing > SMOOTHING_CAUTION else Note(),
    }


def _frozen(config: TrainConfig, forecast: Forecast) -> Note:
    depth, frozen = forecast.encoder(config.model).depth, forecast.frozen(config)
    which = (
        f"de {depth}" if config.freeze_layers >= 0 else f"= todas menos {-config.freeze_layers}: {frozen} de {depth}"
    )
    trainable, total = forecast.parameters(config)
    share = f"{100 * trainable / total:.0f} %"
    if frozen == depth:
        return Note(f"{which}: entrena solo las cabezas, el {share} de los parámetros", CAUTION)
    return Note(f"{which}: entrena {_millions(trainable)} de {_millions(total)} M de parámetros ({share})")


def _cut(config: TrainConfig, forecast: Forecast) -> Note:
    encoder, share = forecast.encoder(config.model), forecast.cut_share(config.model, config.max_length)
    counted = "" if encoder.here else f", contados con {encoder.counted_with}"
    text = f"tokens: se corta el {num(100 * share, 1)} % de sus avisos{counted}"
    if share <= CUT_CAUTION:
        return Note(text)
    return Note(f"{text}; el modelo no lee lo cortado", HARM if share > CUT_HARM else CAUTION)


def _batch(config: TrainConfig, rows: int) -> Note:
    text = f"batch efectivo: {config.effective_batch_size} avisos por paso"
    if config.effective_batch_size <= BATCH_CAUTION * rows:
        return Note(text)
    return Note(f"{text}; da muy pocos pasos por época: {config.steps_an_epoch(rows)}", CAUTION)


def _millions(count: int) -> str:
    return num(count / 1e6, 1 if count >= 1e6 else 3)


def by_label(labels: Iterable[str], show: Callable[[str], Any], first: str | None) -> None:
    """Display `show(label)`: for every label without a user, otherwise for the chosen one, at the start `first`."""
    if first is None:
        print("No hay ninguna etiqueta que mostrar.")
        return

    def show_titled(label: str | None) -> None:
        if label is not None:
            print(f"Etiqueta: {label}")
            display(show(label))

    show_titled(first)
    others = [label for label in labels if label != first]
    if not session.is_interactive():
        for label in others:
            show_titled(label)
    elif others:
        options = [("otra etiqueta…", None), *zip(others, others, strict=True)]
        label_choice = ipw.Dropdown(options=options, description="Ver")
        display(label_choice, ipw.interactive_output(show_titled, {"label": label_choice}))


def _explain(widget: Any, tooltip: str) -> None:
    # ipywidgets 7 and 8 name the trait differently.
    setattr(widget, "tooltip" if widget.has_trait("tooltip") else "description_tooltip", tooltip)
