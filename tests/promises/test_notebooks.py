"""Notebooks: format and conventions, execution by papermill, errors and interrupts."""

import ast
import time
from pathlib import Path

import nbformat
import pytest

from ocensa_nb.data import synthetic
from ocensa_nb.errors import UserError
from ocensa_nb.notebook import suite
from ocensa_nb.paths import ROOT
from ocensa_nb.runs.run import Run
from tests.helpers import hostile_html

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def read(path):
    return nbformat.read(path, as_version=4)


def code_lines(cell):
    """Return the lines of a cell that are neither blank nor a comment, such as the texts of a form of Colab."""
    return [line for line in cell.source.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestEveryNotebook:
    def test_notebook_is_valid_without_outputs_for_kernel_python3(self, path):
        notebook = read(path)
        nbformat.validate(notebook)
        assert notebook.metadata.kernelspec.name == "python3"
        for cell in notebook.cells:
            assert not cell.get("outputs")
            assert cell.get("execution_count") is None

    def test_notebook_has_the_common_set_up_cell(self, path):
        setup = next(cell for cell in read(path).cells if cell.cell_type == "code")
        assert setup.source == next(c for c in read(NOTEBOOKS[0]).cells if c.cell_type == "code").source
        address, *code = code_lines(setup)
        assert address.startswith("REPOSITORY = ")
        assert len(code) <= 6

    def test_notebook_has_one_parameters_cell_of_scalars(self, path):
        tagged = [cell for cell in read(path).cells if "parameters" in cell.metadata.get("tags", [])]
        assert len(tagged) == 1
        for statement in ast.parse(tagged[0].source).body:
            value = ast.literal_eval(statement.value)
            assert value is None or isinstance(value, str | int | float | bool)

    def test_notebook_last_cell_links_to_an_existing_notebook(self, path):
        last = read(path).cells[-1]
        target = last.source.rsplit("](", 1)[1].split(")")[0]
        assert (path.parent / target).exists()

    def test_notebook_defines_no_functions_and_has_short_cells(self, path):
        _, *cells = [cell for cell in read(path).cells if cell.cell_type == "code"]  # the set-up cell runs alone
        for cell in cells:
            tree = ast.parse(cell.source)
            assert not any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in ast.walk(tree))
            assert len(code_lines(cell)) <= 25


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Return the results of the one suite of these tests, on hostile notices."""
    folder = tmp_path_factory.mktemp("suite")
    data = hostile_html.write_notices(folder)
    return suite.suite(folder / "demo", {"model": "tiny", "data": str(data), "epochs": 1, "freeze_layers": 1})


def test_suite_executes_all_notebooks_and_returns_metrics_times_and_html(results):
    folder = Path(results["out"])
    assert tuple(results["seconds"]) == suite.SUITE
    for name in results["seconds"]:
        assert "<html" in (folder / f"{name}.html").read_text(encoding="utf-8")
    run = Run.load(results["run"])
    assert results["test"] == run.metrics["test"]
    assert run.config.epochs == 1
    assert (run.path / "training.gif").exists()
    assert (folder / "evaluation/metrics.json").exists()
    assert list(suite.results_table(results).index) == ["modo", "causa", "prioridad"]


def test_suite_notebooks_contain_images_and_no_errors(results):
    for name in results["seconds"]:
        outputs = [o for c in read(Path(results["out"]) / f"{name}.ipynb").cells for o in c.get("outputs", [])]
        assert not any(o.output_type == "error" for o in outputs)
        kinds = {kind for o in outputs for kind in o.get("data", {})}
        if name.startswith(("02", "04")):
            assert "image/png" in kinds
    assert "data:image/gif" in (Path(results["out"]) / "03_train.html").read_text(encoding="utf-8")


def test_html_in_notices_labels_and_paths_is_escaped_in_notebooks(results):
    for name in ("02_token_length_analysis", "03_train", "04_evaluate"):
        page = hostile_html.Dangers((Path(results["out"]) / f"{name}.html").read_text(encoding="utf-8"))
        assert not page.found, name
        assert "onerror=alert(" in page.text, name


def test_suite_notebook_03_shows_the_messages_of_the_training_once(results):
    cells = read(Path(results["out"]) / "03_train.ipynb").cells
    text = "".join(o.get("text", "") for c in cells for o in c.get("outputs", []))
    for message in ("Tiempo previsto: ", "Época 1: pérdida ", "Parámetros: "):
        assert text.count(message) == 1, message


def test_execute_notebook_with_user_error_shows_its_message_without_traceback(tmp_path):
    with pytest.raises(UserError, match=r"04_evaluate se detuvo\. No existe la carpeta de corrida"):
        suite.execute(NOTEBOOKS[3], tmp_path, {"run": str(tmp_path / "nada")})
    outputs = [o for c in read(tmp_path / "04_evaluate.ipynb").cells for o in c.get("outputs", [])]
    error = next(o for o in outputs if o.output_type == "error" and o.ename == "UserError")
    assert len(error.traceback) == 1
    assert (tmp_path / "04_evaluate.html").exists()


@pytest.mark.slow
def test_execute_notebook_05_shows_tables_and_images(csv, tmp_path):
    out = tmp_path / "comparison"
    parameters = {"model": "tiny", "data": str(csv), "steps": 1, "out": str(out)}
    executed = suite.execute(ROOT / "notebooks/05_compare_optimizations.ipynb", tmp_path, parameters)
    outputs = [o for c in read(executed).cells for o in c.get("outputs", [])]
    assert sum("image/png" in o.get("data", {}) for o in outputs) == 2
    assert sum("text/html" in o.get("data", {}) for o in outputs) >= 2
    assert (out / "compare.json").exists()


@pytest.mark.slow
def test_execute_notebook_06_shows_ranges_images_and_saves_the_lists(csv, tmp_path):
    out = tmp_path / "auditoria"
    executed = suite.execute(
        ROOT / "notebooks/06_label_audit.ipynb", tmp_path, {"data": str(csv), "heads": "modo, causa", "out": str(out)}
    )
    outputs = [o for c in read(executed).cells for o in c.get("outputs", [])]
    assert sum("image/png" in o.get("data", {}) for o in outputs) == 3
    assert any("F1 esperado en prueba" in o.get("text", "") for o in outputs)
    assert (out / "review_causa.xlsx").exists()


@pytest.mark.slow
def test_execute_notebook_06_without_a_measurable_label_says_so(tmp_path):
    synthetic.write_csv(synthetic.generate(5, seed=1), tmp_path / "avisos.csv")
    parameters = {"data": str(tmp_path / "avisos.csv"), "heads": "modo"}
    executed = suite.execute(ROOT / "notebooks/06_label_audit.ipynb", tmp_path, parameters)
    printed = "".join(o.get("text", "") for c in read(executed).cells for o in c.get("outputs", []))
    assert "No hay ninguna etiqueta que mostrar." in printed
    assert "Ninguna etiqueta se puede medir." in printed


@pytest.mark.slow
def test_execute_notebook_07_shows_tables_and_saves_the_workbook(run, tmp_path):
    out = tmp_path / "revision.xlsx"
    parameters = {"run": str(run.path), "rows": 15, "out": str(out)}
    executed = suite.execute(ROOT / "notebooks/07_review.ipynb", tmp_path, parameters)
    outputs = [o for c in read(executed).cells for o in c.get("outputs", [])]
    assert sum("text/html" in o.get("data", {}) for o in outputs) == 8  # four and three labels, and the notices
    assert "--corrections" in "".join(o.get("text", "") for o in outputs)
    assert out.exists()


@pytest.mark.slow
def test_kernel_interrupt_during_fit_saves_a_checkpoint_and_shows_one_message(csv, tmp_path):
    from jupyter_client.manager import start_new_kernel

    out = tmp_path / "run"
    settings = {"model": "tiny", "data": str(csv), "out": str(out), "epochs": 500, "patience": 500}
    settings |= {"precision": "fp32", "freeze_layers": 1}
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(ROOT))
    try:
        client.execute("from ocensa_nb import config, fit\n" + f"run = fit(config.from_recipe('cpu', {settings!r}))")
        end = time.monotonic() + 120
        while not (out / "history.jsonl").exists():
            assert time.monotonic() < end
            time.sleep(0.1)
        manager.interrupt_kernel()  # as the stop button does
        reply = client.get_shell_msg(timeout=60)["content"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert reply["ename"] == "AskedToStopError"
    assert len(reply["traceback"]) == 1
    assert f"⛔ Entrenamiento detenido; el avance quedó guardado en «{out}»" in reply["traceback"][0]
    assert (out / "last/checkpoint.safetensors").exists()
