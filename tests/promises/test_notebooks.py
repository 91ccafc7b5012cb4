"""Notebooks: format and conventions, execution by papermill, errors and interrupts."""

import ast
import base64
import re
import sys
import time
from pathlib import Path

import nbformat
import pytest

from ocensa_nb.data import synthetic
from ocensa_nb.errors import UserError
from ocensa_nb.notebook import suite
from ocensa_nb.paths import ROOT
from ocensa_nb.runs.run import Run
from tests.helpers import forked, hostile_html

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

    def test_pictures_in_the_prose_are_small_and_inside_the_notebook(self, path):
        """Colab shows neither attachments nor files beside a notebook (googlecolab/colabtools#3836)."""
        for cell in read(path).cells:
            for address in re.findall(r"!\[[^\]]+\]\(([^)]*)\)", cell.source) if cell.cell_type == "markdown" else []:
                kind, _, content = address.partition(",")
                assert kind == "data:image/png;base64"
                assert base64.b64decode(content)[1:4] == b"PNG"
                assert len(content) < 50_000

    def test_first_lines_say_time_accelerator_and_the_versions_that_are_tested(self, path):
        first = read(path).cells[0].source.split("\n\n")[1].replace("\n", " ")
        pinned = dict(
            re.findall(r"^(torch|transformers)==([\d.]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
        )
        assert re.match(r"\*\*Tiempo:\*\* .*; en una T4, .*\*\*Acelerador:\*\* .*\*\*Verificado\*\* en ", first)
        assert f"PyTorch {pinned['torch']} y transformers {pinned['transformers']}" in first

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


def outputs(path):
    return [output for cell in read(path).cells for output in cell.get("outputs", [])]


def require_plain_html(notebook):
    """Require that the HTML copy of a notebook shows hostile notices as text."""
    page = hostile_html.Dangers(notebook.with_suffix(".html").read_text(encoding="utf-8"))
    assert not page.found
    assert "onerror=alert(" in page.text


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """Return notebooks 01 to 04, executed as the suite does, on hostile notices; CI has the versions of Colab too."""
    folder = tmp_path_factory.mktemp("executed")
    settings = {"model": "tiny", "data": str(hostile_html.write_notices(folder)), "epochs": 1, "freeze_layers": 1}
    parameters = suite.suite_parameters(folder, settings)
    with forked.processes():
        return [suite.execute(ROOT / f"notebooks/{name}.ipynb", folder, parameters[name]) for name in suite.SUITE[:4]]


def test_notebooks_01_to_04_audit_train_and_evaluate_with_images_and_no_errors(executed):
    for notebook in executed:
        kinds = {kind for output in outputs(notebook) for kind in output.get("data", {})}
        assert not any(output.output_type == "error" for output in outputs(notebook))
        assert "text/html" in kinds
    assert "image/png" in kinds  # of 04
    assert "data:image/gif" in executed[2].with_suffix(".html").read_text(encoding="utf-8")
    assert Run.load(executed[0].parent / "run").config.epochs == 1
    assert (executed[0].parent / "evaluation/metrics.json").exists()


def test_html_in_notices_labels_and_paths_is_escaped_in_notebooks(executed):
    for notebook in executed[1:]:
        require_plain_html(notebook)


def test_notebook_03_shows_the_messages_of_the_training_once(executed):
    text = "".join(output.get("text", "") for output in outputs(executed[2]))
    for message in ("Tiempo previsto: ", "Época 1: pérdida ", "Parámetros: "):
        assert text.count(message) == 1, message


def test_notebook_runs_with_the_interpreter_of_the_command_whatever_is_installed_as_python3(tmp_path, monkeypatch):
    spec = tmp_path / "jupyter/kernels/python3/kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text('{"argv": ["/another/python"], "display_name": "Python 3", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import sys; print(sys.executable)")])
    notebook.metadata.kernelspec = read(NOTEBOOKS[0]).metadata.kernelspec
    nbformat.write(notebook, tmp_path / "probe.ipynb")
    (tmp_path / "out").mkdir()
    executed = suite.execute(tmp_path / "probe.ipynb", tmp_path / "out", {})
    assert outputs(executed)[0].text.strip() == sys.executable


def test_html_copy_hides_the_code_until_it_is_asked_for_and_is_dark_if_the_system_is(executed):
    page = executed[3].with_suffix(".html").read_text(encoding="utf-8")
    assert "body:has(.code:checked) .jp-CodeCell .jp-Cell-inputWrapper { display: flex; }" in page
    assert page.count('class="code"') == page.count('media="screen and (prefers-color-scheme: dark)"') == 1


