"""The signals, the standard streams and the random generators of a process."""

import contextlib
import logging
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

from ocensa_nb.errors import AskedToStopError

if TYPE_CHECKING:
    import torch

    from ocensa_nb.runtime.distributed import World

logger = logging.getLogger(__name__)

# On Windows a process asks another to stop with SIGBREAK.
SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGBREAK] if sys.platform == "win32" else []))


@dataclass
class StopRequest:
    """The number of the signal received, or 0 if none."""

    signal: int = 0

    def check(self, folder: Path, world: "World") -> None:
        """Raise `AskedToStopError`, which names the run folder, if any of the processes received a signal."""
        if number := world.largest(self.signal):
            raise AskedToStopError(
                f"Entrenamiento detenido; el avance quedó guardado en «{folder}». Para continuar, ejecute lo mismo "
                "otra vez.",
                number,
            )


@contextlib.contextmanager
def interrupt_as_error() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise AskedToStopError(
            "Interrumpido. Para continuar desde lo último que se guardó, ejecute lo mismo otra vez.", signal.SIGINT
        ) from None


@contextlib.contextmanager
def defer_signals(announce: bool = True, insist: bool = True) -> Iterator[StopRequest]:
    """Record `SIGNALS` inside the block instead of ending the process, in the main thread only.

    A second SIGINT raises at once, unless `insist` is False: torchrun repeats the first one, and processes that train
    together have to stop at the same step.
    """
    request = StopRequest()

    def note(number: int, frame: FrameType | None) -> None:
        if insist and request.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.signal = number
        if announce:
            logger.info("Se detiene al terminar este paso y guarda el avance…")

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    deferred = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in deferred}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


class SafeStream:
    """A text stream that never raises: after a closed pipe or a full disk its output is discarded."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._attempt(self._stream.flush)

    def _attempt(self, operation: Callable[[], object]) -> None:
        # A signal handler may print in the middle of a write (RuntimeError); a closed stream raises ValueError.
        with contextlib.suppress(RuntimeError, ValueError):
            try:
                operation()
            except OSError as error:
                self.failure = self.failure or error
                self._redirect()

    def _redirect(self) -> None:
        # So that flushing the buffer, now or at exit, does not raise either.
        with contextlib.suppress(OSError, ValueError):  # a stream without a descriptor has nothing to redirect
            target = self._stream.fileno()
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, target)
            os.close(null)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def safe_output() -> Iterator[SafeStream]:
    """Replace standard output and error by `SafeStream`s inside the block; yield the output."""
    # A stream is None if its descriptor was closed before Python started.
    out, error = SafeStream(sys.stdout or _null()), SafeStream(sys.stderr or _null())
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            yield out
        finally:
            out.flush()
            error.flush()


def _null() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


def seed_everything(seed: int) -> None:
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def random_state() -> "list[torch.Tensor]":
    """Return the state of torch's generators: the CPU's, and that of the GPU that this process uses, if any."""
    import torch

    return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if torch.cuda.is_available() else [])]


def restore_random_state(state: "list[torch.Tensor]") -> None:
    """Restore the state from `random_state`; that of a GPU is ignored if there is none."""
    import torch

    torch.set_rng_state(state[0])
    if len(state) > 1 and torch.cuda.is_available():
        torch.cuda.set_rng_state(state[1])
