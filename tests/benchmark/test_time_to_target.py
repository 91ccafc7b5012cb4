"""When each technique reaches 95 % of the best F1."""

import pytest

from ocensa_nb.benchmark import time_to_target
from tests.helpers.curves import points

SLOW, FAST, POOR = "Punto de partida", "Rápida", "Pobre"


@pytest.fixture
def curves():
    """Return three techniques: slow and best, fast and nearly as good, fastest and poor."""
    return points(
        {
            SLOW: (100.0, [[0.5, 0.70, 0.78], [0.5, 0.74, 0.82]]),  # 0.80 at its best, so the target is 0.76
            FAST: (10.0, [[0.6, 0.76, 0.77], [0.6, 0.74, 0.77]]),
            POOR: (1.0, [[0.3, 0.4, 0.5], [0.3, 0.4, 0.5]]),
        }
    )


def test_target_is_95_percent_of_the_best_mean_f1(curves):
    assert time_to_target.target(curves) == pytest.approx(0.95 * 0.80)


def test_time_to_target_is_that_of_the_first_epoch_whose_mean_reaches_it(curves):
    found = time_to_target.time_to_target(curves)
    assert list(found.index) == [SLOW, FAST, POOR]
    assert found["seconds"][:2].tolist() == [300, 30]
    assert found["epoch"][:2].tolist() == [3, 3]
    assert found["seconds"].isna().tolist() == [False, False, True]
    assert found.loc[SLOW, ["best", "lowest", "highest"]].tolist() == pytest.approx([0.80, 0.78, 0.82])


def test_table_says_which_technique_never_reaches_it(curves):
    table = time_to_target.table(curves)
    assert table["segundos hasta el 95 %"].tolist() == ["300", "30", "no llega"]
    assert table["época"].tolist() == ["3", "3", "–"]


def test_reading_compares_the_fastest_with_the_baseline(curves):
    assert "«Rápida», en 30 s; el punto de partida, en 300 s (10 veces)" in time_to_target.reading(curves)


def test_reading_says_that_the_baseline_never_reaches_it():
    curves = points({SLOW: (100.0, [[0.2, 0.3]]), FAST: (10.0, [[0.6, 0.8]])})
    assert time_to_target.reading(curves).endswith("el punto de partida no llega.")


def test_reading_says_that_nothing_is_faster_than_the_baseline():
    curves = points({SLOW: (1.0, [[0.6, 0.8]]), FAST: (10.0, [[0.6, 0.8]])})
    assert time_to_target.reading(curves).endswith("en 2 s; ninguna llega antes.")
