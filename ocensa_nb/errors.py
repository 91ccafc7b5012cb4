"""The exceptions a user is meant to see, and how their messages list names."""

import difflib
import re
from collections.abc import Iterable

LISTED = 10  # names in a message
LONGEST_NAME = 60  # characters of each
# What a terminal obeys instead of showing it: escape sequences, and marks that write from right to left.
CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"


class UserError(Exception):
    """Something the user can put right. The message, in Spanish, says what is wrong, where, and what to do.

    The command line prints the message alone and exits with 1; a notebook shows the message without a traceback.
    """

    def __init__(self, message: str) -> None:
        super().__init__(re.sub(CONTROL, "�", message))

    def _render_traceback_(self) -> list[str]:
        """Give IPython the message in place of a traceback (its documented hook for custom rendering)."""
        return [f"⛔ {self}"]


class StoppedError(UserError):
    """A training that stopped before its end, and can go on from there: where it is gets written before it ends."""


class AskedToStopError(StoppedError):
    """The user, or the machine, asked the training to stop; `signal` is the number of what it was asked with."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


class DivergedError(StoppedError):
    """Losses or gradients stopped being numbers; the weights are those of the last step that was sound."""


def clipped(name: object) -> str:
    """Return a name for a message, shortened if it is longer than `LONGEST_NAME`."""
    text = str(name)
    return text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 1] + "…"


def listed(names: Iterable[object]) -> str:
    """Return, in Spanish, the first `LISTED` names of a list and how many more it has."""
    texts = [clipped(name) for name in names]
    more = len(texts) - LISTED
    return ", ".join(texts[:LISTED]) + (f" y {more:,} más" if more > 0 else "")


def unknown(what: str, value: object, known: Iterable[str]) -> str:
    """Return the Spanish message for a name that is not among the known ones: the nearest of them, and the first."""
    names, value = [clipped(name) for name in known], clipped(value)
    near = difflib.get_close_matches(value, names, n=1, cutoff=0.5)
    hint = f" ¿Quiso decir «{near[0]}»?" if near else ""
    return f"{what} «{value}» no existe.{hint} Opciones: {listed(names)}."
