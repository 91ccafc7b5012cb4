"""Options from a signature: values, errors and help, all in Spanish."""

import inspect
from types import MappingProxyType, SimpleNamespace
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import Doc

from ocensa_nb.cli.arguments import BadArgumentsError, Parser


def command(
    out: Annotated[str, Doc("dónde se escribe")],
    rows: Annotated[int, Doc("cuántas, 100 % como máximo")] = 20,
    rate: Annotated[float, Doc("tasa")] = 5e-5,
    exact: Annotated[bool, Doc("si es exacto")] = False,
    kind: Annotated[Literal["auto", "csv"], Doc("formato")] = "auto",
    text_fields: Annotated[tuple[str, ...], Doc("columnas")] = ("a", "b"),
    heads: Annotated[dict[str, float], Doc("pesos")] = MappingProxyType({"modo": 1 / 3}),
):
    """Do nothing."""


def parser(defaults=None):
    made = Parser("programa", "Hacer algo.")
    made.add_options(command, defaults)
    return made


def test_parse_values_of_every_type_are_converted():
    words = "--out a.csv --rows -3 --rate=-1e-3 --exact True --kind csv --text_fields x y"
    assert parser().values(words.split()) == {
        **{"out": "a.csv", "rows": -3, "rate": -1e-3, "exact": True, "kind": "csv"},
        "text_fields": ("x", "y"),
    }


def test_parse_pairs_are_a_dict():
    words = ["--out", "a", "--heads", "causa", "1", "modo", "0.5"]
    assert parser().values(words) == {"out": "a", "heads": {"causa": 1.0, "modo": 0.5}}
    assert parser().values(words[:3]) == {"out": "a", "heads": {}}


def test_parse_options_that_are_not_given_are_left_out():
    assert parser().values(["--out", ""]) == {"out": ""}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], r"Faltan opciones obligatorias: --out\."),
        (["--uot", "a"], r"La opción «--uot» no existe\. ¿Quiso decir «--out»\?"),
        (["--row", "3", "--out", "a"], "La opción «--row» no existe"),
        (["--row=3", "--out", "a"], "La opción «--row» no existe"),
        (["-x", "--out", "a"], "«-x» sobra"),
        (["a.csv", "--out", "a"], r"«a\.csv» sobra"),
        (["--out", "a", "b"], "«b» sobra"),
        (["--out"], r"^--out: falta su valor\. .*OPCIÓN=VALOR"),
        (["--out", "-x.csv"], "--out: falta su valor"),
        (["--out", "a", "--rows", "many"], "--rows: «many» no es un número entero"),
        (["--out", "a", "--rows", "1.5"], r"--rows: «1\.5» no es un número entero"),
        (["--out", "a", "--rate", "0,5"], r"«0,5» no es un número\. Escriba los decimales con punto"),
        (["--out", "a", "--exact", "quizás"], "«quizás» no es válido; escriba True o False"),
        (["--out", "a", "--kind", "xls"], r"--kind: el valor «xls» no existe\. Opciones: .*auto.*, .*csv"),
        (["--out", "a", "--heads", "causa"], "--heads: se esperan pares NOMBRE VALOR, y hay 1 palabras"),
        (["--out", "a", "--heads", "causa", "x"], "--heads: «x» no es un número"),
        (["--help=3"], "--help: no lleva ningún valor"),
    ],
)
def test_parse_bad_arguments_are_a_spanish_message(words, message):
    with pytest.raises(BadArgumentsError, match=message):
        parser().values(words)


WORDS = st.sampled_from(
    ["--out", "--rows", "--kind", "--exact", "-h", "--help", "--", "-", "-hx", "--help=1", "-1", "3"]
)


@given(st.lists(WORDS | st.text(max_size=4), max_size=8))
def test_parse_any_words_are_values_or_a_bad_arguments_error(words):
    try:
        given = parser().values(words)
    except BadArgumentsError:
        return
    assert set(given) <= {*inspect.signature(command).parameters, "help"}


def test_help_has_types_defaults_and_required_options_in_spanish():
    text = parser().format_help()
    assert text.startswith("Uso: programa [OPCIONES]\n\nHacer algo.\n")
    for piece in (
        "dónde se escribe (obligatoria)",
        "100 % como máximo (por omisión: 20)",
        "{auto,csv}",
        "a b)",
        "modo 0.333333)",
    ):
        assert piece in text


def test_help_defaults_are_those_of_the_given_object():
    names = {name: parameter.default for name, parameter in inspect.signature(command).parameters.items()}
    assert "(por omisión: 77)" in parser(SimpleNamespace(**names | {"rows": 77})).format_help()
