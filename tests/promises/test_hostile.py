"""Malicious files: no code is executed, no limit is exceeded, no file is written outside its folder."""

import ast
import csv
import dataclasses
import io
import itertools
import json
import pickle
import re
import shutil
import struct
import zipfile
from pathlib import Path

import ipywidgets as ipw
import numpy as np
import openpyxl
import pandas as pd
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from ocensa_nb.cli import main as cli
from ocensa_nb.data import notices, synthetic
from ocensa_nb.errors import CONTROL, UserError
from ocensa_nb.evaluation import evaluate, predict
from ocensa_nb.evaluation.evaluate import Evaluation
from ocensa_nb.evaluation.metrics import Predictions
from ocensa_nb.figures import quality, style
from ocensa_nb.files import read_excel, write
from ocensa_nb.models import save as saved_model
from ocensa_nb.notebook import train_panel as widgets
from ocensa_nb.paths import ROOT
from ocensa_nb.runs import manifest
from ocensa_nb.runs.manifest import ENCODER, HEADS, LABELS
from ocensa_nb.runs.run import Run
from tests.helpers.hostile_html import EVIL, Dangers

DANGEROUS = {  # cell -> written cell
    "=1+1": "'=1+1",
    "+cmd|' /C calc'!A0": "'+cmd|' /C calc'!A0",
    "-2+3+cmd|x": "'-2+3+cmd|x",
    "@SUM(A1)": "'@SUM(A1)",
    "\t=1": "\t'=1",
    " =HYPERLINK(1)": " '=HYPERLINK(1)",
    "＝1+1": "'＝1+1",
    "=": "'=",
    "-x": "'-x",
    "fuga;=1+1": "fuga;'=1+1",
    "fuga\n@SUM(A1)": "fuga\n'@SUM(A1)",
    "fuga\t +1": "fuga\t '+1",
    "fuga|=1": "fuga|'=1",
    "fuga, =1": "fuga, '=1",
    'fuga,"=1"': 'fuga,"\'=1"',
}
HARMLESS = ["a-b; c", "a, b", "-5", "+3,5", "-1.234,56", "-12 %", "1e-3", "-", "---", "fuga", "", "a=b", "-1.5E-10"]


@pytest.fixture
def copy(run, tmp_path):
    return Path(shutil.copytree(run.path, tmp_path / "run"))


