"""The command line as its user meets it: exit codes, JSON, nothing heavy loaded in vain."""

import json
import re
import subprocess
import sys

import pandas as pd
import pytest

import ocensa_nb
from ocensa_nb.cli import main as cli
from ocensa_nb.paths import ROOT
from tests.helpers import forked


def ocensa(*arguments):
    """Run a command by a new interpreter."""
    command = [sys.executable, "-m", "ocensa_nb", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", cwd=ROOT, check=False)


@pytest.mark.slow
def test_generate_train_evaluate_and_predict_in_sequence_succeed(tmp_path):
    data, run = tmp_path / "avisos.csv", tmp_path / "run"
    assert forked.run("generate", "--rows", 300, "--seed", 5, "--out", data).returncode == 0

    done = ocensa(
        "train", "--data", data, "--model", "tiny", "--freeze-layers", "-3", "--epochs", 1, "--out", run, "--json", "-"
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)  # stdout is the JSON and nothing else
    assert result["run"] == str(run)
    assert {"modo_f1", "causa_f1", "prioridad_f1"} <= set(result["test"])
    assert (run / "training.gif").exists()
    assert "Filas útiles: 300 de 300" in done.stderr

    done = forked.run("evaluate", "--run", run, "--out", tmp_path / "evaluation", "--json", tmp_path / "e.json")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))["metrics"]
    assert metrics["causa_f1"] == pytest.approx(result["test"]["causa_f1"], abs=1e-6)
    assert (tmp_path / "evaluation/confusion_causa.png").exists()

    predict = ["predict", "--run", run, "--data", ROOT / "data/example_iw69.csv"]
    done = forked.run(*predict, "--out", tmp_path / "p", "--format", "xlsx")
    assert done.returncode == 0, done.stderr
    assert len(pd.read_excel(tmp_path / "p.xlsx")) == 300
    done = forked.run(*predict, "--out", tmp_path / "p.csv", "--format", "xlsx")
    assert done.returncode == 1
    assert "termina en .csv, pero el formato pedido es xlsx" in done.stderr


def test_user_error_prints_only_its_message_and_exits_1():
    done = forked.run("train", "--data", "no-existe.csv", "--model", "tiny")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("No existe el archivo «no-existe.csv».")
    assert len(done.stderr.splitlines()) == 1


# What argparse and tyro say by themselves.
ENGLISH = re.compile(
    r"\b(usage|options?|arguments?|positional|required|default|show|this|help|exit|subcommands?|commands?|choose|from|"
    r"unrecognized|unknown|invalid|choices?|expected|expecting|following|ambiguous|missing|parsing|got|for|see|perhaps|"
    r"did|you|mean|full|helptext|value|str|int|float|conflicts?|not|allowed|with|one|least|the|are)\b",
    re.IGNORECASE,
)


def english_words(text):
    """Return the words of the parser's own English, without the names of options and values."""
    return ENGLISH.findall(re.sub(r"--[\w-]+|«[^»]*»|max_length", "", text))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Falta el comando"),
        (["--json", "-"], "Falta el comando"),
        (["train", "--json"], "--json: falta su valor"),
        (["fly"], "El comando «fly» no existe"),
        (["trian"], "¿Quiso decir «train»?"),
        (["train", "--epochz", "3"], "¿Quiso decir «--epochs»?"),
        (["train", "--epochs", "many"], "no es un número entero"),
        (["train", "--epochs"], "--epochs: falta su valor"),
        (["train", "--recipe"], "--recipe: falta su valor"),
        (["train", "--cls-only", "maybe"], "escriba True o False"),
        (["train", "avisos.csv"], "«avisos.csv» sobra"),
        (["train", "--heads", "causa"], "se esperan pares NOMBRE VALOR"),
        (["evaluate"], "Faltan opciones obligatorias: --run, --out"),
        (["predict", "--run", "a", "--data", "b"], "Indique --data y --out"),
    ],
)
def test_bad_arguments_are_exit_code_2_and_a_spanish_message(arguments, message, capsys):
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err.splitlines()[0]
    assert err.splitlines()[1].startswith("Ayuda: python -m ocensa_nb")
    assert not english_words(err)


@pytest.mark.parametrize("columns", ["20", "80", "300"])
@pytest.mark.parametrize("verb", ["", *cli.VERBS])
def test_help_is_spanish_at_any_width(verb, columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    assert cli.main([*filter(None, [verb]), "--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith(f"Uso: python -m ocensa_nb {verb or 'COMANDO'}")
    assert "Opciones:" in out
    assert not english_words(out)


def test_help_without_a_terminal_is_80_columns_wide_and_names_json():
    for verb in cli.VERBS:
        done = forked.run(verb, "--help")  # into a file, without a terminal
        assert done.returncode == 0
        assert max(map(len, done.stdout.splitlines())) <= 80
        assert "--json" in done.stdout


def test_help_with_recipe_shows_config_fields_and_recipe_defaults():
    text = " ".join(ocensa("train", "--help", "--recipe", "baseline").stdout.split())
    assert "--gradient-accumulation-steps ENTERO" in text
    assert "tasa de aprendizaje del codificador" in text
    assert "(por omisión: 256)" in text


def test_train_options_override_the_recipe(tmp_path):
    done = forked.run(
        "train", "--recipe", "baseline", "--epochs", "-4", "--class-weights", "False", "--heads", "causa", "1.0"
    )
    assert (done.returncode, done.stderr.strip()) == (1, "epochs = -4: debe ser un número entero, de 1 a 1 000 000.")


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
