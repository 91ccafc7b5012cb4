"""Where the notebooks of an installed package are opened."""

import pytest

from ocensa_nb.cli import main as cli
from ocensa_nb.errors import UserError
from ocensa_nb.notebook import session


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    """Return the notebooks of an installed package: one, and a grid."""
    folder = tmp_path / "package"
    (folder / "grids").mkdir(parents=True)
    (folder / "01.ipynb").write_text("uno")
    (folder / "grids/quick.yaml").write_text("grid")
    monkeypatch.setattr(session, "IS_CHECKOUT", False)
    monkeypatch.setattr(session, "NOTEBOOKS", folder)
    return folder


def test_lab_copies_the_notebooks_once_and_a_later_version_beside_an_edited_one(packaged, tmp_path):
    out = tmp_path / "cuadernos"
    assert session.notebooks_folder(out) == (out, [])
    assert (out / "grids/quick.yaml").read_text() == "grid"
    (out / "01.ipynb").write_text("uno, del usuario")
    assert session.notebooks_folder(out) == (out, [])
    (packaged / "01.ipynb").write_text("uno, versión 2")
    assert session.notebooks_folder(out) == (out, [out / "01-2.ipynb"])
    assert session.notebooks_folder(out) == (out, [])
    assert (out / "01.ipynb").read_text() == "uno, del usuario"
    assert (out / "01-2.ipynb").read_text() == "uno, versión 2"


def test_lab_in_a_checkout_opens_its_notebooks_and_copies_nothing(tmp_path, monkeypatch):
    assert session.notebooks_folder(tmp_path / "a") == (session.NOTEBOOKS, [])
    assert not (tmp_path / "a").exists()


def test_lab_in_a_folder_that_cannot_be_written_raises_user_error(packaged, tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(UserError, match="No se pueden copiar los cuadernos a"):
        session.notebooks_folder(tmp_path / "a")


def test_lab_verb_prepares_without_jupyterlab_and_says_how_to_install_it(packaged, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(session.importlib.util, "find_spec", lambda name: None)
    out = str(tmp_path / "cuadernos")
    assert cli.main(["lab", "--out", out, "--prepare-only", "true"]) == 0
    assert (tmp_path / "cuadernos/01.ipynb").exists()
    assert cli.main(["lab", "--out", out]) == 1
    assert '-m pip install "jupyterlab>=4.3"' in capsys.readouterr().err


def test_lab_opens_its_folder_with_the_python_of_the_command(packaged, tmp_path, monkeypatch):
    started = {}

    class Lab:
        def __init__(self, command, cwd):
            started.update(command=command, cwd=cwd)
            self.returncode = None

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return False

        def poll(self):
            return self.returncode

        def wait(self):
            self.returncode = 0 if self.returncode is None and started.get("interrupted") else None
            if not started.get("interrupted"):
                started["interrupted"] = True
                raise KeyboardInterrupt

    monkeypatch.setattr(session.subprocess, "Popen", Lab)
    assert cli.main(["lab", "--out", str(tmp_path / "cuadernos")]) == 0
    assert started["command"] == [session.sys.executable, "-m", "jupyterlab"]
    assert started["cwd"] == tmp_path / "cuadernos"
