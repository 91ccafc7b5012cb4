"""What an experiment measured: cases, groups, speed-up, the Pareto front, which settings matter, and results.csv."""

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocensa_nb.errors import UserError
from ocensa_nb.experiments.case import Case
from ocensa_nb.experiments.effects import effects, interval
from ocensa_nb.experiments.report import write_results
from ocensa_nb.experiments.results import (
    Results,
    baseline_of,
    chosen,
    grouped,
    pareto_front,
    read_results,
    seconds_to_target,
    speedup,
)
from tests.helpers.experiments import add_case, add_run, copy_run, settings_of


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
    return next(group for group in grouped(read_results(out)) if group.title == title)


def test_groups_are_sorted_by_test_score_with_mean_and_deviation(out):
    groups = grouped(read_results(out))
    assert [group.title for group in groups] == ["baseline", "epochs=3"]
    score = groups[0].score("f1")
    assert (score.mean(), score.std(), score.count()) == (pytest.approx(0.52), pytest.approx(0.01), 3)


def test_best_group_is_chosen_by_validation_not_by_test(tmp_path):
    add_run(add_case(tmp_path, {}, 1), 0.6, 10)
    folder = add_case(tmp_path, {"epochs": 3}, 1)
    add_run(folder, 0.5, 10)
    metrics = json.loads((folder / "run/metrics.json").read_text(encoding="utf-8"))
    metrics["val"]["f1"] = 0.9
    (folder / "run/metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    groups = grouped(read_results(tmp_path))
    assert groups[0].title == "baseline"
    assert chosen(groups, "f1").title == "epochs=3"


def test_speedup_is_measured_seed_by_seed_with_its_spread(out):
    found = speedup(group_of(out, "epochs=3"), group_of(out, "baseline"))
    assert (found.min(), found.max(), found.count()) == (pytest.approx(100 / 70), pytest.approx(2), 3)


@pytest.mark.parametrize("state", [{"threads": 1}, {"jobs": 2}])
def test_speedup_with_other_threads_or_jobs_is_not_given(tmp_path, state):
    add_run(add_case(tmp_path, {}, 1), 0.5, 100)
    add_run(add_case(tmp_path, {"epochs": 3}, 1, **state), 0.5, 50)
    assert speedup(group_of(tmp_path, "epochs=3"), group_of(tmp_path, "baseline")).empty


def test_reused_frozen_layers_count_with_the_seconds_of_the_case_that_computed_them(tmp_path):
    for seed, reused, took in ((1, False, 30.0), (2, True, 1.0)):
        features = {"key": "k", "bytes": 1, "reused": reused}
        seconds = {"training": 10.0, "linear": 1.0, "features": took, "earlier": 0.0, "total": 50.0}
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
    groups = grouped(read_results(out))
    front = pareto_front(groups, "f1")
    values = {g.number: (g.score("f1").mean(), g.seconds().mean()) for g in groups}
    assert list(front.index) == list(values)
    for number, (f1, seconds) in values.items():
        beaten = any(b >= f1 and s <= seconds and (b > f1 or s < seconds) for b, s in values.values())
        assert front["on_front"][number] != beaten


def test_case_that_shares_a_run_has_its_own_evaluation(tmp_path):
    add_run(add_case(tmp_path, {}, 1), 0.5, 100)
    add_case(tmp_path, {"predict_with": "encoder"}, 1, trainer="baseline_seed-1")
    case = next(case for case in read_results(tmp_path).cases if not case.owns_run)
    assert case.score("f1") == pytest.approx(0.45)  # of the encoder
    assert case.seconds()["total"] == 100


def test_real_run_has_metrics_seconds_and_labels(tmp_path, run):
    copy_run(add_case(tmp_path, {}, 42), run)
    (case,) = read_results(tmp_path).finished
    assert case.score("f1") == run.metrics["test"]["f1"]
    assert case.heads == list(run.classes)
    assert case.seconds()["training"] == run.metadata["seconds"]["training"]


def test_csv_is_readable_by_excel_in_spanish_with_one_row_per_case(out):
    path = write_results(read_results(out))
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")
    table = pd.read_csv(path, sep=";", decimal=",", encoding="utf-8-sig")
    assert len(table) == 9
    assert table["prueba"].max() == pytest.approx(0.53)
    assert list(table["estado"].value_counts()[["terminado", "fallido", "en marcha", "pendiente"]]) == [6, 1, 1, 1]
    assert "03_train, celda [9]: UserError: No existe." in set(table["error"])


def test_csv_neutralises_a_formula_in_a_title(tmp_path):
    add_case(tmp_path, {}, 1, "pending", title="=1+1")
    assert "'=1+1" in write_results(read_results(tmp_path)).read_text(encoding="utf-8-sig")


def test_case_of_a_dead_process_is_interrupted_and_a_dropped_one_is_named(tmp_path):
    from ocensa_nb.files.atomic import owner

    machine = owner().split("-")[0]
    add_case(tmp_path, {}, 1, "running", process=f"{machine}-999999999")
    add_case(tmp_path, {"epochs": 3}, 1, dropped=True)
    results = read_results(tmp_path)
    assert [case.status for case in results.cases] == ["interrupted"]
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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("trainer", trainer) for trainer in ("/etc", "../../run", "x/../y", "..", "x\\y")),
        ("seconds", "3"),
        ("started", "ayer"),
        ("error", {"line": "x"}),
        ("settings", {}),
        ("status", "otro"),
    ],
)
def test_case_with_an_entry_that_is_not_valid_is_a_problem(tmp_path, name, value):
    add_case(tmp_path, {}, 1, **({"status": value} if name == "status" else {name: value}))
    results = read_results(tmp_path)
    assert results.cases == []
    assert f"está dañado ({name})" in results.problems[0]


