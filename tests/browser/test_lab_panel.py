"""Panel in a browser: settings, training, stop, resume, and the outputs in the saved notebook."""

import os
import re

import pytest

from tests.helpers.lab import MEASURED, wait_until

TALL = {"width": 1280, "height": 1500}
STARTS = 60  # seconds for a training process to make its first step


def test_panel_training_is_configured_started_stopped_and_resumed(notebook, csv):
    opened = notebook("03").set_parameters(
        model="tiny", freeze_layers=1, data=str(csv), precision="fp32", epochs=12, patience=12, batch_size=4
    )
    opened.page.set_viewport_size(TALL)
    opened.open().run_above("run = panel.run()").wait_until_idle()
    assert opened.errors() == []

    opened.wait_for_text("ocensa-expected", MEASURED, STARTS)
    parameters, price = opened.note("Capas congeladas"), opened.text("ocensa-expected")
    opened.move("Capas congeladas", 2)
    assert wait_until(lambda: opened.note("Capas congeladas") != parameters)
    assert "No se pudo estimar" in price or wait_until(lambda: opened.text("ocensa-expected") != price)
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
    disabled = opened.button("fp16")
    assert disabled.is_disabled()
    assert "hace falta una GPU" in disabled.get_attribute("title")

    opened.press("Entrenar")
    opened.wait_for_text("ocensa-numbers", re.compile(r"[1-9]\d* de 960"), STARTS)
    opened.wait_for_text("ocensa-state", "Entrenando en")
    opened.press("Detener")
    opened.wait_for_text("ocensa-state", "Detenido", STARTS)
    done = int(re.search(r"(\d+) de 960", opened.text("ocensa-numbers")).group(1))
    assert 0 < done < 960

    opened.press("Continuar")
    opened.wait_for_text("ocensa-state", "✅ Listo", 2 * STARTS)
    assert "960 de 960" in opened.text("ocensa-numbers")
    folder = re.search("Listo, en «(.+?)»", opened.text("ocensa-state")).group(1)
    history = (opened.lab.root / folder / "history.jsonl").read_text(encoding="utf-8")
    assert history.count('"step"') == 960  # resumed, not restarted
    saved = next(cell for cell in opened.save()["cells"] if "control_panel" in "".join(cell["source"]))
    assert any("image/png" in output.get("data", {}) for output in saved["outputs"])


@pytest.mark.skipif("OCENSA_PICTURES" not in os.environ, reason="writes the screenshots of the README")
def test_panel_screenshot_for_the_readme_is_updated(notebook, pictures):
    opened = notebook("03").set_parameters(epochs=6)
    opened.page.set_viewport_size(TALL)
    opened.open().run_above("run = panel.run()").wait_until_idle(2 * STARTS)
    opened.wait_for_text("ocensa-expected", "veces")
    opened.press("Entrenar")
    opened.wait_for_text("ocensa-charts", "causa 0.", 3 * STARTS)
    opened.wait_for_text("ocensa-bar", "Época 5 de 6", 3 * STARTS)
    opened.screenshot(pictures / "panel.png", "ocensa-panel")
    opened.press("Detener")
    opened.wait_for_text("ocensa-state", "Detenido", STARTS)
