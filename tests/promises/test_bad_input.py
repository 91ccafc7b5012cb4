"""Invalid input of every kind: one Spanish message, exit code 1, no traceback, no files left."""

import re
from pathlib import Path

import pandas as pd
import pytest

from ocensa_nb.cli import main as cli
from ocensa_nb.data import synthetic


def table(rows=60):
    return synthetic.generate(rows, seed=1)


def write(path, content):
    content.to_csv(path, index=False) if isinstance(content, pd.DataFrame) else path.write_bytes(content)
    return path


def empty_sheet(path):
    with pd.ExcelWriter(path) as book:
        pd.DataFrame().to_excel(book, sheet_name="Hoja1", index=False)
    return path


def mostly_unlabelled():
    frame = table()
    frame.loc[10:, "causa_falla"] = "nan"
    return frame


# name -> (function that creates the data file, expected words of the message)
FILES = {
    "missing file": (lambda p: p / "no.csv", "No existe el archivo"),
    "directory": (lambda p: p, "es una carpeta"),
    "empty file": (lambda p: write(p / "a.csv", b""), "está vacío"),
    "blank file": (lambda p: write(p / "a.csv", b"\xef\xbb\xbf \r\n\n"), "está vacío"),
    "header only": (lambda p: write(p / "a.csv", table().head(0)), "no tiene filas de datos"),
    "header only xlsx": (lambda p: table().head(0).to_excel(p / "a.xlsx") or p / "a.xlsx", "no tiene filas de datos"),
    "unknown column": (
        lambda p: write(p / "a.csv", table().rename(columns={"causa_falla": "causa_fala"})),
        "¿Quiso decir «causa_fala»?",
    ),
    "one class only": (lambda p: write(p / "a.csv", table().assign(prioridad="2-Alta")), "una sola clase, «2-Alta»"),
    "all texts missing": (
        lambda p: write(p / "a.csv", table().assign(descripcion="nan")),
        "está vacía en las 60 filas",
    ),
    "labels mostly missing": (lambda p: write(p / "a.csv", mostly_unlabelled()), "está vacía en 50 de 60 filas"),
    "two rows": (lambda p: write(p / "a.csv", table(2)), "quedan 2 filas"),
    "one text only": (
        lambda p: write(p / "a.csv", table().assign(descripcion="fuga", equipo="", familia_equipo="", componente="")),
        "Textos distintos: 1",
    ),
    "binary named csv": (lambda p: write(p / "a.csv", bytes(range(256)) * 40), "no es un archivo de texto"),
    "damaged book": (lambda p: write(p / "a.xlsx", b"PK\x03\x04" + b"a" * 60), "no se puede abrir como libro de Excel"),
    "old xls named csv": (lambda p: write(p / "a.csv", b"\xd0\xcf\x11\xe0" + b"\0" * 600), "Excel 97-2003"),
    "empty sheet": (lambda p: empty_sheet(p / "a.xlsx"), "La hoja «Hoja1» de"),
    "unclosed quote": (
        lambda p: write(p / "a.csv", b'descripcion,prioridad\n"fuga,1\nruido,2\n"a, b",3\n'),
        "línea 2: una comilla se abre y no se cierra",
    ),
    "more cells than titles": (lambda p: write(p / "a.csv", b"a,b\n1,2,3\n4,5,6\n"), "más celdas que títulos"),
    "titles that differ only in spaces": (
        lambda p: write(p / "a.csv", b"descripcion,prioridad,prioridad \nfuga,1,2\n"),
        "solo se distinguen por espacios: «prioridad»",
    ),
    "very long first line": (lambda p: write(p / "a.csv", b"a" * 200_000 + b"\nfuga\n"), "descripcion"),
    "not utf-8 nor cp1252": (lambda p: write(p / "a.csv", b"descripcion\n\xff\x81\x8d\n"), "ni Windows-1252"),
}

OPTIONS = {
    "negative epochs": (["--epochs", "-1"], "epochs = -1"),
    "unknown recipe": (["--recipe", "rapida"], "La receta «rapida» no existe"),
    "unknown encoder": (["--model", "betto"], "«betto»"),
    "folder that is no encoder": (["--model", "."], "no es un codificador"),
    "unknown precision": (["--precision", "fp8"], "«fp8» no existe"),
    "tf32 without a suitable gpu": (["--precision", "tf32"], "tf32"),
    "unknown monitor": (["--monitor", "f1_causa"], "«f1_causa» no existe"),
    "unknown column in --columns": (["--columns", "causa", "no hay"], "«no hay» no existe"),
    "unknown role in --columns": (["--columns", "motivo", "causa_falla"], "«motivo» no existe"),
    "too many frozen layers": (["--freeze-layers", "5"], "tiene 4 capas"),
}


def train(capsys, *arguments):
    code = cli.main(["train", "--model", "tiny", "--freeze-layers", "1", "--epochs", "1", *map(str, arguments)])
    said = capsys.readouterr().err.strip()
    assert code == 1
    assert "Traceback" not in said
    assert len(said.splitlines()) == 1
    return said


