"""The ready-made run configs that ship with the package: find, list and copy them."""

from pathlib import Path

from knife.core.errors import UserError, nearest

FOLDER = Path(__file__).parent / "recipes"


def recipes() -> dict[str, Path]:
    """Return the recipe files by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def summary(path: Path) -> str:
    """Return the first comment line of a recipe, which states the question it answers."""
    return path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("#").strip()


def find_config(name: str) -> Path:
    """Return the path of a recipe by name, or else of a YAML file of the user's.

    Raises:
        UserError: `name` is neither.
    """
    known = recipes()
    if name in known:
        return known[name]
    path = Path(name).expanduser()
    if path.is_file():
        return path
    what = "is a folder" if path.is_dir() else "is neither a recipe nor a file"
    raise UserError(
        f"CONFIG: {name!r} {what}; {nearest(path.stem, known)} (`knife ls` lists the recipes; "
        "give your own file by its path, such as ./mine.yaml)"
    )


def copy_recipe(name: str, target: Path | None) -> Path:
    """Copy a recipe to `target` (a new file, or a folder), by default the current folder.

    Raises:
        UserError: there is no such recipe, the target file exists, or it cannot be written.
    """
    known = recipes()
    if name not in known:
        raise UserError(f"NAME: {name!r} is not a recipe; {nearest(name, known)}")
    target = target or Path()
    if target.is_dir():
        target = target / f"{name}.yaml"
    try:
        with target.open("xb") as file:
            file.write(known[name].read_bytes())
    except FileExistsError:
        raise UserError(f"TARGET: {target} already exists; give another one") from None
    except OSError as error:
        raise UserError(f"TARGET: {target} cannot be written: {error.strerror}") from error
    return target