def test_seconds_to_target_are_those_of_the_first_epoch_at_95_percent_of_the_best_validation_score(tmp_path):
    add_run(add_case(tmp_path, {}, 1), 0.5, 100)
    add_run(add_case(tmp_path, {"epochs": 3}, 1), 0.49, 40)
    add_run(add_case(tmp_path, {"epochs": 9}, 1), 0.4, 10)
    found = seconds_to_target(read_results(tmp_path))
    assert found == {"baseline_seed-1": 100.0, "epochs-3_seed-1": 40.0, "epochs-9_seed-1": None}
    (tmp_path / "cases/baseline_seed-1/run/history.jsonl").write_text("{", encoding="utf-8")
    assert seconds_to_target(read_results(tmp_path))["baseline_seed-1"] is None


def test_recipe_alone_is_the_baseline_and_another_recipe_is_not(tmp_path):
    add_run(add_case(tmp_path, {"recipe": "cpu"}, 1), 0.5, 10)
    assert baseline_of(grouped(read_results(tmp_path))) is None
    add_run(add_case(tmp_path, {"recipe": "baseline"}, 1), 0.5, 10)
    assert baseline_of(grouped(read_results(tmp_path))) is not None


numbers = st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=3, max_size=12)


def effects_of(out):
    return effects(read_results(out))


def fill(out, f1, seeds=(1, 2, 3)):
    """Write a finished case for each changes (as pairs) and seed; `f1` gives F1 and seconds."""
    for changes, (score, seconds) in f1.items():
        for seed in seeds:
            add_run(add_case(out, dict(changes), seed), score + 0.001 * seed, seconds)


@settings(max_examples=50, deadline=None)
@given(numbers)
def test_interval_contains_the_mean_and_grows_with_the_comparisons(values):
    one, many = interval(values), interval(values, comparisons=10)
    assert one.low <= one.mean <= one.high
    assert one.mean == pytest.approx(np.mean(values))
    assert many.corrected_low <= one.low
    assert one.high <= many.corrected_high


def test_interval_of_three_contains_the_true_mean_in_about_95_of_100_samples():
    samples = np.random.default_rng(1).normal(0.02, 0.01, (400, 3))
    inside = [found.low <= 0.02 <= found.high for found in map(interval, samples)]
    assert 0.92 <= np.mean(inside) <= 0.98


