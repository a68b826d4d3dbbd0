"""What a language model is asked: a template of the package or of a file, and solved examples."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

from jinja2 import StrictUndefined, Template, TemplateError, meta
from jinja2.sandbox import SandboxedEnvironment

from knife.config.write import Given
from knife.core.errors import UserError
from knife.data.example import Example

# A rationale, or the model's own answer alone.
Kind = Literal["rationale", "answer"]
FIELDS = ("question", "choices", "answer")
# What the model writes before its own answer.
OWN_ANSWER = "Answer:"

_TEMPLATES = Path(__file__).with_name("prompts")


@dataclass(frozen=True)
class Prompt:
    """How a model is asked.

    Attributes:
        name: `builtin`, or the file.
        text: the template for a rationale.
        given: whether the model sees the right answer.
        shots: solved examples that it sees first, with rationales.
    """

    name: str
    text: str
    given: Given
    shots: Sequence[Example] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """SHA-256 of the template, 16 hex digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    def messages(self, example: Example, kind: Kind) -> list[dict[str, str]]:
        """Return the messages of a chat that ends with the question.

        Raises:
            UserError: the template cannot be filled in.
        """
        text = self.text if kind == "rationale" else _builtin("answer_alone")
        chat = []
        for shot in self.shots if kind == "rationale" else ():
            chat += [_said("user", self._filled(text, shot)), _said("assistant", self._shown(shot))]
        return [*chat, _said("user", self._filled(text, example))]

    def _filled(self, text: str, example: Example) -> str:
        try:
            filled: str = _template(text).render(
                question=example.question,
                choices=[] if example.open else list(example.choices),
                answer=example.choices[example.answer],
            )
        except Exception as error:
            # What is in a template may raise anything.
            raise UserError(
                f"write.prompt: {self.name}: cannot be filled in for the example with id "
                f"{example.id!r}: {error}"
            ) from None
        return filled.strip()

    def _shown(self, shot: Example) -> str:
        if self.given == "answer":
            return shot.rationale or ""
        return f"{shot.rationale}\n{OWN_ANSWER} {shot.choices[shot.answer]}"


def read_prompt(name: str, given: Given, shots: Sequence[Example], example: Example) -> Prompt:
    """Return the prompt of the package, or that of a file, which is tried on an example.

    Raises:
        UserError: the file cannot be read, is no template, lacks the question, or has a field that
            examples do not have.
    """
    if name == "builtin":
        text = _builtin("with_answer" if given == "answer" else "without_answer")
        return Prompt(name, text, given, shots)
    try:
        text = Path(name).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise UserError(f"write.prompt: {name} cannot be read: {reason}") from error
    environment = _environment()
    try:
        fields = meta.find_undeclared_variables(environment.parse(text))
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        raise UserError(
            f"write.prompt: {name}{f':{line}' if line else ''}: not a Jinja template: {error}"
        ) from None
    known = ", ".join(f"{{{{ {one} }}}}" for one in FIELDS)
    errors = [
        f"write.prompt: {name}: has no field {one!r}; those of an example are {known}"
        for one in sorted(fields - {*FIELDS})
    ]
    if "question" not in fields:
        errors.append(
            f"write.prompt: {name}: must have the field {{{{ question }}}}, or else all examples "
            f"are asked the same; the fields of an example are {known}"
        )
    if given == "nothing" and "answer" in fields:
        errors.append(
            f"write.prompt: {name}: shows the right answer ({{{{ answer }}}}), but write.given is "
            "nothing; remove that field, or set write.given to answer"
        )
    if errors:
        raise UserError(*errors)
    prompt = Prompt(name, text, given, shots)
    prompt.messages(example, "rationale")
    return prompt


def _environment() -> SandboxedEnvironment:
    return SandboxedEnvironment(undefined=StrictUndefined, autoescape=False)


@lru_cache
def _builtin(name: str) -> str:
    return (_TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")


@lru_cache(16)
def _template(text: str) -> Template:
    return _environment().from_string(text)


def _said(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}
