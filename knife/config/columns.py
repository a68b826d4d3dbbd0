"""Which columns of a table hold the fields of an example."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from knife.config.section import ConfigSection

AnswerForm = Literal["text", "letter", "label", "index", "index1", "bool"]


def _names(value: Any) -> Any:
    """Return one name as a list; YAML reads the choices yes and no as booleans."""
    values = [value] if isinstance(value, str | bool) else value
    if not isinstance(values, list):
        return values
    return [{True: "yes", False: "no"}[one] if isinstance(one, bool) else one for one in values]


Names = Annotated[list[str], BeforeValidator(_names)]


class Columns(ConfigSection):
    """The columns of a table; null is guessed by the usual names, and [] is none.

    `question` and `rationale` are one column or several, which are joined. `choices` is a column of
    lists, a column for each choice, or the choices themselves, if the table has no such columns.
    `answer` is a column, which may be one of those of the choices: these are then shuffled by id.
    `answer_is` is what it holds: the choice's text, letter, label, index from 0 or from 1, or a
    truth value for yes and no; null finds that out from all rows. Without an `id` column, ids are
    made from the content. Rows of one `group` are never split over train, dev and test.
    """

    question: Names | None = None
    choices: Names | None = None
    answer: str | None = None
    answer_is: AnswerForm | None = None
    rationale: Names | None = None
    id: str | None = None
    group: str | None = None

    @property
    def read(self) -> set[str]:
        """The names of all columns that are read, and of choices that are no columns."""
        names = [*(self.question or []), *(self.choices or []), *(self.rationale or [])]
        return {*names, *(name for name in (self.answer, self.id, self.group) if name)}
