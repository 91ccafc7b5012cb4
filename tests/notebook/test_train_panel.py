"""Panel without a browser: controls, notes, and the training process that it starts."""

import signal
import threading
import time
import types
from typing import ClassVar

import ipywidgets as ipw
import pandas as pd
import pytest
import torch

from ocensa_nb.benchmark.forecast import Forecast, TimeEstimate
from ocensa_nb.config import RECIPES
from ocensa_nb.errors import AskedToStopError, UserError, num
from ocensa_nb.notebook import process_panel, session
from ocensa_nb.notebook import train_panel as widgets
from ocensa_nb.notebook.process_panel import STOPPING
from ocensa_nb.notebook.train_panel import Training
from ocensa_nb.runs.resume import resolve_run_dir
from ocensa_nb.runs.run import Run
from ocensa_nb.runtime import machine, precision
from ocensa_nb.runtime.machine import configure

pytestmark = pytest.mark.usefixtures("quick_processes")
SECONDS = 120


@pytest.fixture(autouse=True)
def measured(monkeypatch):
    """Replace the measurements by a time that depends on two settings; all of it is known."""
    seconds = {"expected": lambda _, config: TimeEstimate(600 * config.epochs / (1 + config.freeze_layers % 13), 0.1)}
    known = {"is_measured": lambda *_: True, "measured_seconds": lambda *_: 2.0}
    for name, answer in (seconds | known).items():
        monkeypatch.setattr(Forecast, name, answer)


@pytest.fixture
def panel(config, notices, tmp_path):
    made = widgets.control_panel(config, notices, "cpu", tmp_path, interactive=True)
    made._tell()
    return made


def note(panel, name):
    return panel.controls[name].note.value


def raise_(error):
    raise error


def tooltip(widget):
    return widget.tooltip if widget.has_trait("tooltip") else widget.description_tooltip


def move(panel, name, value):
    panel.controls[name].widget.value = value


def tick_until(happened, *panels):
    """Tick the clocks of the panels, as the page does, until a condition holds."""
    end = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < end
        for panel in panels:
            panel.clock.tick()
        time.sleep(0.05)


def ended(run, tmp_path, code):
    """Return the training of a run as if its process had ended with an exit code."""
    training = object.__new__(Training)
    training.config, training.folder, training._log = run.config, run.path, tmp_path / "log.txt"
    training._log.write_text("última línea\n", encoding="utf-8")
    training._process = types.SimpleNamespace(poll=lambda: code)
    return training


class Output:
    """Replacement of IPython's `DisplayHandle` that records what a cell displays."""

    shown: ClassVar[list[str]] = []

    def display(self, made):
        Output.shown = [made.data or ""]

    def update(self, made):
        Output.shown.append(made.data or "")


@pytest.fixture
def cell(monkeypatch):
    """Return the recorded output of the cell that calls `panel.run()`."""
    monkeypatch.setattr(process_panel, "DisplayHandle", Output)
    monkeypatch.setattr(process_panel, "REDRAW_SECONDS", 0.1)
    return Output


def interrupt_when(monkeypatch, happened, times=1):
    """Raise SIGINT in the cell that follows a training, as ■ does, once a condition holds."""
    left = [times]

    def sleep(seconds, sleep=time.sleep):
        sleep(seconds)
        if left[0] and happened():
            left[0] -= 1
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(process_panel, "time", types.SimpleNamespace(sleep=sleep, monotonic=time.monotonic))


def test_panel_controls_show_the_values_of_the_given_config(panel, config):
    assert panel.config == config
    for name, control in panel.controls.items():
        assert control.widget.value == getattr(config, name), name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_length", 64),
        ("freeze_layers", 3),
        ("batch_size", 8),
        ("gradient_accumulation_steps", 4),
        ("epochs", 7),
        ("patience", 5),
        ("precision", "bf16"),
        ("cls_only", False),
        ("cache_features", False),
        ("padding", "max_length"),
        ("label_smoothing", 0.1),
        ("class_weights", True),
    ],
)
def test_control_change_updates_only_its_field(panel, config, name, value):
    move(panel, name, value)
    assert panel.config == config.replace(**{name: value})


