"""Build the controls of a panel: widgets with a note, and choices that explain why an option is disabled."""

from collections.abc import Callable, Iterable, Mapping
from html import escape
from typing import Any

import ipywidgets as ipw

LABEL = {"description_width": "140px"}
WIDE = {"width": "400px", "max_width": "calc(100% - 4px)"}  # a widget has a margin of 2 px


class Choice(ipw.HBox):
    """A row of buttons with exactly one selected; a disabled option shows the reason as its tooltip.

    Parameters
    ----------
    title
        Label before the buttons.
    options
        Text of the button of each value.
    value
        Initial value.
    tooltip
        Tooltip of the enabled buttons.
    """

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


class Control:
    """One setting: a widget and an HTML note beside it that explains the effect of its value.

    Parameters
    ----------
    widget
        A widget with a `value`, or a `Choice`.
    tooltip
        Tooltip of the widget while enabled; leave empty for a `Choice`, whose buttons have their own.
    """

    def __init__(self, widget: Any, tooltip: str = "") -> None:
        self.widget, self._tooltip = widget, tooltip
        if tooltip:  # a `Choice` sets those of its buttons
            _explain(widget, tooltip)
        self.note = ipw.HTML()
        self.row = ipw.HBox([widget, self.note], layout={"flex_flow": "row wrap", "align_items": "center"})

    @property
    def value(self) -> Any:
        """The value of the setting; setting it extends the range of a slider if necessary."""
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
        """Disable the control and show `reason` as its tooltip; enable it if `reason` is empty."""
        self.widget.disabled = bool(reason)
        _explain(self.widget, reason or self._tooltip)

    def say(self, note: str) -> None:
        """Set the text of the note; HTML in it is escaped."""
        self.note.value = f'<span class="ocensa-note">{escape(note)}</span>'


def slider(title: str, least: float, most: float, tooltip: str, step: float = 1) -> Control:
    """Return a slider.

    Parameters
    ----------
    title
        Label before the slider.
    least, most
        Minimum and maximum.
    tooltip
        Tooltip while enabled.
    step
        Increment; the slider has integer values if it is at least 1, otherwise floats.

    Returns
    -------
    Control
        Around an `IntSlider` or a `FloatSlider`.
    """
    kind = ipw.IntSlider if step >= 1 else ipw.FloatSlider
    made = kind(min=least, max=most, step=step, description=title, style=LABEL, layout=WIDE)
    return Control(made, tooltip)


def steps(title: str, options: Iterable[int], tooltip: str) -> Control:
    """Return a slider over a fixed list of integers."""
    made = ipw.SelectionSlider(options=list(options), description=title, style=LABEL, layout=WIDE)
    return Control(made, tooltip)


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