@pytest.mark.slow
@pytest.mark.usefixtures("quick_processes")
def test_suite_executes_all_notebooks_and_returns_metrics_times_and_html(tmp_path):
    data = hostile_html.write_notices(tmp_path)
    settings = {"model": "tiny", "data": str(data), "epochs": 1, "freeze_layers": 1}
    results = suite.suite(tmp_path / "demo", settings)
    folder = Path(results["out"])
    assert tuple(results["seconds"]) == suite.SUITE
    for name in results["seconds"]:
        assert "<html" in (folder / f"{name}.html").read_text(encoding="utf-8")
        assert not any(output.output_type == "error" for output in outputs(folder / f"{name}.ipynb"))
    tokens = folder / "02_data_audit.ipynb"
    assert any("image/png" in output.get("data", {}) for output in outputs(tokens))
    require_plain_html(tokens)
    run = Run.load(results["run"])
    assert results["test"] == run.metrics["test"]
    assert run.config.epochs == 1
    assert (run.path / "training.gif").exists()
    assert (folder / "evaluation/metrics.json").exists()


def test_execute_notebook_with_user_error_shows_its_message_without_traceback(tmp_path):
    notebook = read(NOTEBOOKS[0])
    stop = "from ocensa_nb.errors import UserError\nraise UserError('No existe la corrida.')"
    notebook.cells = [nbformat.v4.new_code_cell(stop)]
    nbformat.write(notebook, tmp_path / "corto.ipynb")
    (tmp_path / "out").mkdir()
    with forked.processes(), pytest.raises(UserError, match=r"corto se detuvo\. No existe la corrida\."):
        suite.execute(tmp_path / "corto.ipynb", tmp_path / "out", {})
    errors = [output for output in outputs(tmp_path / "out/corto.ipynb") if output.output_type == "error"]
    assert [(error.ename, len(error.traceback)) for error in errors] == [("UserError", 1)]
    assert (tmp_path / "out/corto.html").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("quick_processes")
def test_execute_notebook_02_shows_ranges_images_and_saves_the_lists(csv, tmp_path):
    out = tmp_path / "auditoria"
    executed = suite.execute(
        ROOT / "notebooks/02_data_audit.ipynb", tmp_path, {"data": str(csv), "heads": "modo, causa", "out": str(out)}
    )
    assert sum("image/png" in output.get("data", {}) for output in outputs(executed)) == 4
    assert any("ocensa_nb train --recipe" in output.get("text", "") for output in outputs(executed))
    assert any("F1 esperado en prueba" in output.get("text", "") for output in outputs(executed))
    assert (out / "review_causa.xlsx").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("quick_processes")
def test_execute_notebook_02_without_a_measurable_label_says_so(tmp_path):
    synthetic.write_csv(synthetic.generate(5, seed=1), tmp_path / "avisos.csv")
    parameters = {"data": str(tmp_path / "avisos.csv"), "heads": "modo"}
    executed = suite.execute(ROOT / "notebooks/02_data_audit.ipynb", tmp_path, parameters)
    printed = "".join(output.get("text", "") for output in outputs(executed))
    assert "No hay ninguna etiqueta que mostrar." in printed
    assert "Ninguna etiqueta se puede medir." in printed


@pytest.mark.slow
@pytest.mark.usefixtures("quick_processes")
def test_execute_notebook_06_shows_tables_and_saves_the_workbook(run, tmp_path):
    out = tmp_path / "revision.xlsx"
    parameters = {"run": str(run.path), "rows": 15, "out": str(out)}
    executed = suite.execute(ROOT / "notebooks/06_review.ipynb", tmp_path, parameters)
    kinds = [kind for output in outputs(executed) for kind in output.get("data", {})]
    assert kinds.count("text/html") == 5  # the style of the page, three labels, and the notices
    printed = "".join(output.get("text", "") for output in outputs(executed))
    assert "modo: de " in printed
    assert "--corrections" in printed
    assert out.exists()


@pytest.mark.slow
@pytest.mark.usefixtures("quick_processes")
def test_execute_notebook_09_scores_a_file_and_writes_the_book_and_the_page(run, tmp_path):
    out = tmp_path / "daily"
    executed = suite.execute(ROOT / "notebooks/09_daily_use.ipynb", tmp_path, {"run": str(run.path), "out": str(out)})
    kinds = [kind for output in outputs(executed) for kind in output.get("data", {})]
    assert kinds.count("text/html") == 6  # the style of the page, the models, the decisions, three labels
    printed = "".join(output.get("text", "") for output in outputs(executed))
    assert f"Escrito: {out / 'report.html'}" in printed
    assert sorted(path.name for path in out.iterdir()) == ["predicciones.xlsx", "report.html"]


@pytest.mark.slow
@pytest.mark.usefixtures("quick_processes")
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
