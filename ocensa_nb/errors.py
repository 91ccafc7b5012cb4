"""The one exception a user is meant to see."""


class UserError(Exception):
    """Something the user can put right. The message, in Spanish, says what is wrong, where, and what to do.

    The command line prints the message alone and exits with 1; a notebook shows the message without a traceback.
    """

    def _render_traceback_(self) -> list[str]:
        """Give IPython the message in place of a traceback (its documented hook for custom rendering)."""
        return [f"⛔ {self}"]
