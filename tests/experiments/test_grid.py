"""Grids: expansion, names, and an error message for every wrong input."""

import itertools
import json
import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ocensa_nb.errors import UserError
from ocensa_nb.experiments import grid as grids
from ocensa_nb.experiments.grid import LONGEST_NAME, read_grid

VALUES = {
    "freeze_layers": st.integers(-12, 12),
    "learning_rate": st.sampled_from([2e-5, 1e-4, 0.5]),
    "recipe": st.sampled_from(["cpu", "t4", "baseline"]),
    "heads": st.sampled_from([{"causa": 1.0}, {"causa": 0.5, "modo": 0.5}]),
    "text_fields": st.sampled_from([["equipo"], ["equipo", "parada"]]),
    "columns": st.sampled_from([{"causa": "Mi «causa»/ñ"}, {"causa": "x" * 90}]),
    "predict_with": st.sampled_from(["linear", "encoder"]),
}
LISTS = st.fixed_dictionaries(
    {}, optional={name: st.lists(value, min_size=1, max_size=3, unique_by=json.dumps) for name, value in VALUES.items()}
)
SEEDS = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=3, unique=True)


def expand(**content):
    return grids.expand(content, "cpu")


@settings(max_examples=25, deadline=None)
@given(grid=LISTS, seeds=SEEDS, data=st.data())
def test_expand_gives_every_combination_once_with_names_independent_of_the_order(grid, seeds, data):
    cases = expand(base={"model": "tiny"}, grid=grid, seeds=seeds)
    count = len(seeds)
    for values in grid.values():
        count *= len(values)
    assert len(cases) == count
    names = {case.name for case in cases}
    assert len(names) == count
    fields = data.draw(st.permutations(list(grid)))
    mixed = {name: data.draw(st.permutations(grid[name])) for name in fields}
    again = expand(seeds=data.draw(st.permutations(seeds)), grid=mixed, base={"model": "tiny"})
    assert {case.name for case in again} == names
    assert {case.group for case in again} == {case.group for case in cases}
    assert len({case.group for case in cases}) == count // len(seeds)


@settings(max_examples=25, deadline=None)
@given(grid=LISTS, seeds=SEEDS)
def test_names_are_safe_as_folders_on_every_system(grid, seeds):
    for case in expand(grid=grid, seeds=seeds):
        assert re.fullmatch(r"[a-z0-9][a-z0-9._-]*_seed-\d+_[0-9a-f]{6}", case.name)
        assert len(case.name) <= LONGEST_NAME


@settings(max_examples=15, deadline=None)
@given(grid=LISTS, seeds=SEEDS)
def test_grid_written_as_yaml_and_read_again_gives_the_same_cases(grid, seeds, tmp_path_factory):
    content = {"base": {"model": "tiny"}, "grid": grid, "seeds": seeds}
    file = tmp_path_factory.mktemp("grid") / "grid.yaml"
    # PyYAML itself writes 2e-05 in a form that it reads as a number.
    file.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    again = expand(**read_grid(file)[0])
    assert {case.name for case in again} == {case.name for case in expand(**content)}


def test_cases_are_added_to_the_grid_with_their_own_titles():
    cases = expand(
        base={"epochs": 3}, grid={"freeze_layers": [1, 2]}, cases=[{"name": "guía", "recipe": "baseline"}], seeds=[1, 2]
    )
    assert [(case.title, case.seed) for case in cases] == list(
        itertools.chain.from_iterable(
            [("freeze_layers=1", seed), ("freeze_layers=2", seed), ("guía", seed)] for seed in (1, 2)
        )
    )
    assert cases[2].changes == {"recipe": "baseline"}
    assert cases[2].config.epochs == 3
    assert expand(base={"epochs": 3})[0].title == "base"


def test_recipe_auto_is_replaced_by_the_given_recipe():
    case = grids.expand({"base": {"recipe": "auto"}}, "t4")[0]
    assert case.settings["recipe"] == "t4"
    assert case.config.batch_size == 64


def test_relative_data_is_found_from_the_working_directory_and_kept_as_written(csv, monkeypatch):
    monkeypatch.chdir(csv.parent)
    case = expand(base={"data": csv.name})[0]
    assert case.settings["data"] == csv.name
    assert case.config.data == str(csv)


def test_cases_that_differ_only_in_evaluation_share_a_training_but_no_group(csv):
    plain, linear, other = expand(cases=[{"epochs": 2}, {"epochs": 2, "predict_with": "linear"}, {"epochs": 3}])
    assert plain.training == linear.training != other.training
    assert plain.group != linear.group
    assert linear.settings["predict_with"] == "linear"


def test_features_are_shared_by_cases_with_the_same_frozen_layers_and_texts():
    base = {"freeze_layers": 2, "epochs": 2}
    cases = expand(cases=[base, {**base, "epochs": 3}, {**base, "max_length": 64}, {"freeze_layers": 0}])
    assert cases[0].features == cases[1].features != cases[2].features
    assert cases[3].features == ""


