"""The `roarline` program: the door. Imports no torch before there is work that needs it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

import roarline
from roarline.errors import RoarlineError
from roarline.stages import STAGES

app = typer.Typer(
    name="roarline",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Which attribution method tells the truth about an image classifier?",
)

Config = Annotated[Path, typer.Argument(metavar="CONFIG", help="The experiment's YAML file.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override one value of the config; may stand several times."),
]
Where = Annotated[
    str | None, typer.Option("--executor", metavar="local|ray", help="Where jobs run; as runtime.executor.")
]
Address = Annotated[
    str | None, typer.Option("--address", metavar="HOST:PORT", help="Of the Ray cluster; as runtime.address.")
]
Artifacts = Annotated[Path, typer.Option("--artifacts", help="The artifact folder.")]
_DEFAULT_ARTIFACTS = Path("artifacts")
_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> None:
    """Entry point: exit code 0 done, 2 the user's input is wrong, 1 anything else."""
    sys.exit(run_command(sys.argv[1:] if arguments is None else arguments))


def run_command(arguments: list[str]) -> int:
    """Run one command line and return its exit code; deliberate failures print one message, no traceback."""
    try:
        result = app(arguments, standalone_mode=False)
    except RoarlineError as error:
        print(f"roarline: {error}", file=sys.stderr)
        return error.exit_code
    except typer.TyperException as error:
        print(f"roarline: {error.format_message()}", file=sys.stderr)
        return 2
    except (typer.Abort, KeyboardInterrupt):
        print("roarline: stopped; what was finished is kept", file=sys.stderr)
        return 1
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except Exception:  # noqa: BLE001 - the last resort: a defect, shown in full
        traceback.print_exc()
        print("roarline: this is a defect of roarline; the lines above say where", file=sys.stderr)
        return 1
    if result == _INTERRUPTED:  # typer's own answer to Ctrl-C
        print("roarline: stopped; what was finished is kept", file=sys.stderr)
        return 1
    return result if isinstance(result, int) else 0


def _version(wanted: bool) -> None:
    if wanted:
        print(f"roarline {roarline.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def run(config: Config, set_: Set = None, executor: Where = None, address: Address = None) -> None:
    """Run every stage that the config asks for, in dependency order, skipping what exists."""
    from roarline.execution import commands

    commands.run(config, _with_place(set_, executor, address))


@app.command()
def plan(config: Config, set_: Set = None) -> None:
    """Show the jobs a run would do, with their keys, sizes and what is cached; needs no GPU and no data."""
    from roarline.execution import plan_view

    plan_view.show_plan(config, set_ or [])


@app.command()
def status(config: Config, set_: Set = None) -> None:
    """Show what is done, running, failed, and waiting on what."""
    from roarline.execution import commands

    commands.show_status(config, set_ or [])


@app.command(name="list")
def list_(kind: Annotated[str, typer.Argument(metavar="methods|explainers|metrics|datasets|models")]) -> None:
    """List components, each with its parameters, defaults and source."""
    from roarline.execution import catalogue

    catalogue.show(kind)


@app.command()
def verify(
    artifact: Annotated[str | None, typer.Argument(help="A folder, or STAGE/KEY; default: all.")] = None,
    artifacts: Artifacts = _DEFAULT_ARTIFACTS,
) -> None:
    """Re-hash what is on disk and compare it with the manifests."""
    from roarline.execution import commands

    commands.verify(artifact, artifacts)


@app.command()
def gc(
    artifacts: Artifacts = _DEFAULT_ARTIFACTS,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
) -> None:
    """Drop what no kept experiment refers to; asks first."""
    from roarline.execution import commands

    commands.gc(artifacts, yes=yes)


@app.command()
def explain(
    image: Annotated[Path, typer.Argument(help="An image file.")],
    classifier: Annotated[str, typer.Option(help="A classifier artifact (folder or STAGE/KEY), or torchvision:NAME.")],
    method: Annotated[str | None, typer.Option(help="A name of `roarline list methods`, or a dotted path.")] = None,
    explainer: Annotated[
        str | None, typer.Option(help="Instead of a method: an explainer artifact (folder or STAGE/KEY).")
    ] = None,
    target: Annotated[str | None, typer.Option(help="Class index or name; default: the predicted class.")] = None,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", metavar="NAME=VALUE", help="A parameter of the method; may stand several times."),
    ] = None,
    unbatched: Annotated[
        bool, typer.Option("--unbatched", help="Call your own method with one image [1, C, H, W] and one label.")
    ] = False,
    weights: Annotated[Path | None, typer.Option(help="torchvision:NAME only: a file of weights.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture to write.")] = Path("explanation.png"),
    device: Annotated[str, typer.Option(help="cpu or cuda:N.")] = "cpu",
    artifacts: Artifacts = _DEFAULT_ARTIFACTS,
) -> None:
    """Explain one image in one picture: heat map, overlay, masked image."""
    from roarline.execution import commands

    commands.explain(
        image, classifier, method, target, param or [], weights, output, device, artifacts,
        explainer=explainer, batched=not unbatched,
    )  # fmt: skip


