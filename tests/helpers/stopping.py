"""Ask a training to stop after a number of steps."""

import signal

from ocensa_nb.runtime import signals


class StopAfter:
    """Asks a training to stop after so many steps, as Ctrl+C would."""

    def __init__(self, monkeypatch, count):
        check, calls = signals.StopRequest.check, 0

        def counted(asked, folder):
            nonlocal calls
            calls += 1
            asked.signal = signal.SIGINT if calls == count else 0
            check(asked, folder)

        monkeypatch.setattr(signals.StopRequest, "check", counted)
