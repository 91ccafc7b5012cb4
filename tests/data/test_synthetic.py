"""The synthetic notices: reproducible, true to their vocabulary, and with a ceiling that holds."""

import math
import re
from collections import Counter, defaultdict

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import f1_score
from sklearn.svm import LinearSVC

from ocensa_nb.data.synthetic import (
    COLUMNS,
    EVIDENCE,
    NOISE,
    ceiling,
    generate,
    write_csv,
)
from ocensa_nb.data.synthetic_text import Component, vocabulary
from ocensa_nb.errors import num
from ocensa_nb.paths import ROOT
from tests.helpers.sap_example import generate_iw69, write_iw69

DATA = ROOT / "data"
WORDS = vocabulary()
PHRASES = WORDS.phrases
PARTS = {(name, part.name): part for name, family in WORDS.families.items() for part in family.components}

MODES = """Blockage (BLO), Calibration error (CAL), Cavitation (CAV), Contamination (CNT),
Control failure (CON),
Corrosion (COR), Deformation (DEF), Erratic reading (ERR), External leakage - process (ELP),
External leakage - utility (ELU), Fail to start (FTS), Fail to stop (STP), False alarm (FAL), Fracture (FRA),
High output (HIO), Insulation failure (INS), Internal leakage (INL), Loose part (LOO), Low output (LOW),
Mechanical failure (MEC), No output (NONE), Other (OTH), Overheating (HIW), Parameter deviation (DEV),
Plugged (PLU), Seizure (SEI), Short circuit (SHT), Signal failure (SIG), Spontaneous shutdown (SHU),
Structural deficiency (STR), Vibration (VIB), Wear (WEA)"""
CAUSES = """Actuator failure, Bearing failure, Breaker trip, Calibration drift, Cavitation erosion,
Connection failure, Corrosion, Design error, Electrical surge, End of life, Erosion, External environment,
Fatiga, Fluid contamination, Foreign object damage, Fouling, Fuse blown, Gasket failure,
Hydrogen embrittlement, Impeller damage, Inadequate procedure, Installation error, Looseness,
Lubrication failure, Maintenance error, Manufacturing defect, Material defect, Mechanical wear,
Microbial corrosion, Operator error, Overload, Packing wear, Power loss, Pressure extreme, Process change,
Scale buildup, Seal failure, Shaft misalignment, Software bug, Solenoid failure, Spare part quality,
Temperature extreme, Tool damage, Vandalism, Wiring fault"""
DESIGN = {
    "modo": set(re.split(r",\s+", MODES)),
    "causa": set(re.split(r",\s+", CAUSES)),
    "prioridad": {"1-Critica", "2-Alta", "3-Media", "4-Baja"},
}
SHARES = st.fixed_dictionaries({head: st.floats(0.05, 1) for head in COLUMNS})
NOISES = st.fixed_dictionaries({head: st.floats(0, 0.33) for head in COLUMNS})


@pytest.fixture(scope="module")
def many() -> pd.DataFrame:
    return generate(30_000, seed=3, with_rule=True)


@pytest.fixture(scope="module")
def shipped() -> pd.DataFrame:
    return pd.read_csv(DATA / "synthetic_training_data.csv", keep_default_na=False)


def plain(text: str) -> str:
    return text.lower().translate(str.maketrans("áéíóúü", "aeiouu"))


def ruled_shares(part: Component, head: str, evidence: float) -> dict[str, float]:
    """Work q_z out again from the vocabulary: 1/2, 1/3, 1/4, ... of what is stated, the rest by default."""
    if head == "prioridad":
        stated, default = dict(WORDS.priority_shares), "3-Media"
    else:
        labels = part.modes if head == "modo" else part.causes
        total = sum(1 / rank for rank in range(2, len(labels) + 2))
        stated = {label: 1 / rank / total for rank, label in enumerate(labels, start=2)}
        default = "Other (OTH)" if head == "modo" else labels[0]
    shares = defaultdict(float, {label: evidence * share for label, share in stated.items()})
    shares[default] += 1 - evidence
    return shares


