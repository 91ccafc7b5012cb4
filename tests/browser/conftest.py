"""A real JupyterLab on a copy of the project, and a real Chromium looking at it; without them the tests here skip."""

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
from tests.helpers.lab import Lab, Notebook, until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# No sandbox, because CI is root; no calls home, because a closed network refuses them by the hundred.
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
    # Cells out of sight stay drawn, so that a test can read all of them.
    "notebook-extension/tracker": {"windowingMode": "none"},
}


def copy_of_the_project(folder: Path) -> Path:
    """Copy what git has, and what it would have, so that nothing in the checkout is written."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def answers(lab: Lab) -> bool:
    """Return whether the server is up."""
    try:
        return bool(lab.ask("status"))
    except OSError:
        return False


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Start JupyterLab with a home and settings of its own; its kernel is the Python that runs the tests."""
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
    lab = Lab(f"http://127.0.0.1:{port}", secrets.token_hex(16), copy_of_the_project(tmp_path_factory.mktemp("lab")))
    options = {"ServerApp.port": port, "ServerApp.root_dir": lab.root, "IdentityProvider.token": lab.token}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    with (home / "log").open("w+", encoding="utf-8") as log:
        server = subprocess.Popen(
            command + [f"--{name}={value}" for name, value in options.items()],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            until(lambda: answers(lab) or server.poll() is not None, 60)
            if not answers(lab):
                pytest.skip(f"JupyterLab did not start: {(home / 'log').read_text(encoding='utf-8')[-500:]}")
            yield lab
        finally:
            server.terminate()  # it ends its kernels first
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


@pytest.fixture(scope="module")
def browser(lab: Lab) -> "Iterator[Browser]":
    """Start Chromium; a module's own, because playwright's event loop is in the way of the tests that run kernels."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: "Browser") -> "Iterator[Page]":
    """Return an empty window, about as wide as Colab's."""
    with browser.new_context(viewport=WINDOW, locale="es-CO") as context:
        yield context.new_page()


@pytest.fixture
def notebook(lab: Lab, page: "Page") -> Iterator[Callable[[str], Notebook]]:
    """Return a function from the start of a notebook's name to that notebook; its kernel ends with the test."""
    yield lambda name: Notebook(lab, page, name)
    for kernel in lab.ask("kernels"):
        with contextlib.suppress(OSError):  # one that is just starting may refuse; it ends with the server
            lab.ask(f"kernels/{kernel['id']}", "DELETE")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where screenshots go: a temporary folder, or `OCENSA_PICTURES` to renew the README's own."""
    return Path(os.environ.get("OCENSA_PICTURES") or tmp_path_factory.mktemp("pictures"))
