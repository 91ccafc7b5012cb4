"""No file of the user is overwritten or deleted, whatever its name and whenever it is created."""

import concurrent.futures
import shutil
import signal

import pytest

from ocensa_nb.cli import main as cli
from ocensa_nb.data import synthetic
from ocensa_nb.errors import AskedToStopError, UserError
from ocensa_nb.notebook import suite
from ocensa_nb.paths import ROOT
from ocensa_nb.runtime import process as signals
from ocensa_nb.training import quality, train
from tests.helpers.stopping import StopAfter

SAP_EXAMPLE = ROOT / "data/example_iw69.csv"


@pytest.fixture
def commands(run, csv, tmp_path):
    """Return the arguments of each verb that writes an output, and the path that it writes."""
    out = tmp_path / "salida"
    out.mkdir()
    generate = ["generate", "--rows", "20"]
    return {
        "generate": ([*generate, "--out", str(out / "a.csv")], out / "a.csv"),
        "json": ([*generate, "--out", str(tmp_path / "b.csv"), "--json", str(out / "a.json")], out / "a.json"),
        "predict": (
            ["predict", "--run", str(run.path), "--data", str(csv), "--out", str(out / "a.csv")],
            out / "a.csv",
        ),
        "predict_xlsx": (
            ["predict", "--run", str(run.path), "--data", str(csv), "--out", str(out / "a.xlsx")],
            out / "a.xlsx",
        ),
        "evaluate": (["evaluate", "--run", str(run.path), "--out", str(out / "e")], out / "e"),
        "audit": (["audit", "--data", str(csv), "--heads", "modo", "--out", str(out / "u")], out / "u"),
        "review": (
            ["review", "--run", str(run.path), "--data", str(SAP_EXAMPLE), "--rows", "5", "--out", str(out / "r.xlsx")],
            out / "r.xlsx",
        ),
    }


verbs = pytest.mark.parametrize("verb", ["generate", "json", "predict", "predict_xlsx", "evaluate", "audit", "review"])


@verbs
def test_verb_leaves_user_folder_with_temporary_looking_name_unchanged(commands, verb):
    arguments, path = commands[verb]
    mine = path.with_name(f".tmp-{path.name}")
    mine.mkdir()
    (mine / "nota.txt").write_text("mía")
    assert cli.main(arguments) == 0
    assert (mine / "nota.txt").read_text() == "mía"
    assert sorted(file.name for file in path.parent.iterdir()) == sorted([mine.name, path.name])


@verbs
def test_verb_with_broken_link_at_out_exits_1_and_keeps_the_link(commands, verb, capsys):
    arguments, path = commands[verb]
    path.symlink_to("no-existe")
    assert cli.main(arguments) == 1
    assert "no se sobrescribe nada" in capsys.readouterr().err
    assert path.is_symlink()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_generate_with_out_created_meanwhile_exits_1_and_keeps_the_file(commands, monkeypatch, capsys):
    arguments, path = commands["generate"]
    write = synthetic.write_csv
    monkeypatch.setattr(synthetic, "write_csv", lambda frame, fresh: (write(frame, fresh), path.write_text("mío")))
    assert cli.main(arguments) == 1
    assert f"Ya existe «{path}»" in capsys.readouterr().err
    assert path.read_text() == "mío"


def test_fit_in_user_folder_with_internal_looking_files_raises_and_keeps_them(config, tmp_path):
    for name in (".tmp-probe", ".lock"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text("mío")
        with pytest.raises(UserError, match="no está vacía"):
            train.fit(config.replace(out=str(folder)))
        assert (folder / name).read_text() == "mío"


def test_fit_leaves_user_file_with_temporary_looking_name_unchanged(config, notices, tmp_path):
    (tmp_path / ".tmp-run").write_text("mío")
    train.fit(config.replace(out=str(tmp_path / "run"), epochs=1), notices)
    assert (tmp_path / ".tmp-run").read_text() == "mío"


@pytest.mark.parametrize("when", ["before a checkpoint", "while it is asked to stop", "while the model is saved"])
def test_fit_with_run_folder_deleted_during_training_reports_the_loss(config, notices, tmp_path, monkeypatch, when):
    out = tmp_path / "run"
    owner, name, number = {
        "before a checkpoint": (train.CheckpointManager, "save", 2),
        "while it is asked to stop": (signals.StopRequest, "check", 3),
        "while the model is saved": (quality, "save_model", 1),
    }[when]
    save, calls = train.CheckpointManager.save, 0

    def save_now(checkpoints):
        save(checkpoints)
        concurrent.futures.wait([checkpoints._writing])

    def deleting(self, *arguments):
        nonlocal calls
        calls += 1
        if calls == number:
            shutil.rmtree(out)
            if name == "check":
                self.signal = signal.SIGINT
        return whole(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(train.CheckpointManager, "save", save_now)
        whole = getattr(owner, name)
        patch.setattr(owner, name, deleting)
        with pytest.raises(UserError, match="se borró o se movió mientras se entrenaba") as raised:
            train.fit(config.replace(out=str(out), epochs=1), notices)
    assert "continúa donde" not in str(raised.value)
    assert not out.exists()
    StopAfter(monkeypatch, 1)
    with pytest.raises(AskedToStopError, match="el avance quedó guardado"):  # it starts again
        train.fit(config.replace(out=str(out)), notices)


def test_suite_after_interrupt_resumes_at_the_interrupted_notebook(run, tmp_path, monkeypatch):
    executed = []

    def execute(notebook, folder, parameters):
        executed.append(notebook.stem)
        if notebook.stem == "03_train":
            shutil.copytree(run.path, parameters["out"])
        if executed.count(notebook.stem) == 1 and notebook.stem in ("03_train", "04_evaluate"):
            raise KeyboardInterrupt

    monkeypatch.setattr(suite, "execute", execute)
    out = tmp_path / "demo"
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            suite.suite(out, {"epochs": 1})
        monkeypatch.setattr(suite, "is_running", lambda process: False)
    with pytest.raises(UserError, match="otros parámetros"):
        suite.suite(out, {"epochs": 2})
    assert list(suite.suite(out, {"epochs": 1})["seconds"]) == list(suite.SUITE)
    assert executed == [*suite.SUITE[:3], *suite.SUITE[2:4], *suite.SUITE[3:]]
    assert [path.name for path in out.iterdir()] == ["run"]


def test_suite_in_folder_of_another_running_suite_raises_user_error(tmp_path, monkeypatch):
    monkeypatch.setattr(suite, "execute", lambda *_: pytest.fail("executed"))
    suite._keep(tmp_path, {}, {})
    with pytest.raises(UserError, match="Otro proceso está ejecutando la suite"):
        suite.suite(tmp_path)