@app.command()
def export(
    artifact: Annotated[str, typer.Argument(help="A folder, or STAGE/KEY.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")] = Path("export"),
    limit: Annotated[int, typer.Option(min=1, help="At most so many maps.")] = 100,
    kept_fraction: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Masked images keep this share of the pixels.")
    ] = 0.2,
    data_root: Annotated[Path | None, typer.Option(help="Folder of the raw images, where they are not packed.")] = None,
    sign: Annotated[
        str | None,
        typer.Option(help="How maps are read: signed, positive, absolute, squared; default: as evaluated."),
    ] = None,
    mask: Annotated[
        str | None, typer.Option(help="How maps are read as masks: min_max or none; default: as evaluated.")
    ] = None,
    artifacts: Artifacts = _DEFAULT_ARTIFACTS,
) -> None:
    """Write maps as PNG and npz with masked images, or tables as CSV."""
    from roarline.execution import commands

    commands.export(artifact, output, limit, kept_fraction, data_root, artifacts, sign, mask)


@app.command()
def gallery(
    configs: Annotated[list[Path], typer.Argument(help="Experiments on the same images and classifier.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The PNG to write.")] = Path("gallery.png"),
    images: Annotated[int, typer.Option(min=1, help="Rows of the picture.")] = 16,
    overlaid: Annotated[bool, typer.Option("--overlaid", help="Maps over their images.")] = False,
    set_: Set = None,
) -> None:
    """Draw the maps of every method for some test images in one picture, making those that are missing."""
    from roarline.execution import pictures

    pictures.gallery(configs, set_ or [], output, images, overlaid=overlaid)


@app.command()
def cases(
    config: Config,
    metric: Annotated[str, typer.Option(help="A name of `roarline list metrics` with a score for each row.")],
    method: Annotated[str, typer.Option(help="A method of the config, by the name that it has there.")],
    setting: Annotated[
        str | None, typer.Option(help="Of the metric, as scores.csv has it; default: its first.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Cases of each kind.")] = 20,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .png or .jpg to write.")] = Path("cases.png"),
    set_: Set = None,
) -> None:
    """Draw the test images on which a method scores best and worst, with their objects, making what is missing."""
    from roarline.execution import pictures

    pictures.cases(config, set_ or [], output, metric=metric, setting=setting, method=method, count=count)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="An experiment.")],
    second: Annotated[Path, typer.Argument(help="Another one, on the same images: of another classifier, say.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the table as CSV, too.")] = None,
    set_: Set = None,
) -> None:
    """Compare the scores of two experiments image by image, making those that are missing."""
    from roarline.execution import comparing

    comparing.compare(first, second, set_ or [], output)


def _with_place(set_: list[str] | None, executor: str | None, address: str | None) -> list[str]:
    """The overrides, with those that the two options stand for."""
    given = {"executor": executor, "address": address}
    return [*(set_ or []), *(f"runtime.{name}={value}" for name, value in given.items() if value is not None)]


def _stage_command(stage: str) -> Callable[..., None]:
    def command(
        config: Config,
        set_: Set = None,
        only: Annotated[
            bool, typer.Option("--only", help="Don't run the stages before it; fail where they are missing.")
        ] = False,
        executor: Where = None,
        address: Address = None,
    ) -> None:
        from roarline.execution import commands

        commands.run_stage(config, _with_place(set_, executor, address), stage, only=only)

    command.__doc__ = f"{STAGES[stage].summary} (first what it needs, where that is missing)."
    return command


for _stage in STAGES:
    app.command(name=_stage)(_stage_command(_stage))


if __name__ == "__main__":
    main()
