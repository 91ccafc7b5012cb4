"""What identifies a notice, and the columns that a message proposes for one that was not found."""

import pandas as pd
import pytest

from ocensa_nb.data import notices
from ocensa_nb.data.columns import find_columns, notice_ids
from ocensa_nb.errors import LISTED, UserError

ROWS = 40
PARTS = ["sello", "rodamiento", "empaque", "eje", "filtro", "cable", "tapa", "perno"]
TABLE = pd.DataFrame(
    {
        "duracion": [f"{i / 3:.2f}" for i in range(ROWS)],
        "fecha_creacion": [f"{1 + i % 28}/3/2024" for i in range(ROWS)],
        "Ubicación técnica": [f"EST-BOM-{i}" for i in range(ROWS)],
        "Denominación": ["BOMBA PRINCIPAL DE CRUDO", "MOTOR DE LA BOMBA BOOSTER"] * (ROWS // 2),
        "Detalle del aviso": [f"se observa fuga por el {part} de la bomba {i}" for i, part in enumerate(PARTS * 5)],
        "Clase de falla": ["Desgaste", "Vibración", "Fuga externa", "Atasco"] * (ROWS // 4),
        "causa": ["Corrosión", "Sobrecarga"] * (ROWS // 2),
        "prioridad": ["1-Alta", "2-Media", "3-Baja", "3-Baja"] * (ROWS // 4),
    }
)


def message(tmp_path, table, **settings):
    table.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(UserError) as raised:
        notices.read(tmp_path / "a.csv", **settings)
    return str(raised.value)


def test_missing_description_proposes_the_column_of_free_text_first(tmp_path):
    said = message(tmp_path, TABLE)
    assert "Quiso decir" not in said
    assert "las más probables primero: Detalle del aviso, " in said
    assert '--columns descripcion "Detalle del aviso"' in said


def test_missing_label_proposes_the_columns_that_repeat_their_values_first(tmp_path):
    said = message(tmp_path, TABLE.rename(columns={"Detalle del aviso": "descripcion"}))
    assert '--columns modo "Clase de falla"' in said
    ranked = said.split("primero: ")[1].split(". ")[0].split(", ")
    assert ranked.index("duracion") > ranked.index("Clase de falla")
    assert set(ranked[-4:]) == {"descripcion", "Denominación", "causa", "prioridad"}  # they have another role


def test_missing_label_proposes_a_column_that_mentions_it_before_others_that_repeat(tmp_path):
    table = TABLE.rename(columns={"Detalle del aviso": "descripcion"}).drop(columns="causa")
    table.insert(0, "Estado", ["Abierto", "Cerrado"] * (ROWS // 2))
    table["Causa raíz probable"] = [f"Causa {i % 8}" for i in range(ROWS)]
    said = message(tmp_path, table, columns={"modo": "Clase de falla"})
    assert '--columns causa "Causa raíz probable"' in said


CODES = pd.DataFrame(
    {
        "codigo": [f"{i:04}-ABC" for i in range(ROWS)],
        "Descripcion material": [f"EST BOM {100 + i}" for i in range(ROWS)],
        "Puesto de trabajo": [f"M-{part.upper()}" for part in PARTS * 5],
        "numero": [f"{i} 20" for i in range(ROWS)],
        "vacia": [""] * ROWS,
        "modo": ["Desgaste", "Atasco"] * (ROWS // 2),
    }
)


def test_missing_description_proposes_no_column_of_codes(tmp_path):
    said = message(tmp_path, CODES, heads=["modo"])
    assert "La columna «descripcion» no existe" in said
    assert "--columns" not in said


def test_missing_description_proposes_a_sparse_text_before_codes_that_never_repeat(tmp_path):
    texts = ["no arranca el motor", "pierde aceite"] + [""] * (ROWS - 2)
    said = message(tmp_path, CODES.assign(detalle=texts), heads=["modo"])
    assert '--columns descripcion "detalle"' in said


def test_of_two_columns_for_the_description_the_one_with_codes_or_without_texts_is_passed_over():
    table = CODES.rename(columns={"codigo": "Descripción", "vacia": "Texto breve"}).assign(texto="pierde aceite")
    used, passed_over = find_columns(table, ["modo"], (), {}, "a.csv")
    assert used["descripcion"] == "texto"
    assert passed_over["Descripción"] == ("descripcion", "tiene códigos y no un texto")
    assert passed_over["Texto breve"] == ("descripcion", "está vacía")


@pytest.mark.parametrize("name", ["descripcon", "Descripciones"])
def test_missing_description_with_a_misspelt_name_proposes_it(tmp_path, name):
    table = TABLE.assign(**{name: [f"falla {part}" for part in PARTS * 5]})
    said = message(tmp_path, table)
    assert f"¿Quiso decir «{name}»?" in said
    assert f'--columns descripcion "{name}"' in said


def test_missing_description_similar_to_a_column_of_numbers_does_not_propose_it(tmp_path):
    said = message(tmp_path, TABLE.assign(descripcio=TABLE["duracion"]))
    assert "Quiso decir" not in said
    assert '--columns descripcion "Detalle del aviso"' in said


def test_missing_column_message_lists_ten_columns_and_counts_the_others(tmp_path):
    said = message(tmp_path, TABLE.assign(**{f"extra {i}": "" for i in range(20)}))
    assert f" y {len(TABLE.columns) + 20 - LISTED} más" in said
    assert "primero: Detalle del aviso" in said


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"descripcion": ["fuga"], "modo_falla": ["Leak"], "prioridad": ["1"]}, "quite «causa» de heads"),
        ({}, "La columna «descripcion» no existe"),
    ],
    ids=["every column taken", "no column"],
)
def test_missing_column_without_candidates_suggests_no_other_column(columns, words):
    with pytest.raises(UserError, match=words) as error:
        find_columns(pd.DataFrame(columns, dtype=str), ["modo", "causa", "prioridad"], (), {}, "a.csv")
    assert "--columns" not in str(error.value)


@pytest.mark.parametrize("title", ["id_aviso", "Aviso", "Nº aviso", "Número de aviso"])
def test_notice_ids_are_the_files_own(title):
    assert notice_ids(pd.DataFrame({"descripcion": ["a", "b"], title: [" 10 ", "11"]})).tolist() == ["10", "11"]


def test_notice_ids_without_a_column_are_the_rows_in_a_spreadsheet():
    assert notice_ids(pd.DataFrame({"descripcion": ["a", "b"]})).tolist() == ["fila 2", "fila 3"]


def test_notice_ids_that_are_empty_are_replaced_by_the_row():
    assert notice_ids(pd.DataFrame({"id_aviso": ["10", " "]})).tolist() == ["10", "fila 3"]