@pytest.mark.parametrize("case", FILES)
def test_train_with_invalid_data_file_prints_one_line_error(case, tmp_path, capsys):
    make, words = FILES[case]
    assert words in train(capsys, "--data", make(tmp_path), "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("case", OPTIONS)
def test_train_with_invalid_option_prints_one_line_error(case, tmp_path, capsys, csv, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options, words = OPTIONS[case]
    assert words in train(capsys, "--data", csv, "--out", tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


def test_train_with_corrections_that_cannot_be_used_prints_one_line_error(tmp_path, capsys, csv):
    options = ["--data", csv, "--out", tmp_path / "run", "--corrections"]
    assert "No existe el archivo" in train(capsys, *options, tmp_path / "no.csv")
    assert "no es un archivo de correcciones" in train(capsys, *options, csv)
    given = write(tmp_path / "c.csv", b"id_aviso,texto,correcta_modo\n1,fuga,Vibracion\n")
    assert "fila 2: en correcta_modo, la clase «Vibracion» no existe" in train(capsys, *options, given)
    assert not (tmp_path / "run").exists()


def test_review_with_bad_suffix_or_rows_fails_before_predicting(run, csv, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ocensa_nb.evaluation.predictor.Predictor.load", lambda *_: pytest.fail("worked first"))
    review = ["review", "--run", str(run.path), "--data", str(csv), "--out"]
    assert cli.main([*review, str(tmp_path / "r.csv")]) == 1
    assert "el formato pedido es xlsx" in capsys.readouterr().err
    assert cli.main([*review, str(tmp_path / "r.xlsx"), "--rows", "0"]) == 1
    assert "rows = 0: debe ser un número entero, de 1 a 2 000" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_train_with_missing_column_lists_the_existing_columns(tmp_path, capsys):
    data = write(tmp_path / "a.csv", table().rename(columns={"prioridad": "urgencia"}))
    said = train(capsys, "--data", data, "--out", tmp_path / "run")
    assert "descripcion" in said
    assert "urgencia" in said


def test_train_with_unwritable_out_prints_one_line_error(tmp_path, capsys, csv):
    (tmp_path / "file").write_text("mío")
    assert "No se puede escribir" in train(capsys, "--data", csv, "--out", tmp_path / "file" / "run")
    assert "No se puede escribir" in train(capsys, "--data", csv, "--out", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mío"


def test_train_with_out_of_another_run_prints_error_and_keeps_the_run(run, capsys, csv):
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    assert "ya contiene otra corrida" in train(capsys, "--data", csv, "--out", run.path)
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before


def test_predict_with_existing_json_or_bad_suffix_fails_before_predicting(run, csv, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ocensa_nb.evaluation.predict.predict", lambda *_: pytest.fail("worked first"))
    mine = tmp_path / "mío.json"
    mine.write_text("mío")
    predict = ["predict", "--run", str(run.path), "--data", str(csv), "--out"]
    assert cli.main([*predict, str(tmp_path / "p.csv"), "--json", str(mine)]) == 1
    assert "Ya existe" in capsys.readouterr().err
    assert mine.read_text() == "mío"
    assert cli.main([*predict, str(tmp_path / "p.xlsm")]) == 1
    assert "debe terminar en .csv o .xlsx" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluate", "--run", "nada", "--out", "e"], "No existe la carpeta de corrida"),
        (["predict", "--run", "nada", "--data", "a.csv", "--out", "b.csv"], "No existe la carpeta de corrida"),
        (["generate", "--rows", "0", "--out", "a.csv"], "rows = 0"),
        (["review", "--run", "nada", "--data", "a.csv", "--out", "b.xlsx"], "No existe la carpeta de corrida"),
    ],
)
def test_other_verbs_with_invalid_input_exit_1_and_create_nothing(arguments, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 1
    assert words in capsys.readouterr().err
    assert not list(Path().iterdir())


# verb -> options of `train` that its messages name, as such
OF_TRAIN = {"train": set(), "audit": {"--text-fields", "--min-class-count"}, "evaluate": set(), "predict": set()}


@pytest.mark.parametrize("verb", OF_TRAIN)
def test_options_named_in_a_message_are_options_of_the_verb(verb, run, csv, tmp_path, capsys):
    cli.main([verb, "--help"])
    options = set(re.findall(r"--[a-z][a-z_-]*", capsys.readouterr().out))
    notices = pd.read_csv(csv, dtype=str)
    odd = [
        notices.rename(columns={"descripcion": "Qué pasó"}),
        notices.rename(columns={"causa_falla": "Por qué"}),
        notices.assign(causa_falla=[""] * 390 + ["Desgaste"] * 10),
        notices.assign(causa_falla="Desgaste"),
        notices.assign(Familia=notices["familia_equipo"]),
        notices.assign(descripcion=""),
    ]
    arguments = ["--model", "tiny", "--epochs", "1", "--freeze-layers", "1"] if verb == "train" else []
    arguments = ["--run", str(run.path)] if verb in ("evaluate", "predict") else arguments
    for number, table in enumerate(odd):
        data = write(tmp_path / f"{number}.csv", table)
        cli.main([verb, *arguments, "--data", str(data), "--out", str(tmp_path / f"out-{number}")])
    shown = capsys.readouterr()
    named = set(re.findall(r"--[a-z][a-z_-]*", shown.out + shown.err))
    assert "--columns" in named
    assert named <= options | OF_TRAIN[verb]
