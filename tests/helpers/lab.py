"""JupyterLab as a person uses it: open a notebook, run it, move a slider, press a button, read what it says."""

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


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab: its address, the token that opens it, and the copy of the project it serves."""

    address: str
    token: str
    root: Path

    def ask(self, path: str, method: str = "GET") -> Any:
        """Return what the server's REST API answers."""
        request = urllib.request.Request(f"{self.address}/api/{path}", method=method)
        request.add_header("Authorization", f"token {self.token}")
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read() or "null")


class Notebook:
    """One notebook, by the start of its name, and what a person does with it."""

    def __init__(self, lab: Lab, page: "Page", name: str):
        self.lab, self.page = lab, page
        committed = next((ROOT / "notebooks").glob(f"{name}*.ipynb"))
        self.path = shutil.copy(committed, lab.root / "notebooks" / committed.name)  # a test before may have saved it

    def set_parameters(self, **values: Any) -> "Notebook":
        """Write values into the parameters cell of the file, before it is opened."""
        content = json.loads(self.path.read_text(encoding="utf-8"))
        cell = next(cell for cell in content["cells"] if "parameters" in cell["metadata"].get("tags", []))
        source = "".join(cell["source"])
        for name, value in values.items():
            source, found = re.subn(
                rf"^{name} = .*", lambda _, n=name, v=value: f"{n} = {v!r}", source, flags=re.MULTILINE
            )
            assert found == 1, f"{self.path.name} has no {name}"
        cell["source"] = source
        self.path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        return self

    def open(self) -> "Notebook":
        """Open it in JupyterLab and wait for its kernel."""
        where = self.path.relative_to(self.lab.root).as_posix()
        self.page.goto(f"{self.lab.address}/lab/tree/{where}?reset&token={self.lab.token}")
        # The page says idle before it has a kernel, and to run a cell then opens a dialog that asks for one.
        assert until(self._has_kernel, 60), "no kernel"
        self.page.get_by_text("| Idle").wait_for()
        return self

    def _has_kernel(self) -> bool:
        self.page.wait_for_timeout(50)  # playwright serves a routed WebSocket only while it is waiting
        try:
            return any(kernel["connections"] for kernel in self.lab.ask("kernels"))
        except OSError:  # the server refuses while one of them is just starting or ending
            return False

    def run_all(self) -> "Notebook":
        """Choose *Run All Cells* in the *Run* menu, and wait until the first cell begins."""
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_text("Run All Cells", exact=True).click()
        self.page.locator(".jp-InputPrompt", has_text=re.compile(r"\[[*\d]+\]")).first.wait_for()
        return self

    def run_above(self, source: str) -> "Notebook":
        """Select the cell whose source contains a text, and choose *Run All Above Selected Cell* in the *Run* menu."""
        self.cell(source).locator(".jp-InputPrompt").click()
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_text("Run All Above Selected Cell", exact=True).click()
        self.page.locator(".jp-InputPrompt", has_text=re.compile(r"\[[*\d]+\]")).first.wait_for()
        return self

    def run(self, source: str) -> "Notebook":
        """Run the cell whose source contains a text, and do not wait for it."""
        self.cell(source).locator(".jp-InputPrompt").click()
        self.page.keyboard.press("Control+Enter")
        return self

    def interrupt(self) -> None:
        """Press the ■ of the toolbar."""
        self.page.locator('[data-command="notebook:interrupt-kernel"], [title*="Interrupt the kernel"]').first.click()

    def wait_until_idle(self, seconds: float = 60) -> "Notebook":
        """Wait until no cell is running or waiting for its turn."""
        self.page.locator(".jp-InputPrompt", has_text="[*]").first.wait_for(state="detached", timeout=seconds * 1000)
        return self

    def cell(self, source: str) -> "Locator":
        """Return the code cell whose source contains a text."""
        return self.page.locator(".jp-CodeCell").filter(has=self.page.locator(".jp-InputArea", has_text=source))

    def outputs(self, source: str) -> str:
        """Return the text below the code cell whose source contains a text."""
        return "\n".join(self.cell(source).locator(".jp-OutputArea-output").all_inner_texts())

    def errors(self) -> list[str]:
        """Return the tracebacks, and whatever else stands on red."""
        red = (f'[data-mime-type="application/vnd.jupyter.{kind}"]' for kind in ("error", "stderr"))
        return self.page.locator(",".join(red)).all_inner_texts()

    def pictures(self) -> int:
        """Return how many pictures below the cells are drawn."""
        images = self.page.locator(".jp-OutputArea-output img")
        return sum(images.evaluate_all("images => images.map(image => image.complete && image.naturalWidth > 0)"))

    def overflowing(self) -> list[str]:
        """Return the outputs that are wider than the page, which a reader has to push sideways."""
        outputs = self.page.locator(".jp-OutputArea-output")
        return outputs.evaluate_all("all => all.filter(o => o.scrollWidth > o.clientWidth + 1).map(o => o.innerText)")

    def slider(self, label: str) -> "Locator":
        """Return the slider of a label."""
        return self.page.locator(".widget-slider").filter(has=self.page.get_by_text(label, exact=True))

    def note(self, label: str) -> str:
        """Return what is said beside the slider of a label."""
        return self.slider(label).locator("xpath=..").locator(".ocensa-note").inner_text()

    def move(self, label: str, value: float) -> None:
        """Give a slider a value by the keyboard, in the number beside it."""
        self.slider(label).locator(".widget-readout").click()
        self.page.keyboard.press("Control+A")
        self.page.keyboard.type(str(value))
        self.page.keyboard.press("Enter")

    def choose(self, label: str, option: str) -> None:
        """Choose an option in the drop-down of a label."""
        self.page.get_by_label(label, exact=True).select_option(option)

    def button(self, text: str) -> "Locator":
        """Return the widget's button of a text."""
        return self.page.locator("button.jupyter-button").filter(has_text=re.compile(rf"^\s*{re.escape(text)}\s*$"))

    def press(self, text: str) -> None:
        """Press the button of a text, once it can be pressed."""
        self.button(text).click()

    def text(self, css_class: str) -> str:
        """Return what the first element of a CSS class says."""
        return self.page.locator(f".{css_class}").first.inner_text()

    def wait_for_text(self, css_class: str, text: str | re.Pattern[str], seconds: float = 30) -> None:
        """Wait until an element of a CSS class says a text."""
        self.page.locator(f".{css_class}", has_text=text).first.wait_for(timeout=seconds * 1000)

    def save(self) -> dict[str, Any]:
        """Press Ctrl+S, and return the notebook that is on disk then."""
        before = self.path.stat().st_mtime_ns
        self.page.keyboard.press("Escape")
        self.page.keyboard.press("Control+S")

        def is_saved() -> bool:  # the server empties the file before it writes it
            return self.path.stat().st_mtime_ns != before and self.path.read_bytes().endswith(b"}\n")

        assert until(is_saved), f"{self.path.name} was not saved"
        return json.loads(self.path.read_text(encoding="utf-8"))

    def screenshot(self, path: Path, css_class: str = "") -> Path:
        """Keep a picture of the window, or of the first element of a CSS class."""
        (self.page.locator(f".{css_class}").first if css_class else self.page).screenshot(path=path)
        return path


def until(happened: Callable[[], Any], seconds: float = 20) -> bool:
    """Wait until a function returns something true; return whether it did in time."""
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
