"""What a process of the command line needs before its imports: Ctrl+C without a traceback, and UTF-8 file names.

It imports little itself: until `handle_interrupts` has run, an interrupt is a traceback.
"""

import codecs
import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

INTERRUPTED = 128 + signal.SIGINT
GRACE_SECONDS = 1.0  # in which the process ends after a first Ctrl+C, and ignores more of them


class _Interrupts:
    """The handler of SIGINT: a `KeyboardInterrupt`, once, while a verb works; otherwise the process ends at once.

    Before that there is nothing to clean up. While a module is imported there is not either, and a `KeyboardInterrupt`
    would be caught by it, or leave it half imported.
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
        """Leave if a `KeyboardInterrupt` was raised in a finaliser, which Python reports and ignores."""
        if args.exc_type is KeyboardInterrupt:
            self.leave()
        sys.__unraisablehook__(args)

    def leave(self) -> None:
        """End the process at once, with one line."""
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:  # closed, or interrupted in the middle of a write: it loses a few words
                continue
        try:
            os.write(2, b"Interrumpido.\n")
        finally:
            os._exit(INTERRUPTED)


_interrupts = _Interrupts()


def handle_interrupts() -> None:
    """Handle SIGINT from now on, unless the process was started to ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupts)
        sys.unraisablehook = _interrupts.unraisable


def run(main: Callable[[], int]) -> int:
    """Return the exit code of a function that a `KeyboardInterrupt` may end; the process should exit with it.

    Python gives SIGINT its default action when it finalises, so another one would kill the process: it is ignored.
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


def require_utf8() -> None:
    """Start this process again in Python's UTF-8 mode if it names files in ASCII, as under `LC_ALL=C`."""
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