def test_control_change_updates_notes_expected_time_and_command(panel):
    assert "batch efectivo: 32" in note(panel, "gradient_accumulation_steps")
    move(panel, "gradient_accumulation_steps", 4)
    assert "batch efectivo: 128" in note(panel, "gradient_accumulation_steps")
    before = note(panel, "freeze_layers"), panel.expected.text.value
    move(panel, "freeze_layers", 3)
    assert note(panel, "freeze_layers") != before[0]
    assert panel.expected.text.value != before[1]
    move(panel, "max_length", 16)
    assert f"se corta el {num(100 * panel._forecast.cut_share('tiny', 16), 1)} %" in note(panel, "max_length")
    assert "Tiempo previsto" in panel.expected.text.value
    assert "baseline" in panel.expected.text.value
    assert "±" in panel.expected.text.value
    assert "--freeze-layers 3" in panel.repeat()
    assert "--batch-size" not in panel.repeat()  # the value of the recipe
    assert "--max-length 16" in panel.repeat()


def test_unavailable_options_are_disabled_with_a_reason(panel):
    buttons = panel.controls["precision"].widget._buttons
    assert {name for name, button in buttons.items() if button.disabled} == {"fp16", "tf32"}
    assert "hace falta una GPU" in buttons["fp16"].tooltip
    assert not panel.controls["cache_features"].widget.disabled
    move(panel, "freeze_layers", 0)
    assert panel.controls["cache_features"].widget.disabled
    assert "Sin capas congeladas" in tooltip(panel.controls["cache_features"].widget)
    assert "Sin capas congeladas" in note(panel, "cache_features")
    move(panel, "freeze_layers", 2)
    assert not panel.controls["cache_features"].widget.disabled
    assert "Exacto" in tooltip(panel.controls["cache_features"].widget)


def test_unavailable_precisions_on_t4_are_bf16_and_tf32_and_on_ampere_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert set(precision.unavailable(torch.device("cuda"))) == {"bf16", "tf32"}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert precision.unavailable(torch.device("cuda")) == {}


def test_encoder_change_updates_layer_limit_and_notes_the_download(panel):
    move(panel, "freeze_layers", 4)
    move(panel, "model", "beto")
    assert panel.controls["freeze_layers"].widget.slider.max == 12
    assert "se descarga al entrenar" in note(panel, "model")
    assert "contados con minilm" in note(panel, "max_length")
    move(panel, "freeze_layers", 11)
    move(panel, "model", "distilbeto")
    assert panel.config.freeze_layers == 6  # its number of layers
    move(panel, "freeze_layers", -9)
    assert panel.config.freeze_layers == -5
    assert "todas menos 5: 1 de 6" in note(panel, "freeze_layers")
    move(panel, "model", "tiny")
    assert panel.config.freeze_layers == -3


def test_recipe_choice_sets_every_control_and_reset_restores_the_config(panel, config):
    assert panel.recipe_choice.widget.value == "cpu (modificada)"  # the config of the tests differs from its recipe
    panel.recipe_choice.widget.value = "baseline"
    assert panel.config.to_dict() == configure("baseline", {"model": "tiny", "data": config.data}).to_dict()
    assert panel.controls["padding"].widget.value == "max_length"
    assert {value for _, value in panel.recipe_choice.widget.options} == set(RECIPES)
    panel.reset.click()
    assert (panel.config, panel.recipe) == (config, "cpu")
    assert panel.recipe_choice.widget.value == "cpu (modificada)"


def test_recipe_is_shown_as_modified_until_the_values_are_its_own_again(panel):
    panel.recipe_choice.widget.value = "exact"  # a recipe can be chosen while its modified version is
    assert panel.recipe_choice.widget.value == "exact"
    assert panel.config.epochs == RECIPES["exact"]["epochs"]
    move(panel, "epochs", 7)
    assert panel.recipe_choice.widget.value == "exact (modificada)"
    assert panel.config.epochs == 7
    assert panel.recipe == "exact"
    move(panel, "epochs", RECIPES["exact"]["epochs"])
    assert panel.recipe_choice.widget.value == "exact"
    assert [name for name in panel.recipe_choice.widget.options if "modificada" in name[0]] == []
    move(panel, "model", "minilm")  # no recipe sets the encoder
    assert panel.recipe_choice.widget.value == "exact"


def test_widgets_call_the_number_format_so_and_never_precision(panel):
    titles = [part.value for part in panel.box.children if isinstance(part, ipw.HTML)]
    label = panel.controls["precision"].widget.children[0].value
    assert any("Codificador y formato numérico" in title for title in titles)
    assert "Formato numérico" in label
    assert not any("recisión" in text for text in (*titles, label))


