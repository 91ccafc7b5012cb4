"""A clock in the page: it calls back every few seconds, each time from a message of the front end.

Colab delivers a widget's update only while the request that caused it is being executed (googlecolab/colabtools#3373),
so nothing may redraw from a thread or a timer of the kernel. A hidden `Play` cannot serve either: ipywidgets 7 starts
one by its own button alone, and ipywidgets 8 only once it is drawn. Here each tick sets the timer of the next one, so
that ticks cannot pile up while a cell is executing, and a page that is loaded again resumes by itself.
"""

from collections.abc import Callable

import ipywidgets as ipw

DOT = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"


class PageClock:
    """Call `on_tick` every `seconds` while it is running; `box`, which shows nothing, belongs in what is displayed."""

    def __init__(self, on_tick: Callable[[], None], seconds: float) -> None:
        self._on_tick, self._seconds = on_tick, seconds
        self._running, self._ticks = False, 0
        self._button, self._timer = ipw.Button(), ipw.HTML()
        self._button.on_click(lambda _: self.tick())
        self.box = ipw.HBox([self._button, self._timer], layout={"display": "none"})
        self.box.add_class("ocensa-clock")

    def start(self) -> None:
        """Start; from a cell that is executing, or a callback of the page."""
        self._running = True
        self._set_timer()

    def stop(self) -> None:
        """Stop; a tick that is on its way is ignored."""
        self._running = False
        self._timer.value = ""

    def tick(self) -> None:
        """Call back, and set the timer again unless that has stopped the clock."""
        if self._running:
            self._on_tick()
        if self._running:
            self._set_timer()

    def _set_timer(self) -> None:
        """Draw an image whose `onload` sets the timer: the page runs it, whereas a script in a widget stays inert.

        A page has one timer per clock, however many times the clock is displayed in it.
        """
        self._ticks += 1  # the same text again would not be sent
        timer = f"window['ocensa-clock-{self._timer.model_id}']"
        press = "this.closest('.ocensa-clock')?.querySelector('button').click()"
        self._timer.value = (
            f'<img alt="" data-tick="{self._ticks}" src="{DOT}" '
            f'onload="clearTimeout({timer}); {timer} = setTimeout(() => {press}, {round(1000 * self._seconds)})">'
        )
