"""Round trip of a config through the command line and through papermill parameters."""

import shlex

import nbformat
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ocensa_nb.cli import main as cli
from ocensa_nb.config import RECIPES
from ocensa_nb.errors import UserError
from ocensa_nb.paths import ROOT
from ocensa_nb.runtime import commands
from ocensa_nb.runtime.machine import configure

CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "model": st.sampled_from(["tiny", "beto", "mi carpeta/modelo ñ", "it's"]),
        "data": st.sampled_from(["", "avisos 2024.csv", "C:\\datos\\a.xlsx"]),
        "max_length": st.integers(4, 512),
        "freeze_layers": st.integers(0, 12),
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

    def note(config, recipe):
        seen.update(config=config, recipe=recipe)
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
    assert parameters.pop("interactive") is False
    more = commands.parse_settings(parameters.pop("more_settings", ""))
    assert configure(parameters.pop("recipe"), {**parameters, **more}).to_dict() == config.to_dict()


def test_notebook_03_has_every_parameter_of_the_papermill_line():
    notebook = nbformat.read(ROOT / "notebooks/03_train.ipynb", as_version=4)
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    names = {line.split(" = ")[0] for line in cell.source.splitlines()}
    assert {*commands.PARAMETERS, "recipe", "interactive", "more_settings"} <= names


@pytest.mark.parametrize("text", ["{", "[1]", "nada", "1", "{'columns': 1}"])
def test_parse_settings_without_json_object_raises_user_error(text):
    with pytest.raises(UserError, match="objeto JSON"):
        commands.parse_settings(text)
