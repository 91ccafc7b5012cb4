"""The parameters cells, read by papermill and by Colab's forms, which need not be executed to be understood.

Colab's forms are documented in https://colab.research.google.com/notebooks/forms.ipynb: one field per line,
`name = value  # @param …`, followed by a JSON list of options, attributes in braces, or both. The parser here accepts
only the fields of that page: Colab's own is not published (googlecolab/colabtools#257).

A numeric field cannot be empty, and a slider has no position for "the recipe decides". Such parameters are drop-downs
of type raw, whose text is Python code: `None` is the first option, and `allow-input` takes any other number.
"""

import ast
import json
import re
from dataclasses import dataclass
from typing import Any

import nbformat
import papermill
import pytest

from ocensa_nb import config
from ocensa_nb.models.catalogue import CATALOGUE
from ocensa_nb.paths import ROOT
from ocensa_nb.runtime.machine import configure

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FIELD = re.compile(r"(?P<name>[a-z_]+) = (?P<value>.+?)  # @param (?P<options>\[.*?\])? ?(?P<attributes>\{.*\})?")
TEXT = re.compile(r"# @(title|markdown) .+")
TYPES = {"string": str, "boolean": bool, "integer": int, "number": float, "slider": int, "raw": object}
ATTRIBUTES = {"slider": {"min", "max", "step"}}


@dataclass(frozen=True)
class Field:
    """A field of a form: its Python value, and what may be chosen."""

    value: Any
    options: list[Any] | None
    attributes: dict[str, Any]

    @property
    def type(self):
        return self.attributes.get("type", "string")

    def choices(self):
        """Return the Python values of the options."""
        return [ast.literal_eval(o) if self.type == "raw" else o for o in self.options]


def parameters_cell(path):
    cells = nbformat.read(path, as_version=4).cells
    return next(cell for cell in cells if "parameters" in cell.metadata.get("tags", []))


def form(path):
    """Return the fields of a parameters cell by name; every line is a field or a text of the form."""
    fields = {}
    for line in parameters_cell(path).source.splitlines():
        if TEXT.fullmatch(line):
            continue
        found = FIELD.fullmatch(line)
        assert found, line
        options = found["options"] and json.loads(found["options"])
        attributes = json.loads(re.sub(r"([\w-]+):", r'"\1":', found["attributes"] or "{}"))
        assert options or attributes, line
        fields[found["name"]] = Field(ast.literal_eval(found["value"]), options, attributes)
    return fields


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestEveryForm:
    def test_papermill_finds_every_field_with_its_default(self, path, caplog):
        inspected = papermill.inspect_notebook(str(path))
        assert not caplog.records  # such as "Unable to parse line"
        assert {name: ast.literal_eval(about["default"]) for name, about in inspected.items()} == {
            name: field.value for name, field in form(path).items()
        }

    def test_colab_accepts_the_default_and_the_options_of_every_field(self, path):
        for name, field in form(path).items():
            allowed = {"allow-input", "type"} if field.options else {"type", *ATTRIBUTES.get(field.type, ())}
            assert field.attributes.keys() <= allowed, name
            assert isinstance(field.value, TYPES[field.type]), name
            if field.options:
                assert field.value in field.choices(), name
                assert all(isinstance(option, str) for option in field.options), name
            if field.type == "slider":
                least, most, step = (field.attributes[name] for name in ("min", "max", "step"))
                assert least <= field.value <= most, name
                assert (field.value - least) % step == 0, name

    def test_first_two_code_cells_are_collapsed_to_a_form_with_a_title(self, path):
        code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        assert code[1] == parameters_cell(path)
        for cell, title in zip(code, ("Preparación", "Parámetros"), strict=False):
            assert cell.source.startswith(f'# @title {title} {{ display-mode: "form" }}\n')
            assert cell.metadata.cellView == "form"

    def test_every_parameter_is_explained_in_the_form(self, path):
        texts = [line for line in parameters_cell(path).source.splitlines() if line.startswith("# @markdown")]
        assert {name for name in form(path) if f"`{name}`" not in " ".join(texts)} == set()

    def test_encoders_offered_are_those_of_the_catalogue(self, path):
        if "model" in (fields := form(path)):
            offered = set(fields["model"].options)
            assert offered <= set(CATALOGUE)
            assert set(CATALOGUE) - offered <= {"tiny", "beto-random"}  # for tests and measurements


def test_choices_of_notebook_03_are_all_those_of_the_config():
    fields = form(NOTEBOOKS[2])
    assert fields["recipe"].options[0] == "auto"
    assert set(fields["recipe"].options[1:]) == set(config.RECIPES)
    assert fields["resume"].choices() == [*config.CHOICES["resume"]]


def test_every_choice_of_notebook_03_is_a_valid_setting():
    own = configure("baseline").to_dict()
    for name, field in form(NOTEBOOKS[2]).items():
        if name in own and field.options:
            for choice in field.choices():
                assert configure("baseline", {name: choice}).to_dict()[name] == (
                    own[name] if choice is None else choice
                )


def test_papermill_injects_a_value_after_the_form(tmp_path):
    prepared = papermill.execute_notebook(
        str(NOTEBOOKS[2]), str(tmp_path / "03.ipynb"), {"epochs": 2, "recipe": "cpu"}, prepare_only=True
    )
    tags = [cell.metadata.get("tags", []) for cell in prepared.cells]
    injected = prepared.cells[tags.index(["parameters"]) + 1]
    assert injected.metadata.tags == ["injected-parameters"]
    assert "epochs = 2" in injected.source
    assert 'recipe = "cpu"' in injected.source
