"""Shared fixtures: a small data set and a finished run of the tiny encoder."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
    # Pin each worker and its children to one core before torch counts them: two torch processes that share their
    # cores slow each other down ten times.
    worker, cores = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")), sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[worker % len(cores)]})

from ocensa_nb.config import TrainConfig, from_recipe
from ocensa_nb.data import synthetic
from ocensa_nb.data.notices import Notices
from ocensa_nb.errors import AskedToStopError
from ocensa_nb.runs.run import Run
from ocensa_nb.runtime import logs
from ocensa_nb.training import expected_time, quality, train
from tests.helpers import forked

logs.configure()

# The same examples every time, so that a test fails by a change and not by chance; OCENSA_LONG draws others.
settings.register_profile("project", deadline=None, derandomize=not os.environ.get("OCENSA_LONG"))
settings.load_profile("project")

TINY = {"model": "tiny", "epochs": 2, "freeze_layers": 1, "precision": "fp32"}


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Use a temporary home folder, so that tests neither read nor write the user's caches."""
    folder = str(tmp_path_factory.mktemp("home"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", folder)
        patch.setenv("USERPROFILE", folder)
        yield


@pytest.fixture(scope="session", autouse=True)
def quick_trainings() -> Iterator[None]:
    """Measure the steps of a training once, and fit the linear model of the same notices once."""
    fit_linear, fitted = quality.fit_linear, {}

    def fit_once(config: TrainConfig, notices: Notices) -> quality.FittedLinear:
        if id(notices) not in fitted:
            fitted[id(notices)] = (
                notices,
                fit_linear(config, notices),
            )  # the notices are kept, so that their id stays theirs
        return fitted[id(notices)][1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(expected_time, "REPEATS", 1)
        patch.setattr(quality, "fit_linear", fit_once)
        yield


@pytest.fixture
def quick_processes() -> Iterator[None]:
    """Fork the processes and kernels that the test starts."""
    with forked.processes():
        yield


@pytest.fixture(scope="session")
def csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a CSV file of 400 synthetic notices."""
    path = tmp_path_factory.mktemp("data") / "avisos.csv"
    synthetic.write_csv(synthetic.generate(400, seed=3), path)
    return path


@pytest.fixture(scope="session")
def config(csv: Path) -> TrainConfig:
    return from_recipe("cpu", {**TINY, "data": str(csv)})


@pytest.fixture(scope="session")
def notices(config: TrainConfig) -> Notices:
    return train.load_notices(config)


@pytest.fixture(scope="session")
def run(config: TrainConfig, notices: Notices, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a finished run of the tiny encoder; tests must not modify it."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    return train.fit(config.replace(out=str(out)), notices)


@pytest.fixture(scope="session")
def stopped_once(config: TrainConfig, notices: Notices, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a training stopped in its first epoch, with two checkpoints; tests copy it."""
    from tests.helpers.stopping import StopAfter

    out = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patch:
        StopAfter(patch, 4)
        with pytest.raises(AskedToStopError, match="ejecute lo mismo otra vez"):
            train.fit(config.replace(out=str(out)), notices)
    return out


@pytest.fixture
def stopped(config: TrainConfig, stopped_once: Path, tmp_path: Path) -> TrainConfig:
    """Return the config of a stopped training, which `train.fit` resumes: `out` is not in the fingerprint."""
    return config.replace(out=str(shutil.copytree(stopped_once, tmp_path / "run")))
