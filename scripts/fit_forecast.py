"""Fit the forecast of `knife forecast` to measured gains, and say how well it does on others.

    python bench/forecast.py FOLDER                # measures, and keeps the data of each condition
    python scripts/fit_forecast.py FOLDER          # features of the data, into bench/forecast.jsonl
    python scripts/fit_forecast.py                 # fits, from bench/forecast.jsonl alone

Conditions named fit-N are fitted, those named test-N are only predicted.
"""

import json
import sys
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from scipy.optimize import least_squares

from knife.config.run import Data
from knife.core import strict_json
from knife.core.atomic import write_json, write_text
from knife.data.source import load_source
from knife.forecast.features import Features, features
from knife.forecast.forecast import LIKELY, UNKNOWN, UNLIKELY, TeacherScores, likelihood
from knife.forecast.gain import PARAMETERS, WORTH, Curve, Fitted

HOUSE = Path(__file__).parents[1]
GRID = HOUSE / "bench" / "forecast.jsonl"
# ceiling, half, slope, fit, leak, told
START = (0.8, 5.0, 0.5, 1.0, 0.5, 0.5)
LOWEST = (0.1, 0.5, 0.3, 0.0, 0.0, 0.0)
HIGHEST = (1.0, 40.0, 2.0, 3.0, 3.0, 3.0)
Row = dict[str, Any]


def collect(folder: Path) -> None:
    """Write the measured gains with the features of their data."""
    lines = []
    for line in (folder / "grid.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        splits = load_source(Data(source=str(folder / "data" / row["name"])))
        row["features"] = asdict(features(splits))
        lines.append(strict_json.dumps(row) + "\n")
    write_text(GRID, "".join(lines))


def read(purpose: str) -> list[Row]:
    """Return the conditions for a purpose, `fit` or `test`."""
    rows = [json.loads(line) for line in GRID.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["name"].startswith(purpose)]


def room(row: Row, name: str) -> float:
    """Return what there is to gain in a condition, with the teacher or without one."""
    if name == "data":
        return Features.from_dict(row["features"]).headroom
    return TeacherScores(**row["teacher"]).lift


def fitted_curve(rows: list[Row], name: str) -> Curve:
    """Return the curve that is nearest to the gains."""
    known = [(Features.from_dict(row["features"]), room(row, name), row["gain"]) for row in rows]

    def wrong(values: Any) -> list[float]:
        curve = Curve(*map(float, values))
        return [curve.gain(of, points) - gain for of, points, gain in known]

    # A few conditions that are far off should not decide.
    found = least_squares(wrong, START, bounds=(LOWEST, HIGHEST), loss="soft_l1", f_scale=5.0)
    return Curve(*(round(float(value), 4) for value in found.x))


def fit(rows: list[Row], name: str) -> Fitted:
    """Fit one curve; its errors are of conditions that are left out, one at a time."""
    curve = fitted_curve(rows, name)
    expected, errors = [], []
    for index, row in enumerate(rows):
        others = fitted_curve(rows[:index] + rows[index + 1 :], name)
        expected.append(others.gain(Features.from_dict(row["features"]), room(row, name)))
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
        round(max(room(row, name) for row in rows), 1),
    )


def report(found: Fitted, rows: list[Row], name: str) -> None:
    """Print how well the forecast does on rows."""
    pairs = [
        (found.expected(Features.from_dict(row["features"]), room(row, name)), row["gain"])
        for row in rows
    ]
    gains = [gain for _, gain in pairs]
    rho = stats.spearmanr([each.gain for each, _ in pairs], gains).statistic
    inside = np.mean([each.low <= gain <= each.high for each, gain in pairs])
    error = np.median([abs(each.gain - gain) for each, gain in pairs])
    print(
        f"{name}: {len(rows)} conditions, rank correlation {rho:.2f}, in the interval {inside:.0%}"
    )
    print(f"  median error {error:.1f} points; gains of {WORTH:g} points or more by verdict:")
    said = [(likelihood(each), gain) for each, gain in pairs]
    for verdict in (LIKELY, UNLIKELY, UNKNOWN):
        own = [gain for each, gain in said if each == verdict]
        print(f"  {verdict:9} {sum(gain >= WORTH for gain in own)} of {len(own)}")


def main() -> None:
    """Collect if a folder is given; fit, report and write the parameters."""
    if len(sys.argv) > 1:
        collect(Path(sys.argv[1]))
    rows, unseen = read("fit"), read("test")
    values = {}
    for name in ("data", "teacher"):
        found = fit(rows, name)
        values[name] = found.to_dict()
        print(name, astuple(found.curve), found.spread, found.room)
        report(found, rows, f"{name}, fitted")
        report(found, unseen, f"{name}, not seen")
    write_json(HOUSE / "knife" / "forecast" / PARAMETERS, values)


if __name__ == "__main__":
    main()
