"""Show the predicted time of the settings: measured in a thread, which leaves the kernel free to answer."""

import atexit
import threading
from collections.abc import Callable
from functools import partial
from html import escape
from typing import ClassVar

import ipywidgets as ipw

from ocensa_nb.benchmark.forecast import Forecast, TimeEstimate
from ocensa_nb.config import TrainConfig, baseline_of
from ocensa_nb.errors import duration, num
from ocensa_nb.notebook.controls import guarded
from ocensa_nb.notebook.process_panel import ChildProcess, PageClock
from ocensa_nb.runs.run import Run

REDRAW_SECONDS = 0.5
NOT_MEASURED = "Tiempo previsto: no se pudo medir."
UNRELIABLE = 1.0  # a larger spread says nothing about the time


class Measurement(threading.Thread):
    """Measure in the background; a new one cancels the one before, because two would slow each other down."""

    _newest: ClassVar["Measurement | None"] = None

    def __init__(self, forecast: Forecast, configs: list[TrainConfig]) -> None:
        super().__init__(daemon=True)
        self.share = 0.0  # that is done
        self.error: Exception | None = None
        self.cancelled = threading.Event()  # it stops after the step that it is measuring
        self._forecast, self._configs, self._before = forecast, configs, Measurement._newest
        if self._before:
            self._before.cancelled.set()
        Measurement._newest = self
        self.start()

    def run(self) -> None:
        if self._before:
            self._before.join()
            self._before = None
        try:
            for number, config in enumerate(self._configs):
                if self.cancelled.is_set():
                    return
                self._forecast.measure(config, partial(self._note, number), self.cancelled.is_set)
        except Exception as error:
            self.error = error

    def _note(self, number: int, part: float) -> None:
        self.share = (number + part) / len(self._configs)


def stop_measuring() -> None:
    if newest := Measurement._newest:
        newest.cancelled.set()
        newest.join()


atexit.register(stop_measuring)  # torch aborts the process if a thread computes while the interpreter ends


class ExpectedTime:
    """The predicted time of the panel's settings, corrected by the running training, and what it took."""

    def __init__(self, forecast: Forecast, report: Callable[[str], None]) -> None:
        self._forecast = forecast
        self._config: TrainConfig | None = None
        self._measurement: Measurement | None = None
        self._prediction: TimeEstimate | None = None  # that is shown
        self._taken: dict[str, str] = {}  # what a finished training took, by the fingerprint of its config
        self.text = ipw.HTML()
        self.clock = PageClock(lambda: guarded(self._follow, report), REDRAW_SECONDS)
        self.box = ipw.VBox([self.text, self.clock.box])

    def show(self, config: TrainConfig, measuring: bool = True) -> None:
        self._turn_to(config)
        missing = [each for each in (config, baseline_of(config)) if not self._forecast.is_measured(each)]
        if not missing:
            self._show_prediction()
        elif ChildProcess.running():
            self._say("Tiempo previsto: se verá con el avance.")
        elif measuring:
            self._measurement = Measurement(self._forecast, missing)
            self.clock.start()
            self._follow()
        else:
            self._say(f"{self._taken.get(config.fingerprint(), '')}Tiempo previsto: se mide al mover un control.")

    def show_unknown(self, reason: str) -> None:
        self._turn_to(None)
        self._say(f"Tiempo previsto: {escape(reason)}")

    def show_pace(self, seconds: float) -> None:
        """Correct the prediction by the pace of the running training."""
        before = self._prediction
        compared = f" Antes de empezar: {before}." if before and before.spread <= UNRELIABLE else ""
        self._say(f"<b>Tiempo previsto: {duration(seconds)}, al ritmo de este entrenamiento.</b>{compared}")

    def note_taken(self, run: Run) -> None:
        """Remember what a finished run took, and show it with the prediction of its settings."""
        trained, epochs = run.metrics["epochs"], run.config.epochs
        early = f", con {trained} de {epochs} épocas porque dejó de mejorar" if trained < epochs else ""
        seconds = run.metadata["seconds"]
        total = duration(seconds["training"] + seconds.get("features", 0.0))  # the prediction includes frozen layers
        self._taken[run.config.fingerprint()] = f"<b>Tardó {total}</b>{early}.<br>"
        if self._config and not self._measurement:
            self.show(self._config, measuring=False)

    def _say(self, html: str) -> None:
        self.text.value = f'<div class="ocensa ocensa-expected">{html}</div>'

    def _turn_to(self, config: TrainConfig | None) -> None:
        """Take the settings to show, and cancel the measurement of those before without waiting for it."""
        self._config, self._prediction = config, None
        if self._measurement:
            self._measurement.cancelled.set()
            self._measurement = None
            self.clock.stop()

    def _follow(self) -> None:
        if self._measurement.is_alive():
            share = f"{100 * self._measurement.share:.0f} %"
            self._say(f"Tiempo previsto: midiendo unos pasos en esta máquina… {share}")
            return
        self.clock.stop()
        error, self._measurement = self._measurement.error, None
        if error:
            self._say(NOT_MEASURED)
            raise error
        self.show(self._config, measuring=False)  # it lacks something if another measurement has replaced this one

    def _show_prediction(self) -> None:
        baseline = baseline_of(self._config)
        self._say(NOT_MEASURED)  # stays if the next line raises
        expected, before = self._forecast.expected(self._config), self._forecast.expected(baseline)
        self._prediction, taken = expected, self._taken.get(self._config.fingerprint(), "")
        if expected.spread > UNRELIABLE:
            self._say(
                f"{taken}No se pudo estimar el tiempo: la máquina está ocupada, y el error podría ser "
                f"de ± {100 * expected.spread:.0f} %. Cierre otros programas y ejecute la celda del panel otra vez, o "
                "entrene: el avance muestra el tiempo restante."
            )
            return
        compared, times = "no se pudo estimar", before.seconds / expected.seconds
        if before.spread <= UNRELIABLE:
            compared = f"{before}, {num(times, 0 if times >= 10 else 1)} veces este tiempo"
        measured = self._forecast.measured_seconds(self._config, baseline)
        self._say(
            f"{taken}<b>Tiempo previsto: {expected}</b><br>Punto de partida de la guía (baseline): {compared}. "
            f"Calculado a partir de pasos medidos aquí durante {num(measured, 1)} s, sin contar el arranque; si deja "
            "de mejorar antes, será menos."
        )
