"""Start `python -m MODULE` by a fork of a server that has imported what the package needs: in 0.5 s, not in 6 s.

Inside `processes()`, `subprocess.Popen` does so for the modules of `QUICK`, also in the processes that are started so:
a grid starts its cases, and a case its kernel, as always. They import this package anew; the other modules are those of
the server. What a fork does not have is the start of an interpreter and its `atexit` functions.
"""

import asyncio
import contextlib
import inspect
import io
import logging
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import forkserver, reduction, resource_tracker
from multiprocessing.context import BaseContext
from typing import Any

import matplotlib
import psutil

from ocensa_nb.paths import ROOT

LIMIT = 120  # seconds
PRELOADED = [
    "ocensa_nb.cli.verbs",
    "ocensa_nb.notebook.train_panel",
    "ocensa_nb.notebook.grid_panel",
    "ocensa_nb.notebook.review_form",
    "ocensa_nb.notebook.suite",
    "ocensa_nb.audit.audit",
    "ocensa_nb.benchmark.compare",
    "papermill",
    "nbconvert",
    "ocensa_nb.cli.main",
    "ocensa_nb.training.train",
    "ocensa_nb.figures.training",
    "ipykernel.kernelapp",
    "matplotlib.pyplot",
    "sklearn.metrics",
    "transformers.models.bert.modeling_bert",
]
QUICK = ("ocensa_nb", "ocensa_nb.experiments.execute", "ipykernel_launcher", "jupyterlab", "torch.distributed.run")
FROM_SERVER = ("ipykernel_launcher", "jupyterlab")  # they have threads and an event loop, and so do not fork themselves
_NAMES = list(inspect.signature(subprocess.Popen._execute_child).parameters)[1:]
_forks_itself = False


def context() -> BaseContext:
    """Return a multiprocessing context with quick children; they import the module of their function by its name."""
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    quick = multiprocessing.get_context("forkserver")
    quick.set_forkserver_preload(PRELOADED)
    return quick


class Popen(subprocess.Popen):
    """`subprocess.Popen`; a command `python -m MODULE` of `QUICK` is forked."""

    _child: Any = None  # a process of the server, which alone can wait for it

    def _execute_child(self, *arguments: Any) -> None:
        options = dict(zip(_NAMES, arguments, strict=True))
        words = module_of(options["args"])
        if not words or options["preexec_fn"] or options["shell"]:
            super()._execute_child(*arguments)
            return
        environ = dict(os.environ if options["env"] is None else options["env"])
        streams = [options["p2cread"], options["c2pwrite"], options["errwrite"]]
        ignores = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        common = (words, options["cwd"] or os.getcwd(), environ, options["start_new_session"], ignores, os.getpid())
        if _forks_itself:
            self.pid = os.fork()
            if not self.pid:
                _become(streams, *common)
        else:
            sent = [_Descriptor(number if stream == -1 else stream) for number, stream in enumerate(streams)]
            self._child = context().Process(target=_become, args=(sent, *common), daemon=True)
            self._child.start()
            self.pid = self._child.pid
        while options["start_new_session"] and os.getpgid(self.pid) != self.pid:
            time.sleep(0.001)  # a signal to its group must not reach this process
        self._child_created = True
        self._close_pipe_fds(*(options[name] for name in _NAMES if name[:3] in ("p2c", "c2p", "err")))

    def __exit__(self, *error: Any) -> None:
        if error[0]:
            self.kill()
        super().__exit__(*error)

    def _internal_poll(self, *arguments: Any, **options: Any) -> int | None:
        if self._child is None:
            return super()._internal_poll(*arguments, **options)
        if self.returncode is None:
            self.returncode = self._child.exitcode
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        if self._child is None:
            return super()._wait(timeout)
        self._child.join(timeout)
        if self._internal_poll() is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode


def start(*arguments: Any, **options: Any) -> Popen:
    """Start a command of the package, in the folder of the project and with pipes, unless the options say otherwise."""
    given = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "encoding": "utf-8"}
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a test in the background may ignore
    try:
        return Popen([sys.executable, "-m", "ocensa_nb", *map(str, arguments)], **given | options)
    finally:
        signal.signal(signal.SIGINT, before)