def test_error_in_a_control_is_shown_in_the_panel(panel, monkeypatch):
    def fail(*_):
        raise UserError("la frase")

    monkeypatch.setattr(Forecast, "expected", fail)
    move(panel, "epochs", 3)
    assert "⛔ la frase" in panel.status.value
    monkeypatch.setattr(Forecast, "expected", lambda *_: 1 / 0)
    move(panel, "epochs", 4)
    assert "Error inesperado" in panel.status.value


def test_html_in_paths_and_messages_is_escaped(panel):
    panel.config = panel.config.replace(data="<b>x</b>.csv")
    panel._tell()
    panel.say("<b>x</b>")
    assert "<b>x" not in panel._command.value
    assert "<b>x" not in panel.status.value


def test_panel_shown_again_follows_the_running_training(config, notices, tmp_path, cell, monkeypatch):
    monkeypatch.setattr(widgets, "display", lambda *_, **__: None)
    long = config.replace(epochs=2, batch_size=4)
    first = widgets.control_panel(long, notices, "cpu", tmp_path, interactive=True)
    threads = threading.enumerate()
    first.start.click()
    training = first.process
    first.start.click()  # a second click
    assert first.process is training
    assert threading.enumerate() == threads  # updates from a thread would not reach Colab's page
    parts = [
        p for c in first.controls.values() for p in (c.widget.children if isinstance(c.widget, ipw.Box) else [c.widget])
    ]
    assert all(part.disabled for part in parts if part.has_trait("disabled"))

    again = widgets.control_panel(config, notices, "cpu", tmp_path, interactive=True)
    again._ipython_display_()
    assert again.process is training
    assert again.config == long
    assert again.start.disabled
    tick_until(lambda: (tmp_path / "run-001/last/checkpoint.safetensors").exists(), first, again)
    training._process.send_signal(signal.SIGINT)  # as an interrupt of another cell does
    time.sleep(0.3)
    assert training.is_running
    again.stop.click()
    tick_until(lambda: not again.start.disabled and not first.start.disabled, first, again)
    assert "Detenido" in again.status.value
    assert training.was_asked_to_stop
    assert not first.controls["epochs"].widget.text.disabled
    assert first.start.description == "Continuar"
    move(first, "patience", 9)
    assert first.start.description == "Entrenar"  # another config: a new training
    move(first, "patience", long.patience)

    pictures = []
    first._picture = types.SimpleNamespace(update=pictures.append)
    first.start.click()
    tick_until(lambda: not first.start.disabled, first)
    assert "✅ Listo" in first.status.value
    assert "Continúa" in first.process._log.read_text(encoding="utf-8")
    assert "160 de 160" in first.view.value
    assert len(pictures) == 1
    first.process.stop()  # no effect after the end
    assert first.run().path == tmp_path / "run-001"
    assert [folder.name for folder in tmp_path.iterdir()] == ["run-001"]


@pytest.mark.slow
def test_run_cell_interrupted_saves_a_checkpoint_and_resumes_when_run_again(
    config, notices, tmp_path, cell, monkeypatch
):
    long = config.replace(epochs=4, patience=4, batch_size=4)
    panel = widgets.control_panel(long, notices, "cpu", tmp_path, interactive=True)
    panel.start.click()
    training = panel.process
    interrupt_when(monkeypatch, lambda: panel._history.step)
    with pytest.raises(AskedToStopError, match=r"Detenido\. El avance quedó guardado en .*panel\.run"):
        panel.run()
    assert panel.process is training  # the cell joined the training of the button
    assert (tmp_path / "run-001/last/checkpoint.safetensors").exists()
    assert any(STOPPING in shown for shown in cell.shown)
    assert "Detenido" in panel.status.value
    panel.clock.tick()  # a tick sent before the cell took over
    assert "Detenido" in panel.status.value
    assert panel.start.description == "Continuar"

    run = panel.run()
    assert run.path == tmp_path / "run-001"
    assert "Continúa" in panel.process._log.read_text(encoding="utf-8")
    assert "✅ Listo" in cell.shown[-1]
    assert "320 de 320" in cell.shown[-1]
    assert "✅ Listo" in panel.status.value
    assert "<b>Tardó" in panel.expected.text.value
    assert not panel.start.disabled
    assert panel.run().path == run.path  # no training when run again
    other = widgets.control_panel(long, notices, "cpu", tmp_path, interactive=True)
    assert other.run().path == run.path  # as in another session


