"""The plant's vocabulary: what can fail, how it shows, why, and how an operator says it in Spanish.

Pure data, invented for this project; `data/synthetic.py` is its only reader. Every phrase is a singular noun
phrase, so that "con X", "por X" and "X en el sello mecánico" all read well, and belongs to one label only.
In a `Component` every mode may come from every cause, and the first cause is the usual one.
"""

from typing import NamedTuple


class Component(NamedTuple):
    """A maintainable part: Spanish article and name, relative frequency, plausible modes and causes."""

    article: str
    name: str
    weight: float
    modes: tuple[str, ...]
    causes: tuple[str, ...]


MODES: dict[str, tuple[str, ...]] = {
    "Blockage (BLO)": (
        "bloqueo", "paso bloqueado", "obstrucción total del paso", "conducto obstruido", "vía obstruida",
        "bloqueo completo del flujo",
    ),
    "Calibration error (CAL)": (
        "descalibración", "cero corrido", "desajuste de cero", "error de ajuste de rango",
        "indicación fuera de calibración", "cero y rango desajustados",
    ),
    "Cavitation (CAV)": (
        "ruido a grava", "ruido de cavitación", "cavitación audible", "burbujeo en succión",
        "golpeteo de burbujas", "síntoma de cavitación en succión",
    ),
    "Contamination (CNT)": (
        "muestra turbia", "color anormal", "producto turbio", "contaminación visible",
        "muestra con impurezas", "mezcla contaminada", "apariencia lechosa",
    ),
    "Control failure (CON)": (
        "falla de control", "control perdido", "descontrol", "pérdida de control", "comando sin efecto",
        "nula obediencia al mando remoto",
    ),
    "Corrosion (COR)": (
        "óxido visible", "herrumbre", "corrosión superficial", "picadura por óxido", "superficie corroída",
        "capa de óxido generalizada",
    ),
    "Deformation (DEF)": (
        "deformación", "pandeo", "abolladura", "doblez visible", "pieza torcida", "alabeo de la pieza",
    ),
    "Erratic reading (ERR)": (
        "dato errático", "lectura errática", "lectura inestable", "medida oscilante", "valor incoherente",
        "indicación que salta sin razón",
    ),
    "External leakage - process (ELP)": (
        "fuga de crudo", "goteo de crudo", "fuga de producto", "escape de producto al exterior",
        "derrame de producto", "goteo de producto", "pase de producto al piso",
    ),
    "External leakage - utility (ELU)": (
        "fuga de aceite", "fuga de agua", "goteo de aceite", "fuga de refrigerante",
        "goteo de agua de enfriamiento", "pérdida de aceite al piso",
    ),
    "Fail to start (FTS)": (
        "no arranque", "falla al iniciar", "arranque fallido", "falla al arrancar",
        "imposibilidad de arranque", "intento de arranque sin éxito",
    ),
    "Fail to stop (STP)": (
        "falla al parar", "paro fallido", "imposibilidad de detener", "orden de parada sin efecto",
        "marcha continua pese a orden de paro", "negación al comando de paro",
    ),
    "False alarm (FAL)": (
        "falsa alarma", "alarma espuria", "alarma fantasma", "activación en falso", "alarma sin evento real",
        "disparo en falso",
    ),
    "Fracture (FRA)": (
        "fractura", "grieta", "rotura", "fisura pasante", "pieza partida", "ruptura del cuerpo",
    ),
    "High output (HIO)": (
        "salida alta", "salida excesiva", "exceso de salida", "valor sobre el rango",
        "señal saturada por alto", "salida por encima de lo normal",
    ),
    "Insulation failure (INS)": (
        "megado bajo", "aislamiento pobre", "bajo aislamiento", "pérdida de aislamiento",
        "aislamiento a tierra caído", "resistencia de aislamiento en cero",
    ),
    "Internal leakage (INL)": (
        "pase interno", "fuga interna", "cierre no hermético", "retorno interno", "paso con cierre total",
        "pérdida de hermeticidad interna",
    ),
    "Loose part (LOO)": (
        "pieza suelta", "parte floja", "juego excesivo", "elemento desprendido", "ajuste suelto",
        "parte desprendida de su sitio",
    ),
    "Low output (LOW)": (
        "baja salida", "bajo desempeño", "bajo rendimiento", "caída de capacidad", "salida insuficiente",
        "entrega por debajo de lo normal",
    ),
    "Mechanical failure (MEC)": (
        "daño mecánico", "falla mecánica", "avería mecánica", "mecanismo dañado",
        "daño del mecanismo interno", "mecanismo descompuesto",
    ),
    "No output (NONE)": (
        "salida nula", "cero salida", "salida en cero", "ausencia de salida", "salida muerta",
        "falta total de salida",
    ),
    "Other (OTH)": (
        "novedad rara", "falla atípica", "novedad sin clasificar", "falla sin tipificar",
        "anomalía por definir", "síntoma fuera de catálogo",
    ),
    "Overheating (HIW)": (
        "recalentamiento", "punto caliente", "alta temp.", "temperatura alta", "sobrecalentamiento",
        "calentamiento anormal", "calor excesivo al tacto",
    ),
    "Parameter deviation (DEV)": (
        "desvío", "valor desviado", "variable desviada", "parámetro fuera de rango",
        "desviación de la variable", "alejamiento del setpoint",
    ),
    "Plugged (PLU)": (
        "taponamiento", "colmatación", "orificio tapado", "taponamiento parcial", "saturación de sólidos",
        "malla tapada",
    ),
    "Seizure (SEI)": (
        "agarrotamiento", "atascamiento", "giro trabado", "mecanismo trabado", "atasco total",
        "aferramiento de parte móvil",
    ),
    "Short circuit (SHT)": (
        "cortocircuito", "corto franco", "corto a tierra", "corto entre fases", "arco por corto",
        "flameo por corto interno",
    ),
    "Signal failure (SIG)": (
        "señal ausente", "señal perdida", "falla de señal", "pérdida de señal", "señal congelada",
        "señal intermitente al cuarto de control",
    ),
    "Spontaneous shutdown (SHU)": (
        "apagado súbito", "paro repentino", "parada súbita", "disparo inesperado", "detención espontánea",
        "apagado sin orden",
    ),
    "Structural deficiency (STR)": (
        "daño estruct.", "daño estructural", "armazón vencido", "debilidad estructural",
        "pérdida de rigidez", "integridad estructural comprometida",
    ),
    "Vibration (VIB)": (
        "vibración alta", "alta vibración", "vibración anormal", "vibración fuerte", "temblor excesivo",
        "nivel de vibración en alarma",
    ),
    "Wear (WEA)": (
        "pieza gastada", "surco profundo", "desgaste visible", "desgaste avanzado", "superficie gastada",
        "rayado de la superficie", "pérdida de material por uso",
    ),
}  # fmt: skip