def slips(phrase: str) -> set[str]:
    """List what one slip can make of a phrase: a letter lost, two swapped, or one taken for its like."""
    letters = range(len(phrase))
    lost = {phrase[:i] + phrase[i + 1 :] for i in letters}
    swapped = {phrase[:i] + phrase[i + 1] + phrase[i] + phrase[i + 2 :] for i in letters[:-1]}
    alike = {"s": "z", "z": "s", "b": "v", "v": "b"}
    like = {phrase[:i] + alike[phrase[i]] + phrase[i + 1 :] for i in letters if phrase[i] in alike}
    return {phrase} | lost | swapped | like


def all_phrases() -> list[tuple[tuple[str, str], str]]:
    labels = [(head, label) for head, table in PHRASES.items() for label in table]
    return [((head, label), plain(phrase)) for head, label in labels for phrase in PHRASES[head][label]]


# --- reproducible -----------------------------------------------------------------------------------------


def test_generate_is_byte_identical_for_the_same_seed_only(tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        write_csv(generate(300, seed=seed), tmp_path / name)
    first, again, other = ((tmp_path / name).read_bytes() for name in "abc")
    assert first == again != other
    assert b"\r" not in first


def test_generate_with_rule_leaves_other_columns_unchanged():
    pd.testing.assert_frame_equal(generate(200, seed=1, with_rule=True).iloc[:, :9], generate(200, seed=1))


def test_shipped_files_are_byte_identical_to_generated_ones(tmp_path):
    write_csv(generate(8000, seed=42), tmp_path / "training.csv")
    write_iw69(generate_iw69(300, seed=7), tmp_path / "iw69.csv")
    assert (tmp_path / "training.csv").read_bytes() == (DATA / "synthetic_training_data.csv").read_bytes()
    assert (tmp_path / "iw69.csv").read_bytes() == (DATA / "example_iw69.csv").read_bytes()


def test_data_readme_states_every_ceiling_score():
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    for score in ceiling().values():
        assert num(score, 4) in readme


# --- the vocabulary ---------------------------------------------------------------------------------------


def test_shipped_labels_and_families_match_the_design_and_all_occur(shipped):
    for head, column in COLUMNS.items():
        counts = shipped[column].value_counts()
        assert set(PHRASES[head]) == DESIGN[head] == set(counts.index)
        assert counts.min() >= 60
    assert set(shipped["familia_equipo"]) == set(WORDS.families)
    assert len(WORDS.families) == 11


def test_generate_mode_and_cause_belong_to_the_component(many):
    columns = ["familia_equipo", "componente", "modo_falla", "causa_falla", "regla_modo", "regla_causa"]
    for family, name, mode, cause, ruled_mode, ruled_cause in many[columns].itertuples(index=False):
        part = PARTS[family, name]
        assert {mode, ruled_mode} <= {*part.modes, "Other (OTH)"}
        assert {cause, ruled_cause} <= set(part.causes)


def test_phrases_of_different_labels_stay_distinct_after_one_typo():
    phrases = all_phrases()
    owner = {}
    for label, phrase in phrases:
        assert all(owner.setdefault(slip, label) == label for slip in slips(phrase)), phrase
        assert not [other for whose, other in phrases if whose != label and phrase in other]


def test_phrases_of_every_label_are_enough_and_one_fits_sap():
    for head, table in PHRASES.items():
        for label, phrases in table.items():
            assert len(set(phrases)) == len(phrases) >= (8 if head == "prioridad" else 5), label
            assert min(map(len, phrases)) <= 14, label


def test_generate_without_evidence_contains_no_phrase_of_any_label():
    silent = generate(3000, seed=2, evidence=dict.fromkeys(COLUMNS, 0.0))
    text = plain("\n".join(silent["descripcion"]))
    assert not [phrase for _, phrase in all_phrases() if phrase in text]


def test_generate_truncated_text_keeps_the_stated_label_and_names_no_other(many):
    defaults = {"modo": "Other (OTH)", "prioridad": "3-Media"}
    wanted = {head: defaultdict(list) for head in COLUMNS}
    for (head, label), phrase in all_phrases():
        wanted[head][label].append(phrase)
    # phrases that read as another's with one slip do not exist, so a slip may hide a phrase but not fake one
    found = Counter()
    for row in many.head(6000).itertuples():
        text = plain(row.descripcion)
        for head in COLUMNS:
            label = getattr(row, f"regla_{head}")
            named = {other for other, phrases in wanted[head].items() if any(p in text for p in phrases)}
            assert named <= {label}
            default = defaults.get(head) or PARTS[row.familia_equipo, row.componente].causes[0]
            if label != default and not named:
                found["slip"] += 1
                assert any(slip in text for phrase in wanted[head][label] for slip in slips(phrase))
            elif label != default:
                found["whole"] += 1
    assert found["slip"] < 0.1 * found["whole"]


# --- the sentences ----------------------------------------------------------------------------------------


def test_generate_texts_have_5_to_40_words_and_a_third_are_truncated_as_in_sap(many):
    length = many["descripcion"].str.split().str.len()
    assert length.between(5, 40).all()
    assert 12 < length.mean() < 16
    short = many["descripcion"][many["descripcion"].str.len() <= 40]
    assert 0.28 < len(short) / len(many) < 0.38
    assert sum(len(shapes) for shapes in WORDS.long_shapes.values()) >= 25
    assert sum(len(shapes) for shapes in WORDS.short_shapes.values()) >= 12


def test_generate_tags_and_dates_match_the_plant_format(many):
    assert many["ubicacion_tecnica"].str.fullmatch(r"[A-Z]{1,3}-\d{3,4}[AB]?").all()
    assert many["fecha_aviso"].str.fullmatch(r"[1-9]\d?/[1-9]\d?/202\d").all()
    assert many["id_aviso"].is_unique
    assert not many.isna().any(axis=None)


def test_shipped_sap_example_matches_the_format_of_a_real_export():
    raw = (DATA / "example_iw69.csv").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbfequipo;Centro planif.;Ubicac.t\xc3\xa9cnica;Denominaci\xc3\xb3n;")
    frame = pd.read_csv(DATA / "example_iw69.csv", sep=";", encoding="utf-8-sig", keep_default_na=False)
    assert frame.shape == (300, 38)
    texts = frame["descripcion"]
    assert (texts == texts.str.lower()).all()
    assert texts.str.len().max() == 40
    for column in ("modo_iso_label", "causa_iso_label", "prioridad", "causa_falla"):
        assert {"", "nan"} <= set(frame[column])
    assert frame["causa_falla"].isin(["", "nan"]).mean() > 0.8


# --- the shares and the ceiling ---------------------------------------------------------------------------


@settings(max_examples=5)
@given(evidence=SHARES, noise=NOISES, seed=st.integers(0, 10**6))
def test_generate_label_shares_match_requested_evidence_and_noise(evidence, noise, seed):
    rows = 4000
    frame = generate(rows, seed, evidence=evidence, noise=noise, with_rule=True)
    total = sum(part.weight for part in PARTS.values())
    for head, column in COLUMNS.items():
        expected = defaultdict(float)
        repeat = 0.0  # how often a redraw gives the ruled label again
        for part in PARTS.values():
            for label, q in ruled_shares(part, head, evidence[head]).items():
                expected[label] += part.weight / total * q
                repeat += part.weight / total * q * q
        for source in (f"regla_{head}", column):
            counts = frame[source].value_counts()
            for label, share in expected.items():
                sigma = math.sqrt(rows * share * (1 - share))
                assert abs(counts.get(label, 0) - rows * share) <= 6 * sigma + 1
        changed = (frame[column] != frame[f"regla_{head}"]).mean()
        asked = noise[head] * (1 - repeat)
        assert abs(changed - asked) <= 6 * math.sqrt(asked * (1 - asked) / rows) + 1e-3


@settings(max_examples=20)
@given(evidence=SHARES, noise=NOISES)
def test_ceiling_matches_exhaustive_search_over_states_for_every_class(evidence, noise):
    """Enumerate every state; for each class try every cut of the states sorted by their posterior."""
    total = sum(part.weight for part in PARTS.values())
    top = ceiling(evidence=evidence, noise=noise)
    for head in COLUMNS:
        states = []  # (probability, ruled label, q)
        for part in PARTS.values():
            q = ruled_shares(part, head, evidence[head])
            stated = ruled_shares(part, head, 1.0)
            default = max(ruled_shares(part, head, 0.0).items(), key=lambda item: item[1])[0]
            share = part.weight / total
            states += [(share * evidence[head] * p, label, q) for label, p in stated.items()]
            states.append((share * (1 - evidence[head]), default, q))
        weighted, macro = 0.0, []
        for label in {label for probability, label, _ in states if probability > 0}:
            kept = 1 - noise[head]
            posterior = [(kept * (label == r) + noise[head] * q.get(label, 0.0), p) for p, r, q in states]
            frequency = sum(chance * p for chance, p in posterior)
            hits = claimed = best = 0.0
            for chance, p in sorted(posterior, reverse=True):
                hits += chance * p
                claimed += p
                best = max(best, 2 * hits / (claimed + frequency) if claimed else 0.0)
            weighted += frequency * best
            macro.append(best)
        assert weighted == pytest.approx(top[f"{head}_f1"], abs=1e-12)
        assert sum(macro) / len(macro) == pytest.approx(top[f"{head}_f1_macro"], abs=1e-12)


def test_rule_labels_score_the_ceiling_within_sampling_error(many):
    top = ceiling()
    for head, column in COLUMNS.items():
        truth, rule = many[column], many[f"regla_{head}"]
        weighted, macro = top[f"{head}_f1"], top[f"{head}_f1_macro"]
        sigma = math.sqrt(weighted * (1 - weighted) / len(many))
        assert abs(f1_score(truth, rule, average="weighted") - weighted) < 4 * sigma
        counts = truth.value_counts()
        sigma = math.sqrt(sum(macro * (1 - macro) / count for count in counts)) / len(counts)
        assert abs(f1_score(truth, rule, average="macro") - macro) < 4 * sigma


def test_linear_model_with_text_and_rule_scores_just_below_the_ceiling(many):
    train, test = many[:5000], many[5000:10000]
    for head, column in COLUMNS.items():

        def inputs(rows, head=head):
            rule = rows[f"regla_{head}"].str.replace(r"\W", "", regex=True)
            return rows["descripcion"] + " " + rows["componente"] + (" rule" + rule) * 5

        vectors = TfidfVectorizer(sublinear_tf=True, min_df=2).fit(inputs(train))
        model = LinearSVC(C=0.1).fit(vectors.transform(inputs(train)), train[column])
        score = f1_score(test[column], model.predict(vectors.transform(inputs(test))), average="weighted")
        top = ceiling()[f"{head}_f1"]
        assert top - 0.03 < score < top + 3 * math.sqrt(top * (1 - top) / len(test))


def test_ceiling_without_noise_is_one_and_decreases_with_noise():
    assert all(score == pytest.approx(1) for score in ceiling(noise=dict.fromkeys(COLUMNS, 0.0)).values())
    low, high = ceiling(noise={"causa": 0.1}), ceiling(noise={"causa": 0.2})
    assert low["causa_f1"] > high["causa_f1"]
    assert low["modo_f1"] == high["modo_f1"] == ceiling()["modo_f1"]


@pytest.mark.parametrize("bad", [1 / 3, 0.5, -0.01, float("nan")])
def test_noise_of_a_third_or_more_raises_value_error(bad):
    with pytest.raises(ValueError, match="noise"):
        ceiling(noise={**NOISE, "modo": bad})
    with pytest.raises(ValueError, match="noise"):
        generate(1, seed=0, noise={"causa": bad})


def test_invalid_evidence_head_or_rows_raises_value_error():
    with pytest.raises(ValueError, match="evidence"):
        ceiling(evidence={**EVIDENCE, "modo": 1.1})
    with pytest.raises(ValueError, match="no existe la etiqueta"):
        ceiling(noise={"mode": 0.1})
    with pytest.raises(ValueError, match="rows"):
        generate(-1, seed=0)
    assert list(generate(0, seed=0).columns) == list(generate(1, seed=0).columns)
