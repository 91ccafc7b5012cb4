"""Standard streams that never raise: after a closed pipe or a full disk their output is discarded."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO


class SafeStream:
    """A text stream whose writes never raise.

    After the first `OSError` its file descriptor is redirected to the null device, so that flushing the buffer, now or
    at exit, does not raise either.

    Attributes
    ----------
    failure
        The first `OSError`, or None.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        """Write text; discard it on an error."""
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush the stream; ignore an error."""
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
    """Replace standard output and error by `SafeStream`s inside the block; yield the output.

    If a descriptor was closed before Python started, its stream is None; the null device replaces it.
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
