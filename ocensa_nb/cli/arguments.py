"""Options of a command, from the signature of a function or a dataclass: parsing, errors and help in Spanish.

argparse splits the words and lays out the help. Its own messages are English, so it gets no required option, no type
and no choices: those are checked here. tyro has no supported way to change its messages.
"""

import argparse
import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from typing_extensions import Doc

from ocensa_nb.errors import UserError, clipped, unknown

REQUIRED = inspect.Parameter.empty
HELP = "help"
_METAVARS = {str: "TEXTO", int: "ENTERO", float: "NÚMERO", bool: "{True,False}"}
_KINDS = {int: "un número entero", float: "un número"}


class BadArgumentsError(UserError):
    """The words of the command line are not valid arguments."""


@dataclass(frozen=True)
class Option:
    """One `--name` of a command: its type, help text and default value, or `REQUIRED`."""

    name: str
    kind: Any
    help: str
    default: Any = REQUIRED

    @property
    def flag(self) -> str:
        """The option as it is typed: `--batch-size`. A parameter with the name of a keyword ends in `_`: `with_`."""
        return "--" + self.name.rstrip("_").replace("_", "-")

    @property
    def takes_many(self) -> bool:
        """Whether the option takes any number of words."""
        return get_origin(self.kind) in (dict, tuple)

    @property
    def metavar(self) -> str:
        """The placeholder of the value in the help."""
        if get_origin(self.kind) is dict:
            return "NOMBRE VALOR"
        if get_origin(self.kind) is Literal:
            return "{" + ",".join(get_args(self.kind)) + "}"
        return _METAVARS[get_args(self.kind)[0] if self.takes_many else self.kind]


def options_of(source: Callable[..., Any], defaults: Any = None) -> list[Option]:
    """Return the options of a function or dataclass, one per parameter."""
    hints = get_type_hints(source, include_extras=True)
    found = []
    for name, parameter in inspect.signature(source).parameters.items():
        kind, doc = get_args(hints[name]) if get_origin(hints[name]) is Annotated else (hints[name], Doc(""))
        default = parameter.default if defaults is None else getattr(defaults, name)
        found.append(Option(name, kind, doc.documentation, default))
    return found


def split(options: Iterable[Option], words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the converted values of the options that are given, and the words that belong to none.

    `-h` and `--help` are always an option; `given["help"]` is then True.

    Raises
    ------
    BadArgumentsError
        If an option has no value, or one of another type.
    """
    by_name = {option.name: option for option in options}
    try:
        found, rest = _parser(by_name.values()).parse_known_args([_hyphenated(word) for word in words])
    except argparse.ArgumentError as error:
        flag = (error.argument_name or "").split("/")[-1]
        raise BadArgumentsError(
            "--help no lleva ningún valor."
            if flag == "--help"
            else f"Falta el valor de {flag}. Si empieza por «-», escríbalo unido con «=»: {flag}=VALOR."
        ) from error
    given = vars(found)
    return {name: value if name == HELP else _convert(by_name[name], value) for name, value in given.items()}, rest


def parse(options: Sequence[Option], words: Sequence[str]) -> dict[str, Any]:
    """Return the values of the options that are given.

    Raises
    ------
    BadArgumentsError
        If a word belongs to no option, a required option is missing, or a value is not valid.
    """
    given, rest = split(options, words)
    for word in rest:
        if word.startswith("-"):
            name = word.partition("=")[0]
            raise BadArgumentsError(unknown("La opción", name, [option.flag for option in options]))
        raise BadArgumentsError(f"«{clipped(word)}» sobra: cada valor va detrás de su opción, p. ej. --out ARCHIVO.")
    if missing := [option.flag for option in options if option.default is REQUIRED and option.name not in given]:
        raise BadArgumentsError(
            f"Falta la opción {missing[0]}." if len(missing) == 1 else f"Faltan las opciones {', '.join(missing)}."
        )
    return given


def help_text(usage: str, about: str, options: Iterable[Option], verbs: Mapping[str, str] | None = None) -> str:
    """Return the help of a command in Spanish, as wide as the terminal.

    Parameters
    ----------
    usage
        The command line in short.
    about
        What the command does.
    options
        Its options.
    verbs
        Its subcommands and what they do.
    """
    return _parser(options, f"Uso: {usage}\n\n{textwrap.fill(about, 78)}", verbs).format_help()


def _parser(
    options: Iterable[Option], description: str = "", verbs: Mapping[str, str] | None = None
) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        usage=argparse.SUPPRESS,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        add_help=False,
        allow_abbrev=False,
        exit_on_error=False,
    )
    if verbs:
        commands = parser.add_argument_group("Comandos")
        for verb, about in verbs.items():
            commands.add_argument(verb, nargs="?", metavar=verb, help=about.replace("%", "%%"))
    group = parser.add_argument_group("Opciones")
    group.add_argument("-h", "--help", action="store_true", help="mostrar esta ayuda y salir")
    for option in options:
        text = f"{option.help} {_default(option)}".strip().replace("%", "%%")
        nargs = "*" if option.takes_many else None
        group.add_argument(option.flag, dest=option.name, nargs=nargs, metavar=option.metavar, help=text)
    return parser


def _default(option: Option) -> str:
    if option.default is REQUIRED:
        return "(obligatoria)"
    value = option.default
    if isinstance(value, Mapping):
        value = [word for pair in value.items() for word in pair]
    words = value if isinstance(value, list | tuple) else [value]
    shown = " ".join(f"{word:.6g}" if isinstance(word, float) else str(word) for word in words)
    return f"(por omisión: {shown})" if shown else ""


def _hyphenated(word: str) -> str:
    """Return an option with hyphens in place of underscores: `--batch_size` is `--batch-size`."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


def _convert(option: Option, value: Any) -> Any:
    if get_origin(option.kind) is tuple:
        return tuple(value)
    if get_origin(option.kind) is dict:
        if len(value) % 2:
            raise BadArgumentsError(f"{option.flag}: se esperan pares NOMBRE VALOR, y hay {len(value)} palabras.")
        kind = get_args(option.kind)[1]
        return {name: _scalar(option.flag, kind, word) for name, word in zip(value[::2], value[1::2], strict=True)}
    return _scalar(option.flag, option.kind, value)


def _scalar(flag: str, kind: Any, word: str) -> Any:
    if get_origin(kind) is Literal:
        if word not in get_args(kind):
            raise BadArgumentsError(unknown(f"En {flag}, el valor", word, get_args(kind)))
        return word
    if kind is bool:
        if word.lower() not in ("true", "false"):
            raise BadArgumentsError(f"{flag}: «{clipped(word)}» no es válido; escriba True o False.")
        return word.lower() == "true"
    try:
        return kind(word)
    except ValueError as error:
        point = " Escriba los decimales con punto, p. ej. 0.5." if kind is float and "," in word else ""
        raise BadArgumentsError(f"{flag}: «{clipped(word)}» no es {_KINDS[kind]}.{point}") from error
