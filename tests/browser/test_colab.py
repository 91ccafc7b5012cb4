"""Panel of notebook 03 in JupyterLab under Colab's rule for widgets: it updates, stops and resumes."""

import json
import os
import re
from pathlib import Path

import pytest

from ocensa_nb.notebook.process_panel import STOPPING
from tests.helpers.colab import ColabRule
from tests.helpers.lab import MEASURED, wait_until
from tests.helpers.pausing import Paused

pytestmark = pytest.mark.slow

TALL, NARROW = {"width": 1280, "height": 1500}, {"width": 620, "height": 1500}
STARTS = 60  # seconds for a training process to make its first step
TRAIN = "run = panel.run()"
MORE = {"freeze_layers": 1, "precision": "fp32", "patience": 12, "batch_size": 4}
LONG = {"model": "tiny", "epochs": 12, "more_settings": json.dumps(MORE)}
STEPS = 960
UNDER_WAY = re.compile(rf"[1-9]\d* de {STEPS}")


@pytest.fixture
def rule(page):
    return ColabRule().impose(page)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def opened(notebook, csv, folder, rule):
    made = notebook("03").set_parameters(**LONG, data=str(csv), out=str(folder))
    made.page.set_viewport_size(TALL)
    made.open()
    made.page.keyboard.press("Control+B")  # hide the side bar, so that the notebook has the full width
    return made


def steps_done(text: str) -> int:
    return int(re.search(rf"(\d+) de {STEPS}", text).group(1))


def steps_written(folder: Path) -> int:
    """Return the number of steps in the history of a run."""
    return (folder / "history.jsonl").read_text(encoding="utf-8").count('"step"')


def move_controls(opened) -> None:
    """Move controls and see what the panel says; leave them as they were."""
    parameters, expected = opened.note("Capas congeladas"), opened.text("ocensa-expected")
    opened.move("Capas congeladas", 2)
    assert wait_until(lambda: opened.note("Capas congeladas") != parameters)
    assert "No se pudo estimar" in expected or wait_until(lambda: opened.text("ocensa-expected") != expected)
    opened.move("Capas congeladas", 1)
    opened.move("Micro-batch", 24)
    assert wait_until(lambda: "batch efectivo: 24" in opened.note("Acumulación"))
    opened.move("Micro-batch", 4096)
    assert wait_until(lambda: "4096 no es válido: use de 1 a 1024. Sigue en 24." in opened.note("Micro-batch"))
    assert opened.number("Micro-batch").input_value() == "24"
    opened.move("Micro-batch", 4)
    assert wait_until(lambda: "batch efectivo: 4 " in opened.note("Acumulación"))
    opened.move("Épocas", 40)
    assert wait_until(lambda: "--epochs 40" in opened.page.locator("details.ocensa").first.text_content())
    opened.move("Épocas", 12)
    assert wait_until(lambda: "--epochs 12" in opened.page.locator("details.ocensa").first.text_content())
    disabled = opened.button("fp16")
    assert disabled.is_disabled()
    assert "hace falta una GPU" in disabled.get_attribute("title")