CAUSES: dict[str, tuple[str, ...]] = {
    "Actuator failure": (
        "actuador malo", "falla de actuador", "actuador averiado", "actuador sin fuerza",
        "diafragma de actuador roto",
    ),
    "Bearing failure": (
        "balinera rota", "rodamiento roto", "falla de rodamiento", "rodamiento dañado",
        "pista de rodamiento picada", "jaula de rodamiento partida",
    ),
    "Breaker trip": (
        "breaker caído", "salto de breaker", "breaker disparado", "disparo del breaker",
        "apertura del termomagnético", "actuación de la protección",
    ),
    "Calibration drift": (
        "deriva", "deriva de cero", "deriva del sensor", "deriva de calibración",
        "corrimiento gradual del span", "pérdida gradual de exactitud",
    ),
    "Cavitation erosion": (
        "daño cavitante", "picado cavitante", "colapso de burbujas", "erosión cavitacional",
        "cráter de cavitación", "ataque cavitante en el metal",
    ),
    "Connection failure": (
        "falso contacto", "mala conexión", "borne sulfatado", "conector dañado", "terminal desconectado",
        "contacto deficiente en bornes",
    ),
    "Corrosion": (
        "medio ácido", "medio corrosivo", "ataque corrosivo", "corrosión galvánica", "agente corrosivo",
        "corrosión interna", "corrosión bajo recubrimiento",
    ),
    "Design error": (
        "mal diseño", "error de diseño", "diseño inadecuado", "dimensionamiento insuficiente",
        "selección errada en ingeniería", "omisión de ingeniería",
    ),
    "Electrical surge": (
        "sobretensión", "sobrevoltaje", "pico de voltaje", "descarga atmosférica", "transitorio eléctrico",
        "caída de un rayo",
    ),
    "End of life": (
        "vejez", "vida cumplida", "envejecimiento", "fin de vida útil", "obsolescencia", "vida útil agotada",
    ),
    "Erosion": (
        "flujo abrasivo", "acción erosiva", "arrastre de arena", "chorro de arena", "velocidad erosiva",
        "abrasión del fluido con arena",
    ),
    "External environment": (
        "lluvia", "intemperie", "clima adverso", "humedad ambiente", "ambiente salino",
        "inundación del área",
    ),
    "Fatiga": (
        "fatiga", "carga cíclica", "esfuerzo cíclico", "fatiga de material", "fatiga acumulada",
        "esfuerzo alternante repetido",
    ),
    "Fluid contamination": (
        "fluido sucio", "fluido con agua", "partícula en el fluido", "impureza en el fluido",
        "fluido contaminado con agua",
    ),
    "Foreign object damage": (
        "objeto extraño", "cuerpo extraño", "golpe de objeto ajeno", "elemento ajeno en el interior",
        "viruta atrapada", "ingreso de material ajeno",
    ),
    "Fouling": (
        "suciedad", "mugre", "ensuciamiento", "depósito de lodo", "acumulación de parafina", "lodo adherido",
    ),
    "Fuse blown": (
        "fusible quemado", "fusible roto", "fusible abierto", "fusible fundido", "quema de fusible",
        "fusible volado",
    ),
    "Gasket failure": (
        "junta rota", "junta dañada", "falla de junta", "junta soplada", "espirometálica dañada",
        "empaque plano reventado",
    ),
    "Hydrogen embrittlement": (
        "hidrógeno", "daño por hidrógeno", "fragilización por hidrógeno", "acero fragilizado",
        "hidrógeno absorbido en el acero",
    ),
    "Impeller damage": (
        "álabe roto", "impulsor roto", "impulsor dañado", "álabe partido", "rodete dañado",
        "daño en álabe de impulsor",
    ),
    "Inadequate procedure": (
        "guía obsoleta", "mal instructivo", "mal procedimiento", "procedimiento inadecuado",
        "procedimiento sin actualizar", "falta de instructivo",
    ),
    "Installation error": (
        "mal montaje", "error de montaje", "mala instalación", "montaje incorrecto", "armado deficiente",
        "instalación defectuosa",
    ),
    "Looseness": (
        "aflojamiento", "bajo torque", "falta de apriete", "pérdida de torque", "apriete insuficiente",
        "tuerca aflojada",
    ),
    "Lubrication failure": (
        "falta de grasa", "grasa reseca", "mala lubricación", "falta de lubricante",
        "lubricación deficiente", "bajo nivel de lubricante",
    ),
    "Maintenance error": (
        "mal mtto", "error de mtto", "error de mantenimiento", "mantenimiento deficiente",
        "intervención mal ejecutada", "omisión en rutina de mtto",
    ),
    "Manufacturing defect": (
        "mal de fábrica", "defecto de fábrica", "falla de fábrica", "defecto de fabricación",
        "mal maquinado de origen", "vicio de manufactura",
    ),
    "Material defect": (
        "mal material", "metal poroso", "defecto de material", "material defectuoso", "poro en el material",
        "inclusión en el metal",
    ),
    "Mechanical wear": (
        "rozamiento", "roce mecánico", "fricción continua", "roce metal con metal", "fricción entre piezas",
        "uso mecánico prolongado",
    ),
    "Microbial corrosion": (
        "bacteria", "biocorrosión", "ataque microbiano", "corrosión bacteriana", "colonia bacteriana",
        "bacteria sulfatorreductora",
    ),
    "Operator error": (
        "mala maniobra", "mala operación", "error operativo", "error del operador", "maniobra indebida",
        "descuido del operador",
    ),
    "Overload": (
        "sobrecarga", "sobreesfuerzo", "carga excesiva", "exceso de carga", "trabajo sobre capacidad",
        "demanda sobre el límite",
    ),
    "Packing wear": (
        "estopa gastada", "estopa reseca", "empaquetadura vencida", "desgaste de empaquetadura",
        "cordón grafitado vencido", "anillo de empaquetadura gastado",
    ),
    "Power loss": (
        "apagón", "falta de luz", "corte de energía", "falta de energía", "caída de tensión",
        "ausencia de voltaje", "pérdida de alimentación",
    ),
    "Pressure extreme": (
        "sobrepresión", "golpe de ariete", "presión extrema", "pico de presión", "presión sobre diseño",
        "vacío excesivo",
    ),
    "Process change": (
        "cambio de batch", "otro régimen", "cambio de proceso", "cambio de crudo", "nuevo régimen de flujo",
        "variación del producto bombeado",
    ),
    "Scale buildup": (
        "sarro", "incrustación", "incrustación mineral", "costra calcárea", "depósito de carbonato",
        "sarro endurecido",
    ),
    "Seal failure": (
        "sello roto", "sello dañado", "falla de sello", "cara de sello rayada", "o-ring mordido",
        "retenedor dañado",
    ),
    "Shaft misalignment": (
        "desalineación", "desalineamiento", "eje desalineado", "mala alineación", "eje fuera de línea",
        "falta de alineación",
    ),
    "Software bug": (
        "lógica errada", "bug de lógica", "error de software", "falla de programa", "firmware con error",
        "programa colgado",
    ),
    "Solenoid failure": (
        "bobina quemada", "solenoide malo", "falla de solenoide", "bobina abierta", "solenoide pegada",
        "daño de la solenoide",
    ),
    "Spare part quality": (
        "mal repuesto", "repuesto malo", "repuesto genérico", "repuesto de baja calidad",
        "repuesto no original", "mala calidad de repuesto",
    ),
    "Temperature extreme": (
        "calor extremo", "frío extremo", "choque térmico", "exposición térmica severa",
        "temperatura sobre diseño", "ola de calor",
    ),
    "Tool damage": (
        "golpe de llave", "marca de llave", "daño con herramienta", "golpe de herramienta",
        "mal uso de herramienta", "herramienta inapropiada",
    ),
    "Vandalism": (
        "vandalismo", "sabotaje", "hurto de partes", "intento de hurto", "daño de terceros",
        "acción de terceros",
    ),
    "Wiring fault": (
        "cable roto", "cable pelado", "falla de cableado", "conductor abierto", "hilo partido",
        "cableado cruzado",
    ),
}  # fmt: skip

