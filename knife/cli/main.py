"""The commands, one function each: parse, call, print. No logic lives here."""

import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from knife.cli.output import print_result
from knife.core.errors import WorkFailedError, raise_errors
from knife.core.exits import exits, say
from knife.core.version import __version__

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Distil free-text rationales into small language models with the KNIFE method.",
)
data_app = typer.Typer(no_args_is_help=True, help="Check and show data before training on it.")
app.add_typer(data_app, name="data")

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Keys of the run config or the sweep to set, such as data.fraction=0.1",
        show_default=False,
    ),
]
Config = Annotated[str, typer.Argument(help="A recipe's name (knife ls) or a YAML file")]
# Printed when a command that can resume is interrupted.
RESUME = "nothing is lost: run the same command again to resume"
Source = Annotated[
    str,
    typer.Argument(
        help="A known source (creatures, …), hub:OWNER/NAME, or a file or folder (docs/data.md)"
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print what would be done, without doing it.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the result and errors.")]


@app.command()
def run(
    config: Config,
    overrides: Overrides = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train teacher and students, evaluate them, and print the verdict."""
    with exits(RESUME):
        from knife.config.recipe_files import find_config
        from knife.config.run import read

        settings = read(find_config(config), overrides)
        if dry_run:
            from knife.pipeline import dry_run as dry

            found = dry.dry_run(settings)
            print_result(asdict(found) if as_json else dry.render(found))
            return

        from knife.pipeline.command import last_words, run_with_display
        from knife.report.table import render

        result = run_with_display(settings, quiet=quiet)
        print_result(result.to_dict() if as_json else render(result.verdict))
        say(*last_words(result, quiet=quiet))
        if result.failures:
            raise WorkFailedError(*result.failures)


@app.command()
def forecast(
    config: Config,
    overrides: Overrides = None,
    teacher: Annotated[
        bool, typer.Option("--teacher", help="Train the run's teacher and a student too; ask dev.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say before a run whether knife is likely to gain points: from its data, in seconds."""
    with exits(RESUME):
        from knife.cli.forecast import forecast_with_display, last_words

        found = forecast_with_display(config, overrides, teacher=teacher)
        print_result(found.to_dict() if as_json else "\n".join(found.forecast.lines()))
        say(*last_words(found))


@app.command()
def probe(
    config: Config,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Say whether what a run's students write belongs to what they answer; trains nothing."""
    with exits():
        from knife.cli.score import probed

        values, shown, said = probed(config, overrides)
        print_result(values if as_json else shown)
        say(*said)


@app.command()
def tune(
    sweep: Annotated[Path, typer.Argument(help="A sweep's YAML file")],
    overrides: Overrides = None,
    dry_run: DryRun = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume a sweep; refuse to begin a new one.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Search a space of run configs: each teacher is trained once for all trials."""
    with exits(RESUME):
        from knife.tune import command

        plan = command.plan_file(sweep, overrides or [])
        if dry_run:
            from knife.tune import dry_run as dry

            found = dry.dry_run(plan)
            print_result(asdict(found) if as_json else dry.render(found))
            return

        result = command.sweep_with_display(plan, resume=resume, quiet=quiet)
        print_result(result.values if as_json else command.rendered(plan, result))
        say(*command.last_words(plan, result, quiet=quiet))


@app.command(context_settings={"allow_interspersed_args": False})
def submit(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="run|tune", help="The command with its arguments, as on this machine."
        ),
    ],
    address: Annotated[
        str,
        typer.Option(
            envvar="RAY_API_SERVER_ADDRESS",
            help="The Ray dashboard of the cluster: http://HOST:8265",
        ),
    ],
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Print how to follow the job, and return at once.")
    ] = False,
    working_dir: Annotated[Path, typer.Option(help="The folder to send with the job.")] = Path(),
) -> None:
    """Submit a run or a sweep as a Ray job to a cluster, and follow its log."""
    values = _parsed(context, words)
    with exits():
        from knife.cli.submit import submit

        sys.exit(submit(words, values, address, working_dir, wait=not no_wait))


@app.command()
def predict(
    student: Annotated[str, typer.Argument(help="A student's folder or url: STORE/student/KEY")],
    file: Annotated[Path, typer.Argument(help="JSON Lines; answer and rationale may be missing")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write here instead of to stdout.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Number of Ray workers to use; needs --output."),
    ] = None,
    skip_too_long: Annotated[
        bool,
        typer.Option("--skip-too-long", help="Skip and count questions that are too long."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Answer the questions of a file with a student: one JSON line per question."""
    with exits(RESUME if output else ""):
        from knife.inference.answers import line
        from knife.inference.file import predict
        from knife.store.store import artifact_folder

        keep_rows = as_json or not output
        found = predict(
            artifact_folder(student),
            file,
            output,
            workers,
            keep_rows=keep_rows,
            skip_too_long=skip_too_long,
        )
        if as_json:
            print_result(found.to_dict())
        elif not output:
            print("\n".join(map(line, found.rows)))
        say(found.sentence())


@data_app.command()
def check(source: Source, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Check data: errors with their lines, coverage and leakage of the rationales."""
    with exits():
        from knife.cli.check import checked

        values, lines = checked(source, overrides or [])
        print_result(values if as_json else "\n".join(lines))


@data_app.command()
def show(
    source: Source,
    overrides: Overrides = None,
    number: Annotated[int, typer.Option("-n", min=1, help="How many examples.")] = 3,
    model: Annotated[
        str | None, typer.Option("--model", help="Show the tokens of this model too.")
    ] = None,
) -> None:
    """Show training examples as the model sees them."""
    with exits():
        from knife.cli.show import read_data, shown, used_splits

        settings = read_data(source, overrides or [])
        train = used_splits(settings, model).train[:number]
        print("\n".join(shown(train, settings, model)))


@data_app.command("map")
def map_columns(source: Source, overrides: Overrides = None) -> None:
    """Print which columns of a table would be read as what, as a part of a config to edit."""
    with exits():
        from knife.cli.show import read_data
        from knife.cli.tables import map_of

        print(map_of(read_data(source, overrides or [])), end="")


@data_app.command()
def convert(
    source: Source,
    out: Annotated[Path, typer.Option(help="A new folder, for a file of each split.")],
    overrides: Overrides = None,
) -> None:
    """Write a source as JSON Lines: the splits that it has, as a run would read them."""
    with exits():
        from knife.cli.show import read_data
        from knife.cli.tables import convert as write

        print("\n".join(write(read_data(source, overrides or []), out)))


@data_app.command()
def write(
    source: Annotated[
        str, typer.Argument(help="A source as for data check, a recipe's name or a YAML file")
    ],
    out: Annotated[Path, typer.Option(help="The folder for the data with rationales.")],
    overrides: Overrides = None,
    missing: Annotated[
        bool, typer.Option("--missing", help="Keep rationales that there are; fill the gaps.")
    ] = False,
    for_analysis: Annotated[
        bool, typer.Option("--for-analysis", help="Write the test split's too, kept apart.")
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Have a language model write the rationales of train; ask for nothing twice."""
    with exits(RESUME):
        from knife.cli.write import planned, write_and_check
        from knife.writing.write import dry_run as dry

        plan = partial(planned, source, overrides or [], out, gaps=missing, analysis=for_analysis)
        if dry_run:
            found = dry(plan())
            print_result(asdict(found) if as_json else "\n".join(found.lines()))
            return
        values, lines, failures = write_and_check(plan())
        if as_json or lines:
            print_result(values if as_json else "\n".join(lines))
        if failures:
            raise WorkFailedError(*failures)


@data_app.command()
def score(
    config: Config,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Score the rationales of a run's test split, and those that its students wrote."""
    with exits(RESUME):
        from knife.cli.score import scored

        values, shown, said = scored(config, overrides)
        print_result(values if as_json else shown)
        say(*said)


@app.command()
def report(
    target: Annotated[str, typer.Argument(help="A run's or a sweep's name, or its folder")],
    out: Annotated[Path | None, typer.Option(help="Where to write the page.")] = None,
    store: Annotated[str, typer.Option(help="The store that it is in.")] = "knife-store",
) -> None:
    """Write an HTML report of a run or a sweep, finished or in progress."""
    with exits():
        from knife.cli.report import write_report

        print(write_report(target, store, out))


@app.command()
def push(
    student: Annotated[str, typer.Argument(help="A student's folder or url: STORE/student/KEY")],
    repo: Annotated[str, typer.Argument(help="OWNER/NAME on the hub; created if missing")],
    private: Annotated[
        bool, typer.Option("--private", help="Create a private repository; refuse a public one.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the files and print the card; send nothing.")
    ] = False,
) -> None:
    """Upload a student with its model card to the Hugging Face hub, or to HF_ENDPOINT."""
    with exits(RESUME):
        from knife.cli.push import plan_upload
        from knife.cli.push import push as upload

        found = plan_upload(student, repo)
        # The card says so too, but publishing cannot be undone.
        say(*(f"{name}: training examples, which are uploaded too" for name in found.examples()))
        print("\n".join(found.lines()) if dry_run else upload(found, private=private))


@app.command()
def models(
    model: Annotated[str, typer.Argument(help="A folder, OWNER/NAME on the hub, or tiny-t5, …")],
    max_tokens: Annotated[
        int, typer.Option(min=1, help="The longest text, as data.max_tokens.")
    ] = 256,
) -> None:
    """Try a model out: its family, size and positions, how it is read, and the memory it needs."""
    with exits():
        from knife.cli.models import about

        print("\n".join(about(model, max_tokens)))


@app.command()
def ls() -> None:
    """List the ready recipes."""
    from knife.config.recipe_files import recipes, summary

    width = max(map(len, recipes()))
    for name, path in recipes().items():
        print(f"{name:<{width}}  {summary(path)}")


@app.command()
def cp(
    name: Annotated[str, typer.Argument(help="A recipe's name (knife ls)")],
    target: Annotated[Path | None, typer.Argument(help="A new file, or a folder")] = None,
) -> None:
    """Copy a recipe to edit it."""
    with exits():
        from knife.config.recipe_files import copy_recipe
        from knife.core.words import command_line

        path = copy_recipe(name, target)
        say(f"{path} is ready to edit; run it with: {command_line('knife', 'run', path)}")


@app.command()
def sync(
    store: Annotated[str, typer.Option(help="The store of runs and sweeps.")] = "knife-store",
) -> None:
    """Send MLflow what it missed of runs and sweeps while it did not answer."""
    with exits(RESUME):
        from knife.cli.sync import sync as send

        sent, kept, errors = send(store)
        print(*sent, sep="\n", end="\n" if sent else "")
        say(*kept)
        raise_errors(errors)
        sys.exit(1 if kept else 0)


@app.command()
def ui(
    store: Annotated[str, typer.Option(help="The store of runs and sweeps.")] = "knife-store",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
) -> None:
    """Browse runs in the MLflow UI, on this machine alone (127.0.0.1)."""
    with exits():
        from knife.cli.ui import serve

        sys.exit(serve(store, port))


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Accept options before the command."""


def main() -> None:
    """Run the command line: the console entry point."""
    app(prog_name="knife")


def _parsed(context: typer.Context, words: list[str]) -> dict[str, Any]:
    """Return the arguments and options of another command; invalid ones end this one likewise."""
    name, group = words[0], context.find_root()
    if name not in ("run", "tune"):
        raise typer.BadParameter(f"a job must be `run …` or `tune …`, but got {name!r}")
    command: Any = group.command
    inner = command.get_command(group, name)
    return dict(inner.make_context(name, list(words[1:]), parent=group).params)
