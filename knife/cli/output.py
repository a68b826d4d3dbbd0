"""How results are printed."""

from typing import Any

from knife.core import strict_json


def print_result(found: Any) -> None:
    """Print a result: a mapping as one JSON document, text as it is, a table as a table."""
    if isinstance(found, dict):
        found = strict_json.dumps(found, ensure_ascii=False, indent=1)
    if isinstance(found, str):
        print(found)
    else:
        import rich

        console = rich.get_console()
        # Tables are laid out for 80 columns: a narrower terminal wraps their lines.
        console.width = max(console.width, 80)
        console.print(found)