PRIORITIES: dict[str, tuple[str, ...]] = {
    "1-Critica": (
        "urgente", "emergencia", "riesgo de incendio", "riesgo para el personal", "atender de inmediato",
        "planta detenida", "bombeo suspendido", "paro de planta inminente", "intervención inmediata",
    ),
    "2-Alta": (
        "para hoy", "atender hoy", "prioridad alta", "atender en 24 horas", "lo antes posible",
        "equipo sin respaldo", "compromete el bombeo", "atención pronta", "no dejar pasar la semana",
    ),
    "3-Media": (
        "este mes", "plan mensual", "prioridad media", "programar en rutina", "atención normal",
        "plazo de 30 días", "hay equipo de respaldo", "incluir en la programación del mes",
    ),
    "4-Baja": (
        "sin afán", "sin prisa", "puede esperar", "prioridad baja", "para próxima parada",
        "atender cuando haya recurso", "no afecta el bombeo", "dejar para la parada programada",
    ),
}  # fmt: skip

# How often each priority is the one a notice states.
PRIORITY_SHARES = {"1-Critica": 0.15, "2-Alta": 0.30, "3-Media": 0.30, "4-Baja": 0.25}

_MODE_OF_CODE = {mode.split("(")[-1].rstrip(")"): mode for mode in MODES}


