"""Round trip of a config through the command line and through papermill parameters."""

import shlex
from types import SimpleNamespace

import nbformat
import papermill
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ocensa_nb.cli import main as cli
from ocensa_nb.config import RECIPES
from ocensa_nb.errors import UserError
from ocensa_nb.notebook import suite
from ocensa_nb.paths import ROOT
from ocensa_nb.runtime import commands
from ocensa_nb.runtime.machine import configure

CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "model": st.sampled_from(["tiny", "beto", "mi carpeta/modelo ñ", "it's"]),
        "data": st.sampled_from(["", "avisos 2024.csv", "C:\\datos\\a.xlsx"]),
        "max_length": st.integers(4, 512),
        "freeze_layers": st.integers(-12, 12),
        "batch_size": st.integers(1, 128),
        "precision": st.sampled_from(["auto", "fp32", "bf16"]),
        "padding": st.sampled_from(["dynamic", "max_length"]),
        "cls_only": st.booleans(),
        "cache_features": st.booleans(),
        "class_weights": st.booleans(),
        "label_smoothing": st.floats(0, 0.5),
        "text_fields": st.sampled_from([("equipo",), ("equipo", "problema")]),
        "columns": st.sampled_from([{}, {"causa": "Mi «columna» rara"}]),
        "heads": st.sampled_from([{"causa": 1.0}, {"causa": 0.3, "modo": 0.7}]),
    },
)


@settings(max_examples=40, deadline=None)
@given(recipe=st.sampled_from(sorted(RECIPES)), changes=CHANGES)
def test_command_line_parsed_by_the_cli_gives_the_same_config(recipe, changes):
    config = configure(recipe, changes)
    seen = {}

    def note(recipe: str, **fields):
        seen.update(config=configure(recipe, fields), recipe=recipe)
        return {}

    words = shlex.split(commands.command_line(config, recipe))
    assert words[:3] == ["python", "-m", "ocensa_nb"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cli.VERBS, "train", note)
        assert cli.main(words[3:]) == 0
    assert seen["config"].to_dict() == config.to_dict()
    assert seen["recipe"] == recipe


@settings(max_examples=40, deadline=None)
@given(recipe=st.sampled_from(sorted(RECIPES)), changes=CHANGES)
def test_papermill_line_parsed_as_in_notebook_03_gives_the_same_config(recipe, changes):
    config = configure(recipe, changes)
    words = shlex.split(commands.papermill_line(config, recipe))
    assert words[:2] == ["papermill", "notebooks/03_train.ipynb"]
    parameters = yaml.safe_load(words[words.index("-y") + 1])
    assert parameters["interactive"] is False
    more = commands.parse_settings(parameters["more_settings"])
    own = {name: parameters[name] for name in commands.PARAMETERS}
    assert configure(parameters["recipe"], {**own, **more}).to_dict() == config.to_dict()


SAVED = {  # by a user in the form of notebook 03, each other than the default
    **{"model": "beto", "data": "otros.csv", "out": "otra", "upload": True, "mount_drive": True, "recipe": "t4"},
    **{"epochs": 99, "seed": 9},
    **{"more_settings": '{"dropout": 0.9, "columns": {"causa": "Otra"}}', "resume": "never", "interactive": True},
}


@pytest.mark.parametrize("name", suite.SUITE)
def test_suite_gives_every_parameter_of_each_notebook(name, tmp_path):
    known = papermill.inspect_notebook(str(ROOT / f"notebooks/{name}.ipynb"))
    assert known.keys() <= suite.suite_parameters(tmp_path, {"epochs": 1})[name].keys()


def test_notebook_03_with_all_its_defaults_changed_trains_with_the_config_of_the_program(tmp_path):
    cells = nbformat.read(ROOT / "notebooks/03_train.ipynb", as_version=4).cells
    form = next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))
    reading = next(cell.source for cell in cells if "config = machine.configure(" in cell.source)
    reading = reading.partition("\nnotices = ")[0]
    names = {}
    exec(form, names)
    assert {name for name in names if not name.startswith("__")} == SAVED.keys()
    assert all(names[name] != value for name, value in SAVED.items())
    names.update(SAVED)
    config = configure("cpu", {"data": str(tmp_path / "avisos.csv"), "out": "casos/uno", "heads": {"causa": 1.0}})
    names.update(commands.training_parameters(config, "cpu"))
    names["session"] = SimpleNamespace(
        runs_folder=lambda on_drive: "runs", cautions=lambda on_drive: [], placed=lambda path, on_drive: path
    )
    exec(reading, names)
    assert names["config"] == config


def test_parse_settings_takes_the_mapping_of_papermills_y():
    settings = yaml.safe_load("{more_settings: {columns: {causa: Mi columna}}}")["more_settings"]
    assert commands.parse_settings(settings) == {"columns": {"causa": "Mi columna"}}


@pytest.mark.parametrize("text", ["{", "[1]", "nada", "1", "{'columns': 1}", 5, ["columns"]])
def test_parse_settings_without_json_object_raises_user_error(text):
    with pytest.raises(UserError, match="objeto JSON"):
        commands.parse_settings(text)
