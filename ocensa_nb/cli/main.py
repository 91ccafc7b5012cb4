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

from ocensa_nb.cli.arguments import HELP, BadArgumentsError, Option, help_text, options_of, parse, split
from ocensa_nb.cli.launch import launch
from ocensa_nb.cli.verbs import VERBS
from ocensa_nb.config import RECIPES, TrainConfig
from ocensa_nb.errors import AskedToStopError, IncompleteError, SharedError, StoppedError, UserError, unknown
from ocensa_nb.files.atomic import create_new
from ocensa_nb.paths import free_path, reason
from ocensa_nb.runtime import logs
from ocensa_nb.runtime.process import SafeStream, safe_output

PROGRAM = "python -m ocensa_nb"
ABOUT = (
    "Avisos de mantenimiento → modo de falla, causa y prioridad. Todos los comandos aceptan --json. La ayuda de cada "
    f"uno: {PROGRAM} COMANDO --help"
)
PROCESSES = Option("processes", int, "procesos de esta máquina que se reparten el trabajo, p. ej. uno por GPU", 1)
SHARED_VERBS = ("train", "predict")  # those that torchrun's processes do together
JSON = Option("json", str, "archivo nuevo para el resultado en JSON; - = en la pantalla", "")
RECIPE = Option(
    "recipe",
    str,
    f"receta: auto (según la máquina), {', '.join(RECIPES)}; los demás parámetros tienen prioridad sobre ella",
    "auto",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code; `arguments` defaults to `sys.argv[1:]`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a Windows code page may lack a character
            stream.reconfigure(errors="replace")
    rank = int(os.environ.get("RANK", 0))  # of torchrun
    logs.configure(
        rank=rank,
        line_seconds=float(os.environ.get("OCENSA_LINE_SECONDS", logs.LINE_SECONDS)),  # of the panel
    )
    words = sys.argv[1:] if arguments is None else list(arguments)
    with safe_output() as screen:
        try:
            return _run(words, screen)
        except StoppedError as error:
            if not rank:  # all processes stop at the same step
                print(error, file=sys.stderr)
            # 128 + signal is the shell convention for a process ended by a signal
            return 128 + error.signal if isinstance(error, AskedToStopError) else 1
        except BadArgumentsError as error:
            if not rank:
                print(f"{error}\n{_hint(words)}", file=sys.stderr)
            return 2
        except SharedError:
            return 1
        except UserError as error:
            print(f"Proceso {rank}: {error}" if rank else error, file=sys.stderr)
            return 1
        except MemoryError:
            print(
                "No hay memoria suficiente. Cierre otros programas, o use menos filas o un modelo menor.",
                file=sys.stderr,
            )
            return 1
        except KeyboardInterrupt:
            print("Interrumpido.", file=sys.stderr)
            return 130


def _run(arguments: list[str], screen: SafeStream) -> int:
    options, words = split([JSON], arguments)
    verb = words[0] if words else ""
    if options.get(HELP):
        print(_help(verb, words), end="")
        return 0
    if not verb or verb.startswith("-"):
        raise BadArgumentsError(f"Falta el comando, que es la primera palabra. Comandos: {', '.join(VERBS)}.")
    if verb not in VERBS:
        raise BadArgumentsError(unknown("El comando", verb, VERBS))
    values = parse(_options(verb), words[1:])
    if (processes := values.pop(PROCESSES.name, PROCESSES.default)) != 1:
        return launch(split([PROCESSES], arguments)[1], processes)
    target = options.get(JSON.name, JSON.default)
    if target not in ("", "-"):
        free_path(target)  # fail before the work, not after
    # With the JSON result on stdout, messages to the user go to stderr.
    with contextlib.redirect_stdout(sys.stderr) if target == "-" else contextlib.nullcontext():
        try:
            result, failure = _call(verb, values), None
        except IncompleteError as error:
            result, failure = error.result, error
    if result is not None:
        _write_json(result, target, screen)
    if failure is not None:
        raise failure
    return 0


def _call(verb: str, values: dict[str, Any]) -> dict[str, Any] | None:
    """Call a verb; return its result, or None in the processes of torchrun other than the first."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return VERBS[verb](**(_configure(values) if verb == "train" else values))
    from ocensa_nb.runtime import distributed

    with distributed.join(os.environ) as world:
        with world.agreed():
            if verb not in SHARED_VERBS:
                raise UserError(f"{verb} no se reparte entre procesos: ejecútelo sin torchrun.")
            arguments = _configure(values) if verb == "train" else values
        result = VERBS[verb](**arguments)
    return result if world.is_first else None


def _help(verb: str, words: list[str]) -> str:
    if verb not in VERBS:
        return help_text(f"{PROGRAM} COMANDO [OPCIONES]", ABOUT, [JSON], {name: _about(name) for name in VERBS})
    options = _options(verb, _configure(split([RECIPE], words)[0])["config"] if verb == "train" else None)
    return help_text(f"{PROGRAM} {verb} [OPCIONES]", _about(verb), [*options, JSON])


def _options(verb: str, config: TrainConfig | None = None) -> list[Option]:
    shared = [PROCESSES] if verb in SHARED_VERBS else []
    if verb == "train":
        return [RECIPE, *options_of(TrainConfig, config or TrainConfig()), *shared]
    return [*options_of(VERBS[verb]), *shared]


def _configure(values: dict[str, Any]) -> dict[str, Any]:
    from ocensa_nb.runtime.machine import configure

    fields = dict(values)
    recipe = fields.pop(RECIPE.name, RECIPE.default)
    return {"config": configure(recipe, fields), "recipe": recipe}


def _hint(words: list[str]) -> str:
    verb = f" {words[0]}" if words and words[0] in VERBS else ""
    return f"Ayuda: {PROGRAM}{verb} --help"


def _about(verb: str) -> str:
    return inspect.getdoc(VERBS[verb]) or ""


def _write_json(result: dict[str, Any], target: str, screen: SafeStream) -> None:
    text = json.dumps(result, ensure_ascii=False, indent=2) + "\n"
    if target == "-":
        print(text, end="", flush=True)
        if screen.failure:
            raise UserError(f"No se puede escribir el resultado en la salida: {reason(screen.failure)}.")
    elif target:
        with create_new(Path(target)) as temporary:
            temporary.write_text(text, encoding="utf-8")