def _part(name: str, weight: float, modes: str, causes: str) -> Component:
    """Read one row of the table below: "el sello", 5, "ELP WEA", "Seal failure, Overload"."""
    article, _, noun = name.partition(" ")
    plausible = tuple(_MODE_OF_CODE[code] for code in modes.split())
    return Component(article, noun, weight, plausible, tuple(causes.split(", ")))


FAMILIES: dict[str, tuple[Component, ...]] = {
    "BOMBA": (
        _part("el sello mecánico", 5, "ELP WEA HIW VIB",
              "Seal failure, Lubrication failure, Shaft misalignment, Installation error, "
              "Mechanical wear, Spare part quality"),
        _part("el rodamiento", 4, "VIB HIW WEA SEI",
              "Bearing failure, Lubrication failure, Shaft misalignment, Overload, Fluid contamination, "
              "End of life"),
        _part("el impulsor", 5, "CAV LOW VIB WEA",
              "Impeller damage, Cavitation erosion, Foreign object damage, Erosion, Process change, "
              "Design error"),
        _part("la caja de estopas", 3.5, "ELP HIW WEA",
              "Packing wear, Installation error, Lubrication failure, Mechanical wear, "
              "Maintenance error"),
        _part("el acople", 2.5, "VIB LOO FRA WEA",
              "Shaft misalignment, Looseness, Fatiga, Installation error, Overload, Maintenance error"),
    ),
    "MOTOR": (
        _part("el devanado", 3, "INS SHT HIW SHU",
              "Overload, Electrical surge, External environment, End of life, Temperature extreme"),
        _part("el cojinete", 3, "VIB HIW SEI WEA",
              "Bearing failure, Lubrication failure, Shaft misalignment, Mechanical wear, "
              "Maintenance error"),
        _part("la caja de bornes", 2, "HIW SHT INS LOO",
              "Connection failure, Looseness, Wiring fault, External environment, Installation error"),
        _part("el arrancador", 3, "FTS SHU NONE",
              "Breaker trip, Fuse blown, Power loss, Wiring fault, Connection failure"),
        _part("el ventilador", 2, "VIB LOO HIW FRA",
              "Fouling, Looseness, Fatiga, Foreign object damage, External environment"),
    ),
    "VALVULA": (
        _part("el actuador", 4, "CON NONE FTS",
              "Actuator failure, Power loss, Connection failure, Solenoid failure, Operator error"),
        _part("el asiento", 3.5, "INL WEA DEF",
              "Erosion, Foreign object damage, Mechanical wear, Tool damage, Material defect, "
              "Operator error"),
        _part("el vástago", 3, "SEI DEF FRA",
              "Overload, Tool damage, Manufacturing defect, Operator error, Material defect, "
              "Foreign object damage"),
        _part("el prensaestopas", 3, "ELP WEA OTH",
              "Packing wear, Installation error, Maintenance error, Temperature extreme, End of life, "
              "Spare part quality"),
        _part("la caja reductora", 2.5, "MEC SEI WEA",
              "Lubrication failure, Mechanical wear, Overload, Maintenance error, Manufacturing defect"),
    ),
    "COMPRESOR": (
        _part("la válvula de descarga", 2.5, "LOW INL WEA HIW",
              "Mechanical wear, Fouling, Foreign object damage, Spare part quality, Temperature extreme"),
        _part("el cigüeñal", 2, "MEC VIB FRA",
              "Fatiga, Lubrication failure, Overload, Manufacturing defect, Shaft misalignment"),
        _part("el enfriador", 2, "HIW PLU LOW",
              "Scale buildup, Fouling, External environment, Process change, Maintenance error"),
        _part("el circuito de lubricación", 2.5, "ELU CNT LOW",
              "Gasket failure, Seal failure, Maintenance error, Installation error, Operator error, "
              "Spare part quality"),
    ),
    "INSTRUMENTO": (
        _part("el transmisor de presión", 5, "ERR DEV SIG CAL",
              "Calibration drift, Electrical surge, Connection failure, Pressure extreme, "
              "External environment, End of life"),
        _part("el transmisor de nivel", 4, "ERR SIG CAL HIO",
              "Calibration drift, Fouling, Wiring fault, Process change, Installation error"),
        _part("el manómetro", 2, "ERR CAL DEF",
              "Pressure extreme, Temperature extreme, Operator error, Manufacturing defect"),
        _part("el medidor de flujo", 3, "HIO ERR DEV LOW",
              "Calibration drift, Scale buildup, Software bug, Process change, Maintenance error, "
              "Foreign object damage"),
        _part("el detector de gas", 2, "FAL SIG NONE",
              "Fouling, External environment, Calibration drift, End of life, Wiring fault"),
    ),
    "FILTRO": (
        _part("el elemento filtrante", 4, "PLU LOW CNT DEF",
              "Fouling, Fluid contamination, Process change, Maintenance error, End of life"),
        _part("la canastilla", 3, "BLO PLU DEF",
              "Foreign object damage, Scale buildup, Fouling, Process change"),
        _part("la tapa", 2.5, "ELP OTH",
              "Gasket failure, Installation error, Pressure extreme, Tool damage, Maintenance error, "
              "Spare part quality"),
    ),
    "TANQUE": (
        _part("el fondo", 3, "COR ELP STR",
              "Microbial corrosion, Corrosion, Material defect, End of life, Design error"),
        _part("el techo flotante", 2, "STR DEF FRA",
              "External environment, Fatiga, Corrosion, Design error, Maintenance error"),
        _part("el sello perimetral", 2, "WEA DEF ELP",
              "Seal failure, External environment, Mechanical wear, Installation error, End of life"),
        _part("la boca de visita", 2, "ELP CNT",
              "Gasket failure, Looseness, Corrosion, Vandalism, Maintenance error"),
        _part("la válvula de presión y vacío", 2.5, "BLO SEI INL",
              "Foreign object damage, Corrosion, Fouling, External environment, Maintenance error"),
    ),
    "TUBERIA": (
        _part("el tramo aéreo", 4, "ELP FRA STR",
              "Corrosion, Vandalism, Hydrogen embrittlement, Material defect, Fatiga, "
              "External environment"),
        _part("el tramo enterrado", 3, "COR ELP",
              "Corrosion, Microbial corrosion, Tool damage, Installation error, External environment"),
        _part("el codo", 2, "ELP WEA",
              "Erosion, Cavitation erosion, Corrosion, Microbial corrosion, Design error"),
        _part("la brida", 3, "ELP OTH",
              "Gasket failure, Looseness, Installation error, Temperature extreme, Pressure extreme"),
        _part("la soldadura", 2.5, "FRA ELP STR",
              "Hydrogen embrittlement, Fatiga, Manufacturing defect, Material defect, "
              "Installation error"),
        _part("el soporte", 2, "STR LOO DEF",
              "Overload, Corrosion, Fatiga, Design error, Looseness, Vandalism"),
    ),
    "ELECTRICO": (
        _part("el interruptor", 3, "SHU NONE",
              "Breaker trip, Electrical surge, Overload, Power loss, Maintenance error"),
        _part("el contactor", 3, "STP FTS MEC",
              "Solenoid failure, Mechanical wear, End of life, Spare part quality, External environment"),
        _part("el portafusible", 2.5, "NONE SHU SHT",
              "Fuse blown, Electrical surge, Overload, Connection failure, Wiring fault"),
        _part("el cable de fuerza", 2, "SHT INS HIW",
              "Wiring fault, Vandalism, Tool damage, Overload, External environment"),
    ),
    "SISTEMA_CONTROL": (
        _part("el PLC", 3, "CON SHU SIG FAL",
              "Software bug, Power loss, Electrical surge, Connection failure, Inadequate procedure"),
        _part("la tarjeta de entradas", 3, "SIG NONE ERR",
              "Connection failure, Electrical surge, Wiring fault, Manufacturing defect, End of life"),
        _part("el lazo de control", 3, "DEV HIO LOW CON",
              "Process change, Inadequate procedure, Software bug, Calibration drift, Operator error"),
        _part("la fuente de poder", 2, "NONE SHU LOW",
              "Power loss, Fuse blown, Electrical surge, End of life, Spare part quality, "
              "Temperature extreme"),
    ),
    "CONTRAINCENDIO": (
        _part("el motor diésel", 2.5, "FTS ELU STP LOW",
              "Maintenance error, Inadequate procedure, Operator error, Spare part quality, End of life"),
        _part("el detector de llama", 2.5, "FAL SIG NONE",
              "External environment, Fouling, Design error, End of life, Wiring fault"),
        _part("el hidrante", 2, "SEI COR BLO",
              "Corrosion, External environment, Vandalism, Maintenance error, Inadequate procedure"),
        _part("el rociador", 2, "PLU BLO",
              "Scale buildup, Corrosion, Microbial corrosion, Fluid contamination"),
    ),
}  # fmt: skip

