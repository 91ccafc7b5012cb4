"""Being asked to stop: Ctrl+C, the notebook's stop button, or a machine that is about to be taken away."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from ocensa_nb.errors import AskedToStopError

# SIGBREAK is how one process asks another to stop on Windows.
SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGBREAK] if sys.platform == "win32" else []))


@dataclass
class StopRequest:
    """What was asked: the number of the signal, or 0 for nothing yet."""

    signal: int = 0

    def check(self, folder: Path) -> None:
        """Raise `AskedToStopError` where a stop was asked for; `folder` is where the training can go on."""
        if self.signal:
            raise AskedToStopError(
                f"Entrenamiento detenido; lo hecho queda en «{folder}». Para continuar, ejecute lo mismo otra vez.",
                self.signal,
            )


@contextlib.contextmanager
def interrupt_as_error() -> Iterator[None]:
    """Turn an interruption at any other time into a sentence."""
    try:
        yield
    except KeyboardInterrupt:
        raise AskedToStopError(
            "Interrumpido. Para continuar desde lo último que se guardó, ejecute lo mismo otra vez.", signal.SIGINT
        ) from None


@contextlib.contextmanager
def defer_signals(announce: bool = True) -> Iterator[StopRequest]:
    """Note, inside this context, `SIGNALS` instead of dying by them; a second SIGINT is obeyed at once.

    A step cannot be cut in two without losing what it was doing, so whoever makes the steps looks here between them.
    Only the main thread may handle signals: in another nothing changes. One that this process was started to ignore
    stays ignored. announce: whether to print that it is stopping.
    """
    asked = StopRequest()

    def note(number: int, frame: FrameType | None) -> None:
        if asked.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.signal = number
        if announce:
            print("\nSe detiene al terminar este paso y guarda dónde quedó…", flush=True)

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
