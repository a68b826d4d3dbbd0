"""A student as MLflow's pyfunc: MLflow keeps a copy of this file beside the weights and runs it.

Input: one question per row, with `question`, `choices` (none for open questions) and optionally
`id`. Output: one row for each, as from `knife predict`: `choice`, `index` and `probabilities`, or
`text`. If any question has choices tied for first place, all rows have `tied`, empty without a tie.
"""

import json
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModel

from knife.core.errors import UserError
from knife.data.example import Example
from knife.data.record import read_question


class Scorer(PythonModel):  # type: ignore[misc]
    """Answers questions with a student, loaded once; on the GPU if there is one."""

    def load_context(self, context: Any) -> None:
        """Load the student of a model's folder."""
        # Writing a model does not need torch.
        from knife.inference.answers import Answerer

        self._answerer = Answerer(Path(context.artifacts["student"]))

    def predict(self, model_input: pd.DataFrame) -> pd.DataFrame:
        """Return a row for each question.

        Raises:
            MlflowException: with all errors in the questions; a server's client gets
                status 400.
        """
        questions, errors = _read(model_input, self._answerer.settings.open)
        try:
            errors += [] if errors else self._too_long(questions)
            rows = [] if errors else self._answerer.rows(questions)
        except UserError as error:
            errors = error.errors
        if errors:
            raise MlflowException.invalid_parameter_value("; ".join(errors))
        if any("tied" in row for row in rows):
            rows = [{"tied": []} | row for row in rows]
        if "id" not in model_input:
            rows = [{name: row[name] for name in row if name != "id"} for row in rows]
        return pd.DataFrame(rows, index=model_input.index)

    def _too_long(self, questions: list[Example]) -> list[str]:
        from knife.inference.answers import question_tokens, too_long

        answerer = self._answerer
        tokens = question_tokens(questions, answerer.tokenizer)
        reasons = too_long(tokens, answerer.settings, answerer.room)
        return [f"row {number}: {reason}" for number, reason in enumerate(reasons, 1) if reason]


def _read(given: pd.DataFrame, opened: bool) -> tuple[list[Example], list[str]]:
    """Return the questions, and what is wrong with them."""
    questions, errors = [], []
    # Through JSON: MLflow gives lists as arrays, and what is missing as NaN.
    for number, record in enumerate(json.loads(given.to_json(orient="records")), 1):
        question, wrong = read_question({"id": str(number), **record, "answer": None})
        found = [error.message for error in wrong]
        if question and question.open != opened:
            said = "leave them out" if opened else "give two or more"
            found = [f"choices: the student {'writes' if opened else 'chooses'} answers: {said}"]
        errors += [f"row {number}: {error}" for error in found]
        questions += [question] if question else []
    return questions, errors


mlflow.models.set_model(Scorer())
