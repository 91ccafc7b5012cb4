"""Options of a command from the signature of a function or dataclass, parsed and explained in Spanish by argparse."""

import argparse
import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from typing_extensions import Doc

from ocensa_nb.errors import UserError, clipped, unknown

REQUIRED = inspect.Parameter.empty
HELP = "help"

# argparse sends its messages through gettext; these are the ones that a parser of options can give.
_SPANISH = {
    "expected one argument": "falta su valor. Si empieza por «-», escríbalo unido con «=»: OPCIÓN=VALOR.",
    "ignored explicit argument %r": "no lleva ningún valor, y hay %r.",
}
argparse._ = lambda message: _SPANISH.get(message, message)


class BadArgumentsError(UserError):
    """The command line cannot be parsed."""


def _integer(word: str) -> int:
    try:
        return int(word)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"«{clipped(word)}» no es un número entero.") from error


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError as error:
        point = " Escriba los decimales con punto, p. ej. 0.5." if "," in word else ""
        raise argparse.ArgumentTypeError(f"«{clipped(word)}» no es un número.{point}") from error


def _boolean(word: str) -> bool:
    if word.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"«{clipped(word)}» no es válido; escriba True o False.")
    return word.lower() == "true"


def _choice(choices: Sequence[str], word: str) -> str:
    if word not in choices:
        raise argparse.ArgumentTypeError(unknown("el valor", word, choices))
    return word


class _Pairs(argparse.Action):
    """The values of `--heads causa 0.6 modo 0.4` as a dictionary; `const` converts each second word."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        if len(values) % 2:
            raise argparse.ArgumentError(self, f"se esperan pares NOMBRE VALOR, y hay {len(values)} palabras.")
        try:
            pairs = {name: self.const(word) for name, word in zip(values[::2], values[1::2], strict=True)}
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentError(self, str(error)) from error
        setattr(namespace, self.dest, pairs)


_TYPES = {str: (str, "TEXTO"), int: (_integer, "ENTERO"), float: (_number, "NÚMERO"), bool: (_boolean, "{True,False}")}


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

    def add_to(self, group: Any) -> None:
        origin, arguments = get_origin(self.kind), get_args(self.kind)
        help_text = f"{self.help} {self._default()}".strip().replace("%", "%%")
        add = partial(group.add_argument, self.flag, dest=self.name, help=help_text)
        if origin is Literal:
            add(type=partial(_choice, arguments), metavar="{" + ",".join(arguments) + "}")
        elif origin is dict:
            add(nargs="*", action=_Pairs, const=_TYPES[arguments[1]][0], metavar="NOMBRE VALOR")
        elif origin is tuple:
            add(nargs="*", type=_TYPES[arguments[0]][0], metavar=_TYPES[arguments[0]][1])
        else:
            add(type=_TYPES[self.kind][0], metavar=_TYPES[self.kind][1])

    def _default(self) -> str:
        if self.default is REQUIRED:
            return "(obligatoria)"
        value = self.default
        if isinstance(value, Mapping):
            value = [word for pair in value.items() for word in pair]
        words = value if isinstance(value, list | tuple) else [value]
        shown = " ".join(f"{word:.6g}" if isinstance(word, float) else str(word) for word in words)
        return f"(por omisión: {shown})" if shown else ""


def options_of(source: Callable[..., Any], defaults: Any = None) -> list[Option]:
    """Return the options of a function or dataclass, one per parameter; `defaults` has other default values."""
    hints = get_type_hints(source, include_extras=True)
    options = []
    for name, parameter in inspect.signature(source).parameters.items():
        kind, doc = get_args(hints[name]) if get_origin(hints[name]) is Annotated else (hints[name], Doc(""))
        default = parameter.default if defaults is None else getattr(defaults, name)
        options.append(Option(name, kind, doc.documentation, default))
    return options


def split(options: Iterable[Option], words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the values of the options that are given, and the other words; raises `BadArgumentsError`."""
    try:
        values, rest = _parser(options).parse_known_args([_hyphenated(word) for word in words])
    except argparse.ArgumentError as error:
        raise BadArgumentsError(f"{error.argument_name}: {error.message}") from error
    lists_as_tuples = {name: tuple(value) if isinstance(value, list) else value for name, value in vars(values).items()}
    return lists_as_tuples, rest


def parse(options: Sequence[Option], words: Sequence[str]) -> dict[str, Any]:
    """Return the values of the options; raises `BadArgumentsError` for a bad value or a wrong or missing option."""
    values, rest = split(options, words)
    for word in rest:
        if word.startswith("-"):
            name = word.partition("=")[0]
            raise BadArgumentsError(unknown("La opción", name, [option.flag for option in options]))
        raise BadArgumentsError(f"«{clipped(word)}» sobra: cada valor va detrás de su opción, p. ej. --out ARCHIVO.")
    # Not argparse's `required`, which would hide that `--uot` does not exist behind the `--out` that is missing.
    if missing := [option.flag for option in options if option.default is REQUIRED and option.name not in values]:
        raise BadArgumentsError(f"Faltan opciones obligatorias: {', '.join(missing)}.")
    return values


def help_text(usage: str, about: str, options: Iterable[Option], verbs: Mapping[str, str] | None = None) -> str:
    """Return the help of a command, as wide as the terminal; verbs: its subcommands and what they do."""
    return _parser(options, f"Uso: {usage}\n\n{textwrap.fill(about, 78)}", verbs or {}).format_help()


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
        option.add_to(group)
    return parser


def _hyphenated(word: str) -> str:
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value
