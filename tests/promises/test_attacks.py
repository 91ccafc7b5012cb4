"""Killed processes, races, damaged caches and read-only folders: no partial files, and the command can be run again.

`OCENSA_LONG=1` tests every file operation and ten times as many bits.
"""

import contextlib
import ctypes
import os
import random
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from ocensa_nb.cli import main as cli
from ocensa_nb.data import synthetic
from ocensa_nb.errors import UserError
from ocensa_nb.evaluation import evaluate, predict
from ocensa_nb.figures.training import training_gif
from ocensa_nb.files.notice_file import read_table
from ocensa_nb.runs import array_cache
from ocensa_nb.runs.run import GIF, Run
from ocensa_nb.training import train
from tests.helpers import forked
from tests.helpers.crash import LONG, is_killed, leftovers, make_abandoned_folder, sampled_operations
from tests.helpers.words import TRAIN

needs_kill = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL and forked processes")
needs_permissions = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs capset")


def run_evaluate(run, csv, out):
    assert cli.main(["evaluate", "--run", str(run), "--data", str(csv), "--out", str(out)]) == 0


def run_predict(run, csv, out):
    assert cli.main(["predict", "--run", str(run), "--data", str(csv), "--out", str(out)]) == 0


def draw_gif(run):
    training_gif(Run.load(run))


@pytest.mark.slow
@needs_kill
def test_evaluate_killed_at_any_file_operation_can_be_run_again(run, csv, tmp_path):
    run_evaluate(run.path, csv, tmp_path / "whole")
    expected = sorted(path.name for path in (tmp_path / "whole").iterdir())
    for operation in sampled_operations(130):
        folder = tmp_path / str(operation)
        folder.mkdir()
        if not is_killed(operation, run_evaluate, run.path, csv, folder / "out"):
            break
        if (folder / "out").exists():  # killed when only the temporary folder was left to remove
            assert sorted(path.name for path in (folder / "out").iterdir()) == expected
            (folder / "out").rename(folder / "first")
        run_evaluate(run.path, csv, folder / "out")
        assert sorted(path.name for path in (folder / "out").iterdir()) == expected
        assert not leftovers(folder)
    assert operation > 65


@needs_kill
@pytest.mark.slow
def test_predict_killed_at_any_file_operation_leaves_a_complete_file_or_none(run, csv, tmp_path):
    run_predict(run.path, csv, tmp_path / "whole.csv")
    for operation in sampled_operations(9):
        folder = tmp_path / str(operation)
        folder.mkdir()
        if not is_killed(operation, run_predict, run.path, csv, folder / "out.csv"):
            break
        if (folder / "out.csv").exists():
            (folder / "out.csv").rename(folder / "first.csv")
        run_predict(run.path, csv, folder / "out.csv")
        assert not leftovers(folder)
        for path in folder.iterdir():
            assert path.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert operation > 3


@pytest.mark.slow
@needs_kill
def test_training_gif_killed_at_any_file_operation_is_complete_or_absent(run, tmp_path):
    copy = tmp_path / "run"
    for operation in sampled_operations(9):
        if not is_killed(operation, draw_gif, copied(run, copy)):
            break
        if (copy / GIF).exists():
            with Image.open(copy / GIF) as image:
                image.seek(image.n_frames - 1)
        training_gif(Run.load(copy))
        assert not leftovers(copy)
        with Image.open(copy / GIF) as image:
            assert image.n_frames >= 2
    assert operation > 2


def copied(run, target):
    shutil.rmtree(target, ignore_errors=True)
    return shutil.copytree(run.path, target)


def fill_cache(folder, number, barrier):
    array = np.random.default_rng(number).random((50, 20), dtype=np.float32)
    for round_ in range(20):
        barrier.wait(60)
        with array_cache.write(folder, f"key{round_}", array.shape, np.float32) as empty:
            empty[:] = array
        found = array_cache.read(folder, f"key{round_}", array.shape, np.float32)
        assert found is None or found.sum() > 0
        barrier.wait(60)


