"""Run `python -m MODULE` in processes forked from a server that has imported what they need: 0.1 s, not 6 s.

The start and the end of the interpreter are not those of a new one; `promises/test_process.py` tests them.
"""

import contextlib
import io
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import reduction
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import IO, Any

import matplotlib
import pytest

from ocensa_nb.paths import ROOT

LIMIT = 120  # seconds
PRELOADED = [
    "ocensa_nb.cli.main",
    "ocensa_nb.training.train",
    "ocensa_nb.figures.training",
    "ipykernel.kernelapp",
    "matplotlib.pyplot",
    "sklearn.metrics",
    "transformers.models.bert.modeling_bert",
]


def context() -> BaseContext:
    """Return a multiprocessing context with quick children; they import the module of their function by its name."""
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    quick = multiprocessing.get_context("forkserver")
    quick.set_forkserver_preload(PRELOADED)
    return quick


class Process:
    """A process of `python -m MODULE ARGUMENTS`, with the methods of `subprocess.Popen`.

    `stdout` and `stderr` are a file, a descriptor, or None to keep the output for `communicate`; `stderr` can be
    `subprocess.STDOUT`. As a context manager, it kills the process at the end.
    """

    def __init__(
        self,
        module: str,
        *arguments: Any,
        stdout: IO | int | None = None,
        stderr: IO | int | None = None,
        cwd: Path | str | None = None,
        env: Mapping[str, str] | None = None,
        ignore_sigint: bool = False,
        start_new_session: bool = False,
    ) -> None:
        self.stdin, self.stdout, self.stderr = io.BytesIO(), None, None
        self._kept = [_temporary_file() for _ in range(2)]
        out = self._kept[0] if stdout is None else stdout
        error = out if stderr == subprocess.STDOUT else self._kept[1] if stderr is None else stderr
        descriptors = [_Descriptor(file if isinstance(file, int) else file.fileno()) for file in (out, error)]
        words = [module, *map(str, arguments)]
        environ = dict(os.environ if env is None else env)
        ready, starting = context().Pipe(duplex=False)
        settings = (words, descriptors, cwd or os.getcwd(), environ, ignore_sigint, start_new_session, starting)
        self._child = context().Process(target=_main, args=settings)
        self._child.start()
        self.pid = self._child.pid
        starting.close()
        ready.poll(LIMIT)  # its signals and its group are set: until then, a signal to its group would end the tests
        ready.close()

    @property
    def returncode(self) -> int | None:
        """The exit code, None while it is running; negative if a signal killed it."""
        return self._child.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float = LIMIT) -> int:
        self._child.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("ocensa_nb", timeout)
        return self.returncode

    def communicate(self, timeout: float = LIMIT) -> tuple[str, str]:
        """Wait for the end; return what was kept of the output and of the errors."""
        self.wait(timeout)
        return tuple(_read(file) for file in self._kept)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.wait()


def start(*arguments: Any, **options: Any) -> Process:
    """Start a command of the package, with the options of `Process`, in the folder of the project."""
    return Process("ocensa_nb", *arguments, **{"cwd": ROOT, **options})


def run(*arguments: Any, timeout: float = LIMIT, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command of the package to its end, with the options of `start`; return its exit code and its output."""
    with start(*arguments, **options) as process:
        output, errors = process.communicate(timeout)
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)


def popen(command: Sequence[str], stdin: Any = None, **options: Any) -> Process:
    """Replace `subprocess.Popen` for `[sys.executable, "-m", MODULE, *ARGUMENTS]`; SIGINT stays ignored if it is."""
    assert command[:2] == [sys.executable, "-m"], command
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    return Process(*command[2:], ignore_sigint=ignored, **options)


@contextlib.contextmanager
def kernels() -> Iterator[None]:
    """Fork the kernels of notebooks that are started inside the block."""

    def launch(command: Sequence[str], env: Mapping[str, str], **options: Any) -> Process:
        return popen(command, env={"MPLBACKEND": "module://matplotlib_inline.backend_inline", **env}, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jupyter_client.launcher.Popen", launch)
        yield


class _Descriptor:
    """A file descriptor that becomes one of the child process when it is sent there."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return _detach, (reduction.DupFd(self.number),)


def _detach(duplicate: Any) -> int:
    return duplicate.detach()


def _temporary_file() -> IO[bytes]:
    return tempfile.TemporaryFile()


def _open_stream(descriptor: int, by_line: bool) -> IO[str]:
    return open(descriptor, "w", buffering=1 if by_line else -1, encoding="utf-8", errors="replace", closefd=False)


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")


def _main(
    words: list[str],
    descriptors: list[int],
    cwd: Path | str,
    environ: dict[str, str],
    ignore_sigint: bool,
    start_new_session: bool,
    starting: Any,
) -> None:
    os.environ.clear()
    os.environ.update(environ)
    for name, number, descriptor in zip(("stdout", "stderr"), (1, 2), descriptors, strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)
        stream = _open_stream(number, by_line=name == "stderr" or "PYTHONUNBUFFERED" in environ)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    os.chdir(cwd)
    signal.signal(signal.SIGINT, signal.SIG_IGN if ignore_sigint else signal.default_int_handler)
    if start_new_session:
        os.setsid()
    if "MPLBACKEND" in environ:  # matplotlib has read it when it was imported
        matplotlib.rcParams["backend"] = environ["MPLBACKEND"]
    starting.close()
    sys.argv[1:] = words[1:]
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)
