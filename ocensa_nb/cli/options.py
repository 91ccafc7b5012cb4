"""The options that several verbs share."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal

from typing_extensions import Doc

Out = Annotated[str, Doc("dónde se escribe el resultado; no se sobrescribe nada")]
Data = Annotated[str, Doc("CSV o XLSX con los avisos")]
RunFolder = Annotated[str, Doc("carpeta de una corrida terminada")]
Source = Annotated[
    Literal["auto", "encoder", "linear", "blend"],
    Doc("qué predice: el codificador, el modelo simple o su mezcla; auto: por etiqueta, el mejor en validación"),
]

Target = Annotated[
    float, Doc("de cada conjunto, la probabilidad de tener la correcta; y de lo aceptado, la parte de aciertos")
]
Verbose = Annotated[bool, Doc("decir también qué modelo va mejor en cada etiqueta")]
Columns = Annotated[dict[str, str], Doc('columnas con otro nombre, p. ej. descripcion "Mi columna"')]
AS_TRAINED: Mapping[str, str] = MappingProxyType({})