class TestPickleAndCode:
    def test_package_imports_no_unpickler(self):
        unpicklers = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal"}
        calls = {"load", "read_pickle", "to_pickle"}
        modules = list((ROOT / "ocensa_nb").rglob("*.py"))
        assert len(modules) > 80
        for path in modules:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    named = {alias.name.split(".")[0] for alias in node.names} | {getattr(node, "module", "") or ""}
                    assert not named & unpicklers, path.name
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in calls:
                    owner = ast.unparse(node.func.value)
                    assert owner not in ("torch", "np", "numpy", "pd", "pandas"), f"{path.name}: {owner}.load"

    def test_load_run_with_pickled_encoder_weights_raises_user_error(self, copy):
        (copy / ENCODER / "model.safetensors").rename(copy / ENCODER / "pytorch_model.bin")
        with pytest.raises(UserError, match="encoder/"):
            Run.load(copy)

    def test_load_encoder_with_malicious_pickle_executes_nothing(self, run, tmp_path):
        from ocensa_nb.models.catalogue import load_encoder, load_tokenizer

        class Evil:
            def __reduce__(self):
                return Path.touch, (tmp_path / "ran",)

        folder = Path(shutil.copytree(run.path / ENCODER, tmp_path / "encoder"))
        (folder / "model.safetensors").unlink()
        for save in (lambda file: file.write_bytes(pickle.dumps(Evil())), lambda file: torch.save({"a": Evil()}, file)):
            save(folder / "pytorch_model.bin")
            with pytest.raises(UserError, match="No se pudo cargar el codificador"):
                load_encoder(str(folder), load_tokenizer(str(run.path / ENCODER)))
            assert not (tmp_path / "ran").exists()

    def test_load_encoder_with_auto_map_code_executes_nothing(self, run, tmp_path):
        from ocensa_nb.models.catalogue import load_encoder, load_tokenizer

        folder = Path(shutil.copytree(run.path / ENCODER, tmp_path / "encoder"))
        (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
        config = json.loads((folder / "config.json").read_text())
        own = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.C", "AutoModel": "evil.M"}}
        (folder / "config.json").write_text(json.dumps(config | own))
        with pytest.raises(UserError):
            load_encoder(str(folder), load_tokenizer(str(run.path / ENCODER)))
        assert not (tmp_path / "ran").exists()


class TestTamperedRun:
    @pytest.mark.parametrize("name", [".DS_Store", "desktop.ini", "Thumbs.db"])
    def test_load_run_with_file_manager_metadata_is_accepted(self, copy, name):
        (copy / ENCODER / name).write_bytes(b"x")
        assert Run.load(copy)

    @pytest.mark.parametrize("name", [HEADS, f"{ENCODER}/model.safetensors", f"{ENCODER}/tokenizer.json"])
    @pytest.mark.parametrize("how", ["flipped bit", "truncated", "extended"])
    def test_load_run_with_damaged_weights_or_tokenizer_names_the_file(self, copy, name, how):
        content = bytearray((copy / name).read_bytes())
        if how == "flipped bit":
            content[len(content) // 2] ^= 1
        (copy / name).write_bytes(content[:-1] if how == "truncated" else content + b"\0" * (how == "extended"))
        with pytest.raises(UserError, match=f"{name}.*no es el que se guardó"):
            Run.load(copy)

    def test_load_model_with_weights_of_another_shape_and_valid_manifest_raises(self, copy):
        from ocensa_nb.files import tensors

        own, _ = tensors.read(copy / HEADS)
        name = next(iter(own))
        tensors.write(copy / HEADS, own | {name: own[name][:1].clone()})
        manifest.write(copy)
        with pytest.raises(UserError, match="no son los de esta corrida"):
            saved_model.load_model(Run.load(copy))

    def test_load_run_with_extra_file_or_reordered_classes_names_the_file(self, copy):
        (copy / ENCODER / "extra.json").write_text("{}")
        with pytest.raises(UserError, match=r"encoder/extra\.json"):
            Run.load(copy)
        (copy / ENCODER / "extra.json").unlink()
        classes = json.loads((copy / LABELS).read_text(encoding="utf-8"))
        classes["causa"].reverse()
        (copy / LABELS).write_text(json.dumps(classes), encoding="utf-8")
        with pytest.raises(UserError, match=LABELS):
            Run.load(copy)

    def test_load_run_with_path_traversal_in_head_name_raises_user_error(self, copy):
        classes = json.loads((copy / LABELS).read_text(encoding="utf-8"))
        classes["../../fuera"] = classes.pop("modo")
        (copy / LABELS).write_text(json.dumps(classes), encoding="utf-8")
        manifest.write(copy)
        with pytest.raises(UserError, match="dañado"):
            Run.load(copy)


class TestSpreadsheetFormulas:
    @pytest.mark.parametrize("suffix", [".csv", ".xlsx"])
    def test_write_table_neutralises_formulas_in_cells_and_titles_and_keeps_numbers(self, tmp_path, suffix):
        column = [*DANGEROUS, *HARMLESS]
        table = pd.DataFrame({"texto": column, "=titulo()": column, "n": range(-3, len(column) - 3)})
        path = write.write_table(table, tmp_path / f"a{suffix}")
        if suffix == ".csv":
            back = pd.read_csv(path, dtype=str, keep_default_na=False)
            assert list(back["texto"]) == [*DANGEROUS.values(), *HARMLESS]
            assert list(back.columns) == ["texto", "'=titulo()", "n"]
            assert list(back["n"]) == [str(number) for number in table["n"]]
        else:
            cells = [cell for row in openpyxl.load_workbook(path).active.iter_rows() for cell in row]
            assert not any(cell.data_type == "f" for cell in cells)
            assert [cell.value or "" for cell in cells if cell.column == 1][1:] == column
            assert all(cell.quotePrefix for cell in cells if str(cell.value).startswith("="))

    @given(st.text(st.sampled_from("a1=+-@,;|\"\t\r\n '") | st.characters(codec="utf-8"), max_size=12))
    @example("x,=1+1")
    @example('x,"=1+1"')
    def test_inert_text_starts_no_formula_at_any_separator_that_the_file_is_split_at(self, text):
        table = write.inert(pd.DataFrame({"n": ["x"], "a": [text]}))
        assert table["a"][0].replace("'", "") == text.replace("'", "")
        for own, other in itertools.product(",;\t|", repeat=2):
            written = table.to_csv(sep=own, index=False, lineterminator="\n")
            cells = itertools.chain(*csv.reader(io.StringIO(written, newline=""), delimiter=other))
            signed = [cell.strip() for cell in cells if cell.strip().startswith(("=", "+", "-", "@"))]
            for cell in signed:  # only numbers may start so
                assert not any(character.isalpha() and character not in "eE" for character in cell), (own, other)
                assert not set(cell) & set("()=@|!'"), (own, other)

    def test_predict_and_evaluate_write_no_formulas(self, run, tmp_path):
        source = synthetic.generate(40, seed=5).assign(nota="=cmd|' /C calc'!A0")
        source["descripcion"] = "=HYPERLINK(1) " + source["descripcion"]
        source.to_csv(tmp_path / "a.csv", index=False)
        hostile = {head: [f"={name}" for name in names] for head, names in run.classes.items()}
        path = predict.save(
            predict.predict(dataclasses.replace(run, classes=hostile), tmp_path / "a.csv"), tmp_path / "p.csv"
        )
        folder = evaluate.evaluate(run, tmp_path / "a.csv").save(tmp_path / "e")
        for file in (path, *folder.glob("*.csv")):
            back = pd.read_csv(file, dtype=str, keep_default_na=False).drop(columns=source.columns, errors="ignore")
            assert not back.apply(lambda column: column.str.startswith("=")).any(axis=None), file.name

    @pytest.mark.parametrize(
        ("text", "written"),
        [("x" * 40_000, "x" * 32_767), ("a\x0bb", "a b"), ("a\uffff\ufffeb", "a  b"), ("a\ud800", "a ")],
    )
    def test_write_xlsx_with_a_text_that_excel_does_not_take_names_its_row(self, tmp_path, capsys, text, written):
        path = write.write_table(pd.DataFrame({"a": ["bien", text]}), tmp_path / "a.xlsx")
        assert openpyxl.load_workbook(path).active["A3"].value == written
        assert "cortadas: 1 (la primera, la 3)." in capsys.readouterr().out


SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"


class TestWorkbookBombs:
    @staticmethod
    def rewritten(path, name, content):
        """Replace the content of one member of a workbook."""
        with zipfile.ZipFile(path) as book:
            members = {member: book.read(member) for member in book.namelist()} | {name: content}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as book:
            for member, data in members.items():
                book.writestr(member, data)
        return path

    def with_shared_strings(self, book):
        """Add an empty part of shared strings, which openpyxl does not write."""
        with zipfile.ZipFile(book) as archive:
            types = archive.read("[Content_Types].xml").decode()
        kind = "application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"
        shared = f'<Override PartName="/xl/sharedStrings.xml" ContentType="{kind}"/></Types>'
        self.rewritten(book, "[Content_Types].xml", types.replace("</Types>", shared))
        self.rewritten(book, "xl/sharedStrings.xml", f'<sst xmlns="{SHEET}"/>')

    @pytest.fixture
    def book(self, tmp_path):
        synthetic.generate(20, seed=1).to_excel(tmp_path / "a.xlsx", index=False)
        return tmp_path / "a.xlsx"

    def test_read_xlsx_over_unpacked_size_limit_raises_before_unpacking(self, book, monkeypatch):
        monkeypatch.setattr(read_excel, "MAX_UNPACKED", 2**20)
        self.rewritten(book, "xl/sharedStrings.xml", b" " * 2**21)
        monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("unpacked"))
        with pytest.raises(UserError, match="GiB al abrirlo"):
            notices.read(book)

    def test_read_xlsx_with_false_declared_size_raises_user_error(self, book):
        self.rewritten(book, "xl/worksheets/sheet1.xml", b" " * 2**22)
        content = bytearray(book.read_bytes())
        small = struct.pack("<I", 100)
        for at in (i for i in range(len(content) - 4) if content[i : i + 4] == struct.pack("<I", 2**22)):
            content[at : at + 4] = small
        book.write_bytes(content)
        with pytest.raises(UserError, match="no se puede abrir como libro"):
            notices.read(book)

    @pytest.mark.parametrize("form", ["plain", "single quotes", "UTF-16", "entity", "far below"])
    def test_read_xlsx_with_cells_at_far_corners_raises_user_error(self, book, form):
        row = "9" * 15 if form == "far below" else "1048576"
        sheet = (
            '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'
            '<row r="1"><c r="XFD1" t="inlineStr"><is><t>a</t></is></c></row>'
            f'<row r="{row}"><c r="A{row}" t="inlineStr"><is><t>a</t></is></c></row></sheetData></worksheet>'
        )
        if form == "far below":
            sheet = sheet.replace("XFD1", "A1")
        if form == "single quotes":
            sheet = sheet.replace('"', "'")
        if form == "entity":
            sheet = sheet.replace("XFD1", "&#88;FD1")
        if form == "UTF-16":
            sheet = '<?xml version="1.0" encoding="UTF-16"?>' + sheet
        content = sheet.encode("utf-16" if form == "UTF-16" else "utf-8")
        with pytest.raises(UserError, match=r"filas por .* columnas: suelen ser celdas sueltas"):
            notices.read(self.rewritten(book, "xl/worksheets/sheet1.xml", content))

    def test_read_xlsx_with_long_shared_string_in_many_cells_raises_user_error(self, book, monkeypatch):
        monkeypatch.setattr(read_excel, "MAX_CHARACTERS", 100_000)
        self.with_shared_strings(book)
        texts = f'<sst xmlns="{SHEET}"><si><t>{"a" * 2_000}</t></si></sst>'
        self.rewritten(book, "xl/sharedStrings.xml", texts)
        rows = "".join(f'<row r="{i}"><c r="A{i}" t="s"><v>0</v></c></row>' for i in range(1, 100))
        sheet = f'<worksheet xmlns="{SHEET}"><sheetData>{rows}</sheetData></worksheet>'
        with pytest.raises(UserError, match="más de 100 000 caracteres"):
            notices.read(self.rewritten(book, "xl/worksheets/sheet1.xml", sheet))

    def test_read_xlsx_with_too_many_cells_in_a_row_raises_before_parsing(self, book, monkeypatch):
        monkeypatch.setattr(read_excel, "MAX_ROW_TAGS", 10_000)
        row = '<row r="2">' + "<c/>" * 200_000 + "</row>"
        monkeypatch.setattr("openpyxl.worksheet._reader.WorkSheetParser.parse_row", lambda *_: pytest.fail("parsed"))
        sheet = f'<worksheet xmlns="{SHEET}"><sheetData>{row}</sheetData></worksheet>'
        with pytest.raises(UserError, match="una fila o un texto demasiado largos"):
            notices.read(self.rewritten(book, "xl/worksheets/sheet1.xml", sheet))

    @pytest.mark.parametrize("part", ["xl/worksheets/sheet1.xml", "xl/sharedStrings.xml"])
    def test_read_xlsx_with_too_long_xml_token_raises_user_error(self, part, book, monkeypatch):
        monkeypatch.setattr(read_excel, "MAX_TOKEN", 100_000)
        self.with_shared_strings(book)
        with pytest.raises(UserError, match="demasiado largos"):
            notices.read(self.rewritten(book, part, f'<a xmlns="{SHEET}"><!--{"x" * 500_000}--></a>'))

    def test_read_xlsx_with_wide_rows_below_the_header_raises_user_error(self, book):
        rows = "".join(f'<row r="{i}"><c r="XFD{i}" t="inlineStr"><is><t>a</t></is></c></row>' for i in range(2, 9))
        titles = '<row r="1"><c r="A1" t="inlineStr"><is><t>descripcion</t></is></c></row>'
        sheet = f'<worksheet xmlns="{SHEET}"><sheetData>{titles}{rows}</sheetData></worksheet>'
        with pytest.raises(UserError, match="16 384 columnas"):
            notices.read(self.rewritten(book, "xl/worksheets/sheet1.xml", sheet))

    @pytest.mark.parametrize(
        ("part", "size"), [("xl/styles.xml", 2**25), ("[Content_Types].xml", 2**25), ("xl/workbook.xml", 2**21)]
    )
    def test_read_xlsx_with_huge_metadata_raises_user_error(self, part, size, book):
        content = f'<a xmlns="{SHEET}">' + "<b/>" * (size // 4) + "</a>"
        with pytest.raises(UserError, match="estilos, hojas y nombres"):
            notices.read(self.rewritten(book, part, content))

    def test_read_xlsx_with_distant_formatted_empty_cell_ignores_it(self, tmp_path):
        frame = synthetic.generate(20, seed=1)
        with pd.ExcelWriter(tmp_path / "a.xlsx", engine="openpyxl") as book:
            frame.to_excel(book, index=False)
            book.book.active.cell(5_000, 40).font = openpyxl.styles.Font(bold=True)
        assert len(notices.read(tmp_path / "a.xlsx").table) == 20

    def test_read_ordinary_xlsx_returns_every_row(self, book):
        assert len(notices.read(book).table) == 20


class TestPaths:
    @pytest.mark.parametrize("name", ["a\nb", "a\0b", "../" * 3 + "a\0"])
    @pytest.mark.parametrize("verb", ["train", "predict", "evaluate", "generate"])
    def test_path_with_control_characters_exits_1_for_every_verb(self, capsys, name, verb):
        flags = {
            "train": ["--data", name, "--model", "tiny", "--freeze-layers", "1"],
            "predict": ["--run", name, "--data", "a.csv", "--out", "b.csv"],
            "evaluate": ["--run", name, "--out", "b"],
            "generate": ["--out", name],
        }
        assert cli.main([verb, *flags[verb]]) == 1
        assert "caracteres de control" in capsys.readouterr().err

    def test_save_evaluation_with_hostile_class_names_creates_only_expected_files(self, run, tmp_path):
        names = ["../fuera", "a\0b", "a\nb", "=cmd|x"]
        labels = np.arange(4)
        predictions = {"modo": Predictions(np.ones(4), labels[::-1].copy(), labels)}
        evaluation = Evaluation("x", ["t"] * 4, ["1"] * 4, {"modo": names}, predictions)
        folder = evaluation.save(tmp_path / "inside" / "out")
        assert [path.name for path in tmp_path.iterdir()] == ["inside"]
        assert [path.name for path in (tmp_path / "inside").iterdir()] == ["out"]
        assert {path.name for path in folder.iterdir()} == {
            "metrics.json",
            "per_class_modo.csv",
            "confusion_modo.csv",
            "confused_modo.csv",
            "wrong_modo.csv",
            "predictions.csv",
        }


def test_dangers_parser_finds_every_danger_of_a_hostile_page():
    assert len(Dangers("".join(EVIL[:4])).found) == 4


def test_html_in_labels_and_paths_is_escaped_in_the_panel(config, notices, tmp_path):
    evil = "".join(EVIL[:4])
    classes = {head: [evil + name for name in names] for head, names in notices.classes.items()}
    config = config.replace(out=f"{tmp_path}/{evil[:40]}")
    panel = widgets.control_panel(
        config, dataclasses.replace(notices, classes=classes), "cpu", tmp_path, interactive=True
    )
    panel._tell(measuring=False)
    panel.say(evil)
    shown = [widget for widget in ipw.Widget.widgets.values() if isinstance(widget, ipw.HTML)]
    page = Dangers("".join(widget.value for widget in shown))
    assert not [found for found in page.found if "alert(" in str(found)]
    assert "alert(3)" in page.text


def test_escape_sequences_in_labels_titles_and_texts_are_not_printed(tmp_path, capsys):
    escape = "\x1b]0;x\x07\x9b31m\u202e"
    frame = synthetic.generate(120, seed=4)
    frame["descripcion"] += escape
    frame["causa_falla"] = escape + frame["causa_falla"]
    frame = frame.rename(columns={"familia_equipo": f"{escape}otra"})
    frame.to_csv(tmp_path / "a.csv", index=False)
    arguments = ["train", "--data", str(tmp_path / "a.csv"), "--model", "tiny", "--freeze-layers", "1", "--epochs", "1"]
    assert cli.main([*arguments, "--out", str(tmp_path / "run"), "--columns", "modo", f"{escape}nada"]) == 1
    assert cli.main([*arguments, "--out", str(tmp_path / "run")]) == 0
    assert cli.main(["evaluate", "--run", str(tmp_path / "run"), "--out", str(tmp_path / "e")]) == 0
    said = "".join(capsys.readouterr())
    assert "causa" in said
    assert not re.search(CONTROL, said.replace("\x1b[A", ""))  # written by tqdm


def test_confusion_with_dollar_signs_in_labels_is_drawn_as_text(tmp_path):
    names = [r"$\frac$", "a$b$c", "$"]
    style.save(quality.confusion(pd.DataFrame(np.eye(3), names, names), "Confusión"), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 5_000


def test_read_xlsx_with_nested_xml_entities_raises_user_error(tmp_path):
    path = tmp_path / "a.xlsx"
    synthetic.generate(20, seed=1).to_excel(path, index=False)
    entities = "".join(f'<!ENTITY a{i + 1} "{10 * ("&a" + str(i) + ";")}">' for i in range(9))
    sheet = f'<!DOCTYPE x [<!ENTITY a0 "{"x" * 100}">{entities}]><worksheet>&a9;</worksheet>'
    with pytest.raises(UserError, match="no se puede abrir"):
        notices.read(TestWorkbookBombs.rewritten(path, "xl/worksheets/sheet1.xml", sheet.encode()))
