"""Reading the folder of an experiment: cases, groups, speed-up, the Pareto front, and results.csv."""

import json

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocensa_nb.errors import UserError
from ocensa_nb.experiments.groups import baseline_of, chosen, grouped, pareto_front, speedup
from ocensa_nb.experiments.results import read_results, write_results
from tests.helpers.experiments import add_case, add_run, copy_run


@pytest.fixture
def out(tmp_path):
    """Return an experiment: baseline and a faster case with three seeds, and a failed, a running and a pending one."""
    for seed in (1, 2, 3):
        add_run(add_case(tmp_path, {}, seed), 0.5 + 0.01 * seed, 100)
        add_run(add_case(tmp_path, {"epochs": 3}, seed), 0.4, 40 + 10 * seed)
    error = {"notebook": "03_train", "cell": 9, "line": "UserError: No existe."}
    add_case(tmp_path, {"epochs": 9}, 1, "failed", error=error)
    add_case(tmp_path, {"epochs": 9}, 2, "running")
    add_case(tmp_path, {"epochs": 9}, 3, "pending")
    return tmp_path


def group_of(out, title):
    return next(group for group in grouped(read_results(out).finished) if group.title == title)


def test_groups_are_sorted_by_test_score_with_mean_and_deviation(out):
    groups = grouped(read_results(out).finished)
    assert [group.title for group in groups] == ["baseline", "epochs=3"]
    score = groups[0].score("f1")
    assert (score.mean, score.sd, score.count) == (pytest.approx(0.52), pytest.approx(0.01), 3)


def test_best_group_is_chosen_by_validation_not_by_test(tmp_path):
    add_run(add_case(tmp_path, {}, 1), 0.6, 10)
    folder = add_case(tmp_path, {"epochs": 3}, 1)
    add_run(folder, 0.5, 10)
    metrics = json.loads((folder / "run/metrics.json").read_text(encoding="utf-8"))
    metrics["val"]["f1"] = 0.9
    (folder / "run/metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    groups = grouped(read_results(tmp_path).finished)
    assert groups[0].title == "baseline"
    assert chosen(groups, "f1").title == "epochs=3"


def test_speedup_is_measured_seed_by_seed_with_its_spread(out):
    found = speedup(group_of(out, "epochs=3"), group_of(out, "baseline"))
    assert (found.low, found.high, found.count) == (pytest.approx(100 / 70), pytest.approx(2), 3)


@pytest.mark.parametrize("state", [{"threads": 1}, {"jobs": 2}])
def test_speedup_with_other_threads_or_jobs_is_not_given(tmp_path, state):
    add_run(add_case(tmp_path, {}, 1), 0.5, 100)
    add_run(add_case(tmp_path, {"epochs": 3}, 1, **state), 0.5, 50)
    assert speedup(group_of(tmp_path, "epochs=3"), group_of(tmp_path, "baseline")) is None


def test_cases_that_overlap_in_time_are_marked_and_not_compared_with_one_that_ran_alone(tmp_path):
    times = {1: "2026-01-01T00:00:00+00:00", 2: "2026-01-01T00:00:30+00:00", 3: "2026-01-01T01:00:00+00:00"}
    for seed, started in times.items():
        add_run(add_case(tmp_path, {"epochs": 3}, seed, started=started, seconds=60.0), 0.5, 50)
    assert [case.beside for case in read_results(tmp_path).cases] == [True, True, False]


def test_reused_frozen_layers_count_with_the_seconds_of_the_case_that_computed_them(tmp_path):
    for seed, reused, features in ((1, False, 30.0), (2, True, 1.0)):
        features = {"key": "k", "bytes": 1, "reused": reused}
        seconds = {"training": 10.0, "linear": 1.0, "features": features, "earlier": 0.0, "total": 50.0}
        add_run(add_case(tmp_path, {}, seed), 0.5, 10, features=features, seconds=seconds)
    first, second = read_results(tmp_path).cases
    assert first.seconds() == second.seconds() == {"training": 10.0, "frozen": 30.0, "linear": 1.0, "total": 41.0}
    assert (first.saved_seconds(), second.saved_seconds()) == (0.0, 29.0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), min_size=1, max_size=6))
