"""Stop a training cleanly on Ctrl+C, the stop button of a notebook, or SIGTERM."""

import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from ocensa_nb.errors import AskedToStopError

if TYPE_CHECKING:
    from ocensa_nb.runtime.distributed import World

logger = logging.getLogger(__name__)

# On Windows a process asks another to stop with SIGBREAK.
SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGBREAK] if sys.platform == "win32" else []))


@dataclass
class StopRequest:
    """The number of the signal received, or 0 if none."""

    signal: int = 0

    def check(self, folder: Path, world: "World") -> None:
        """Raise `AskedToStopError` if this process received a signal, or another that trains with it.

        Parameters
        ----------
        folder
            The run folder to resume from; the error message names it.
        world
            The processes that train together, which all make this call.
        """
        (number,) = world.largest(self.signal)
        if number:
            raise AskedToStopError(
                f"Entrenamiento detenido; el avance quedó guardado en «{folder}». Para continuar, ejecute lo mismo "
                "otra vez.",
                number,
            )


@contextlib.contextmanager
def interrupt_as_error() -> Iterator[None]:
    """Turn a `KeyboardInterrupt` in the block into an `AskedToStopError` with a message for the user."""
    try:
        yield
    except KeyboardInterrupt:
        raise AskedToStopError(
            "Interrumpido. Para continuar desde lo último que se guardó, ejecute lo mismo otra vez.", signal.SIGINT
        ) from None


@contextlib.contextmanager
def defer_signals(announce: bool = True, insist: bool = True) -> Iterator[StopRequest]:
    """Record `SIGNALS` inside the block instead of ending the process; a second SIGINT raises at once.

    Interrupting a training step loses its work, so the training loop calls `StopRequest.check` between steps. Only the
    main thread can handle signals: in another thread nothing changes. A signal that the process was started to ignore
    stays ignored.

    Parameters
    ----------
    announce
        Whether to print a message when a signal arrives.
    insist
        Whether a second SIGINT raises. Not in processes that train together: torchrun repeats the first one, and they
        have to stop at the same step.
    """
    asked = StopRequest()

    def note(number: int, frame: FrameType | None) -> None:
        if insist and asked.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.signal = number
        if announce:
            logger.info("Se detiene al terminar este paso y guarda el avance…")

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heard}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
