"""Live view: incremental reading of a history that another process writes, and its HTML."""

import json
import xml.etree.ElementTree as ET

import pytest

from ocensa_nb.notebook import live_view


def step(number, loss=2.0, epoch=1):
    return {"step": number, "epoch": epoch, "loss": loss, "lr": 1e-4, "rows_per_second": 100.0, "memory": 3 * 2**30}


def epoch(number, f1=0.5):
    return {"epoch": number, "loss": 1.0, "seconds": 1.0, "modo_f1": f1, "causa_f1": f1 / 2}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "history.jsonl"


@pytest.fixture
def history(path):
    return live_view.History(path, ["modo", "causa"])


def write(path, *lines, mode="a", end=""):
    with open(path, mode, encoding="utf-8") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines) + end)


def test_history_update_with_incomplete_line_waits_for_its_end(path, history):
    assert not history.update()  # no file yet
    write(path, step(1), end='{"step": 2, "epo')
    assert history.update()
    assert history.step == 1
    write(path, mode="a", end='ch": 1, "loss": 1.5, "lr": 1e-4, "rows_per_second": 90.0, "memory": 1}\n')
    assert history.update()
    assert (history.step, history.rows_per_second) == (2, 90.0)
    assert not history.update()


def test_history_update_after_truncation_reads_from_the_start(path, history):
    write(path, *(step(n) for n in range(1, 6)))
    history.update()
    write(path, *(step(n) for n in range(1, 3)), mode="w")
    history.update()
    assert (history.step, len(history.losses)) == (2, 2)


def test_history_update_after_truncation_and_regrowth_reads_from_the_start(path, history):
    write(path, *(step(n) for n in range(1, 6)))
    history.update()
    write(path, {**step(1), "more": "x" * 7}, *(step(n) for n in range(2, 9)), mode="w")
    history.update()
    history.update()
    assert history.step == 8


def test_history_step_without_loss_is_counted_but_not_plotted(path, history):
    write(path, step(1), step(2, loss=None), step(3))
    history.update()
    assert history.step == 3
    assert [number for number, *_ in history.losses] == [1, 3]


def test_view_of_long_history_is_downsampled_over_all_steps(path, history):
    write(path, *(step(n, loss=100 / n) for n in range(1, 20_001)))
    history.update()
    numbers = [number for number, *_ in history.losses]
    assert live_view.POINTS <= len(numbers) <= 2 * live_view.POINTS
    assert numbers[0] < 100
    assert numbers[-1] > 19_800
    assert len(live_view.view(history, 20_000, 10, "")) < 40_000


def test_seconds_left_uses_the_rate_of_the_current_session(path, history, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(live_view.time, "perf_counter", lambda: now[0])
    write(path, *(step(n) for n in range(1, 101)))  # written by an earlier session
    history.update()
    assert history.seconds_left(200) is None
    now[0] = 10.0
    write(path, *(step(n) for n in range(101, 121)))
    history.update()
    assert history.seconds_left(200) == pytest.approx(80 / 2)


def test_view_is_well_formed_and_shows_progress_and_scores(path, history):
    write(path, *(step(n) for n in range(1, 11)), epoch(1, 0.5), *(step(n, 1.0, 2) for n in range(11, 16)))
    history.update()
    html = live_view.view(history, 40, 4, "a < b & <script>")
    tree = ET.fromstring(html)
    text = " ".join(tree.itertext())
    for shown in ("15 de 40", "Época 2 de 4", "3,0 GiB", "100 filas/s", "modo 0,50", "causa 0,25", "a < b & <script>"):
        assert shown in text
    widths = [bar.get("style") for bar in tree.iter("i")]
    assert widths == ["width:50.0%", "width:37.5%"]


def test_view_of_finished_training_has_full_progress_bars(path, history):
    write(path, *(step(n) for n in range(1, 11)), epoch(1))
    history.update()
    assert live_view.view(history, 10, 1, "").count("width:100.0%") == 2


def test_view_of_training_stopped_early_shows_no_remaining_time(path, history):
    write(path, *(step(n) for n in range(1, 11)), epoch(1))
    history.update()
    shown = " ".join(ET.fromstring(live_view.view(history, 40, 4, "", over=True)).itertext())
    assert "Época 1 de 4" in shown
    assert "Tiempo restante —" in shown
    assert "10 de 40" in shown
