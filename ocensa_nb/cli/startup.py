"""Set up a command-line process before its imports: Ctrl+C without a traceback, and UTF-8 file names.

This module imports little, because an interrupt prints a traceback until `handle_interrupts` has run.
"""

import codecs
import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

INTERRUPTED = 128 + signal.SIGINT
GRACE_SECONDS = 1.0  # after a first Ctrl+C, more of them are ignored while the process ends


class _Interrupts:
    """The handler of SIGINT: raise `KeyboardInterrupt` once while a verb runs; otherwise end the process at once.

    Before a verb runs there is nothing to clean up. During an import there is nothing either, and a `KeyboardInterrupt`
    could be caught by the module or leave it half imported.
    """

    working = False
    raised_at: float | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.raised_at is not None and now - self.raised_at < GRACE_SECONDS:
            return
        if self.working and self.raised_at is None and not _is_importing(frame):
            self.raised_at = now
            raise KeyboardInterrupt
        self.leave()

    def unraisable(self, args: Any) -> None:
        """End the process if a `KeyboardInterrupt` was raised in a finaliser, which Python reports and ignores."""
        if args.exc_type is KeyboardInterrupt:
            self.leave()
        sys.__unraisablehook__(args)

    def leave(self) -> None:
        """End the process at once and print one line."""
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:  # closed, or interrupted during a write: its last output is lost
                continue
        try:
            os.write(2, b"Interrumpido.\n")
        finally:
            os._exit(INTERRUPTED)


_interrupts = _Interrupts()


def handle_interrupts() -> None:
    """Install the handler of SIGINT, unless the process was started to ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupts)
        sys.unraisablehook = _interrupts.unraisable


def run(main: Callable[[], int]) -> int:
    """Run a function and return its exit code, or `INTERRUPTED` after a `KeyboardInterrupt`.

    SIGINT is ignored afterwards: Python restores its default action when it finalises, and another SIGINT would then
    kill the process.

    Parameters
    ----------
    main
        The function; it returns an exit code.
    """
    try:
        _interrupts.working = True
        code = main()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("Interrumpido.", file=sys.stderr)
        return INTERRUPTED
    return code


def leave(code: int) -> NoReturn:
    """End the process with an exit code; of torchrun's processes, without the finalisation of the interpreter.

    Now and then a thread of gloo is still running then, and aborts a process that has finished its work.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def require_utf8() -> None:
    """Restart the process in Python's UTF-8 mode if its file name encoding is ASCII, as with `LC_ALL=C`."""
    ascii_names = codecs.lookup(sys.getfilesystemencoding()).name == "ascii"
    if ascii_names and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
