"""A panel that follows another process: its page clock, interruptions of the cell, and messages."""

import signal

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from ocensa_nb.errors import AskedToStopError, UserError
from ocensa_nb.notebook import process_panel
from ocensa_nb.notebook.process_panel import STOPPING, PageClock, ProcessPanel


class Process:
    """A process that ignores a request to stop until its next poll in the panel."""

    is_running, stops = True, 0

    def stop(self):
        self.stops += 1

    def last_words(self):
        return "última línea"


class Panel(ProcessPanel):
    """A panel of such a process, with nothing to show."""

    def __init__(self):
        super().__init__("Empezar", "")
        self.shown = []

    def _launch(self):
        return Process()

    def _update(self):
        return False

    def _html(self, sentence):
        return sentence

    def _outcome(self):
        raise AskedToStopError("Detenido.", signal.SIGTERM)

    def _where(self):
        return "En marcha."


@pytest.fixture
def panel():
    return Panel()


def interrupt(monkeypatch, times, *, ends):
    """Raise SIGINT in the first polls of a cell; then the process ends, if it does."""
    polls = []

    def sleep(_):
        polls.append(1)
        if len(polls) <= times:
            signal.raise_signal(signal.SIGINT)
        elif ends:
            monkeypatch.setattr(Process, "is_running", False)

    monkeypatch.setattr(process_panel.time, "sleep", sleep)


def test_cell_interrupted_once_stops_the_process_and_waits_for_its_end(panel, monkeypatch):
    interrupt(monkeypatch, 1, ends=True)
    with pytest.raises(AskedToStopError, match=r"^Detenido\.$"):
        panel.follow_in_cell(None)
    assert panel.process.stops == 1
    assert "Detenido." in panel.status.value
    assert "⛔" not in panel.status.value
    assert not panel.start.disabled


def test_cell_interrupted_twice_returns_at_once_and_the_panel_follows_until_the_end(panel, monkeypatch):
    interrupt(monkeypatch, 2, ends=False)
    with pytest.raises(AskedToStopError, match="cuando el panel diga «Detenido»"):
        panel.follow_in_cell(None)
    assert panel.process.stops == 1
    assert STOPPING in panel.status.value
    panel.clock.tick()
    assert panel.start.disabled
    monkeypatch.setattr(Process, "is_running", False)
    panel.clock.tick()
    assert "Detenido." in panel.status.value
    assert not panel.start.disabled


def test_colab_is_told_to_execute_a_cell_while_the_panel_follows(panel, monkeypatch):
    monkeypatch.setattr(process_panel, "platform", lambda: "colab")
    monkeypatch.setattr(Panel, "_update", lambda _: True)
    panel.start.click()
    panel.clock.tick()
    assert "En marcha. Ejecute la celda de abajo: Colab" in panel.status.value


def test_last_line_of_the_process_is_shown_until_there_is_progress(panel, monkeypatch):
    panel.start.click()
    panel.clock.tick()
    assert panel.view.value == "última línea"
    monkeypatch.setattr(Panel, "_update", lambda _: True)
    panel.clock.tick()
    assert panel.view.value == ""


def test_page_clock_requests_each_tick_from_the_page_until_stopped():
    ticks = []
    clock = PageClock(lambda: ticks.append(clock._timer.value), 2.0)
    clock.tick()
    assert ticks == []  # not started yet
    clock.start()
    first = clock._timer.value
    assert "setTimeout" in first
    assert ", 2000)" in first
    clock.tick()
    assert ticks == [first]
    assert clock._timer.value not in ("", first)
    clock.stop()
    clock.tick()
    assert (len(ticks), clock._timer.value) == (1, "")


def test_requested_stop_in_a_cell_prints_its_message_plainly_and_fails_the_cell(monkeypatch, capsys):
    shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
    monkeypatch.setattr(process_panel, "get_ipython", lambda: shell)
    process_panel.print_stops_plainly()
    shell.user_ns |= {"AskedToStopError": AskedToStopError, "UserError": UserError}
    assert not shell.run_cell("raise AskedToStopError('Detenido.', 2)").success
    assert capsys.readouterr().out == "Detenido.\n"
    assert not shell.run_cell("raise UserError('Falta la columna.')").success
    assert "⛔ Falta la columna." in capsys.readouterr().out
