"""Killed processes, races, damaged caches and read-only folders: no partial files, and the command can be run again.

`OCENSA_LONG=1` tests every file operation and ten times as many bits.
"""

import contextlib
import ctypes
import io
import os
import random
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from ocensa_nb.audit.audit import audit, settings
from ocensa_nb.cli import main as cli
from ocensa_nb.data import synthetic
from ocensa_nb.errors import UserError
from ocensa_nb.evaluation import evaluate, predict
from ocensa_nb.figures.audit import save_audit
from ocensa_nb.figures.training import training_gif
from ocensa_nb.files.notice_file import read_table
from ocensa_nb.runs import array_cache
from ocensa_nb.runs.run import GIF, Run
from ocensa_nb.training import train
from tests.helpers import forked
from tests.helpers.crash import LONG, is_killed, leftovers, make_abandoned_folder, sampled_operations
from tests.helpers.experiments import quick_cases
from tests.helpers.words import TRAIN

needs_kill = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL and forked processes")
needs_permissions = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs capset")


VERBS = {
    "generate": ["generate", "--rows", "30"],
    "evaluate": ["evaluate", "--run", "RUN", "--data", "DATA"],
    "predict": ["predict", "--run", "RUN", "--data", "DATA", "--format", "csv"],
    "audit": ["audit", "--data", "DATA", "--heads", "prioridad"],
    "review": ["review", "--run", "RUN", "--data", "DATA", "--rows", "3"],
    "train": [*TRAIN, "--data", "DATA", "--epochs", "1"],
    "experiments": ["experiments", "--grid", "GRID"],
}
SUFFIXES = {"predict": ".csv", "review": ".xlsx"}
CONTINUED = ("experiments",)  # by the same command in the same folder
LEAST_OPERATIONS = {"evaluate": 65, "predict": 3, "audit": 48, "review": 3, "experiments": 72}  # of the file system
attacked = pytest.mark.parametrize("verb", ["audit", "review"])


@pytest.fixture
def command(run, csv, tmp_path):
    """Return the words of a verb that writes to a path; of `audit` and `review` with notices that no run knows."""
    few, grid = tmp_path / "few.csv", tmp_path / "trained/grid.yaml"
    synthetic.write_csv(synthetic.generate(60, seed=4), few)
    shutil.copytree(run.path, grid.parent)
    content = {"base": {"model": "tiny", "data": str(csv)}, "grid": {"predict_with": ["auto", "linear"]}}
    grid.write_text(yaml.safe_dump(content), encoding="utf-8")

    def words(verb, out):
        places = {"RUN": run.path, "GRID": grid, "DATA": few if verb in ("audit", "review") else csv}
        return [*(str(places.get(word, word)) for word in VERBS[verb]), "--out", str(out)]

    return words


def exit_code(words):
    """Return the exit code of a verb; the cases of `experiments` copy the run in whose folder their grid is."""
    with quick_cases(Path(words[2]).parent) if words[0] == "experiments" else contextlib.nullcontext():
        return cli.main(words)


def run_verb(words):
    assert exit_code(words) == 0


def content(path):
    """Return what has to be the same in each result of a verb: a book has the time at which it was written."""
    if path.is_dir():
        files = sorted(path.rglob("*"))
        return {str(file.relative_to(path)): file.suffix == ".csv" and file.read_bytes() for file in files}
    if path.suffix == ".csv":
        return path.read_bytes()
    return {name: table.to_csv() for name, table in pd.read_excel(path, sheet_name=None).items()}


def draw_gif(run):
    training_gif(Run.load(run))


@pytest.mark.slow
@needs_kill
@pytest.mark.parametrize("verb", LEAST_OPERATIONS)
def test_verb_killed_at_any_file_operation_leaves_all_or_nothing_and_can_be_run_again(command, tmp_path, verb):
    suffix = SUFFIXES.get(verb, "")
    # what an audit writes; the rest takes seconds and has no file operations
    audited = audit(settings(str(tmp_path / "few.csv"), ["prioridad"])) if verb == "audit" else None

    def work(out):
        return (save_audit, audited, out) if audited else (run_verb, command(verb, out))

    function, *arguments = work(tmp_path / f"whole{suffix}")
    function(*arguments)
    whole = content(tmp_path / f"whole{suffix}")
    for operation in sampled_operations(2 * LEAST_OPERATIONS[verb]):
        folder = tmp_path / str(operation)
        folder.mkdir()
        function, *arguments = work(folder / f"out{suffix}")
        if not is_killed(operation, function, *arguments):
            break
        # killed when only what is temporary was left to remove
        if verb not in CONTINUED and (folder / f"out{suffix}").exists():
            assert content(folder / f"out{suffix}") == whole
            (folder / f"out{suffix}").rename(folder / f"first{suffix}")
        function(*arguments)
        assert content(folder / f"out{suffix}") == whole
        assert not leftovers(folder)
    assert operation >= LEAST_OPERATIONS[verb]
    print(f"{verb}: {operation} operations")


def attempt(words, errors, barrier, limit):
    """Run a verb together with others, or with a limit of bytes per file; exit with its exit code."""
    import resource

    if barrier:
        barrier.wait(60)
    with contextlib.redirect_stderr(io.StringIO()) as said:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit or resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        code = exit_code(words)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    errors.write_text(said.getvalue(), encoding="utf-8")
    os._exit(code)


