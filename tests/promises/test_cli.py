"""Command line in subprocesses: verbs, exit codes, JSON, help, and lazy imports."""

import json
import subprocess
import sys

import pandas as pd
import pytest

import ocensa_nb
from ocensa_nb.paths import ROOT


def ocensa(*arguments):
    command = [sys.executable, "-m", "ocensa_nb", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", cwd=ROOT, check=False)


def test_generate_train_evaluate_and_predict_in_sequence_succeed(tmp_path):
    data, run = tmp_path / "avisos.csv", tmp_path / "run"
    assert ocensa("generate", "--rows", 300, "--seed", 5, "--out", data).returncode == 0

    done = ocensa("train", "--data", data, "--model", "tiny", "--epochs", 1, "--out", run, "--json", "-")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)  # stdout contains only the JSON
    assert result["run"] == str(run)
    assert {"modo_f1", "causa_f1", "prioridad_f1"} <= set(result["test"])
    assert (run / "training.gif").exists()
    assert "Filas útiles: 300 de 300" in done.stderr

    done = ocensa("evaluate", "--run", run, "--out", tmp_path / "evaluation", "--json", tmp_path / "e.json")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))["metrics"]
    assert metrics["causa_f1"] == pytest.approx(result["test"]["causa_f1"], abs=1e-6)
    assert (tmp_path / "evaluation/confusion_causa.png").exists()

    done = ocensa("predict", "--run", run, "--data", ROOT / "data/example_iw69.csv", "--out", tmp_path / "p.csv")
    assert done.returncode == 0, done.stderr
    assert len(pd.read_csv(tmp_path / "p.csv")) == 300


def test_user_error_prints_only_its_message_and_exits_1():
    done = ocensa("train", "--data", "no-existe.csv", "--model", "tiny")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("No existe el archivo «no-existe.csv».")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments", [["fly"], ["train", "--epochz", "3"], ["train", "--epochs", "many"], ["evaluate"]]
)
def test_invalid_arguments_exit_2(arguments):
    assert ocensa(*arguments).returncode == 2


def test_help_with_recipe_shows_config_fields_and_recipe_defaults():
    text = ocensa("train", "--help", "--recipe", "baseline").stdout
    assert "--gradient-accumulation-steps INT" in text
    assert "tasa de aprendizaje del codificador" in text
    assert "default: 256" in text


def test_train_options_override_the_recipe(tmp_path):
    done = ocensa(
        "train", "--recipe", "baseline", "--epochs", "-4", "--class-weights", "False", "--heads", "causa", "1.0"
    )
    assert (done.returncode, done.stderr.strip()) == (1, "epochs = -4: debe ser un número entero, 1 como mínimo.")


def test_import_of_package_does_not_import_heavy_modules():
    heavy = ("torch", "transformers", "matplotlib", "pandas")
    program = f"import ocensa_nb, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["Run", "TrainConfig", "evaluate", "fit", "load_notices", "predict"])
def test_public_name_of_the_package_is_its_function_or_class(name):
    assert getattr(ocensa_nb, name).__name__ == name
    assert name in dir(ocensa_nb)


def test_unknown_name_of_the_package_raises_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = ocensa_nb.no_such_name
