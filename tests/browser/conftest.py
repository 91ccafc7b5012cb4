"""JupyterLab on a copy of the project, and Chromium; without either the browser tests are skipped."""

import contextlib
import importlib.util
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ocensa_nb.paths import ROOT
from tests.helpers import forked
from tests.helpers.lab import Lab, Notebook, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# No sandbox, because CI runs as root; no background requests, because they fail without a network.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WINDOW = {"width": 1280, "height": 900}
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    # Keep cells outside the viewport in the page, so that tests can read them.
    "notebook-extension/tracker": {"windowingMode": "none"},
}


def copy_project(folder: Path) -> Path:
    """Copy the tracked and untracked files that git does not ignore, so that tests do not write to the checkout."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def is_up(lab: Lab) -> bool:
    """Return whether the server responds."""
    try:
        return bool(lab.call_api("status"))
    except OSError:
        return False


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Start JupyterLab with its own home and settings; its kernel is the Python that runs the tests."""
    if missing := [name for name in ("jupyterlab", "playwright") if importlib.util.find_spec(name) is None]:
        pytest.skip(f"needs {' and '.join(missing)}: pip install -r requirements-dev.txt -c constraints.txt")
    if CHROMIUM is None:
        pytest.skip("needs Chromium (on Debian: apt-get install chromium fonts-dejavu-core fonts-noto-color-emoji)")
    home = tmp_path_factory.mktemp("lab-home")
    for name, value in SETTINGS.items():
        file = home / f"config/lab/user-settings/@jupyterlab/{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(value), encoding="utf-8")
    own = {f"JUPYTER_{kind.upper()}_DIR": str(home / kind) for kind in ("config", "data", "runtime")}
    own["HOME"] = str(home)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")} | own
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lab = Lab(f"http://127.0.0.1:{port}", secrets.token_hex(16), copy_project(tmp_path_factory.mktemp("lab")))
    options = {"ServerApp.port": port, "ServerApp.root_dir": lab.root, "IdentityProvider.token": lab.token}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    with (home / "log").open("w+", encoding="utf-8") as log:
        with forked.processes():  # its kernels too, and the trainings that they start
            server = subprocess.Popen(
                command + [f"--{name}={value}" for name, value in options.items()],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_until(lambda: is_up(lab) or server.poll() is not None, 60)
            if not is_up(lab):
                pytest.skip(f"JupyterLab did not start: {(home / 'log').read_text(encoding='utf-8')[-500:]}")
            yield lab
        finally:
            server.terminate()  # it shuts its kernels down first
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


@pytest.fixture(scope="module")
def browser(lab: Lab) -> "Iterator[BrowserContext]":
    """Start Chromium, once per module: playwright's event loop conflicts with tests that run kernels."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser.new_context(viewport=WINDOW, locale="es-CO")  # its pages share the cache of JupyterLab's scripts
        browser.close()


@pytest.fixture
def page(browser: "BrowserContext") -> "Iterator[Page]":
    """Return an empty page, about as wide as Colab's."""
    page = browser.new_page()
    yield page
    page.close()


@pytest.fixture
def notebook(lab: Lab, page: "Page") -> Iterator[Callable[[str], Notebook]]:
    """Return a function from the prefix of a notebook's name to that notebook; kernels are shut down after the test."""
    yield lambda name: Notebook(lab, page, name)
    for kernel in lab.call_api("kernels"):
        with contextlib.suppress(OSError):  # fails for a kernel that is starting; it ends with the server
            lab.call_api(f"kernels/{kernel['id']}", "DELETE")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder for screenshots: temporary, or `OCENSA_PICTURES` to update those of the README."""
    return Path(os.environ.get("OCENSA_PICTURES") or tmp_path_factory.mktemp("pictures"))
