"""The stage that predicts: a teacher's or a student's answers on the test split."""

from knife.core import strict_json
from knife.data.preamble import saved_preamble
from knife.method.objective import Objective
from knife.plan.stage import EvaluateStage
from knife.train.evaluate import answer_split, measures, predictions
from knife.train.journal import Journal
from knife.train.model_settings import ModelSettings
from knife.train.place import StageContext, load_published
from knife.train.results import PREDICTIONS


def evaluate_model(stage: EvaluateStage, place: StageContext) -> None:
    """Write the predictions by example id, and their metrics to the journal.

    Raises:
        NotFiniteError: the model's outputs are NaN or infinite.
    """
    folder = place.model(stage.model_kind, stage.model_key)
    settings = ModelSettings.read(folder)
    split = place.split(stage, folder, "test")
    split = split.behind(saved_preamble(folder), settings.preamble_tokens)
    context = place.context
    objective = Objective(load_published(folder)).to(context.device).eval()
    asking = settings.asking(split.tokenizer, rationale=stage.rationale)
    answers = answer_split(objective, split.tokens, split.ids, split.pad_id, context, asking)
    if context.rank == 0:
        with (place.work / PREDICTIONS).open("w") as file:
            for row in predictions(split.ids, split.tokens, answers):
                file.write(strict_json.dumps(row) + "\n")
        journal = Journal(place.work)
        found = measures(answers, split.tokens)
        journal.add(0, None, {f"test_{name}": value for name, value in found.items()})
        journal.close()
