"""A parser of options made from the signature of a function or dataclass: argparse, in Spanish."""

import argparse
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from typing_extensions import Doc

from ocensa_nb.errors import UserError, clipped, unknown

REQUIRED = inspect.Parameter.empty

# argparse sends its texts through gettext; these are the ones that `Parser` can show.
_SPANISH = {
    "usage: ": "Uso: ",
    "options": "Opciones",
    "positional arguments": "Comandos",
    "expected one argument": "falta su valor. Si empieza por «-», escríbalo unido con «=»: OPCIÓN=VALOR.",
    "ignored explicit argument %r": "no lleva ningún valor, y hay %r.",
    "invalid choice: %(value)r (choose from %(choices)s)": "el valor «%(value)s» no existe. Opciones: %(choices)s.",
    "the following arguments are required: %s": "Faltan opciones obligatorias: %s.",
    "unrecognized arguments: %s": "«%s» sobra: cada valor va detrás de su opción, p. ej. --out ARCHIVO.",
}
argparse._ = lambda message: _SPANISH.get(message, message)


class BadArgumentsError(UserError):
    """The command line cannot be parsed."""

    exit_code = 2


def _type(convert: Callable[[str], Any], complaint: str) -> Callable[[str], Any]:
    """Return a type for argparse that complains in Spanish about a word that it cannot convert."""

    def converted(word: str) -> Any:
        try:
            return convert(word)
        except (ValueError, KeyError) as error:
            raise argparse.ArgumentTypeError(f"«{clipped(word)}» {complaint}") from error

    return converted


_BOOLEANS = {"true": True, "false": False}
_TYPES = {
    str: (str, "TEXTO"),
    int: (_type(int, "no es un número entero."), "ENTERO"),
    float: (_type(float, "no es un número. Escriba los decimales con punto, p. ej. 0.5."), "NÚMERO"),
    bool: (_type(lambda word: _BOOLEANS[word.lower()], "no es válido; escriba True o False."), "{True,False}"),
}


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


class Parser(argparse.ArgumentParser):
    """The options of a command; one that is not given has no value."""

    def __init__(self, program: str, about: str) -> None:
        usage, unset = f"{program} [OPCIONES]", argparse.SUPPRESS
        super().__init__(program, usage, about, argument_default=unset, add_help=False, allow_abbrev=False)
        self.add_argument("-h", "--help", action="store_true", help="mostrar esta ayuda y salir")
        self._flags = ["--help"]

    def add_option(self, name: str, kind: Any, about: str, default: Any = REQUIRED) -> None:
        """Add `--batch-size` for the name `batch_size`; a name that is a keyword of Python ends in `_`: `with_`."""
        flag = "--" + name.rstrip("_").replace("_", "-")
        self._flags.append(flag)
        about = f"{about} {_shown(default)}".strip().replace("%", "%%")
        common = {"dest": name, "required": default is REQUIRED, "help": about}
        origin, inner = get_origin(kind), get_args(kind)
        if origin is Literal:
            self.add_argument(flag, choices=inner, **common)
        elif origin is dict:
            convert, _ = _TYPES[inner[1]]
            self.add_argument(flag, nargs="*", action=_Pairs, const=convert, metavar="NOMBRE VALOR", **common)
        else:
            convert, metavar = _TYPES[inner[0] if origin is tuple else kind]
            several = {"nargs": "*", "action": "extend"} if origin is tuple else {}
            several |= {"nargs": "?", "const": True} if kind is bool else {}  # the name alone says yes
            self.add_argument(flag, type=convert, metavar=metavar, **several, **common)

    def add_options(self, source: Callable[..., Any], defaults: Any = None) -> None:
        """Add an option per parameter of a function or dataclass; `defaults` has other default values."""
        hints = get_type_hints(source, include_extras=True)
        for name, parameter in inspect.signature(source).parameters.items():
            if parameter.kind is not parameter.VAR_KEYWORD:
                hint = hints[name]
                kind, doc, *_ = get_args(hint) if get_origin(hint) is Annotated else (hint, Doc(""))
                default = parameter.default if defaults is None else getattr(defaults, name)
                self.add_option(name, kind, doc.documentation, default)

    def values(self, words: Sequence[str]) -> dict[str, Any]:
        """Return the values of the options that are given; raises `BadArgumentsError`."""
        words = [_hyphenated(word) for word in words]
        for flag in [word.partition("=")[0] for word in words if word.startswith("--")]:
            if flag not in self._flags:  # argparse would name it after the options that are missing
                self.error(unknown("La opción", flag, self._flags))
        values = vars(self.parse_args(words))
        return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}

    def error(self, message: str) -> NoReturn:
        # Python 3.10 does not send this prefix through gettext.
        raise BadArgumentsError(f"{message.removeprefix('argument ')}\nAyuda: {self.prog} --help")


def _shown(default: Any) -> str:
    """Return what the help says about a default value."""
    if default is REQUIRED:
        return "(obligatoria)"
    if isinstance(default, Mapping):
        default = [word for pair in default.items() for word in pair]
    words = default if isinstance(default, list | tuple) else [default]
    shown = " ".join(f"{word:.6g}" if isinstance(word, float) else str(word) for word in words)
    return f"(por omisión: {shown})" if shown else ""


def _hyphenated(word: str) -> str:
    flag, equals, value = word.partition("=")
    return (flag.replace("_", "-") if flag.startswith("--") else flag) + equals + value
