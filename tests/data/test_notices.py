"""Reading of exports, counts of dropped rows, and a split without leakage."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from ocensa_nb.config import TrainConfig
from ocensa_nb.data import notices
from ocensa_nb.data.canonical import normalise
from ocensa_nb.data.notices import labelled_rows
from ocensa_nb.data.splits import split_rows
from ocensa_nb.errors import UserError
from ocensa_nb.files.notice_file import read_table
from ocensa_nb.paths import ROOT

TABLE = pd.DataFrame(
    {
        "Descripción": [f"fuga de producto número {i}, válvula MOV-{i}" for i in range(40)],
        "modo_falla": ["Wear (WEA)", "Vibration (VIB)"] * 20,
        "causa_falla": ["Corrosion", "Corrosion", "Overload", "Overload"] * 10,
        "Prioridad": ["2-Alta", "3-Media"] * 20,
    }
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_read_csv_with_any_encoding_and_separator_returns_the_same_table(tmp_path, encoding, separator):
    path = tmp_path / "avisos.csv"
    TABLE.to_csv(path, sep=separator, encoding=encoding, index=False)
    table = read_table(path).table
    pd.testing.assert_frame_equal(table, TABLE, check_dtype=False)
    assert len(notices.read(path).texts) == 40


def test_read_xlsx_returns_the_same_table_as_csv(tmp_path):
    TABLE.to_excel(tmp_path / "avisos.xlsx", index=False)
    table = read_table(tmp_path / "avisos.xlsx").table
    pd.testing.assert_frame_equal(table, TABLE, check_dtype=False)


@pytest.mark.parametrize("name", ["descripción", "Descripcion", "DESCRIPCIÓN", "Texto breve", "texto_breve"])
def test_read_column_alias_ignores_case_and_accents(tmp_path, name):
    path = tmp_path / "avisos.csv"
    TABLE.rename(columns={"Descripción": name}).to_csv(path, index=False)
    assert notices.read(path).columns["descripcion"] == name


def test_read_unknown_column_name_is_used_only_if_configured(tmp_path):
    path = tmp_path / "avisos.csv"
    TABLE.rename(columns={"causa_falla": "Mi columna"}).to_csv(path, index=False)
    with pytest.raises(UserError, match="Mi columna"):
        notices.read(path)
    assert set(notices.read(path, {"causa": "Mi columna"}).labels["causa"]) == {"Corrosion", "Overload"}


def test_read_two_candidate_label_columns_uses_the_filled_one_and_reports_it(tmp_path):
    path = tmp_path / "avisos.csv"
    free_text = ["cambio de sello"] + [""] * 39
    TABLE.rename(columns={"causa_falla": "causa_iso_label"}).assign(causa_falla=free_text).to_csv(path, index=False)
    report = labelled_rows(notices.read(path)).report
    assert report.columns["causa"] == "causa_iso_label"
    assert "«causa_falla» no se usó como causa: vacía en 39 de 40 filas" in str(report)

    # The same with the names swapped: the share of filled cells decides, not the name.
    sparse = TABLE.assign(causa_iso_label=free_text)
    sparse.to_csv(path, index=False)
    assert notices.read(path).columns["causa"] == "causa_falla"


def test_read_composes_text_from_description_and_non_empty_fields(tmp_path):
    path = tmp_path / "avisos.csv"
    TABLE.assign(Equipo=["P-1"] * 39 + ["nan"], familia_equipo="BOMBA").to_csv(path, index=False)
    texts = notices.read(path).texts
    assert texts.iloc[0] == "fuga de producto número 0, válvula MOV-0. Equipo: P-1. Familia: BOMBA"
    assert texts.iloc[39].endswith("MOV-39. Familia: BOMBA")


def test_read_rows_without_text_or_label_are_dropped_and_counted(tmp_path):
    table = TABLE.copy()
    table.loc[0:1, "Descripción"] = ["nan", "  "]
    table.loc[2:6, "causa_falla"] = ["NaN", "", "None", "N/A", "-"]
    path = tmp_path / "avisos.csv"
    table.to_csv(path, index=False)
    rows = labelled_rows(notices.read(path))
    frame, report = rows.frame, rows.report
    assert (report.rows, report.without_text, report.without_label["causa"], report.kept) == (40, 2, 5, 33)
    assert len(frame) == 33
    assert "descartadas: 2" in str(report)
    assert "causa 5" in str(report)


def test_read_shipped_sap_example_drops_incomplete_rows():
    rows = labelled_rows(notices.read(ROOT / "data/example_iw69.csv"))
    frame, report = rows.frame, rows.report
    assert report.rows == 300
    assert report.columns["causa"] == "causa_iso_label"
    assert 0 < report.kept < 300
    assert not (frame == "nan").any().any()


def test_prepare_rare_classes_are_merged_into_other_and_reported(tmp_path):
    frame = pd.DataFrame(
        {
            "texto": [f"texto {'abcdefghijklmnopqrstuvwxyz'[i % 26] * (i + 1)}" for i in range(40)],
            "modo": ["A"] * 20 + ["B"] * 13 + ["Other (OTH)", "D", "E"] * 2 + ["C"],
            "causa": ["X"] * 29 + ["Y", "Y", "V", "V", "U", "U", "T", "T", "S", "S", "Z"],
            "prioridad": ["1", "2"] * 20,
        }
    )
    frame.to_csv(tmp_path / "a.csv", index=False)
    found = notices.prepare(notices.read(tmp_path / "a.csv"), TrainConfig())
    assert "C" not in found.classes["modo"]
    assert "Other" in found.classes["causa"]
    assert "unidas en «Other (OTH)»: C (1)" in str(found.report)
    assert "unidas en «Other»: Z (1)" in str(found.report)


def test_prepare_label_with_few_classes_is_never_merged(tmp_path):
    frame = pd.DataFrame(
        {
            "texto": [f"texto {'abcdefghijklmnopqrstuvwxyz'[i % 26] * (i + 1)}" for i in range(40)],
            "modo": ["A", "B"] * 20,
            "causa": ["X", "Y"] * 20,
            "prioridad": ["1-Critica"] + ["2-Alta", "3-Media", "4-Baja"] * 13,
        }
    )
    frame.to_csv(tmp_path / "a.csv", index=False)
    found = notices.prepare(notices.read(tmp_path / "a.csv"), TrainConfig())
    assert found.classes["prioridad"] == ["1-Critica", "2-Alta", "3-Media", "4-Baja"]
    assert "unidas" not in str(found.report)


def test_class_weights_match_sklearn_balanced_weights_of_training_rows(config, csv):
    weighted = notices.prepare(notices.read(csv), config.replace(class_weights=True))
    y = weighted.labels["causa"][weighted.split["train"]]
    expected = compute_class_weight("balanced", classes=np.arange(len(weighted.classes["causa"])), y=y)
    np.testing.assert_allclose(weighted.class_weights["causa"], expected)
    assert notices.prepare(notices.read(csv), config).class_weights == {}


def test_split_shares_no_normalised_text_between_train_val_and_test(config, csv):
    found = notices.prepare(notices.read(csv), config)
    sides = {name: {normalise(found.texts[row]) for row in rows} for name, rows in found.split.items()}
    assert not sides["train"] & sides["test"]
    assert not sides["train"] & sides["val"]
    assert not sides["val"] & sides["test"]


def test_normalise_texts_that_differ_only_in_tags_and_numbers_are_equal():
    assert normalise("Fuga en válvula MOV-3702 a 120 psi") == normalise("fuga en valvula mov 4811 a 95 psi")
    assert normalise("fuga en válvula") != normalise("fuga en bomba")
    assert normalise("rotura bomba 4") != normalise("rotura motor 4")
    assert normalise("fuga en BBA-P-101") == normalise("fuga en P-102")
    assert normalise("3702") == normalise("4811")


def test_read_label_column_is_excluded_from_the_text(tmp_path):
    path = tmp_path / "avisos.csv"
    TABLE.rename(columns={"causa_falla": "TextoCódProblem"}).to_csv(path, index=False)
    texts = notices.read(path, {"causa": "TextoCódProblem"}).texts
    assert not texts.str.contains("Corrosion|Overload").any()


def test_read_csv_keeps_blank_lines_as_rows_and_leading_spaces(tmp_path):
    path = tmp_path / "avisos.csv"
    path.write_text("descripcion,nota\nfuga, con espacio\n\nruido,x\n", encoding="utf-8")
    table = read_table(path).table
    assert table["descripcion"].tolist() == ["fuga", "", "ruido"]
    assert table["nota"].tolist() == [" con espacio", "", "x"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 6), st.integers(0, 2)), min_size=60, max_size=300),
    st.integers(0, 5),
)
def test_split_rows_is_a_reproducible_partition_by_group_with_every_class_in_train(rows, seed):
    groups = pd.factorize(np.array([group for group, _, _ in rows]))[0]
    if groups.max() < 20:
        return
    labels = {"a": np.array([a for _, a, _ in rows]), "b": np.array([b for _, _, b in rows])}
    labels = {head: pd.factorize(y)[0].astype(np.int64) for head, y in labels.items()}
    try:
        split = split_rows(groups, labels, 0.1, 0.1, seed)
    except UserError:
        return  # too few texts: one class would be missing from train
    assert sorted(np.concatenate(list(split.values()))) == list(range(len(rows)))
    sides = [set(groups[rows]) for rows in split.values()]
    assert sum(map(len, sides)) == len(set.union(*sides))
    for y in labels.values():
        assert set(y[split["train"]]) == set(y)
    again = split_rows(groups, labels, 0.1, 0.1, seed)
    assert all((again[name] == split[name]).all() for name in split)


def test_split_rows_is_stratified_with_the_requested_sizes():
    rng = np.random.default_rng(0)
    y = rng.choice(5, size=5000, p=[0.5, 0.3, 0.1, 0.08, 0.02])
    split = split_rows(np.arange(5000), {"causa": y}, 0.1, 0.1, seed=1)
    assert [len(split[name]) for name in ("train", "val", "test")] == pytest.approx([4000, 500, 500], abs=2)
    for name in ("val", "test"):
        counts = np.bincount(y[split[name]], minlength=5)
        np.testing.assert_allclose(counts, np.bincount(y) / 10, atol=1.5)
