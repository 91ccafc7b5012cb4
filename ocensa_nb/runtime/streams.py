"""Standard output and error that never stop the work: a closed pipe or a full disk silences them."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO


class SafeStream:
    """A text stream whose writes never raise.

    After the first `OSError` its file descriptor is redirected to the null device, so that what is still buffered, and
    what Python flushes at exit, raises nothing either. `failure` is that error.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        """Write a text, or drop it."""
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush what was written, or drop it."""
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
        with contextlib.suppress(OSError, ValueError):  # a stream without a descriptor has nothing to redirect
            target = self._stream.fileno()
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, target)
            os.close(null)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def safe_output() -> Iterator[SafeStream]:
    """Make, inside this context, standard output and error safe; give the output.

    Python has no stream for a descriptor that was closed before it started: the null device takes its place.
    """
    out, error = SafeStream(sys.stdout or _null()), SafeStream(sys.stderr or _null())
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            yield out
        finally:
            out.flush()
            error.flush()


def _null() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")
