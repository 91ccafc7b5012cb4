"""Build the controls of a panel: widgets with a note, numbers to type or slide, and choices that explain themselves."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import ipywidgets as ipw

CAUTION, HARM = "ocensa-caution", "ocensa-harm"  # CSS classes of `figures.style.PANEL_CSS`
LABEL = {"description_width": "140px"}
WIDE = {"width": "400px", "max_width": "calc(100% - 4px)"}  # a widget has a margin of 2 px
SLIDER = {"width": "324px", "flex": "0 1 auto"}  # with the number, as wide as the other widgets
TYPED = {"width": "72px", "flex": "0 0 auto"}


@dataclass(frozen=True)
class Note:
    """A sentence beside a control, and `CAUTION` or `HARM` if the value may do harm."""

    text: str = ""
    level: str = ""


class Choice(ipw.HBox):
    """A row of buttons with exactly one selected; a disabled option shows the reason as its tooltip."""

    def __init__(self, title: str, options: Mapping[str, str], value: str, tooltip: str) -> None:
        self._tooltip, self._value = tooltip, value
        self._watchers: list[Callable[[], None]] = []
        self._buttons = {
            name: ipw.ToggleButton(description=text, value=name == value, tooltip=tooltip, layout={"width": "auto"})
            for name, text in options.items()
        }
        for name, button in self._buttons.items():
            button.observe(lambda change, name=name: self._pressed(name, change["new"]), "value")
        label = ipw.HTML(f'<div class="ocensa-label">{escape(title)}</div>')
        super().__init__([label, *self._buttons.values()], layout={"flex_flow": "row wrap", "align_items": "center"})

    @property
    def value(self) -> str:
        """The selected option."""
        return self._value

    @value.setter
    def value(self, value: str) -> None:
        self._value = value
        for name, button in self._buttons.items():
            button.value = name == value
        for watcher in self._watchers:
            watcher()

    def on_change(self, watcher: Callable[[], None]) -> None:
        """Call `watcher` after each change of the value."""
        self._watchers.append(watcher)

    def disable(self, reasons: Mapping[str, str]) -> None:
        """Disable the options in `reasons`, with the reason as tooltip, and enable all others."""
        for name, button in self._buttons.items():
            button.disabled = name in reasons
            button.tooltip = reasons.get(name, self._tooltip)

    def _pressed(self, name: str, down: bool) -> None:
        if down and name != self._value:
            self.value = name
        elif not down and name == self._value:
            self._buttons[name].value = True  # clicking the selected button keeps it selected


class Number(ipw.HBox):
    """A slider with the number beside it, which can be typed; a valid number beyond the slider extends it.

    The readouts of ipywidgets are not used: that of a `SelectionSlider` cannot be typed into, and that of an
    `IntSlider` replaces a number beyond its range without a word.
    """

    def __init__(self, slider: Any, least: float, most: float) -> None:
        self.slider, self._least, self._most = slider, least, most
        self._value, self._moving = slider.value, False
        self._watchers: list[Callable[[], None]] = []
        self.on_invalid: Callable[[str], None] = lambda _: None
        whole = isinstance(slider.value, int)
        self.text = (ipw.IntText if whole else ipw.FloatText)(
            slider.value, step=getattr(slider, "step", 1), layout=TYPED
        )
        slider.readout = False
        slider.observe(lambda change: self._moving or self._set(round(change["new"], 4)), "value")
        self.text.observe(lambda change: self._moving or self._type(change["new"]), "value")
        super().__init__([slider, self.text], layout={"align_items": "center", "max_width": WIDE["max_width"]})

    @property
    def value(self) -> float:
        """The number; setting it extends the range of the slider and of what can be typed."""
        return self._value

    @value.setter
    def value(self, value: float) -> None:
        self._least, self._most = min(self._least, value), max(self._most, value)
        self._set(value)

    def on_change(self, watcher: Callable[[], None]) -> None:
        """Call `watcher` after each change of the value."""
        self._watchers.append(watcher)

    def limit(self, most: int, shown: int) -> None:
        """Set the largest number that can be typed, and that of the slider; a larger value is reduced to it."""
        self._most = most
        value = min(self._value, most)
        self._moving = True
        try:
            self.slider.max = max(shown, value)
        finally:
            self._moving = False
        self._set(value)

    def _set(self, value: float) -> None:
        changed, self._value = value != self._value, value
        self._moving = True
        try:
            if isinstance(self.slider, ipw.SelectionSlider):
                if value not in self.slider.options:
                    self.slider.options = sorted({*self.slider.options, value})
            else:
                self.slider.max, self.slider.min = max(self.slider.max, value), min(self.slider.min, value)
            self.slider.value = self.text.value = value
        finally:
            self._moving = False
        if changed:
            for watcher in self._watchers:
                watcher()

    def _type(self, value: float) -> None:
        """Take a typed number; restore the previous one if it is out of range."""
        before = self._value
        valid = self._least <= value <= self._most
        self._set(value if valid else before)
        if not valid:
            self.on_invalid(f"{value:g} no es válido: use de {self._least:g} a {self._most:g}. Sigue en {before:g}.")


class Control:
    """One setting: a widget and an HTML note beside it that explains the effect of its value."""

    def __init__(self, widget: Any, tooltip: str = "") -> None:
        self.widget, self._tooltip = widget, tooltip
        self.note = ipw.HTML()
        if isinstance(widget, Number):
            widget.on_invalid = lambda message: self.say(Note(message, CAUTION))
        if tooltip:  # a `Choice` sets those of its buttons
            _explain(widget.slider if isinstance(widget, Number) else widget, tooltip)
        self.row = ipw.HBox([widget, self.note], layout={"flex_flow": "row wrap", "align_items": "center"})

    @property
    def value(self) -> Any:
        """The value of the setting."""
        return self.widget.value

    @value.setter
    def value(self, value: Any) -> None:
        self.widget.value = value

    def on_change(self, watcher: Callable[[], None]) -> None:
        """Call `watcher` after each change of the value."""
        if isinstance(self.widget, Choice | Number):
            self.widget.on_change(watcher)
        else:
            self.widget.observe(lambda _: watcher(), "value")

    def disable(self, reason: str) -> None:
        """Disable the control and show `reason` as its tooltip; enable it if `reason` is empty."""
        self.widget.disabled = bool(reason)
        _explain(self.widget, reason or self._tooltip)

    def say(self, note: Note) -> None:
        """Show a note; HTML in its text is escaped."""
        sign = "⚠ " if note.level else ""
        self.note.value = f'<span class="ocensa-note {note.level}">{sign}{escape(note.text)}</span>'


def slider(title: str, least: float, shown: float, tooltip: str, step: float = 1, most: float | None = None) -> Control:
    """Return a number on a linear slider.

    Parameters
    ----------
    title
        Label before the slider.
    least, shown
        Minimum and maximum of the slider.
    tooltip
        Tooltip while enabled.
    step
        Increment of the slider; the number is an integer if it is at least 1, otherwise a float.
    most
        Maximum that can be typed; `shown` if None.

    Returns
    -------
    Control
        Around a `Number`.
    """
    kind = ipw.IntSlider if step >= 1 else ipw.FloatSlider
    made = kind(min=least, max=shown, step=step, value=least, description=title, style=LABEL, layout=SLIDER)
    return Control(Number(made, least, shown if most is None else most), tooltip)


def steps(title: str, options: Sequence[int], most: int, tooltip: str) -> Control:
    """Return a number on a slider over a list of integers; others, up to `most`, can be typed."""
    layout = {**SLIDER, "margin": "2px"}  # that of the other sliders
    made = ipw.SelectionSlider(options=list(options), description=title, style=LABEL, layout=layout)
    return Control(Number(made, options[0], most), tooltip)


def dropdown(title: str, options: Iterable[tuple[str, str]], tooltip: str) -> Control:
    """Return a drop-down menu of (text, value) pairs."""
    made = ipw.Dropdown(options=list(options), description=title, style=LABEL, layout={**WIDE, "width": "760px"})
    return Control(made, tooltip)


def switch(title: str, tooltip: str) -> Control:
    """Return a check box."""
    made = ipw.Checkbox(description=title, indent=False, layout={"width": "auto", "margin": "2px 2px 2px 150px"})
    return Control(made, tooltip)


def choice(title: str, options: Mapping[str, str], value: str, tooltip: str) -> Control:
    """Return a row of buttons with one selected; see `Choice` for the parameters."""
    return Control(Choice(title, options, value, tooltip))


def _explain(made: Any, tooltip: str) -> None:
    """Set the tooltip of a widget; ipywidgets 7 and 8 name the trait differently."""
    setattr(made, "tooltip" if made.has_trait("tooltip") else "description_tooltip", tooltip)
