"""Drive JupyterLab in a browser: open a notebook, run it, move sliders, press buttons, read the output."""

import json
import re
import shutil
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocensa_nb.paths import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

# What the panel shows in the end as the time of a training; the browser may itself keep the machine busy.
MEASURED = re.compile("veces este tiempo|No se pudo estimar el tiempo: la máquina está ocupada")


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab server: address, token, and the copy of the project that it serves."""

    address: str
    token: str
    root: Path

    def call_api(self, path: str, method: str = "GET") -> Any:
        """Call the REST API of the server; return the decoded JSON response."""
        request = urllib.request.Request(f"{self.address}/api/{path}", method=method)
        request.add_header("Authorization", f"token {self.token}")
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read() or "null")


class Notebook:
    """A notebook, found by the prefix of its name, in a page of the browser."""

    def __init__(self, lab: Lab, page: "Page", name: str):
        self.lab, self.page = lab, page
        committed = next((ROOT / "notebooks").glob(f"{name}*.ipynb"))
        self.path = shutil.copy(committed, lab.root / "notebooks" / committed.name)  # undo saves of earlier tests

    def set_parameters(self, **values: Any) -> "Notebook":
        """Write values into the parameters cell of the file; call before `open`."""
        content = json.loads(self.path.read_text(encoding="utf-8"))
        cell = next(cell for cell in content["cells"] if "parameters" in cell["metadata"].get("tags", []))
        source = "".join(cell["source"])
        for name, value in values.items():
            source, replaced = re.subn(
                rf"^{name} = .*", lambda _, n=name, v=value: f"{n} = {v!r}", source, flags=re.MULTILINE
            )
            assert replaced == 1, f"{self.path.name} has no {name}"
        cell["source"] = source
        self.path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        return self

    def open(self) -> "Notebook":
        """Open the notebook in JupyterLab and wait for its kernel."""
        where = self.path.relative_to(self.lab.root).as_posix()
        self.page.goto(f"{self.lab.address}/lab/tree/{where}?reset&token={self.lab.token}")
        # The page shows "Idle" before it has a kernel; running a cell then would open a dialog to choose one.
        assert wait_until(self._has_kernel, 60), "no kernel"
        self.page.get_by_text("| Idle").wait_for()
        return self

    def _has_kernel(self) -> bool:
        self.page.wait_for_timeout(50)  # playwright serves routed WebSockets only while it waits
        try:
            return any(kernel["connections"] for kernel in self.lab.call_api("kernels"))
        except OSError:  # the request fails while a kernel is starting or shutting down
            return False

    def run_all(self) -> "Notebook":
        """Choose *Run All Cells* in the *Run* menu; wait until the first cell starts."""
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_text("Run All Cells", exact=True).click()
        self.page.locator(".jp-InputPrompt", has_text=re.compile(r"\[[*\d]+\]")).first.wait_for()
        return self

    def run_above(self, source: str) -> "Notebook":
        """Select the cell with `source` and choose *Run All Above Selected Cell* in the *Run* menu."""
        self.cell(source).locator(".jp-InputPrompt").click()
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_text("Run All Above Selected Cell", exact=True).click()
        self.page.locator(".jp-InputPrompt", has_text=re.compile(r"\[[*\d]+\]")).first.wait_for()
        return self

    def run(self, source: str) -> "Notebook":
        """Start the cell with `source`, without waiting for it."""
        self.cell(source).locator(".jp-InputPrompt").click()
        self.page.keyboard.press("Control+Enter")
        return self

    def interrupt(self) -> None:
        """Press the interrupt button ■ of the toolbar."""
        self.page.locator('[data-command="notebook:interrupt-kernel"], [title*="Interrupt the kernel"]').first.click()

    def wait_until_idle(self, seconds: float = 60) -> "Notebook":
        """Wait until no cell is running or queued."""
        self.page.locator(".jp-InputPrompt", has_text="[*]").first.wait_for(state="detached", timeout=seconds * 1000)
        return self

    def cell(self, source: str) -> "Locator":
        """Return the code cell that contains `source`."""
        return self.page.locator(".jp-CodeCell").filter(has=self.page.locator(".jp-InputArea", has_text=source))

    def outputs(self, source: str) -> str:
        """Return the text output of the code cell that contains `source`."""
        return "\n".join(self.cell(source).locator(".jp-OutputArea-output").all_inner_texts())

    def errors(self) -> list[str]:
        """Return the tracebacks and the outputs on stderr."""
        red = (f'[data-mime-type="application/vnd.jupyter.{kind}"]' for kind in ("error", "stderr"))
        return self.page.locator(",".join(red)).all_inner_texts()

    def pictures(self) -> int:
        """Return the number of rendered images in the outputs."""
        images = self.page.locator(".jp-OutputArea-output img")
        return sum(images.evaluate_all("images => images.map(image => image.complete && image.naturalWidth > 0)"))

    def overflowing(self) -> list[str]:
        """Return the text of the outputs that need horizontal scrolling."""
        outputs = self.page.locator(".jp-OutputArea-output")
        return outputs.evaluate_all("all => all.filter(o => o.scrollWidth > o.clientWidth + 1).map(o => o.innerText)")

    def slider(self, label: str) -> "Locator":
        """Return the slider with a label."""
        return self.page.locator(".widget-slider").filter(has=self.page.get_by_text(label, exact=True))

    def number(self, label: str) -> "Locator":
        """Return the number box beside the slider with a label."""
        return self.slider(label).locator("xpath=..").locator("input[type=number]")

    def note(self, label: str) -> str:
        """Return the note next to the slider with a label."""
        return self.slider(label).locator("xpath=../..").locator(".ocensa-note").inner_text()

    def move(self, label: str, value: float) -> None:
        """Set a slider by typing into its number box."""
        self.number(label).click()
        self.page.keyboard.press("Control+A")
        self.page.keyboard.type(str(value))
        self.page.keyboard.press("Enter")

    def button(self, text: str) -> "Locator":
        """Return the widget button with a text."""
        return self.page.locator("button.jupyter-button").filter(has_text=re.compile(rf"^\s*{re.escape(text)}\s*$"))

    def press(self, text: str) -> None:
        """Press the button with a text, as soon as it is enabled."""
        self.button(text).click()

    def text(self, css_class: str) -> str:
        """Return the text of the first element of a CSS class."""
        return self.page.locator(f".{css_class}").first.inner_text()

    def wait_for_text(self, css_class: str, text: str | re.Pattern[str], seconds: float = 30) -> None:
        """Wait until an element of a CSS class contains a text."""
        self.page.locator(f".{css_class}", has_text=text).first.wait_for(timeout=seconds * 1000)

    def save(self) -> dict[str, Any]:
        """Press Ctrl+S; return the saved notebook."""
        before = self.path.stat().st_mtime_ns
        self.page.keyboard.press("Escape")
        self.page.keyboard.press("Control+S")

        def is_saved() -> bool:  # the server truncates the file before it writes
            return self.path.stat().st_mtime_ns != before and self.path.read_bytes().endswith(b"}\n")

        assert wait_until(is_saved), f"{self.path.name} was not saved"
        return json.loads(self.path.read_text(encoding="utf-8"))

    def save_executed(self) -> list[dict[str, Any]]:
        """Save the notebook; return its code cells, which have been executed one after the other."""
        cells = [cell for cell in self.save()["cells"] if cell["cell_type"] == "code"]
        first = cells[0]["execution_count"]
        assert [cell["execution_count"] for cell in cells] == list(range(first, first + len(cells)))
        return cells

    def screenshot(self, path: Path, css_class: str = "") -> Path:
        """Save a screenshot of the window, or of the first element of a CSS class."""
        (self.page.locator(f".{css_class}").first if css_class else self.page).screenshot(path=path)
        return path


def wait_until(happened: Callable[[], Any], seconds: float = 20) -> bool:
    """Poll a function until it returns a true value; return whether it did in time."""
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
