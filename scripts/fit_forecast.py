"""Fit the forecast of `knife forecast` to measured gains, and say how well it does on others.

    python scripts/fit_forecast.py

Reads bench/forecast.jsonl (bench/forecast.py), writes knife/forecast/parameters.json and a part of
docs/forecast.md. Conditions named fit-N are fitted, those named test-N only predicted; those of the
latter that were in sight when the form of the formula was chosen are told apart.
"""

import json
import re
from dataclasses import astuple
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from scipy import stats
from scipy.optimize import least_squares

from knife.core.atomic import write_json, write_text
from knife.forecast.features import Features
from knife.forecast.forecast import LIKELY, UNKNOWN, UNLIKELY, Scores, forecast
from knife.forecast.gain import PARAMETERS, WORTH, Curve, Fitted, Room

HOUSE = Path(__file__).parents[1]
PAGE = HOUSE / "docs" / "forecast.md"
PART = re.compile(r"(?<=writes what follows -->\n).*(?=<!-- until here)", re.DOTALL)
GRID = HOUSE / "bench" / "forecast.jsonl"
START = Curve(ceiling=0.8, half=5.0, slope=0.5, fit=1.0, told=0.5, taught=0.5)
LOWEST = (0.1, 0.5, 0.2, 0.0, 0.0, 0.0)
HIGHEST = (1.0, 40.0, 2.0, 4.0, 4.0, 1.0)
# Of the two fits: from data alone, and with models that were asked.
NAMES = ("data", "teacher")
# So many conditions for testing were measured when the form of the formula was chosen.
IN_SIGHT = 16
SAID = (LIKELY, UNLIKELY, UNKNOWN)
Row = dict[str, Any]


def read(purpose: str) -> list[Row]:
    """Return the conditions for a purpose, `fit` or `test`."""
    rows = [json.loads(line) for line in GRID.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["name"].startswith(purpose)]


def seen(row: Row, name: str) -> tuple[Features, Room]:
    """Return what a fit knows of a condition: its features, and what there is to gain."""
    of = Features.from_dict(row["features"])
    return of, Room.of(of) if name == "data" else Scores(**row["scores"]).room


def fitted_curve(rows: list[Row], name: str, start: Curve = START) -> Curve:
    """Return the curve that is nearest to the gains, found from `start`."""
    known = [(*seen(row, name), row["gain"]) for row in rows]

    def wrong(values: Any) -> list[float]:
        curve = Curve(*map(float, values))
        return [curve.gain(of, room) - gain for of, room, gain in known]

    # A few conditions that are far off should not decide.
    inside = np.clip(astuple(start), LOWEST, HIGHEST)
    # Gains are known to some points: more digits are not worth the time.
    found = least_squares(
        wrong, inside, bounds=(LOWEST, HIGHEST), loss="soft_l1", f_scale=5.0, ftol=1e-4, max_nfev=50
    )
    return Curve(*(round(float(value), 4) for value in found.x))


def fit(rows: list[Row], name: str) -> Fitted:
    """Fit one curve; its errors are of conditions that are left out, one at a time."""
    curve = fitted_curve(rows, name)
    expected, errors = [], []
    for index, row in enumerate(rows):
        others = fitted_curve(rows[:index] + rows[index + 1 :], name, curve)
        expected.append(others.gain(*seen(row, name)))
        errors.append(row["gain"] - expected[-1])
    gains, sizes = np.array(expected), np.abs(errors)

    def off(values: Any) -> Any:
        return values[0] + values[1] * gains - sizes

    spread = least_squares(off, (3.0, 0.1), bounds=((1.0, 0.0), (20.0, 1.0))).x
    residuals = np.sort(np.array(errors) / (spread[0] + spread[1] * gains))
    return Fitted(
        curve,
        (round(float(spread[0]), 3), round(float(spread[1]), 3)),
        tuple(round(float(each), 3) for each in residuals),
        round(max(seen(row, name)[1].total for row in rows), 1),
    )


def cells(rows: list[Row], name: str) -> list[str]:
    """Return how well the forecast that ships does on conditions, one cell for each measure."""
    found = []
    for row in rows:
        scores = Scores(**row["scores"]) if name == "teacher" else None
        found.append(forecast(Features.from_dict(row["features"]), scores))
    gains = [row["gain"] for row in rows]
    # All conditions have choices, and so an expected gain.
    expected = [each.expected for each in found if each.expected]
    pairs = list(zip(expected, gains, strict=True))
    rho = stats.spearmanr([each.gain for each in expected], gains).statistic
    inside = sum(each.low <= gain <= each.high for each, gain in pairs)
    told = []
    for verdict in SAID:
        own = [gain for each, gain in zip(found, gains, strict=True) if each.verdict == verdict]
        told.append(f"{sum(gain >= WORTH for gain in own)} of {len(own)}")
    return [
        f"{rho:.2f}",
        f"{median(abs(each.gain - gain) for each, gain in pairs):.1f} points",
        f"{inside} of {len(rows)}",
        *told,
    ]


def part() -> str:
    """Return the part of the page on how well the forecast that ships does."""
    tested, fitted = read("test"), read("fit")
    in_sight = [row for row in tested if int(row["name"].partition("-")[2]) < IN_SIGHT]
    rows = [row for row in tested if row not in in_sight]
    worth = sum(row["gain"] >= WORTH for row in rows)
    said = (f"gained {WORTH:g} points or more, of those said to be `{each}`" for each in SAID)
    measures = (
        "rank correlation of expected and measured gain",
        "median error",
        "measured gain inside of the 80 % interval",
        *said,
    )
    columns = zip(measures, *(cells(rows, name) for name in NAMES), strict=True)
    halves = (f"{Fitted.load(name).curve.half:.1f}" for name in NAMES)
    return "\n".join(
        [
            f"Fitted to {len(fitted)} conditions. On {len(rows)} others, of which {worth} gained "
            f"{WORTH:g} points or more:",
            "",
            "| | data alone | with the teacher |",
            "|---|---|---|",
            *(f"| {' | '.join(row)} |" for row in columns),
            f"| mentions at which half is remembered | {' | '.join(halves)} |",
            "",
            f"On {len(in_sight)} others, in sight when the formula was chosen, the rank",
            f"correlations are {' and '.join(cells(in_sight, n)[0] for n in NAMES)}.",
            "",
        ]
    )


def main() -> None:
    """Fit, and write the parameters and the page."""
    values = {name: fit(read("fit"), name).to_dict() for name in NAMES}
    write_json(HOUSE / "knife" / "forecast" / PARAMETERS, values)
    page = PAGE.read_text(encoding="utf-8")
    write_text(PAGE, PART.sub(lambda _: part(), page))
    for name in NAMES:
        print(name, values[name]["curve"], values[name]["spread"], values[name]["room"])
    print(part())


if __name__ == "__main__":
    main()