@pytest.mark.slow
def test_array_cache_written_by_two_processes_is_valid_or_absent(tmp_path):
    context = forked.context()
    barrier = context.Barrier(2)
    writers = [context.Process(target=fill_cache, args=(tmp_path, number, barrier)) for number in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
        assert writer.exitcode == 0
    known = [np.random.default_rng(number).random((50, 20), dtype=np.float32) for number in range(2)]
    for round_ in range(20):
        found = array_cache.read(tmp_path, f"key{round_}", (50, 20), np.float32)
        assert found is None or any(np.array_equal(found, one) for one in known)
    assert not leftovers(tmp_path)


def test_array_cache_with_flipped_bit_or_truncation_is_detected(tmp_path):
    draw = random.Random(5)
    shape = (7, 9)
    with array_cache.write(tmp_path, "key", shape, np.float32) as array:
        array[:] = 1.5
    whole = {path: path.read_bytes() for path in tmp_path.iterdir()}
    data, seal = sorted(whole)
    expected = np.full(shape, 1.5, np.float32)
    for path in (data, seal):
        for number in range(1000 if LONG else 100):
            damaged = bytearray(whole[path])
            place = draw.randrange(len(damaged))
            if number % 5:
                damaged[place] ^= 1 << draw.randrange(8)
            else:
                del damaged[place:]
            path.write_bytes(damaged)
            found = array_cache.read(tmp_path, "key", shape, np.float32)
            # A flipped bit of the JSON may be insignificant, such as in a space; the array is then valid.
            assert found is None or (path == seal and np.array_equal(found, expected))
        path.write_bytes(whole[path])
    assert np.array_equal(array_cache.read(tmp_path, "key", shape, np.float32), expected)


def test_make_room_removes_temporary_folder_of_killed_cache_build(tmp_path):
    (make_abandoned_folder(tmp_path) / "key.bin").write_bytes(bytes(1000))
    assert array_cache.make_room(tmp_path, 10)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_evaluate_and_predict_during_another_training_give_the_same_results(run, config, csv, tmp_path):
    command = [*TRAIN, "--data", csv, *["--epochs", "6", "--precision", "fp32"]]
    training = forked.start(*command, "--out", tmp_path / "training")
    rounds = 0
    try:
        while training.poll() is None:
            metrics = evaluate.evaluate(run).metrics
            assert metrics["causa_f1"] == pytest.approx(run.metrics["test"]["causa_f1"], abs=1e-6)
            assert len(predict.predict(run, csv).table) == 400
            with contextlib.suppress(UserError):  # raised until training has finished
                assert Run.load(tmp_path / "training").config.epochs == 6
            rounds += 1
    finally:
        training.kill()
        said = training.communicate()[1]
    assert training.returncode == 0, said
    assert rounds > 1
    assert Run.load(tmp_path / "training").metrics["epochs"] == 6


VERBS = {
    "generate": ["generate", "--rows", "30", "--out"],
    "evaluate": ["evaluate", "--run", "RUN", "--data", "DATA", "--out"],
    "train": [*TRAIN, "--data", "DATA", "--epochs", "1", "--out"],
}


def without_privileges(home, commands, errors):
    """Run commands, one after the other, without root's right to bypass permissions; exit with their exit codes."""
    os.environ["HOME"] = str(home)
    if os.geteuid() == 0:  # capset(2): version 3, this process; no capability is effective, permitted or inheritable
        header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        assert ctypes.CDLL(None).capset(header, nothing) == 0
    with open(errors, "w", encoding="utf-8") as file, contextlib.redirect_stderr(file):
        codes = [cli.main(command) for command in commands]
    os._exit(int("".join(map(str, codes)), 2))


@needs_permissions
@pytest.mark.parametrize("verbs", [["generate"], pytest.param(["evaluate", "train"], marks=pytest.mark.slow)])
def test_verb_with_read_only_out_is_an_error_message_and_with_read_only_home_works(run, csv, tmp_path, verbs):
    closed, opened = tmp_path / "closed", tmp_path / "open"
    closed.mkdir(mode=0o555)
    opened.mkdir()
    places = {"RUN": run.path, "DATA": csv}
    commands = [
        [*(str(places.get(word, word)) for word in VERBS[verb]), str(folder / verb)]
        for folder in (closed, opened)
        for verb in verbs
    ]
    child = forked.context().Process(target=without_privileges, args=(closed, commands, tmp_path / "errors.txt"))
    child.start()
    child.join(120)
    errors = (tmp_path / "errors.txt").read_text(encoding="utf-8")
    assert f"{child.exitcode:b}" == "1" * len(verbs) + "0" * len(verbs), errors
    assert errors.count("no hay permiso") == len(verbs)
    assert "Traceback" not in errors
    assert sorted(path.name for path in opened.iterdir()) == sorted(verbs)
    assert not list(closed.iterdir())


@pytest.mark.parametrize("suffix", [".csv", ".xlsx"])
@pytest.mark.parametrize(
    "name", ["descripcion", *(pytest.param(name, marks=pytest.mark.slow) for name in ("Equipo", "causa_falla", ""))]
)
def test_fit_and_predict_with_duplicate_column_names_keep_their_order(config, tmp_path, suffix, name):
    frame = synthetic.generate(60, seed=2)
    for _ in range(2):
        frame.insert(len(frame.columns), name, [f"x{number % 3}" for number in range(60)], allow_duplicates=True)
    path = tmp_path / f"a{suffix}"
    frame.to_csv(path, index=False) if suffix == ".csv" else frame.to_excel(path, index=False)
    table = read_table(path).table
    assert table.columns.is_unique
    assert table.shape == frame.shape
    run = train.fit(config.replace(data=str(path), out=str(tmp_path / "run"), epochs=1))
    assert run.metadata["data"]["columns"]["descripcion"] == "descripcion"
    out = predict.save(predict.predict(run, path), tmp_path / f"p{suffix}")
    assert list(read_table(out).table.columns)[: frame.shape[1]] == list(table.columns)
