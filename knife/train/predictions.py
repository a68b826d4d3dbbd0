"""The stage that predicts: a teacher's or a student's answers on the test split."""

from dataclasses import replace

from knife.core import strict_json
from knife.data.demonstrations import saved_demonstrations
from knife.data.examples import Examples
from knife.data.tokenizing import tokenize
from knife.method.objective import Objective
from knife.plan.stage import EvaluateStage
from knife.train.evaluate import answer_split, measures, predictions
from knife.train.journal import Journal
from knife.train.model_settings import ModelSettings
from knife.train.results import PREDICTIONS, read_predictions
from knife.train.stage_context import Split, StageContext, load_published


def evaluate_model(stage: EvaluateStage, stage_context: StageContext) -> None:
    """Write the predictions by example id, and their metrics to the journal.

    Raises:
        NotFiniteError: the model's outputs are NaN or infinite.
    """
    folder = stage_context.model(stage.model_kind, stage.model_key)
    settings = ModelSettings.read(folder)
    split = stage_context.split(stage, folder, "test")
    if stage.written:
        split = _as_written(split, stage, stage_context)
    split = split.behind(saved_demonstrations(folder), settings.preamble_tokens)
    context = stage_context.context
    objective = Objective(load_published(folder)).to(context.device).eval()
    asking = settings.asking(split.tokenizer, rationale=stage.rationale)
    answers = answer_split(objective, split.tokens, split.ids, split.pad_id, context, asking)
    if context.rank == 0:
        with (stage_context.work / PREDICTIONS).open("w") as file:
            for row in predictions(split.ids, split.tokens, answers):
                file.write(strict_json.dumps(row) + "\n")
        journal = Journal(stage_context.work)
        found = measures(answers, split.tokens)
        journal.add(0, None, {f"test_{name}": value for name, value in found.items()})
        journal.close()


def _as_written(split: Split, stage: EvaluateStage, stage_context: StageContext) -> Split:
    """Return the split with the rationales that a student wrote."""
    rows = read_predictions(stage_context.store, stage.written)
    texts = {row["id"]: row["rationale"] for row in rows}
    examples = Examples.of(split.examples)
    examples = examples.with_rationales(texts[name] or None for name in split.ids)
    tokens, _ = tokenize(examples, split.tokenizer, stage.max_tokens)
    return replace(split, examples=examples, tokens=tokens)
