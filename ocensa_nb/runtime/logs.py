"""Messages and progress for the user: one format in a terminal, in a notebook, and in a log file.

Modules log to `logging.getLogger(__name__)`; the user interfaces call `configure` once.
"""

import contextlib
import io
import logging
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm as terminal_tqdm
from tqdm.auto import tqdm

LINE_SECONDS = 30.0
DELAY_SECONDS = 1.0  # work that ends sooner shows no bar
PREFIXES = {logging.WARNING: "Atención: ", logging.ERROR: "Error: "}

logger = logging.getLogger(__name__)
T = TypeVar("T")


def configure(rank: int = 0, line_seconds: float = LINE_SECONDS) -> None:
    """Write the messages of the package to standard output; all processes but the first write only errors."""
    package = logging.getLogger(__name__.partition(".")[0])
    package.handlers[:] = [_Handler()]
    package.propagate = False  # a root handler, such as Colab's, would repeat every message
    _LineProgress.seconds = line_seconds
    package.setLevel(logging.INFO if rank == 0 else logging.ERROR)
    _LineProgress.hidden = rank > 0


@contextlib.contextmanager
def only_errors() -> Iterator[None]:
    """Write no message but errors inside the block, for work that was reported before."""
    package = logging.getLogger(__name__.partition(".")[0])
    level = package.level
    package.setLevel(logging.ERROR)
    try:
        yield
    finally:
        package.setLevel(level)


def progress(
    items: Iterable[T] | None,
    title: str,
    unit: str,
    *,
    total: int | None = None,
    initial: int = 0,
    delay: float = DELAY_SECONDS,
    leave: bool = False,
) -> "tqdm[T]":
    """Return a tqdm progress bar, or one that writes log lines if nobody sees a bar.

    `items` is None if the caller updates the bar; `title` and `unit` are in Spanish. It appears after `delay` seconds.
    """
    in_notebook = tqdm.display is not terminal_tqdm.display  # tqdm.auto has chosen widgets
    options: dict[str, Any] = {"desc": title, "unit": unit, "total": total, "initial": initial}
    if _LineProgress.hidden:
        return tqdm(items, **options, disable=True)
    if in_notebook or (sys.stderr is not None and sys.stderr.isatty()):
        return tqdm(items, **options, delay=delay, leave=leave, dynamic_ncols=True)
    return _LineProgress(items, **options)


class _LineProgress(terminal_tqdm):
    seconds = LINE_SECONDS
    hidden = False

    def __init__(self, items: Iterable[Any] | None, **options: Any) -> None:
        super().__init__(
            items,
            **options,
            file=io.StringIO(),
            delay=self.seconds,
            mininterval=self.seconds,
            maxinterval=float("inf"),  # no thread that redraws a slow bar
            miniters=1,
            leave=False,
            bar_format="{desc}: {n_fmt} de {total_fmt}, {elapsed} transcurridos, faltan {remaining}{postfix}",
        )

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if msg is None:
            logger.info(str(self))


class _Handler(logging.Handler):
    """Write to the current `sys.stdout`, which notebooks and tests replace, above the progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            terminal_tqdm.write(PREFIXES.get(record.levelno, "") + self.format(record), file=sys.stdout)
            sys.stdout.flush()
        except Exception:
            self.handleError(record)