def test_effect_pairs_cases_that_differ_in_one_setting_and_have_the_same_seed(tmp_path):
    both = {(): (0.5, 100), (("epochs", 3),): (0.4, 50), (("epochs", 3), ("max_length", 64)): (0.41, 25)}
    fill(tmp_path, both)
    changes = {(c.field, c.before, c.after): c for c in effects_of(tmp_path)}
    assert set(changes) == {("epochs", "—", "3"), ("max_length", "256", "64")}  # not both at once
    fewer = changes["epochs", "—", "3"]
    assert (fewer.pairs, fewer.seeds) == (3, 3)
    assert fewer.mean == pytest.approx(-0.1)
    assert fewer.verdict == "empeora"
    assert fewer.time.mean == pytest.approx(0.5)


def test_effect_with_two_seeds_cannot_be_told_however_many_pairs_it_has(tmp_path):
    lengths = [(("max_length", length),) for length in (32, 64, 128)]
    cases = {(): (0.5, 100), (("epochs", 3),): (0.1, 50)}
    cases |= dict.fromkeys(lengths, (0.5, 100))
    cases |= {(("epochs", 3), *changes): (0.1, 50) for changes in lengths}
    fill(tmp_path, cases, seeds=(1, 2))
    change = next(change for change in effects_of(tmp_path) if change.field == "epochs")
    assert (change.pairs, change.score, change.time) == (8, None, None)
    assert change.verdict == "no se puede saber: hacen falta 3 semillas y hay 2"


def case_in_memory(changes, seed, f1):
    content = {"title": "", "settings": settings_of(changes) | {"seed": seed}, "changes": changes, "seed": seed}
    name = "_".join(map(str, (*changes.items(), seed)))
    state = {"status": "finished", "group": "", "trainer": name, "jobs": 1}
    metadata = {"config": content["settings"], "seconds": {"training": 1.0}, "hardware": {}}
    return Case(Path(name), content | state, metadata, {"test": {"f1": f1}})


@pytest.mark.parametrize("seeds", [2, 3, 4])
def test_setting_without_effect_is_said_to_matter_in_at_most_6_of_100_reports(seeds):
    """The split of a seed favours one value by chance, with all values of the other setting."""
    random, reports, matters = np.random.default_rng(seeds), 400, 0
    for _ in range(reports):
        cases = []
        for seed in range(seeds):
            by_split = random.normal(0, 0.01, 2)
            for value, length in itertools.product((0, 1), (64, 128)):
                changes = {"epochs": 3 + value, "max_length": length}
                cases.append(case_in_memory(changes, seed, 0.5 + by_split[value] + random.normal(0, 0.005)))
        change = next(e for e in effects(Results(Path(), cases, [])) if e.field == "epochs")
        matters += bool(change.score and change.score.is_clear)
    assert matters <= 0.06 * reports


def test_effect_whose_interval_includes_zero_is_called_noise(tmp_path):
    for seed, difference in ((1, 0.02), (2, -0.03), (3, 0.02)):
        add_run(add_case(tmp_path, {}, seed), 0.5, 10)
        add_run(add_case(tmp_path, {"epochs": 3}, seed), 0.5 + difference, 10)
    (change,) = effects_of(tmp_path)
    assert change.score.low < 0 < change.score.high
    assert change.verdict == "no se distingue del ruido"


def test_effect_that_only_chance_among_many_comparisons_explains_is_said_so(tmp_path):
    for seed, noise in ((1, -0.004), (2, 0.0), (3, 0.004)):
        add_run(add_case(tmp_path, {}, seed), 0.5, 10)
        for value in range(8):
            add_run(add_case(tmp_path, {"epochs": value + 20}, seed), 0.5 + 0.012 + noise, 10)
    changes = effects_of(tmp_path)
    assert len(changes) == 8
    assert {change.verdict for change in changes} == {"mejora, pero puede ser azar entre tantas comparaciones"}


def test_seconds_of_another_machine_are_not_compared(tmp_path):
    for seed in (1, 2, 3):
        add_run(add_case(tmp_path, {}, seed), 0.5, 10, cores=2)
        add_run(add_case(tmp_path, {"epochs": 3}, seed), 0.5, 5, cores=8)
    (change,) = effects_of(tmp_path)
    assert change.score is not None
    assert change.time is None
