"""Synthetic notices in the layout of a SAP notice list (transaction IW69), with the flaws of real exports."""

import random
from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd

from ocensa_nb.data.synthetic import generate
from ocensa_nb.data.synthetic_text import SAP_WIDTH, pick, vocabulary


def generate_iw69(rows: int, seed: int) -> pd.DataFrame:
    """Return synthetic notices in the layout of a SAP notice list (transaction IW69).

    Texts are lower case and truncated to 40 characters, even inside a word; column names repeat; dates have two
    formats; cells are empty, or hold the string `nan`. The labels a user would train on are `modo_iso_label`,
    `causa_iso_label` and `prioridad`; `causa_falla` is SAP's own free text, mostly empty.

    Returns
    -------
    pd.DataFrame
        38 columns of text, in the order of a real export; the last has been added by the plant.
    """
    words = vocabulary()
    notices = generate(rows, seed, short_tries=1.0)
    draw = random.Random(f"iw69-{seed}").random
    causes, families = list(words.phrases["causa"]), list(words.families)

    def mostly(value: str, share: float) -> str | None:
        """Return the value with probability `share`; otherwise an empty cell or the string `nan`."""
        return value if draw() < share else None if draw() < 0.8 else "nan"

    table = []
    for notice in notices.itertuples(index=False):
        day, month, year = map(int, notice.fecha_aviso.split("/"))
        start = datetime(year, month, day, int(draw() * 24), int(draw() * 60))
        hours = round(0.5 + 40 * draw() ** 3, 1)
        end = start + timedelta(hours=hours)
        code = notice.modo_falla.split("(")[-1].rstrip(")")
        group = f"{families.index(notice.familia_equipo) + 1:02}"
        station = 1 + int(draw() * 6)
        noun = pick(words.families[notice.familia_equipo].nouns[1:], draw)
        table.append(
            {
                "equipo": mostly(notice.ubicacion_tecnica, 0.96),
                "Centro planif.": f"PL{station:02}",
                "Ubicac.técnica": f"EST{station}-{notice.familia_equipo[:3]}-{notice.ubicacion_tecnica}",
                "Denominación": f"{noun} {notice.ubicacion_tecnica}".upper(),
                "Denominación.1": f"ESTACIÓN {station}",
                "Activo fijo": mostly(str(700_000 + int(draw() * 9_000)), 0.6),
                "Orden": mostly(str(3_100_000 + int(draw() * 90_000)), 0.8),
                "Perfil catálogo": f"PM-{group}",
                "id_aviso": str(notice.id_aviso),
                "tipo_mantenimiento": "CORRECTIVO" if draw() < 0.8 else "PREDICTIVO",
                "descripcion": mostly(notice.descripcion.lower()[:SAP_WIDTH].rstrip(), 0.97),
                "Fecha de aviso": notice.fecha_aviso,
                "Grupo códigos": f"OB-{group}",
                "TextoGrpPartObj": notice.familia_equipo.replace("_", " ").capitalize(),
                "Cód.parte obj.": f"{1 + int(draw() * 40):04}",
                "TextoCódPartObj": notice.componente.capitalize(),
                "Grupo códigos.1": f"AV-{group}",
                "Código averia": mostly(code, 0.7),
                "TextoCódProblem": mostly(pick(words.phrases["modo"][notice.modo_falla], draw).capitalize(), 0.6),
                "Causas avería": f"CA-{group}",
                "Causa": mostly(f"C{causes.index(notice.causa_falla) + 1:03}", 0.5),
                "Txt. cód. mot.": mostly(pick(words.phrases["causa"][notice.causa_falla], draw).capitalize(), 0.4),
                "causa_falla": mostly(pick(words.phrases["causa"][notice.causa_falla], draw), 0.1),
                "fecha_inicio": f"{start.day}/{start.month}/{start.year}",
                "hora_inicio": f"{start:%H:%M:%S}",
                "fecha_fin": f"{end.day}/{end.month}/{end.year}",
                "hora_fin": f"{end:%H:%M:%S}",
                "Parada": "X" if draw() < 0.2 else None,
                "duracion": f"{hours}",
                "Status sistema": pick(("MECE ORAS", "METR ORAS", "MEAB"), draw),
                "Indicador ABC": mostly(pick("ABC", draw), 0.9),
                "fecha_inicio_dt": f"{start:%Y-%m-%d %H:%M:%S}",
                "fecha_fin_dt": f"{end:%Y-%m-%d %H:%M:%S}",
                "duracion_horas": f"{hours}",
                "modo_iso_label": mostly(notice.modo_falla, 0.9),
                "causa_iso_label": mostly(notice.causa_falla, 0.8),
                "prioridad": mostly(notice.prioridad, 0.94),
                "familia_equipo": notice.familia_equipo,
            }
        )
    return pd.DataFrame(table)


def write_iw69(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a table as SAP does, with semicolons and a UTF-8 mark; the bytes are the same on any system."""
    frame.to_csv(path, index=False, sep=";", encoding="utf-8-sig", lineterminator="\n")