def test_pareto_front_has_exactly_the_groups_that_no_other_beats(tmp_path_factory, points):
    out = tmp_path_factory.mktemp("front")
    for place, (f1, seconds) in enumerate(points):
        add_run(add_case(out, {"epochs": place + 2}, 1), f1 / 10, seconds)
    groups = grouped(read_results(out).finished)
    on = pareto_front(groups, "f1")
    values = {g.key: (g.score("f1").mean, g.seconds().mean) for g in groups}
    for key, (f1, seconds) in values.items():
        beaten = any(b >= f1 and s <= seconds and (b > f1 or s < seconds) for b, s in values.values())
        assert (key in on) is not beaten


def test_case_that_shares_a_run_has_its_own_evaluation(tmp_path):
    add_run(add_case(tmp_path, {}, 1), 0.5, 100)
    evaluation = {"predict_with": "encoder", "data": ""}
    add_case(tmp_path, {"predict_with": "encoder"}, 1, run="../baseline_seed-1/run", evaluation=evaluation)
    case = next(case for case in read_results(tmp_path).cases if case.shares_run)
    assert case.score("f1") == pytest.approx(0.45)  # of the encoder
    assert case.seconds()["total"] == 100


def test_real_run_has_metrics_seconds_and_labels(tmp_path, run):
    copy_run(add_case(tmp_path, {}, 42), run)
    (case,) = read_results(tmp_path).finished
    assert case.score("f1") == run.metrics["test"]["f1"]
    assert case.heads == list(run.classes)
    assert case.seconds()["training"] == run.metadata["seconds"]["training"]


def test_csv_is_readable_by_excel_in_spanish_with_one_row_per_case(out):
    path = write_results(out)
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")
    table = pd.read_csv(path, sep=";", decimal=",", encoding="utf-8-sig")
    assert len(table) == 9
    assert table["prueba"].max() == pytest.approx(0.53)
    assert list(table["estado"].value_counts()[["terminado", "fallido", "en marcha", "pendiente"]]) == [6, 1, 1, 1]
    assert "03_train, celda 9: UserError: No existe." in set(table["error"])


def test_csv_neutralises_a_formula_in_a_title(tmp_path):
    add_case(tmp_path, {}, 1, "pending", title="=1+1")
    assert "'=1+1" in write_results(tmp_path).read_text(encoding="utf-8-sig")


def test_case_of_a_dead_process_is_interrupted_and_a_dropped_one_is_named(tmp_path):
    from ocensa_nb.files.atomic import owner

    machine = owner().split("-")[0]
    add_case(tmp_path, {}, 1, "running", process=f"{machine}-999999999")
    add_case(tmp_path, {"epochs": 3}, 1, dropped=True)
    results = read_results(tmp_path)
    assert [case.state["status"] for case in results.cases] == ["interrupted"]
    assert "epochs-3_seed-1" in results.problems[0]


@pytest.mark.parametrize("made", [False, True])
def test_folder_without_cases_raises_user_error(tmp_path, made):
    folder = tmp_path / "nada"
    if made:
        folder.mkdir()
    with pytest.raises(UserError, match="no existe" if not made else "no tiene ningún caso"):
        read_results(folder)


@pytest.mark.parametrize("name", ["case.json", "run/config.json", "run/metrics.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null", '{"val": 1}', "\ud800"])
def test_damaged_file_of_a_case_is_a_problem_and_the_others_are_read(out, name, content):
    damaged = out / "cases/baseline_seed-1" / name
    damaged.write_text(content, encoding="utf-8", errors="surrogatepass")
    results = read_results(out)
    assert len(results.finished) == 5
    assert len(results.problems) == 1
    assert "baseline_seed-1" in results.problems[0]


@pytest.mark.parametrize("run", ["/etc", "../../run", "../x/../../run", "..", "../../../tmp/run"])
def test_case_whose_run_is_outside_the_experiment_is_a_problem(tmp_path, run):
    add_case(tmp_path, {}, 1, run=run)
    results = read_results(tmp_path)
    assert results.cases == []
    assert "está dañado (run)" in results.problems[0]


def test_recipe_alone_is_the_baseline_and_another_recipe_is_not(tmp_path):
    add_run(add_case(tmp_path, {"recipe": "cpu"}, 1), 0.5, 10)
    assert baseline_of(grouped(read_results(tmp_path).finished)) is None
    add_run(add_case(tmp_path, {"recipe": "baseline"}, 1), 0.5, 10)
    assert baseline_of(grouped(read_results(tmp_path).finished)) is not None
