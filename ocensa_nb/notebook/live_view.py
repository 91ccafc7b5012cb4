"""Draw the progress of a training in another process as HTML and SVG, from its history file."""

import json
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ocensa_nb.errors import duration, num
from ocensa_nb.figures.page import template
from ocensa_nb.figures.style import COLOURS, SMOOTHING
from ocensa_nb.files.verify import open_regular

TEMPLATE = Path(__file__).with_name("live_view.html.j2")
POINTS = 240  # the loss curve is thinned to this many points when it has twice as many; a screen resolves no more
PACE_SECONDS = 60.0  # window for the pace that the remaining time is computed from
WIDTH, HEIGHT, MARGIN = 400, 160, 34
TICKS = (0, 0.5, 1)  # of an axis
Line = tuple[list[tuple[float, float]], str, float]  # points, colour, width


class History:
    """Incremental reader of the history of a run: losses per step, scores per epoch, and the pace."""

    def __init__(self, path: Path, heads: list[str]) -> None:
        self.path, self.heads = path, heads
        self.losses: list[tuple[int, float, float]] = []  # step, loss, smoothed
        self.scores: dict[str, list[tuple[int, float]]] = {head: [] for head in heads}
        self.step = self.epoch = 0
        self.rows_per_second, self.memory = 0.0, 0
        self._read = 0
        self._every = 1
        self._smooth: float | None = None
        self._pace: deque[tuple[float, int]] = deque()

    def update(self) -> bool:
        """Read the complete lines added since the last call; return whether there were any."""
        try:
            with open_regular(self.path) as file:
                if file.seek(0, 2) < self._read:  # truncated to the checkpoint that is resumed
                    self.__init__(self.path, self.heads)
                file.seek(self._read)
                new = file.read()
        except OSError:  # not created yet, or the disk is temporarily unavailable
            return False
        whole = new[: new.rfind(b"\n") + 1]
        try:
            for text in whole.splitlines():
                self._take(json.loads(text))
        except (ValueError, KeyError, TypeError):  # truncated and grown since the last read: start again
            self.__init__(self.path, self.heads)
            return False
        self._read += len(whole)
        if not self._pace or self._pace[-1][1] != self.step:  # on Google Drive the history grows only every 30 s
            self._pace.append((time.perf_counter(), self.step))
        while len(self._pace) > 2 and self._pace[-1][0] - self._pace[0][0] > PACE_SECONDS:
            self._pace.popleft()
        return bool(whole)

    def seconds_left(self, total_steps: int) -> float | None:
        pace = self.seconds_per_step()
        return None if pace is None else (total_steps - self.step) * pace

    def seconds_per_step(self) -> float | None:
        """Return the recent pace, with evaluations and checkpoints included; None until progress is observed."""
        if not self._pace or self._pace[-1][1] <= self._pace[0][1]:
            return None
        (then, before), (now, after) = self._pace[0], self._pace[-1]
        return (now - then) / (after - before)

    def _take(self, line: dict[str, Any]) -> None:
        if "step" not in line:
            self.epoch = line["epoch"]
            for head in self.heads:
                self.scores[head].append((line["epoch"], line[f"{head}_f1"]))
            return
        self.step, self.rows_per_second, self.memory = line["step"], line["rows_per_second"], line.get("memory", 0)
        loss = line["loss"]
        if loss is None:
            return
        self._smooth = loss if self._smooth is None else self._smooth + SMOOTHING * (loss - self._smooth)
        if self.step % self._every == 0:
            self.losses.append((self.step, loss, self._smooth))
        if len(self.losses) > 2 * POINTS:
            self.losses = self.losses[1::2]
            self._every *= 2


def view(history: History, total_steps: int, epochs: int, state: str, over: bool = False) -> str:
    """Return progress bars, numbers and two charts as HTML; a training that is `over` may have stopped early."""
    steps_an_epoch = max(1, total_steps // epochs)
    in_epoch = history.step - history.epoch * steps_an_epoch if history.epoch < epochs else steps_an_epoch
    left = None if over else history.seconds_left(total_steps)
    epoch = history.epoch if over else min(history.epoch + 1, epochs)
    numbers = {
        "Paso": f"{num(history.step)} de {num(total_steps)}",
        "Tiempo restante": "—" if over else "…" if left is None else f"{duration(left)} aprox.",
        "Ritmo": f"{num(history.rows_per_second)} filas/s" if history.step else "…",
        "Memoria": f"{num(history.memory / 2**30, 1)} GiB" if history.step else "…",
    }
    bars = {
        f"Época {epoch} de {epochs}": 1.0 if over else max(0, in_epoch) / steps_an_epoch,
        f"Total {num(history.step)} de {num(total_steps)}": history.step / total_steps,
    }
    charts = [_loss_chart(history, total_steps), _score_chart(history, epochs)]
    size = {"width": WIDTH, "height": HEIGHT, "left": MARGIN}
    return template(TEMPLATE).render(state=state, bars=bars, bar=bar, numbers=numbers, charts=charts, **size)


def _loss_chart(history: History, total_steps: int) -> dict[str, Any]:
    steps = [(step, loss) for step, loss, _ in history.losses]
    smooth = [(step, smoothed) for step, _, smoothed in history.losses]
    lines = {"cada paso": (steps, COLOURS[5], 0.8), "suavizada": (smooth, COLOURS[0], 2)}
    top = max((loss for _, loss in steps), default=1.0)
    return _chart("Pérdida por paso (menos es mejor)", total_steps, top, lines)


def _score_chart(history: History, epochs: int) -> dict[str, Any]:
    lines = {
        f"{head} {num(scores[-1][1], 2)}" if scores else head: (scores, COLOURS[number % len(COLOURS)], 2)
        for number, (head, scores) in enumerate(history.scores.items())
    }
    return _chart("F1 de validación (0 a 1) por época", epochs, 1.0, lines, dots=True)


def _chart(title: str, right: float, top: float, lines: Mapping[str, Line], dots: bool = False) -> dict[str, Any]:
    """Return a line chart from (0, 0) to (right, top), for the template."""

    def pixel(x: float, y: float) -> tuple[float, float]:
        across, up = x / max(right, 1e-9), y / max(top, 1e-9)
        return round(MARGIN + across * (WIDTH - MARGIN - 8), 1), round(HEIGHT - 20 - up * (HEIGHT - 40), 1)

    return {
        "title": title,
        "rows": [(pixel(right, top * share), num(top * share, 3, form="g")) for share in TICKS],
        "columns": [(pixel(right * share, 0), num(right * share)) for share in TICKS],
        "lines": {name: ([pixel(*point) for point in points], *look) for name, (points, *look) in lines.items()},
        "dots": dots,
    }


def bar(text: str, share: float) -> str:
    """Return a progress bar as HTML."""
    width = f"width:{100 * min(1.0, share):.1f}%"
    return f'<div class="ocensa-bar"><small>{text}</small><div><i style="{width}"></i></div></div>'
