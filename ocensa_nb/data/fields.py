"""The structured columns of an export that a model may read beside the text: equipment, place, codes, marks."""

import logging
import re
from collections.abc import Collection, Sequence

import pandas as pd

from ocensa_nb.data.canonical import canonical, fold, map_values
from ocensa_nb.data.columns import same_title
from ocensa_nb.errors import UserError, listed, unknown

logger = logging.getLogger(__name__)

# What SAP's lists of notices call the columns that are filled when a notice is created, folded (transaction IW28/IW69).
_KNOWN = """
    equipo numero_de_equipo familia_equipo familia_de_equipo familia ubicac_tecnica ubicacion_tecnica conjunto
    centro_planif centro_de_planificacion centro_planificacion grupo_planif grupo_de_planificacion grupo_planificacion
    centro_emplaz centro_de_emplazamiento emplazamiento area_de_empresa area_empresa sector planta estacion
    perfil_catalogo perfil_de_catalogo clase_de_aviso clase_aviso tipo_mantenimiento tipo_de_mantenimiento
    grupo_codigos cod_parte_obj codigo_parte_objeto parte_objeto codigo_averia cod_averia codigo_problema sintoma
    parada indicador_abc indic_abc abc criticidad pto_tbjo_resp puesto_de_trabajo_responsable puesto_de_trabajo
    fabricante denominacion_tipo clase_de_objeto
"""
KNOWN_AT_CREATION = frozenset(re.findall(r"\w+", _KNOWN))
# What is filled in while a notice is worked off, or after it: it is not there when the model is asked.
FILLED_LATER = re.compile(
    r"(txt_cod_mot|cod_mot|(texto_|cod_|codigo_|grupo_)?causas?|medidas?|actividad|orden|status|estado|duracion|"
    r"tiempo|(fecha|hora)_(de_)?(fin|cierre)|fin_|cierre|costos?|coste|trabajo_real|autor_del_cierre)(_|$)"
)
LEAST_REPEATS = 3  # rows of a value, in the mean, for a column outside the list to be tried: a number has one


def find_fields(
    cells: pd.DataFrame, named: Sequence[str], taken: Collection[str], source: str
) -> tuple[list[str], list[str]]:
    """Return the columns known when a notice is created, and the others that are worth a trial.

    `named` are known too, whatever their title; `taken`, the description and the labels, are neither. Raises
    `UserError` if a named column does not exist or is taken; warns of one that is filled in later.
    """
    titles = [same_title(name, cells.columns) for name in named]
    for name in titles:
        if name not in cells.columns:
            raise UserError(f"{source}: " + unknown("En fields, la columna", name, cells.columns))
        if name in taken:
            raise UserError(f"{source}: en fields, «{name}» es la descripción o una etiqueta. Quítela.")
    if later := [name for name in titles if FILLED_LATER.match(fold(name))]:
        logger.warning(
            f"{listed(f'«{name}»' for name in later)}: suele llenarse después de crear el aviso. Si el nuevo no lo "
            "trae, las predicciones serán peores que las medidas."
        )
    free = [name for name in cells if name not in taken and name not in titles]
    known = [name for name in free if fold(name) in KNOWN_AT_CREATION]
    others = [
        name
        for name in free
        if name not in known
        and not FILLED_LATER.match(fold(name))
        and LEAST_REPEATS * cells[name].nunique() <= len(cells)
    ]
    return [*titles, *known], others


def read_fields(cells: pd.DataFrame, titles: Sequence[str]) -> pd.DataFrame:
    """Return the canonical values of columns, "" where one is missing; the names are those of `titles`."""
    values = {}
    for title in titles:
        name = same_title(title, cells.columns)
        values[title] = map_values(cells[name], canonical) if name in cells else ""
    return pd.DataFrame(values, cells.index, dtype=object)
