"""A path is what a person meant, however it was pasted."""

import pytest

from ocensa_nb.config import TrainConfig
from ocensa_nb.files.notice_file import read_table
from ocensa_nb.paths import meant


@pytest.mark.parametrize("form", ['"{path}"', "'{path}'", " {path}\n", "file://{path}", '  "{path}" '])
def test_pasted_path_is_read(tmp_path, form):
    path = tmp_path / "mis avisos.csv"
    path.write_text("a;b\n1;2\n", encoding="utf-8")
    pasted = form.format(path=path)
    assert read_table(pasted).path == path
    assert TrainConfig(data=pasted).data == str(path)


def test_home_and_encoded_address_are_resolved(monkeypatch):
    monkeypatch.setenv("HOME", "/casa")
    assert meant("~/avisos.csv") == "/casa/avisos.csv"
    assert meant("file:///tmp/mis%20avisos.csv") == "/tmp/mis avisos.csv"


@pytest.mark.parametrize("path", ["", '"', "avisos.csv", "C:/avisos.csv", "d'alta.csv"])
def test_other_paths_stay_as_they_are(path):
    assert meant(path) == path
