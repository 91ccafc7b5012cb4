"""A file that is scored in parts gives the same bytes as one that is scored as a whole; a killed command continues."""

import random
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock

from ocensa_nb.daily import partial, parts, score
from ocensa_nb.daily.folder import score_folder
from ocensa_nb.data import synthetic
from ocensa_nb.errors import IncompleteError, UserError
from ocensa_nb.evaluation import predictor
from ocensa_nb.evaluation.predictor import Predictor
from ocensa_nb.files.lock import LOCK
from ocensa_nb.files.notice_file import read_table
from ocensa_nb.paths import ROOT

SPANISH = ("válvula con fuga", 'sello de 2" roto', "motor; ruido", "bomba\nno arranca", "niño – “cojinete”", "fuga")


def write(path, rows=400, newline="\n", encoding="utf-8", above=0, quoted=True, ascii_until=0, seed=0):
    """Write notices as exports have them: quoted line breaks, separators and quotes, totals and blank cells."""
    random.seed(seed)
    table = synthetic.generate(rows, seed)
    lines = ["Reporte de avisos"] * above + ["Aviso;Descripción;Familia de equipo;Componente;Nota"]
    for row in range(rows):
        text = table["descripcion"].iloc[row].replace(";", ",")
        note = random.choice(SPANISH) if row >= ascii_until else "nota"
        if row < ascii_until:
            text = text.encode("ascii", "ignore").decode()
        if quoted:
            note = '"' + note.replace('"', '""') + '"'
        elif any(mark in note for mark in ';"\n'):
            note = "nota"
        family, component = table.loc[row, ["familia_equipo", "componente"]]
        lines.append(f"{row};{text if row % 7 else ''};{family};{component};{note}")
    lines.append("Total;;;;")
    path.write_bytes((newline.join(lines) + newline).encode(encoding))
    return path


def scored(run, data, out, size, monkeypatch):
    monkeypatch.setattr(parts, "PART_BYTES", size)
    result = score.score(Predictor.load(run), data, out)
    return out.read_bytes(), result


