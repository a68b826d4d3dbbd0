"""The stage that predicts: a teacher's or a student's choices on the test split."""

import json

from knife.method.objective import Objective
from knife.train.evaluate import accuracy_and_loss, predictions, score_split
from knife.train.journal import Journal
from knife.train.place import Place, load_published
from knife.train.stage import EvaluateStage

PREDICTIONS = "predictions.jsonl"


def evaluate_model(stage: EvaluateStage, place: Place) -> None:
    """Write the predictions by example id, and accuracy and loss into the journal."""
    folder = place.model(stage.model_kind, stage.model_key)
    split = place.split(stage, folder, "test")
    context = place.context
    objective = Objective(load_published(folder)).to(context.device).eval()
    scores = score_split(objective, split.tokens, split.pad_id, context, rationale=stage.rationale)
    if context.rank == 0:
        accuracy, loss = accuracy_and_loss(scores, split.tokens)
        with (place.work / PREDICTIONS).open("w") as file:
            for row in predictions(split.ids, split.tokens, scores):
                file.write(json.dumps(row) + "\n")
        journal = Journal(place.work)
        journal.add(0, None, {"test_accuracy": accuracy, "test_loss": loss})
        journal.close()
