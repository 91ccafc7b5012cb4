"""Call a function every few seconds, each time from a message of the front end.

Colab delivers a widget update only while the request that caused it is being executed (googlecolab/colabtools#3373), so
a thread or a timer in the kernel cannot redraw. A hidden `Play` widget does not work either: ipywidgets 7 starts it
only from its own button, and ipywidgets 8 only once it is drawn. Here each tick sets the timer of the next tick, so
ticks do not accumulate while a cell is executing, and a reloaded page resumes by itself.
"""

from collections.abc import Callable

import ipywidgets as ipw

from ocensa_nb.errors import UserError

DOT = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"


def guarded(work: Callable[[], None], say: Callable[[str], None]) -> None:
    """Run the work of a widget callback and report its exceptions, which the notebook would not show."""
    try:
        work()
    except UserError as error:
        say(f"⛔ {error}")
    except Exception as error:
        say(f"⛔ Error inesperado, que conviene comunicar: {type(error).__name__}: {error}")


class PageClock:
    """Call a function periodically while running; display `box`, which is invisible, for it to work."""

    def __init__(self, on_tick: Callable[[], None], seconds: float) -> None:
        self._on_tick, self._seconds = on_tick, seconds
        self._running, self._ticks = False, 0
        self._button, self._timer = ipw.Button(), ipw.HTML()
        self._button.on_click(lambda _: self.tick())
        self.box = ipw.HBox([self._button, self._timer], layout={"display": "none"})
        self.box.add_class("ocensa-clock")

    def start(self) -> None:
        """Start the clock; call it from an executing cell or a widget callback."""
        self._running = True
        self._set_timer()

    def stop(self) -> None:
        """Stop the clock; a pending tick is ignored."""
        self._running = False
        self._timer.value = ""

    def tick(self) -> None:
        """Call `on_tick` and set the next timer, unless the clock is stopped."""
        if self._running:
            self._on_tick()
        if self._running:
            self._set_timer()

    def _set_timer(self) -> None:
        """Display an image whose `onload` sets the timer; browsers do not run a script inserted in a widget.

        A page has one timer per clock, even if the clock is displayed several times.
        """
        self._ticks += 1  # an unchanged value would not be sent
        timer = f"window['ocensa-clock-{self._timer.model_id}']"
        press = "this.closest('.ocensa-clock')?.querySelector('button').click()"
        self._timer.value = (
            f'<img alt="" data-tick="{self._ticks}" src="{DOT}" '
            f'onload="clearTimeout({timer}); {timer} = setTimeout(() => {press}, {round(1000 * self._seconds)})">'
        )
