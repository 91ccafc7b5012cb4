"""The predicted time: measured without blocking the panel, corrected by the training, and compared with it."""

import threading
import time
import types

import pytest

from ocensa_nb.benchmark.forecast import Forecast, TimeEstimate
from ocensa_nb.config import baseline_of
from ocensa_nb.errors import UserError
from ocensa_nb.notebook import train_panel as widgets
from ocensa_nb.notebook.forecast import ExpectedTime, stop_measuring
from ocensa_nb.notebook.process_panel import ChildProcess

SECONDS = 20


class FakeForecast:
    """A forecast whose measurements go on until released, one at a time."""

    def __init__(self, spread=0.1):
        self.spread, self.error = spread, None
        self.measured, self.started, self.cancelled = set(), [], []
        self.release, self.running = threading.Event(), 0

    def is_measured(self, config):
        return config.fingerprint() in self.measured

    def expected(self, config):
        assert self.is_measured(config)
        return TimeEstimate(60.0 * config.epochs, self.spread)

    def measured_seconds(self, *configs):
        return 2.0

    def measure(self, config, on_progress, cancelled):
        self.running += 1
        assert self.running == 1, "two measurements at once"
        self.started.append(config)
        on_progress(0.4)
        try:
            while not self.release.wait(0.01):
                if cancelled():
                    self.cancelled.append(config)
                    return False
            if self.error:
                raise self.error
            self.measured.add(config.fingerprint())
            return True
        finally:
            self.running -= 1


@pytest.fixture
def forecast():
    made = FakeForecast()
    yield made
    stop_measuring()


@pytest.fixture
def shown(forecast):
    """Return an `ExpectedTime` whose reported errors are in `errors`."""
    errors = []
    made = ExpectedTime(forecast, errors.append)
    made.errors = errors
    return made


def wait_until(happened, *clocks):
    end = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < end
        for clock in clocks:
            clock.tick()
        time.sleep(0.01)


def test_show_returns_at_once_and_ticks_show_progress_then_the_prediction(shown, forecast, config):
    shown.show(config)
    assert "midiendo unos pasos en esta máquina…" in shown.text.value
    wait_until(lambda: "20 %" in shown.text.value, shown.clock)  # 40 % of the first of two configs
    forecast.release.set()
    wait_until(lambda: "midiendo" not in shown.text.value, shown.clock)
    assert "<b>Tiempo previsto: 2,0 min ± 10 %</b>" in shown.text.value
    assert "(baseline): 15,0 min ± 10 %, 7,5 veces este tiempo" in shown.text.value
    assert forecast.started == [config, baseline_of(config)]
    assert shown.errors == []


def test_newest_settings_cancel_the_measurement_before_and_replace_it(shown, forecast, config):
    newest = config.replace(epochs=3)
    shown.show(config)
    wait_until(lambda: forecast.started)
    for epochs in (7, 5, 3):  # as a slider that is dragged
        shown.show(config.replace(epochs=epochs))
    wait_until(lambda: forecast.started[-1] == newest)
    forecast.release.set()
    wait_until(lambda: "midiendo" not in shown.text.value, shown.clock)
    assert "3,0 min ± 10 %" in shown.text.value
    assert config in forecast.cancelled


def test_measurement_of_another_panel_is_cancelled(shown, forecast, config):
    shown.show(config)
    wait_until(lambda: forecast.started)
    other = ExpectedTime(FakeForecast(), print)
    other.show(config)
    wait_until(lambda: forecast.cancelled)
    wait_until(lambda: "midiendo" not in shown.text.value, shown.clock)
    assert "se mide al mover un control" in shown.text.value
    stop_measuring()


def test_stop_measuring_returns_once_nothing_is_measured(shown, forecast, config):
    shown.show(config)
    wait_until(lambda: forecast.started)
    stop_measuring()
    assert forecast.running == 0
    assert forecast.cancelled == [config]


def test_training_stops_the_measurement_before_it_starts(config, notices, tmp_path, monkeypatch, forecast):
    running = []

    def start(*_):
        running.append(forecast.running)
        raise UserError("no empieza")

    monkeypatch.setattr(widgets.Training, "__init__", start)
    panel = widgets.control_panel(config, notices, "cpu", tmp_path, interactive=True)
    panel.expected._forecast = forecast
    panel.expected.show(config)
    wait_until(lambda: forecast.started)
    panel.start.click()
    assert "no empieza" in panel.status.value
    assert running == [0]


def test_nothing_is_measured_during_a_training(shown, forecast, config, monkeypatch):
    monkeypatch.setattr(ChildProcess, "running", lambda: [object()])
    shown.show(config)
    assert "se verá con el avance" in shown.text.value
    assert forecast.started == []


def test_error_of_a_measurement_is_shown_and_reported(shown, forecast, config):
    forecast.error = UserError("la frase")
    shown.show(config)
    forecast.release.set()
    wait_until(lambda: shown.errors, shown.clock)
    assert shown.errors == ["⛔ la frase"]
    assert "no se pudo medir" in shown.text.value


def test_large_spread_is_shown_in_place_of_the_time(shown, forecast, config):
    forecast.measured = {config.fingerprint(), baseline_of(config).fingerprint()}
    forecast.spread = 2.26
    shown.show(config)
    assert (
        "No se pudo estimar el tiempo: la máquina está ocupada, y el error podría ser de ± 226 %." in shown.text.value
    )
    assert "2,0 min" not in shown.text.value
    forecast.spread = 1.0
    shown.show(config)
    assert "2,0 min ± 100 %" in shown.text.value


def test_pace_of_the_training_corrects_the_prediction_and_the_time_taken_is_kept(shown, forecast, config, run):
    forecast.measured = {config.fingerprint(), baseline_of(config).fingerprint()}
    shown.show(config)
    shown.show_pace(240.0)
    assert (
        "<b>Tiempo previsto: 4,0 min, al ritmo de este entrenamiento.</b> Antes de empezar: 2,0 min ± 10 %."
        in shown.text.value
    )
    metadata = {**run.metadata, "seconds": {**run.metadata["seconds"], "training": 210.0}}
    done = types.SimpleNamespace(config=config, metadata=metadata, metrics={"epochs": 1})
    shown.note_taken(done)
    assert "<b>Tardó 3,5 min</b>, con 1 de 2 épocas porque dejó de mejorar." in shown.text.value
    assert "Tiempo previsto: 2,0 min ± 10 %" in shown.text.value
    shown.show(config.replace(epochs=9), measuring=False)
    assert "Tardó" not in shown.text.value


def test_first_display_of_the_panel_does_not_wait_for_the_measurement(config, notices, tmp_path, monkeypatch, forecast):
    for name in ("is_measured", "measure", "expected", "measured_seconds"):
        monkeypatch.setattr(Forecast, name, lambda _, *given, name=name: getattr(forecast, name)(*given))
    monkeypatch.setattr(widgets, "display", lambda *_, **__: None)
    panel = widgets.control_panel(config, notices, "cpu", tmp_path, interactive=True)
    panel._ipython_display_()
    assert "midiendo" in panel.expected.text.value
    assert not panel.start.disabled
    assert "avisos por paso" in panel.controls["gradient_accumulation_steps"].note.value
