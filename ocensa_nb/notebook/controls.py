"""The parts a panel is made of: controls with a note beside them, and choices whose impossible ones say why."""

from collections.abc import Callable, Iterable, Mapping
from html import escape
from typing import Any

import ipywidgets as ipw

LABEL = {"description_width": "140px"}
WIDE = {"width": "400px", "max_width": "calc(100% - 4px)"}  # a widget has a margin of 2 px


class Choice(ipw.HBox):
    """A row of buttons of which one is down; those that cannot be are disabled, with the reason as their tooltip."""

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
        """The option that is down."""
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
        """Disable the options that have a reason, and no other."""
        for name, button in self._buttons.items():
            button.disabled = name in reasons
            button.tooltip = reasons.get(name, self._tooltip)

    def _pressed(self, name: str, down: bool) -> None:
        if down and name != self._value:
            self.value = name
        elif not down and name == self._value:
            self._buttons[name].value = True  # one is always down


class Control:
    """One setting: a widget and a note beside it, in HTML, that says what its value means here."""

    def __init__(self, widget: Any, tooltip: str = "") -> None:
        self.widget, self._tooltip = widget, tooltip
        if tooltip:  # the buttons of a `Choice` have their own
            _explain(widget, tooltip)
        self.note = ipw.HTML()
        self.row = ipw.HBox([widget, self.note], layout={"flex_flow": "row wrap", "align_items": "center"})

    @property
    def value(self) -> Any:
        """The setting's value."""
        return self.widget.value

    @value.setter
    def value(self, value: Any) -> None:
        if isinstance(self.widget, ipw.SelectionSlider) and value not in self.widget.options:
            self.widget.options = sorted({*self.widget.options, value})
        elif isinstance(self.widget, ipw.IntSlider | ipw.FloatSlider):
            self.widget.max = max(self.widget.max, value)
            self.widget.min = min(self.widget.min, value)
        self.widget.value = value

    def on_change(self, watcher: Callable[[], None]) -> None:
        """Call `watcher` after each change of the value."""
        if isinstance(self.widget, Choice):
            self.widget.on_change(watcher)
        else:
            self.widget.observe(lambda _: watcher(), "value")

    def disable(self, reason: str) -> None:
        """Disable the control, with the reason as its tooltip; without one, enable it again."""
        self.widget.disabled = bool(reason)
        _explain(self.widget, reason or self._tooltip)

    def say(self, note: str) -> None:
        """Write the note, plain text."""
        self.note.value = f'<span class="ocensa-note">{escape(note)}</span>'


def slider(title: str, least: float, most: float, tooltip: str, step: float = 1) -> Control:
    """Return a slider of whole numbers, or of fractions where the step is one."""
    kind = ipw.IntSlider if step >= 1 else ipw.FloatSlider
    made = kind(min=least, max=most, step=step, description=title, style=LABEL, layout=WIDE)
    return Control(made, tooltip)


def steps(title: str, options: Iterable[int], tooltip: str) -> Control:
    """Return a slider that stops at some numbers only."""
    made = ipw.SelectionSlider(options=list(options), description=title, style=LABEL, layout=WIDE)
    return Control(made, tooltip)


def dropdown(title: str, options: Iterable[tuple[str, str]], tooltip: str) -> Control:
    """Return a drop-down of (text, value) pairs."""
    made = ipw.Dropdown(options=list(options), description=title, style=LABEL, layout={**WIDE, "width": "760px"})
    return Control(made, tooltip)


def switch(title: str, tooltip: str) -> Control:
    """Return a check box."""
    made = ipw.Checkbox(description=title, indent=False, layout={"width": "auto", "margin": "2px 2px 2px 150px"})
    return Control(made, tooltip)


def choice(title: str, options: Mapping[str, str], value: str, tooltip: str) -> Control:
    """Return a row of buttons of which one is down."""
    return Control(Choice(title, options, value, tooltip))


def _explain(made: Any, tooltip: str) -> None:
    """Give a widget its tooltip, under the name ipywidgets 7 or 8 has for it."""
    setattr(made, "tooltip" if made.has_trait("tooltip") else "description_tooltip", tooltip)
