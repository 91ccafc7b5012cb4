"""Request a stop of training after a number of steps."""

import signal

from ocensa_nb.runtime import process


class StopAfter:
    """Request a stop after `count` steps, as Ctrl+C does."""

    def __init__(self, monkeypatch, count):
        check, calls = process.StopRequest.check, 0

        def counted(asked, *arguments):
            nonlocal calls
            calls += 1
            asked.signal = signal.SIGINT if calls == count else 0
            check(asked, *arguments)

        monkeypatch.setattr(process.StopRequest, "check", counted)