def attempts(commands, folder, barrier=None, limit=0):
    """Return the exit codes of verbs that run at once, and what they wrote to standard error."""
    files = [folder / f"errors{number}.txt" for number in range(len(commands))]
    context = forked.context()
    children = [
        context.Process(target=attempt, args=(words, file, barrier, limit))
        for words, file in zip(commands, files, strict=True)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    errors = "".join(file.read_text(encoding="utf-8") for file in files)
    assert "Traceback" not in errors
    return sorted(child.exitcode for child in children), errors


@pytest.mark.slow
@needs_kill
@pytest.mark.parametrize("verb", ["audit", "review", "experiments"])
def test_verb_twice_at_once_writes_one_result_and_says_so_to_the_other(command, tmp_path, verb):
    out = tmp_path / f"out{SUFFIXES.get(verb, '')}"
    for _ in range(10 if LONG else 1):
        shutil.rmtree(out) if out.is_dir() else out.unlink(missing_ok=True)
        codes, errors = attempts([command(verb, out)] * 2, tmp_path, forked.context().Barrier(2))
        first = content(out)
        shutil.rmtree(out) if out.is_dir() else out.unlink()
        run_verb(command(verb, out))
        assert (codes, len(errors.splitlines())) == ([0, 1], 1)
        assert first == content(out)
        assert not leftovers(tmp_path)


@pytest.mark.slow
@needs_kill
@attacked
def test_verb_on_a_full_disk_is_one_message_and_leaves_nothing(command, tmp_path, verb):
    folder = tmp_path / "out"
    folder.mkdir()
    for limit in [*range(1, 10_000, 400)] if LONG else [3_000]:
        codes, errors = attempts([command(verb, folder / f"out{SUFFIXES.get(verb, '')}")], tmp_path, limit=limit)
        assert (codes, len(errors.splitlines())) == ([1], 1), errors
        assert not list(folder.iterdir())


@pytest.fixture
def started(command, tmp_path):
    """Return an experiment with files of the user, without the manifest of its run and one of its evaluations."""
    out = tmp_path / "started"
    run_verb(command("experiments", out))
    trainer, other = sorted((out / "cases").iterdir())
    (trainer / "run/manifest.json").unlink()
    shutil.rmtree(other / "evaluation")
    for folder in (out, trainer, other, trainer / "run"):
        (folder / "notas.csv").write_text("del usuario", encoding="utf-8")
    return out


@pytest.mark.slow
@needs_kill
def test_continued_grid_killed_at_any_file_operation_ends_alike_and_keeps_files_of_the_user(command, started, tmp_path):
    run_verb(command("experiments", shutil.copytree(started, tmp_path / "whole")))
    whole = content(tmp_path / "whole")
    for operation in sampled_operations(100):
        out = tmp_path / str(operation)
        shutil.copytree(started, out)
        if not is_killed(operation, run_verb, command("experiments", out)):
            break
        run_verb(command("experiments", out))
        assert content(out) == whole
    assert operation > 50
    print(f"continued: {operation} operations")


@pytest.mark.slow
@needs_kill
def test_grid_on_a_full_disk_says_so_and_continues_when_there_is_room(command, started, tmp_path):
    run_verb(command("experiments", shutil.copytree(started, tmp_path / "whole")))
    whole = content(tmp_path / "whole")
    for limit in [*range(1, 10_000, 400)] if LONG else [1, 3_000]:
        out = shutil.copytree(started, tmp_path / f"limit-{limit}")
        codes, errors = attempts([command("experiments", out)], tmp_path, limit=limit)
        assert codes == [1]
        assert errors
        run_verb(command("experiments", out))
        assert content(out) == whole


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


def without_privileges(home, commands, errors):
    """Run commands, one after the other, without root's right to bypass permissions; exit with their exit codes."""
    os.environ["HOME"] = str(home)
    if os.geteuid() == 0:  # capset(2): version 3, this process; no capability is effective, permitted or inheritable
        header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        assert ctypes.CDLL(None).capset(header, nothing) == 0
    with open(errors, "w", encoding="utf-8") as file, contextlib.redirect_stderr(file):
        codes = [exit_code(command) for command in commands]
    os._exit(int("".join(map(str, codes)), 2))


@needs_permissions
@pytest.mark.parametrize(
    "verbs",
    [
        ["generate"],
        pytest.param(["evaluate", "train", "audit", "review"], marks=pytest.mark.slow),
        pytest.param(["experiments"], marks=pytest.mark.slow),
    ],
)
def test_verb_with_read_only_out_is_an_error_message_and_with_read_only_home_works(command, tmp_path, verbs):
    closed, opened = tmp_path / "closed", tmp_path / "open"
    closed.mkdir(mode=0o555)
    opened.mkdir()
    commands = [
        command(verb, folder / f"{verb}{SUFFIXES.get(verb, '')}") for folder in (closed, opened) for verb in verbs
    ]
    child = forked.context().Process(target=without_privileges, args=(closed, commands, tmp_path / "errors.txt"))
    child.start()
    child.join(120)
    errors = (tmp_path / "errors.txt").read_text(encoding="utf-8")
    assert f"{child.exitcode:b}" == "1" * len(verbs) + "0" * len(verbs), errors
    assert errors.count("no hay permiso") == len(verbs)
    assert "Traceback" not in errors
    assert sorted(path.stem for path in opened.iterdir()) == sorted(verbs)
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
    assert list(read_table(out, sheet="Sheet1").table.columns)[: frame.shape[1]] == list(table.columns)
