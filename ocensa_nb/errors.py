"""The exceptions a user is meant to see."""


class UserError(Exception):
    """Something the user can put right. The message, in Spanish, says what is wrong, where, and what to do.

    The command line prints the message alone and exits with 1; a notebook shows the message without a traceback.
    """

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