SHAPES = {
    "quoted": {},
    "windows": {"newline": "\r\n", "encoding": "cp1252", "quoted": False},
    "late letters": {"encoding": "cp1252", "ascii_until": 350, "quoted": False},
    "mark": {"encoding": "utf-8-sig", "above": 2},
    "dos": {"encoding": "cp850", "quoted": False},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_file_in_parts_has_the_bytes_of_the_file_as_a_whole(run, tmp_path, monkeypatch, shape):
    if SHAPES[shape].get("encoding") in ("cp1252", "cp850"):
        monkeypatch.setattr(f"{__name__}.SPANISH", [text for text in SPANISH if "–" not in text])
    data = write(tmp_path / "a.csv", **SHAPES[shape])
    whole, result = scored(run, data, tmp_path / "whole.csv", 10**9, monkeypatch)
    monkeypatch.setattr(parts, "BLOCK", 2_000)
    in_parts, again = scored(run, data, tmp_path / "parts.csv", 6_000, monkeypatch)
    assert in_parts == whole
    assert {**again, "out": ""} == {**result, "out": ""}
    assert result["rows"] == 401
    number = sum(1 for _ in parts.split(data, lambda name: name == "Descripción"))
    assert number > 3


def test_row_at_fault_has_the_line_number_of_the_file_in_any_part(run, tmp_path, monkeypatch):
    data, said = write(tmp_path / "a.csv", above=2), []
    text = (
        data.read_text(encoding="utf-8")
        .replace("Descripción", '"Descripción\ndel aviso"')
        .replace("Nota", "Descripcion")
    )
    data.write_text(text.replace("Total;;;;", "1;2;3;4;5;6;7"), encoding="utf-8")
    monkeypatch.setattr(parts, "BLOCK", 2_000)
    for number, size in enumerate((10**9, 6_000)):
        with pytest.raises(UserError, match="más celdas que títulos") as error:
            scored(run, data, tmp_path / f"{number}.csv", size, monkeypatch)
        said.append(str(error.value))
    assert said[0] == said[1]


class KilledError(BaseException):
    """Not an error that anything catches."""


@pytest.mark.parametrize("suffix", [".csv", ".xlsx"])
def test_killed_predict_goes_on_without_scoring_a_row_twice(run, tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(predictor, "CHUNK", 16)
    data = write(tmp_path / "a.csv", rows=150)
    if suffix == ".xlsx":
        pd.read_csv(data, sep=";", dtype=str).to_excel(tmp_path / "a.xlsx", index=False)
        data = tmp_path / "a.xlsx"
    whole, _ = scored(run, data, tmp_path / f"whole{suffix}", 6_000, monkeypatch)
    counted, left, original = [], [0], Predictor.logits

    def logits(self, texts, *rest):
        left[0] -= 1
        if left[0] < 0:
            raise KilledError
        counted.append(len(texts))
        return original(self, texts, *rest)

    monkeypatch.setattr(Predictor, "logits", logits)
    kills = 0
    while not (tmp_path / f"p{suffix}").exists():
        left[0] = 2
        try:
            scored(run, data, tmp_path / f"p{suffix}", 6_000, monkeypatch)
        except KilledError:
            kills += 1
    assert kills >= 3
    assert suffix != ".csv" or (tmp_path / "p.csv").read_bytes() == whole
    expected, result = (read_table(tmp_path / f"{name}{suffix}").table for name in ("whole", "p"))
    pd.testing.assert_frame_equal(result, expected)
    assert sum(counted) == (expected["pred_modo"] != "").sum()
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_progress_of_another_command_is_discarded_and_a_second_process_is_refused(run, tmp_path, monkeypatch):
    data, out = write(tmp_path / "a.csv", rows=60), tmp_path / "p.csv"
    monkeypatch.setattr(partial.Partial, "end_part", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        score.score(Predictor.load(run), data, out)
    monkeypatch.undo()
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    with FileLock(folder / LOCK), pytest.raises(UserError, match="Otro proceso está escribiendo"):
        score.score(Predictor.load(run), data, out)
    assert score.score(Predictor.load(run), data, out, source="linear")["rows"] == 61
    assert not folder.exists()


def test_chunks_that_were_damaged_are_scored_again(tmp_path):
    values = {"modo": np.ones((3, 2), np.float32), "causa": np.full((3, 1), 0.5, np.float32)}

    def killed(work):
        with partial.partial(tmp_path / "p.csv", {"modo": 2, "causa": 1}, {"a": 1}) as done:
            work(done)
            raise KilledError

    with pytest.raises(KilledError):
        killed(lambda done: [done.write(chunk, values) for chunk in (0, 1)])
    file = tmp_path / ".ocensa-p.csv.parcial" / partial.CHUNKS
    file.write_bytes(file.read_bytes()[:-1])
    read = []
    with pytest.raises(KilledError):
        killed(lambda done: read.extend(done.read(chunk, 3) for chunk in (0, 1)))
    np.testing.assert_array_equal(read[0]["causa"], values["causa"])
    assert read[1] is None


def test_folder_is_scored_file_by_file_and_continued(run, tmp_path, caplog):
    folder, out = tmp_path / "exports", tmp_path / "scored"
    folder.mkdir()
    for number in (1, 2):
        write(folder / f"{number}.csv", rows=20, seed=number)
    (folder / "broken.csv").write_text("a;b\n1;2\n")
    shutil.copy(folder / "1.csv", folder / "SAP.TXT")
    with pytest.raises(IncompleteError, match=r"Sin resultado: 1 de 4 \(broken.csv\)") as error:
        score_folder(Predictor.load(run), folder, out)
    assert sorted(error.value.result["files"]) == ["1.csv", "2.csv", "SAP.TXT"]
    assert sorted(path.name for path in out.iterdir()) == ["1.csv", "2.csv", "SAP.TXT.csv"]
    (folder / "broken.csv").unlink()
    before = (out / "1.csv").read_bytes()
    assert score_folder(Predictor.load(run), folder, out)["skipped"] == ["1.csv", "2.csv", "SAP.TXT"]
    assert (out / "1.csv").read_bytes() == before
    with pytest.raises(UserError, match="la misma carpeta"):
        score_folder(Predictor.load(run), folder, folder)


@pytest.mark.parametrize("suffix", [".csv", ".xlsx"])
def test_pipe_gives_the_result_of_the_file_and_nothing_else(run, tmp_path, suffix):
    data = write(tmp_path / "a.csv", rows=20)
    if suffix == ".xlsx":
        pd.read_csv(data, sep=";", dtype=str).to_excel(tmp_path / "a.xlsx", index=False)
        data = tmp_path / "a.xlsx"
    command = [sys.executable, "-m", "ocensa_nb", "predict", "--run", str(run.path), "--data", "-", "--out", "-"]
    piped = subprocess.run(command, input=data.read_bytes(), capture_output=True, timeout=120, cwd=ROOT)
    assert piped.returncode == 0, piped.stderr.decode()
    score.score(Predictor.load(run), data, tmp_path / f"p{suffix}")
    (tmp_path / f"q{suffix}").write_bytes(piped.stdout)
    expected, result = (read_table(tmp_path / f"{name}{suffix}").table for name in "pq")
    pd.testing.assert_frame_equal(result, expected)
    assert "filas con predicción" in piped.stderr.decode()