def run(*arguments: Any, timeout: float = LIMIT, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command of the package to its end, with the options of `start`; return its exit code and its output."""
    with start(*arguments, **options) as process:
        output, errors = process.communicate(timeout=timeout)
    return subprocess.CompletedProcess(arguments, process.returncode, output or "", errors or "")


def module_of(args: Any) -> list[str]:
    """Return the module of `QUICK` that a command runs and its arguments; empty for any other command."""
    words = [args] if isinstance(args, str | bytes | os.PathLike) else [os.fspath(word) for word in args]
    if words[0] != sys.executable or "-m" not in words:
        return []
    rest = words[words.index("-m") + 1 :]
    return rest if rest[0] in QUICK else []


@contextlib.contextmanager
def processes() -> Iterator[None]:
    """Let the server fork the processes that are started inside the block."""
    before = subprocess.Popen
    _use(Popen if os.path.exists("/proc/self/fd") else before)
    try:
        yield
    finally:
        _use(before)


def fork_from_here() -> None:
    """Fork what this process will start, so that it is its parent; this process was forked by a server."""
    global _forks_itself
    _forks_itself = True
    _use(Popen)


def _use(popen: type[subprocess.Popen]) -> None:
    import jupyter_client.launcher
    import torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler as ranks

    for owner in (subprocess, jupyter_client.launcher, ranks):
        owner.Popen = popen


class _Descriptor:
    """A file descriptor that becomes one of the child process when it is sent there."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return _detach, (reduction.DupFd(self.number),)


def _detach(duplicate: Any) -> int:
    return duplicate.detach()


def _become(
    streams: Sequence[int],
    words: list[str],
    cwd: Any,
    environ: Mapping[str, str],
    session: bool,
    ignores: bool,
    parent: int,
) -> None:
    """Become a new process of `python -m WORDS`, and end as it ends."""
    code = 1
    try:
        if session:
            os.setsid()
        _take_streams(streams, "PYTHONUNBUFFERED" in environ)
        os.environ.clear()
        os.environ.update(environ)
        os.chdir(cwd)
        _forget()
        os.getppid = lambda: parent if psutil.pid_exists(parent) else 1  # not the server
        if words[0] == "ipykernel_launcher":  # matplotlib has read the variable when it was imported
            matplotlib.rcParams["backend"] = environ.get("MPLBACKEND", "module://matplotlib_inline.backend_inline")
        signal.signal(signal.SIGINT, signal.SIG_IGN if ignores else signal.default_int_handler)
        paths = [os.getcwd(), *environ.get("PYTHONPATH", "").split(os.pathsep)]
        sys.path[:0] = [path for path in paths if path]
        code = _run(words)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(code)


def _run(words: list[str]) -> int:
    global _forks_itself
    module, sys.argv = words[0], words
    _forks_itself = module not in FROM_SERVER
    _use(Popen)
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    finally:
        threading._shutdown()
    return 0


def _take_streams(streams: Sequence[int], unbuffered: bool) -> None:
    for number, stream in enumerate(streams):
        if stream not in (-1, number):
            os.dup2(stream, number)
    kept = {0, 1, 2, forkserver._forkserver._forkserver_alive_fd, resource_tracker._resource_tracker._fd}
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor not in kept:
            with contextlib.suppress(OSError):
                os.close(descriptor)
    for number, name in ((1, "stdout"), (2, "stderr")):
        raw = io.FileIO(number, "w", closefd=False)
        text = io.TextIOWrapper(
            raw if unbuffered else io.BufferedWriter(raw),
            "utf-8",
            "backslashreplace",
            line_buffering=number == 2,
            write_through=unbuffered,
        )
        setattr(sys, name, text)
        setattr(sys, f"__{name}__", text)


def _forget() -> None:
    """Forget what belongs to the process that forked: handlers of signals, the event loop, and this package."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    asyncio.set_event_loop_policy(None)
    logging.disable(logging.NOTSET)
    tempfile.tempdir = None
    multiprocessing.current_process()._config["daemon"] = False
    multiprocessing.process._children.clear()
    forkserver._forkserver.ensure_running = lambda: None  # the server is not a child of this process
    for name in [name for name in sys.modules if name.split(".")[0] == "ocensa_nb"]:
        del sys.modules[name]
    if "ipykernel.kernelapp" in sys.modules:  # it reads the process of its parent when it is imported
        del sys.modules["ipykernel.kernelapp"], sys.modules["ipykernel"].kernelapp
