"""Exceptions with messages for the user, and helpers to format those messages."""

import difflib
import re
from collections.abc import Iterable
from typing import Any

LISTED = 10  # maximum number of names in a message
LONGEST_NAME = 60  # characters of each
# Characters that a terminal interprets instead of showing (escape sequences, right-to-left marks), and those that are
# none: half of a pair, U+FFFE and U+FFFF cannot be printed or written to a book.
CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"


class UserError(Exception):
    """An error that the user can fix: its message, in Spanish, is shown without a traceback."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(re.sub(CONTROL, "�", message))

    def _render_traceback_(self) -> list[str]:
        """Return the message in place of a traceback (IPython's hook for custom rendering)."""
        return [f"⛔ {self}"]


class StoppedError(UserError):
    """The training stopped early; a checkpoint is saved first, so that it can be resumed."""


class AskedToStopError(StoppedError):
    """The user or the machine asked the training to stop; `signal` is the number of the signal."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal  # the convention of shells


class IncompleteError(UserError):
    """Part of the work failed; `result` has what was done, for `--json`."""

    def __init__(self, message: str, result: dict[str, Any]) -> None:
        super().__init__(message)
        self.result = result


class DivergedError(StoppedError):
    """The loss or the gradients are not finite; the weights are those of the last finite step."""


class SharedError(UserError):
    """The error of another process that works with this one; only the first process shows it."""


def clipped(name: object) -> str:
    text = str(name)
    return text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 1] + "…"


def listed(names: Iterable[object], most: int = LISTED) -> str:
    """Return the first names of a list and the number of the others, in Spanish."""
    names = list(names)
    more = len(names) - most
    return ", ".join(map(clipped, names[:most])) + (f" y {num(more)} más" if more > 0 else "")


def num(value: float, decimals: int = 0, sign: str = "", form: str = "f") -> str:
    """Return a number as Spanish writes it: a space between thousands, and a comma before the decimals."""
    return f"{value:{sign},.{decimals}{form}}".translate({ord(","): " ", ord("."): ","})


def duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{num(seconds / 60, 1)} min" if seconds < 6000 else f"{num(seconds / 3600, 1)} h"


def unknown(what: str, value: object, known: Iterable[str]) -> str:
    """Return the error message, in Spanish, for an unknown name, with the closest name; `what`: such as `La opción`."""
    names, value = [clipped(name) for name in known], clipped(value)
    near = difflib.get_close_matches(value, names, n=1, cutoff=0.5)
    hint = f" ¿Quiso decir «{near[0]}»?" if near else ""
    return f"{what} «{value}» no existe.{hint} Opciones: {listed(names)}."