WRONG = {
    "[1, 2]": "debe tener las claves",
    "": "debe tener las claves",
    "base: {model: tiny": r"línea 1",
    "base:\n\tmodel: tiny": r"línea 2.*tabulador",
    "base: {model: a}\nbase: {model: b}": "«base» está dos veces",
    "base: {epochs: 1, epochs: 2}": "«epochs» está dos veces",
    "bases: {model: tiny}": "«bases» no existe. ¿Quiso decir «base»",
    "base: {freeze_layer: 2}": "«freeze_layer» no existe. ¿Quiso decir «freeze_layers»",
    "base: {1: 2}": "«1» no existe",
    "base: 3": "base = 3: se espera «campo: valor»",
    "grid:": "grid = None",
    "grid: {freeze_layers: 4}": "freeze_layers = 4: se espera una lista",
    "grid: {freeze_layers: []}": "freeze_layers: la lista está vacía",
    "grid: {freeze_layers: [4, 4]}": "freeze_layers: 4 está dos veces",
    "grid: {seed: [1, 2]}": "seed va en seeds",
    "seeds: 3": "seeds = 3: se espera una lista",
    "seeds: []": "seeds: la lista está vacía",
    "seeds: [1, 1]": "seeds: 1 está dos veces",
    "seeds: [1.5]": r"seed = 1\.5",
    "base: {seed: 1}\nseeds: [2]": "seed sobra",
    "cases: [3]": "caso 1: se espera",
    "cases: [{}, {}]": "está dos veces",
    "cases: [{name: a}, {name: a, epochs: 3}]": "2 casos con el mismo name, «a»",
    "cases: [{name: [1]}]": "debe ser un texto",
    "cases: [{name: a}, {name: b}]": "«a» y «b».* son el mismo",
    "grid: {freeze_layers: [1, 2]}\ncases: [{freeze_layers: 1}]": "son el mismo",
    "base: {recipe: cpu, freeze_layers: 5}\ngrid: {recipe: [cpu]}\ncases: [{}]": "son el mismo",
    "base: {learning_rate: 2e+4}": r"learning_rate = 20000\.0: debe ser un número, más de 0 y menos de 1",
    "base: {epochs: 010}": "epochs = '010': debe ser un número entero",
    "base: {epochs: 1:30}": "epochs = '1:30': debe ser un número",
    "base: {epochs: true}": "epochs = True",
    "base: {epochs: }": "epochs no tiene valor",
    "base: {epochs: 0}": "epochs = 0: debe ser un número entero, de 1 a 1 000 000",
    "base: {class_weights: yes}": "class_weights = 'yes': debe ser True o False",
    "base: {recipe: cpux}": "«cpux» no existe. ¿Quiso decir «cpu»",
    "base: {recipe: 3}": "recipe = 3: debe ser un texto",
    "base: {predict_with: todo}": "predict_with, el valor «todo» no existe",
    "base: {data: no.csv}": r"data = no\.csv: no existe ese archivo",
    "base: {evaluation_data: no.csv}": r"evaluation_data = no\.csv: no existe ese archivo",
    "base: {out: x}": "out no se puede fijar",
    "base: {resume: never}": "resume no se puede fijar",
    "base: {text_fields: equipo}": "text_fields y fields, listas",
    "base: !!python/object/apply:os.system ['true']": "no es YAML válido",
    "&a [*a]": "se contienen a sí mismos",
    "base: !!int abc": "no se admiten etiquetas como !!int",
    "base: {epochs: !!int 0x1F}": "no se admiten etiquetas",
    "base: {epochs: !!timestamp 3}": "no es YAML válido",
    "base: {epochs: %s}" % ("9" * 5000): "epochs = .*9…",
    "base: !!map abc": "no es YAML válido",
    "cases: [{1: 1, name: x}]": "claves que no son texto",
    r'cases: [{name: "a\e[2J"}]': "debe ser un texto",
    "base: &a {heads: *a}": "se contienen a sí mismos",
    "base: {text_fields: &a [*a]}": "se contienen a sí mismos",
    "grid: {text_fields: &a [*a]}": "se contienen a sí mismos",
    r'cases: [{name: "a\ud800"}]': "texto que no es UTF-8",
    r'base: {columns: {causa: "a\udfff"}}': "texto que no es UTF-8",
    r'grid: {columns: [{"\ud800": a}, {causa: b}]}': "texto que no es UTF-8",
    r'base: {"\ud800": 1}': "texto que no es UTF-8",
    "base: \x07": "no es YAML válido",
    "grid: {epochs: [%s], seed: [1]}" % ", ".join(map(str, range(1, 5))): "seed va en seeds",  # noqa: UP031
    "grid: {epochs: [%s]}\nseeds: [%s]" % ((", ".join(map(str, range(1, 202))),) * 2): "40 401 casos",
}


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text[:40])
def test_wrong_grid_raises_user_error_that_names_it(text, tmp_path):
    file = tmp_path / "grid.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=WRONG[text]):
        expand(**read_grid(file)[0])


@pytest.mark.parametrize("text", ["2e-4", "2E-4", "2.0e-4", "0.0002", ".2e-3"])
def test_number_in_any_notation_is_a_number(text, tmp_path):
    (tmp_path / "grid.yaml").write_text(f"base: {{learning_rate: {text}}}", encoding="utf-8")
    (case,) = expand(**read_grid(tmp_path / "grid.yaml")[0])
    assert case.config.learning_rate == 2e-4


def test_unreadable_grid_raises_user_error(tmp_path):
    (tmp_path / "latin.yaml").write_bytes("base: {model: «ñ»}".encode("latin-1"))
    (tmp_path / "deep.yaml").write_text("base: " + "[" * 20_000)
    levels = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]" for n in range(1, 12)]
    (tmp_path / "bomb.yaml").write_text("\n".join(["a0: &a0 x", *levels]))
    for name, message in (("no.yaml", "no existe"), (".", "No se puede leer"), ("latin.yaml", "UTF-8")):
        with pytest.raises(UserError, match=message):
            read_grid(tmp_path / name)
    with pytest.raises(UserError, match=r"demasiados niveles|no es YAML"):
        read_grid(tmp_path / "deep.yaml")
    with pytest.raises(UserError, match="son más de 100 000"):
        read_grid(tmp_path / "bomb.yaml")
