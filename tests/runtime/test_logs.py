"""Messages go to the present standard output once; progress without a terminal is a line from time to time."""

import logging
import sys

import pytest

from ocensa_nb.runtime import logs


@pytest.fixture(autouse=True)
def _restore_package_logger():
    yield
    logs.configure()


def test_message_goes_once_to_the_current_stdout(capsys):
    logs.configure()
    logs.configure()
    logging.getLogger("ocensa_nb.training").info("Época 1")
    assert capsys.readouterr() == ("Época 1\n", "")


def test_warning_has_a_spanish_prefix(capsys):
    logging.getLogger("ocensa_nb.engine").warning("sin memoria")
    assert capsys.readouterr().out == "Atención: sin memoria\n"


def test_percent_signs_and_braces_are_written_as_they_are(capsys):
    logging.getLogger("ocensa_nb").info("100 %s {x}")
    assert capsys.readouterr().out == "100 %s {x}\n"


def test_other_ranks_write_only_errors(capsys):
    logs.configure(rank=1)
    for write in (logging.getLogger("ocensa_nb").info, logging.getLogger("ocensa_nb").warning):
        write("de otro proceso")
    logging.getLogger("ocensa_nb").error("falló")
    assert capsys.readouterr().out == "Error: falló\n"


def test_progress_without_terminal_and_short_writes_nothing(capsys):
    assert list(logs.progress(range(1000), "Contando", "fila")) == list(range(1000))
    assert capsys.readouterr() == ("", "")


def test_progress_without_terminal_writes_one_line_per_interval(capsys, monkeypatch):
    bar = logs.progress(None, "Entrenando", "paso", total=200, delay=0, leave=True)
    seconds = bar.start_t
    monkeypatch.setattr(bar, "_time", lambda: seconds)
    bar.set_postfix_str("pérdida 0.5", refresh=False)
    for _ in range(100):
        seconds += 1
        bar.update()
    bar.close()
    out, error = capsys.readouterr()
    lines = out.splitlines()
    assert [line.partition(",")[0] for line in lines] == [f"Entrenando: {n} de 200" for n in (30, 60, 90)]
    assert lines[0].endswith("pérdida 0.5")
    assert error == ""


def test_progress_in_terminal_draws_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    list(logs.progress(range(3), "Contando", "fila", delay=0, leave=True))
    assert "Contando: 100%" in capsys.readouterr().err


def test_only_errors_writes_errors_and_restores_the_level(capsys):
    logger = logging.getLogger("ocensa_nb.engine")
    with logs.only_errors():
        logger.warning("una advertencia")
        logger.error("un error")
    logger.warning("otra advertencia")
    assert capsys.readouterr().out == "Error: un error\nAtención: otra advertencia\n"