# Tag prefixes, and what the crew calls the equipment ("" leaves the bare tag).
TAGS = {
    "BOMBA": ("BBA", "P"), "MOTOR": ("MTR", "M"), "VALVULA": ("MOV", "VLV", "HV"), "COMPRESOR": ("CMP", "K"),
    "INSTRUMENTO": ("INS",), "FILTRO": ("FIL", "F"), "TANQUE": ("TK",), "TUBERIA": ("LIN",),
    "ELECTRICO": ("CCM", "SUB"), "SISTEMA_CONTROL": ("UCP", "SCD"), "CONTRAINCENDIO": ("SCI",),
}  # fmt: skip
NOUNS = {
    "BOMBA": ("", "bomba", "eq."), "MOTOR": ("", "motor", "eq."), "VALVULA": ("", "válvula", "v/v", "valv."),
    "COMPRESOR": ("", "compresor", "comp."), "INSTRUMENTO": ("", "instrumento", "inst."),
    "FILTRO": ("", "filtro"), "TANQUE": ("", "tanque", "eq."), "TUBERIA": ("", "tubería", "línea"),
    "ELECTRICO": ("", "tablero", "celda", "s/e"), "SISTEMA_CONTROL": ("", "sistema", "gabinete"),
    "CONTRAINCENDIO": ("", "sistema c/i", "red c/i"),
}  # fmt: skip

