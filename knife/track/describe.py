"""What a plan says of its run and goes to MLflow: params, tags and data sets."""

from importlib.metadata import version
from typing import Any

from knife.config.methods import OWN_SECTION, TEACHES
from knife.config.run import RunConfig
from knife.core.version import __version__
from knife.core.words import counted
from knife.data.digest import split_digest
from knife.data.examples import explained_count
from knife.data.half_real import HALF_REAL
from knife.data.written import by, words_on
from knife.plan.plan import Member, Plan
from knife.store.store import Store
from knife.track.node import DataSet
from knife.track.provenance import LIBRARIES, git_tags, job_tags

# Where results are stored and recorded says nothing about the run.
_HIDDEN = ("track", "store", "ablate", "write")


def run_params(config: RunConfig) -> dict[str, Any]:
    """Return a run's config in searchable form: methods and seeds as one string each."""
    values = {k: v for k, v in config.model_dump(mode="json").items() if k not in _HIDDEN}
    if config.data.source != "creatures":
        del values["data"]["world"]
    if config.data.source not in HALF_REAL:
        del values["data"]["facts"]
    values["methods"] = ", ".join(variant.name for variant in config.variants())
    return values | {"seeds": ", ".join(map(str, config.seeds))}


def member_params(plan: Plan, member: Member) -> dict[str, Any]:
    """Return the settings that a method's student depends on, under the config's keys."""
    config = _config(plan, member)
    (variant,) = config.variants()
    trained = "prompt" if variant.method == "prompt" else "student"
    values = config.model_dump(mode="json", include={"data", "model", trained})
    del values["data"]["world"], values["data"]["facts"]
    if variant.method == "knife":
        values["align"] = config.align.model_dump(mode="json")
    if variant.method in OWN_SECTION:
        values[variant.method] = getattr(config, variant.method).model_dump(mode="json")
    if variant.method not in TEACHES:
        del values["model"]["teacher"]
    return {"method": member.method, "seed": member.seed} | values


def teacher_params(plan: Plan) -> dict[str, Any]:
    """Return the settings that the run's teacher depends on, under the config's keys."""
    values = plan.config.model_dump(mode="json", include={"data", "teacher"})
    del values["data"]["world"], values["data"]["facts"]
    model = {"teacher": plan.config.model.teacher}
    return {"method": "teacher", "seed": plan.config.teacher.seed, "model": model} | values


def run_tags(plan: Plan) -> dict[str, str]:
    """Return the tags of a run or a sweep: fingerprints, data, scale, job, versions."""
    config, scale = plan.config, plan.config.scale
    tags = {f"knife.version.{name}": version(name) for name in LIBRARIES}
    tags |= {"knife.version": __version__, "knife.fingerprint": plan.key}
    tags |= {"knife.data": ",".join(plan.data), "knife.data.source": config.data.source}
    tags |= _written_tags(plan)
    place = "this process" if scale.launcher == "process" else scale.placement
    gpus = f", {scale.gpus_per_worker:g} GPUs each" if scale.gpus_per_worker else ""
    workers = f"{counted(scale.workers, 'worker')} ({place}){gpus}"
    tags["knife.scale"] = f"{workers}, ZeRO {scale.zero_stage}, {scale.precision}"
    return tags | job_tags() | git_tags()


def _written_tags(plan: Plan) -> dict[str, str]:
    """Return tags on rationales that a language model wrote."""
    if not plan.written:
        return {}
    records = plan.written.values()
    said = (f"{split}: {words_on(r, n)}" for r in records for split, n in r["splits"].items())
    return {
        "knife.rationales": "; ".join(dict.fromkeys(said)),
        "knife.rationales.by": ", ".join(dict.fromkeys(map(by, records))),
        "knife.rationales.prompt": ", ".join(dict.fromkeys(r["prompt"]["digest"] for r in records)),
    }


def data_sets(plan: Plan, key: str, store: Store) -> list[DataSet]:
    """Return the splits of the data `key`; a run's variants may treat rationales differently."""
    data = next(_config(plan, m).data for m in plan.members if m.student.data == key)
    treated = "" if data.rationale == "given" else f" {data.rationale}"
    name = f"{data.source.rstrip('/').rpartition('/')[2]}{treated}"
    return [
        DataSet(
            name=name,
            split=split,
            digest=split_digest(plan.data[key], split, rationales=True),
            place=f"{store.address}/data/{key}/{split}.arrow",
            examples=len(examples),
            rationales=explained_count(examples),
        )
        for split, examples in plan.data[key].parts.items()
    ]


def _config(plan: Plan, member: Member) -> RunConfig:
    """Return the config of one method of the run."""
    (variant,) = [v for v in plan.config.variants() if v.name == member.method]
    return plan.config.of(variant)