def test_panel_buttons_train_stop_and_resume_with_live_updates(opened, rule, folder, pictures):
    opened.run_above(TRAIN).wait_until_idle()
    assert opened.errors() == []
    opened.wait_for_text("ocensa-expected", MEASURED, STARTS)  # measured while no cell is executing
    move_controls(opened)
    opened.press("Entrenar")
    with Paused(folder) as training:
        training.advance()
        opened.wait_for_text("ocensa-numbers", UNDER_WAY, STARTS)
        before = steps_done(opened.text("ocensa-numbers"))
        training.advance()
        opened.page.wait_for_function(
            "before => parseInt(document.querySelector('.ocensa-numbers b').textContent) > before", arg=before
        )
        opened.press("Detener")
        opened.wait_for_text("ocensa-state", STOPPING)
    opened.wait_for_text("ocensa-state", "Detenido", STARTS)
    assert 0 < steps_done(opened.text("ocensa-numbers")) < STEPS
    opened.press("Continuar")
    with Paused(folder) as training:
        training.advance()
        opened.save()
        opened.page.reload()
        opened.wait_for_text("ocensa-numbers", UNDER_WAY, STARTS)  # the reloaded page follows the training
        earlier = opened.page.locator(".ocensa-panel").first.element_handle()
        opened.run_above(TRAIN)  # and so does a panel that is shown again
        earlier.wait_for_element_state("hidden")
        opened.wait_for_text("ocensa-numbers", UNDER_WAY, STARTS)
        training.advance()
        opened.wait_for_text("ocensa-expected", "al ritmo de este entrenamiento", STARTS)
        opened.screenshot(pictures / "panel-colab.png")
    opened.wait_for_text("ocensa-state", "✅ Listo", 2 * STARTS)
    assert f"{STEPS} de {STEPS}" in opened.text("ocensa-numbers")
    opened.wait_for_text("ocensa-expected", "Tardó")
    assert steps_written(folder) == STEPS
    assert rule.delivered
    saved = next(cell for cell in opened.save()["cells"] if "control_panel" in "".join(cell["source"]))
    assert any("image/png" in output.get("data", {}) for output in saved["outputs"])


def test_run_all_trains_in_the_cell_stops_on_interrupt_and_resumes(opened, rule, folder, pictures):
    opened.run_all()
    live = opened.cell(TRAIN).locator(".ocensa-numbers", has_text=UNDER_WAY)
    with Paused(folder) as training:
        training.advance()
        live.wait_for(timeout=1000 * STARTS)
        opened.wait_for_text("ocensa-state", "Se sigue en la celda")
        assert opened.button("Entrenar").is_disabled()
        assert opened.button("Detener").is_disabled()
        opened.interrupt()
        opened.wait_for_text("ocensa-state", STOPPING)
    opened.wait_until_idle()
    assert opened.errors() == []  # a requested stop is not an error
    assert f"\nDetenido. El avance quedó guardado en «{folder}»." in opened.outputs(TRAIN)
    assert "⛔" not in opened.outputs(TRAIN)
    assert opened.outputs("print(panel.repeat(run))") == ""  # the cells below did not run
    assert 0 < steps_done(live.inner_text()) < STEPS
    assert opened.button("Continuar").is_enabled()
    opened.page.set_viewport_size(NARROW)
    assert opened.overflowing() == []
    opened.screenshot(pictures / "panel-narrow.png", "ocensa-panel")
    opened.cell(TRAIN).screenshot(path=pictures / "cell-narrow.png")
    opened.page.set_viewport_size(TALL)

    opened.run_all().wait_until_idle(2 * STARTS)
    assert opened.errors() == []
    assert opened.overflowing() == []
    assert "✅ Listo" in opened.outputs(TRAIN)
    assert f"{STEPS} de {STEPS}" in opened.outputs(TRAIN)
    opened.wait_for_text("ocensa-state", "✅ Listo")
    assert opened.pictures() == 1  # the animation
    assert steps_written(folder) == STEPS
    assert rule.delivered
    saved = next(cell for cell in opened.save_executed() if "".join(cell["source"]) == TRAIN)
    assert "✅ Listo" in str(saved["outputs"])


@pytest.mark.skipif("OCENSA_PICTURES" not in os.environ, reason="writes the screenshots of the README")
def test_panel_screenshot_for_the_readme_is_updated(notebook, pictures):
    opened = notebook("03").set_parameters(epochs=6)
    opened.page.set_viewport_size(TALL)
    opened.open().run_above("run = panel.run()").wait_until_idle(2 * STARTS)
    opened.wait_for_text("ocensa-expected", "veces")
    opened.press("Entrenar")
    opened.wait_for_text("ocensa-charts", "causa 0,", 3 * STARTS)
    opened.wait_for_text("ocensa-bar", "Época 5 de 6", 3 * STARTS)
    opened.screenshot(pictures / "panel.png", "ocensa-panel")
    opened.press("Detener")
    opened.wait_for_text("ocensa-state", "Detenido", STARTS)
