"""The command line. Exit codes: 0; 1 for a `UserError`; 2 for bad arguments; 128 + signal for a stopped process."""

import contextlib
import inspect
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ocensa_nb.cli.arguments import BadArgumentsError, Parser
from ocensa_nb.cli.launch import INTERRUPTED, launch
from ocensa_nb.cli.verbs import VERBS
from ocensa_nb.config import TrainConfig
from ocensa_nb.errors import IncompleteError, SharedError, StoppedError, UserError, unknown
from ocensa_nb.files.atomic import create_new
from ocensa_nb.paths import free_path, reason
from ocensa_nb.runtime import logs
from ocensa_nb.runtime.process import SafeStream, safe_output

PROGRAM = "python -m ocensa_nb"
ABOUT = (
    "Avisos de mantenimiento → modo de falla, causa y prioridad. Todos los comandos aceptan --json. La ayuda de cada "
    f"uno: {PROGRAM} COMANDO --help"
)
OUT_OF_MEMORY = "No hay memoria suficiente. Cierre otros programas, o use menos filas o un modelo menor."
SHARED_VERBS = ("train", "predict")  # those that torchrun's processes do together


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code; `arguments` defaults to `sys.argv[1:]`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a Windows code page may lack a character
            stream.reconfigure(errors="replace")
    rank = int(os.environ.get("RANK", 0))  # of torchrun
    line_seconds = float(os.environ.get("OCENSA_LINE_SECONDS", logs.LINE_SECONDS))  # of the panel
    logs.configure(rank=rank, line_seconds=line_seconds)
    words = sys.argv[1:] if arguments is None else list(arguments)
    with safe_output() as screen:
        try:
            return _run(words, screen)
        except SharedError as error:
            return error.exit_code
        except UserError as error:
            if not rank or not isinstance(error, StoppedError | BadArgumentsError):  # those are the same in all
                print(f"Proceso {rank}: {error}" if rank else error, file=sys.stderr)
            return error.exit_code
        except MemoryError:
            print(OUT_OF_MEMORY, file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("Interrumpido.", file=sys.stderr)
            return INTERRUPTED


def _run(words: list[str], screen: SafeStream) -> int:
    verb, options = (words[0], words[1:]) if words else ("", [])
    asks_help = not {"-h", "--help"}.isdisjoint(words)
    parser = _parser(verb, options if asks_help else None) if verb in VERBS else _parser_of_commands()
    if asks_help:
        print(parser.format_help(), end="")
        return 0
    if not verb or verb.startswith("-"):
        parser.error(f"Falta el comando, que es la primera palabra. Comandos: {', '.join(VERBS)}.")
    if verb not in VERBS:
        parser.error(unknown("El comando", verb, VERBS))
    values = parser.values(options)
    target, processes = values.pop("json", ""), values.pop("processes", 1)
    if processes != 1 and "RANK" not in os.environ:
        return launch(words, processes)
    piped = values.get("out") == "-"
    if piped and target == "-":
        parser.error("out = - y json = - escriben los dos en la pantalla: dé un archivo a uno de ellos.")
    if target not in ("", "-"):
        free_path(target)  # fail before the work, not after
    # With a result on stdout, messages to the user go to stderr.
    with contextlib.redirect_stdout(sys.stderr) if piped or target == "-" else contextlib.nullcontext():
        try:
            result = _call(verb, values)
        except IncompleteError as error:
            _write_json(error.result, target, screen)
            raise
        if result is not None:
            _write_json(result, target, screen)
    return 0


def _call(verb: str, values: dict[str, Any]) -> dict[str, Any] | None:
    """Call a verb; return its result, or None in the processes of torchrun other than the first."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return VERBS[verb](**values)
    from ocensa_nb.runtime import distributed

    with distributed.join(os.environ) as world:
        with world.agreed():
            if verb not in SHARED_VERBS:
                raise UserError(f"{verb} no se reparte entre procesos: ejecútelo sin torchrun.")
        result = VERBS[verb](**values)
    return result if world.is_first else None


def _parser_of_commands() -> Parser:
    parser = Parser(PROGRAM, ABOUT)
    parser.usage = f"{PROGRAM} COMANDO [OPCIONES]"
    for verb, work in VERBS.items():
        parser.add_argument(verb, nargs="?", metavar=verb, help=inspect.getdoc(work))
    return parser


def _parser(verb: str, help_words: Sequence[str] | None) -> Parser:
    """Return the parser of a verb; for the help of `train`, with the defaults of the recipe in the words."""
    parser = Parser(f"{PROGRAM} {verb}", inspect.getdoc(VERBS[verb]))
    parser.add_options(VERBS[verb])
    if verb == "train":
        config = TrainConfig()
        if help_words is not None:
            from ocensa_nb.runtime.machine import configure

            config = configure(vars(parser.parse_known_args(help_words)[0]).get("recipe", "auto"))
        parser.add_options(TrainConfig, config)
    if verb in SHARED_VERBS:
        about = "procesos de esta máquina que se reparten el trabajo, p. ej. uno por GPU"
        parser.add_option("processes", int, about, 1)
    parser.add_option("json", str, "archivo nuevo para el resultado en JSON; - = en la pantalla", "")
    return parser


def _write_json(result: dict[str, Any], target: str, screen: SafeStream) -> None:
    text = json.dumps(result, ensure_ascii=False, indent=2) + "\n"
    if target == "-":
        print(text, end="", flush=True, file=screen)
        if screen.failure:
            raise UserError(f"No se puede escribir el resultado en la salida: {reason(screen.failure)}.")
    elif target:
        with create_new(Path(target)) as temporary:
            temporary.write_text(text, encoding="utf-8")
