"""Start the process of a verb, or several; it imports little, because an early Ctrl+C prints a traceback."""

import codecs
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, NoReturn

from ocensa_nb.errors import UserError

INTERRUPTED = 128 + signal.SIGINT
GRACE_SECONDS = 1.0  # after a first Ctrl+C, more of them are ignored while the process ends
STOP_SECONDS = 300  # for the last checkpoint; torchrun kills the processes after 30 s
JOB = "ocensa-"  # before the launcher's process id, in the name of its job


class _Interrupts:
    """The handler of SIGINT: raise `KeyboardInterrupt` once while a verb runs; otherwise end the process at once."""

    working = False
    raised_at: float | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.raised_at is not None and now - self.raised_at < GRACE_SECONDS:
            return
        # A module that is being imported could catch it, or stay half imported.
        if self.working and self.raised_at is None and not _is_importing(frame):
            self.raised_at = now
            raise KeyboardInterrupt
        self.leave()

    def unraisable(self, args: Any) -> None:
        """End the process if a `KeyboardInterrupt` was raised in a finaliser: Python reports and ignores it."""
        if args.exc_type is KeyboardInterrupt:
            self.leave()
        sys.__unraisablehook__(args)

    def leave(self) -> None:
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
    """Return the exit code of a function, or `INTERRUPTED`; another SIGINT while Python finalises is ignored."""
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
    """End the process; under torchrun without finalisation, during which a thread of gloo may abort it."""
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


def watch_launcher() -> None:
    """Stop a process of `launch` or torchrun, as SIGTERM does, once the one that started it has died."""
    if "LOCAL_RANK" in os.environ:
        *_, number = os.environ.get("TORCHELASTIC_RUN_ID", "").partition(JOB)
        launcher = int(number) if number and os.name != "nt" else os.getppid()  # a venv of Windows has one more
        threading.Thread(target=_stop_after, args=(launcher,), daemon=True).start()


def _stop_after(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def launch(words: Sequence[str], processes: int) -> int:
    """Run the command in several processes of this machine; return the exit code of one that failed, or 0.

    Raises `UserError` if one of them is killed, or their number is not possible here.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from ocensa_nb.runtime.distributed import LOST

    if processes not in range(1, 1 + (most := os.cpu_count() or 1)):
        raise UserError(f"processes = {processes}: debe ser de 1 a {most}, los núcleos de esta máquina.")
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(STOP_SECONDS))
    logging.disable(logging.CRITICAL)  # the processes say what happened
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=f"{JOB}{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",  # a free port
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "ocensa_nb", *words)
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        # one that was killed, before one that stopped, before those that torch ended for that
        rank = min(codes, key=lambda rank: (codes[rank] == -signal.SIGTERM, codes[rank]))
        if codes[rank] < 0:  # in its first seconds, before the others can notice and say so
            raise UserError(LOST.format(f"El proceso {rank} (PID {error.failures[rank].pid})")) from None
        return codes[rank]
    except SignalException as error:
        return 128 + error.sigval
    return 0
