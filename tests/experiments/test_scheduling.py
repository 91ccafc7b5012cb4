"""Which case starts when, with a pool that runs nothing."""

import signal

import pytest

from ocensa_nb.errors import AskedToStopError
from ocensa_nb.experiments import scheduling
from ocensa_nb.experiments.case import read_case, update
from ocensa_nb.experiments.experiment_folder import opened, prepare
from ocensa_nb.experiments.grid import Grid
from ocensa_nb.experiments.scheduling import LocalPool, Runner


class FakeJob:
    """A case that trains for some polls, and can store its features and finish its run before it ends."""

    def __init__(self, pool, state):
        self.pool, self.state, self.polls, self.stopped = pool, state, 0, False

    def is_done(self):
        self.polls += 1
        if self.polls == 2 and self.state.owns_run and self.state.title not in self.pool.crash:
            (self.state.run / "last").mkdir(parents=True)
        done = self.polls == 6 or self.stopped
        if done and self.state.title not in self.pool.crash:
            if self.state.owns_run and not self.stopped:
                (self.state.run / "manifest.json").touch()
            update(self.state.folder, status="interrupted" if self.stopped else "finished", seconds=1.0)
        return done

    def problem(self):
        return "murió"

    def stop(self):
        self.stopped = True
        self.pool.stops += 1

    def kill(self):
        raise AssertionError("not needed")


class FakePool:
    def __init__(self, slots, crash=(), shares_cache=True):
        self.slots, self.crash, self.stops, self.started = slots, crash, 0, []
        self.shares_cache = shares_cache

    def start(self, state):
        self.started.append(state.title)
        self.log.append(("start", state.title))
        return FakeJob(self, state)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that runs cases in a pool, and returns what was logged and how each case ended."""
    monkeypatch.setattr(scheduling, "POLL_SECONDS", 0)

    def run(pool, *cases, **options):
        grid = Grid.parse({"base": {"model": "tiny"}, "cases": [{"name": str(n), **c} for n, c in enumerate(cases)]})
        found = grid.expand("cpu")
        pool.log = []
        with opened(tmp_path / "out", "", "cpu"):
            pending, _ = prepare(tmp_path / "out", found)

            def note(states):
                pool.log.append(tuple(state.status for state in states))

            runner = Runner(tmp_path / "out", [case.name for case in found], pool, options.get("on_change", note))
            try:
                runner.run(pending, {case.name: case.features for case in found})
            finally:
                ended = {case.title: read_case(tmp_path / "out/cases" / case.name) for case in found}
        return ended

    return run


SHARED = {"freeze_layers": 2}


def test_one_case_computes_the_shared_features_before_the_others_start(run):
    pool = FakePool(slots=3)
    run(pool, SHARED, {**SHARED, "epochs": 3}, {**SHARED, "epochs": 4}, {"freeze_layers": 0})
    assert pool.started == ["0", "3", "1", "2"]
    running = [states.count("running") for states in pool.log if len(states) == 4]
    assert max(running) == 3


def test_cases_on_other_machines_do_not_wait_for_features_that_they_do_not_see(run):
    pool = FakePool(slots=3, shares_cache=False)
    run(pool, SHARED, {**SHARED, "epochs": 3}, {"freeze_layers": 0})
    assert pool.started == ["0", "1", "2"]


def test_features_whose_computing_case_crashed_are_computed_by_the_next(run):
    pool = FakePool(slots=2, crash=("0",))
    ended = run(pool, SHARED, {**SHARED, "epochs": 3}, {**SHARED, "epochs": 4})
    assert pool.started == ["0", "1", "2"]
    assert ended["0"].status == "failed"
    assert ended["0"].error["line"] == "murió"
    assert [ended[title].status for title in ("1", "2")] == ["finished", "finished"]


def test_case_that_shares_a_run_starts_when_the_run_is_finished_and_fails_without_it(run):
    pool = FakePool(slots=3)
    run(pool, {"epochs": 2, "predict_with": "linear"}, {"epochs": 2})
    assert pool.started == ["1", "0"]
    crashing = FakePool(slots=3, crash=("1",))
    run(crashing, {"epochs": 5, "predict_with": "linear"}, {"epochs": 5})
    assert crashing.started == ["1", "0"]  # its process says that there is no run


def test_never_more_cases_than_slots(run):
    pool = FakePool(slots=2)
    run(pool, *({"freeze_layers": 0, "epochs": epochs} for epochs in range(1, 7)))
    running = [states.count("running") for states in pool.log if len(states) == 6]
    assert max(running) == 2
    assert len(pool.started) == 6


def test_stop_ends_the_running_cases_and_leaves_the_others_pending(run):
    pool = FakePool(slots=2)

    def stop(states):
        if [state.status for state in states].count("running") == 2:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(AskedToStopError, match="ejecute lo mismo otra vez"):
        run(pool, *({"freeze_layers": 0, "epochs": epochs} for epochs in range(1, 5)), on_change=stop)
    assert pool.stops == 2
    assert len(pool.started) == 2


def test_local_processes_divide_the_cores(monkeypatch):
    monkeypatch.setattr(scheduling, "cores", lambda: 8)
    started = []
    monkeypatch.setattr(scheduling.case_process, "start", lambda folder, threads: started.append(threads))
    state = type("State", (), {"folder": "x", "owns_run": False})()
    for jobs in (1, 2, 3, 16):
        LocalPool(jobs).start(state)
    assert started == [None, 4, 2, 1]