# Sentence shapes, by what the text states: (mode, cause). {el} is the component's article.
LONG_SHAPES: dict[tuple[bool, bool], tuple[str, ...]] = {
    (True, True): (
        "se evidencia {modo} en {el} {comp} de {unit} por {causa}",
        "{el} {comp} de {unit} presenta {modo} debido a {causa}",
        "{unit} con {modo} en {comp}, causa: {causa}",
        "se encuentra {el} {comp} de {unit} con {modo}, posible {causa}",
        "{modo} en {el} {comp} de {unit}, atribuible a {causa}",
        "por {causa} hay {modo} en {el} {comp} de {unit}",
        "revisar {el} {comp} de {unit}: {modo} a consecuencia de {causa}",
        "al inspeccionar {unit} se halla {modo} en {comp}; se atribuye a {causa}",
        "{unit}: {modo} en {comp}, al parecer por {causa}",
        "continúa {modo} en {el} {comp} de {unit}, se sospecha de {causa}",
        "se confirma {causa} como origen de {modo} en {comp} de {unit}",
        "{el} {comp} de {unit} quedó con {modo} tras {causa}",
        "{modo} en {comp} {unit} x {causa}",
        "se detecta {modo} en {unit}, {comp}, como resultado de {causa}",
    ),
    (True, False): (
        "se evidencia {modo} en {el} {comp} de {unit}",
        "{el} {comp} de {unit} presenta {modo}",
        "{unit} con {modo} en {comp}",
        "se encuentra {el} {comp} de {unit} con {modo}, causa por establecer",
        "revisar {modo} en {el} {comp} de {unit}",
        "nuevamente {modo} en {comp} de {unit}",
        "{unit}: {modo} en {el} {comp}",
        "se solicita corregir {modo} en {comp} de {unit}",
    ),
    (False, True): (
        "{el} {comp} de {unit} en mal estado por {causa}",
        "revisar {el} {comp} de {unit}, causa: {causa}",
        "se atribuye a {causa} lo ocurrido en {el} {comp} de {unit}",
        "intervenir {comp} de {unit} debido a {causa}",
        "{unit}: {comp} con novedad, al parecer por {causa}",
        "se sospecha de {causa} en {el} {comp} de {unit}",
        "se requiere corregir {el} {comp} de {unit} por {causa}",
        "{comp} {unit} x {causa}, se pide revisar",
    ),
    (False, False): (
        "se solicita revisar {el} {comp} de {unit}",
        "favor inspeccionar {el} {comp} de {unit}",
        "se reporta novedad en {el} {comp} de {unit}",
        "{unit}: verificar condición de {comp} en campo",
        "se pide diagnóstico de {el} {comp} de {unit}",
        "evaluar estado de {el} {comp} en {unit}",
    ),
}
SHORT_SHAPES: dict[tuple[bool, bool], tuple[str, ...]] = {
    (True, True): (
        "{modo} por {causa}", "{modo} x {causa}", "{modo} {comp} por {causa}", "{modo} causa {causa}",
        "{tag} {modo} por {causa}", "{comp} con {modo} x {causa}",
    ),
    (True, False): (
        "{modo} en {comp}", "{comp} con {modo}", "{modo} {tag}", "{tag} con {modo}", "{modo} {comp} {tag}",
    ),
    (False, True): (
        "{comp} mal por {causa}", "revisar {comp} por {causa}", "{comp} {tag} x {causa}",
        "falla por {causa} en {comp}",
    ),
    (False, False): (
        "revisar {comp} {tag}", "novedad en {comp} {tag}", "verificar {comp} {tag}",
        "inspeccionar {comp} {tag}",
    ),
}  # fmt: skip

OPENINGS = (
    "operador de turno reporta:", "en ronda de campo:", "durante recorrido de área:", "op. informa:",
    "según bitácora:", "reporte de sala de control:", "en inspección de rutina,", "turno noche informa:",
    "técnico de campo indica:", "al recibir turno,", "supervisor indica:", "mtto reporta:",
)  # fmt: skip
LOCATIONS = (
    "en bahía 4", "unidad 2", "tren B", "área 300", "sector norte", "costado sur", "módulo 4", "estación 3",
    "zona 1", "en patio principal", "costado oriental de la estación", "frente a la vía interna",
)  # fmt: skip
FILLERS = (
    "se deja aviso para mtto", "se informa a supervisor", "favor validar en campo", "se adjunta foto",
    "ver bitácora", "desde hace aprox. 2 turnos", "quedan pendientes permisos", "se deja área señalizada",
    "solicitar repuestos en bodega", "coordinar con op.", "tx de soporte informado", "se comunica a la s/e",
)  # fmt: skip