def test_panel_with_resume_never_returns_only_its_own_run(run, notices, tmp_path, monkeypatch):
    never = run.config.replace(out="", resume="never")
    panel = widgets.control_panel(never, notices, "cpu", run.path.parent, interactive=True)
    assert panel._finished() is None
    panel.process = ended(run, tmp_path, 0)
    panel.process.config = never
    assert panel.run().path == run.path


def test_run_cell_of_refused_training_raises_user_error_and_clears_the_view(config, notices, tmp_path, cell):
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    panel = widgets.control_panel(config.replace(out=str(full)), notices, "cpu", tmp_path, interactive=True)
    with pytest.raises(UserError, match="no está vacía"):
        panel.run()
    assert cell.shown[-1] == ""
    assert "⛔ La carpeta" in panel.status.value
    assert not panel.start.disabled


def test_recipe_choice_keeps_data_heads_and_split_settings(config, notices, tmp_path):
    own = config.replace(heads={"causa": 1.0}, text_fields=("equipo",), val_size=0.2, resume="never")
    panel = widgets.control_panel(own, notices, "cpu", tmp_path, interactive=True)
    panel._forecast = types.SimpleNamespace(encoder=lambda name: raise_(UserError("no está")))
    panel.recipe_choice.widget.value = "baseline"
    kept = ("model", "data", "heads", "text_fields", "monitor", "val_size", "resume")
    assert {name: getattr(panel.config, name) for name in kept} == {name: getattr(own, name) for name in kept}
    assert panel.config.max_length == RECIPES["baseline"]["max_length"]
    assert "no está" in note(panel, "model")
    assert "se sabrá" in panel.expected.text.value
    assert "--heads causa 1.0" in panel._command.value


def test_panel_with_path_of_finished_run_returns_it(run, notices, tmp_path):
    panel = widgets.control_panel(run.config.replace(out=str(run.path)), notices, "cpu", tmp_path, interactive=True)
    assert panel.run().path == run.path


@pytest.mark.parametrize("code", [0, 143, -signal.SIGTERM, -signal.SIGSEGV])
def test_finished_run_is_a_success_whatever_the_exit_code(run, notices, tmp_path, code):
    training = ended(run, tmp_path, code)
    assert training.outcome(notices.fingerprint).path == run.path


@pytest.mark.parametrize(
    ("code", "message"), [(143, "Detenido antes"), (-9, "de forma inesperada"), (1, "última línea")]
)
def test_unfinished_run_is_reported_by_the_exit_code(run, notices, tmp_path, code, message):
    training = ended(run, tmp_path, code)
    training.folder = tmp_path / "missing"
    with pytest.raises(UserError, match=message):
        training.outcome(notices.fingerprint, tmp_path)


@pytest.mark.slow
def test_training_with_two_gpus_trains_in_one_process(config, tmp_path, monkeypatch):
    """Two would sum all gradients over PCIe at each step; `--processes 2` chooses them."""
    monkeypatch.setattr(machine, "visible_gpus", lambda: ["0", "1"])
    training = Training(config.replace(epochs=1), "cpu", tmp_path / "run")
    assert training._process.wait(timeout=240) == 0, training.last_words()
    assert "Receta cpu, codificador tiny." in training._tail()
    assert Run.load(tmp_path / "run").metrics["epochs"] == 1


def test_resolve_run_dir_returns_given_or_next_numbered_folder(config, notices, run, tmp_path):
    assert resolve_run_dir(config.replace(out="a/b"), "", tmp_path).parts[-2:] == ("a", "b")
    assert resolve_run_dir(config.replace(out=""), notices.fingerprint, run.path.parent).name == "run-001"


def test_non_interactive_panel_is_a_table_and_trains_on_run(config, notices, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(widgets, "display", shown.append)
    panel = widgets.control_panel(
        config.replace(out=str(tmp_path / "run")), notices, "cpu", tmp_path, interactive=False
    )
    panel._ipython_display_()
    (table,) = shown
    assert isinstance(table, pd.DataFrame)
    assert table.loc["freeze_layers"].item() == config.freeze_layers
    assert "python -m ocensa_nb train --recipe cpu" in panel.repeat()
    assert panel.run().path == tmp_path / "run"


def test_is_interactive_outside_a_notebook_is_false(config, notices):
    assert not session.is_interactive()
    assert type(widgets.control_panel(config, notices)) is widgets.SettingsTable
