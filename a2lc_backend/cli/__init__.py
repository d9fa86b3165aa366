"""The `a2lc` command. Heavy imports wait until a command needs them, so that `--help` is quick."""

from __future__ import annotations

import errno
import os
import socket
import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from a2lc_backend.cli.common import ProjectOption, fail, read_settings
from a2lc_backend.cli.export import export_project
from a2lc_backend.cli.proposals import proposals_app
from a2lc_backend.cli.rebuild import rebuild_store
from a2lc_backend.cli.rounds import rounds_app
from a2lc_backend.cli.weights import weights_app

app = typer.Typer(
    help="Active and automated label correction for Label Studio.", no_args_is_help=True, add_completion=False
)
app.add_typer(rounds_app, name="rounds")
app.add_typer(proposals_app, name="proposals")
app.add_typer(weights_app, name="weights")
app.command("rebuild")(rebuild_store)
app.command("export")(export_project)


def main() -> None:
    """Run the command line."""
    # Torch's threads else keep a core busy for milliseconds while they wait, which all other threads pay for: looking
    # at one image of `camvid` took 32 to 33 ms on two cores, and takes 25.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        app()
    except RuntimeError as error:
        from a2lc_backend.store import NewerLedgerError  # noqa: PLC0415

        if isinstance(error, NewerLedgerError):
            sys.exit(str(error))
        raise


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (A2LC_HOST).")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port to listen on (A2LC_PORT).")] = None,
) -> None:
    """Serve Label Studio: predictions, webhooks and rounds."""
    import uvicorn  # noqa: PLC0415

    from a2lc_backend.app import create_app  # noqa: PLC0415
    from a2lc_backend.logs import configure_logs  # noqa: PLC0415
    from a2lc_backend.service import Service  # noqa: PLC0415

    settings = read_settings()
    host, port = host or settings.host, port or settings.port
    _refuse_used_port(host, port)
    configure_logs(settings.log_level, settings.secrets)
    if not settings.label_studio_api_key.get_secret_value():
        typer.secho(
            "no token for Label Studio: rounds cannot run; set LABEL_STUDIO_API_KEY to a personal access token",
            fg="yellow",
            err=True,
        )
    service = Service(settings)
    uvicorn.run(create_app(service), host=host, port=port, log_config=None, access_log=False)


def _refuse_used_port(host: str, port: int) -> None:
    """Ends the command where another program listens; any other trouble uvicorn tells itself."""
    try:
        for family, *_, address in socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            socket.create_server(address, family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            fail(f"port {port} is in use; choose another with --port or A2LC_PORT")


@app.command()
def worker(
    queues: Annotated[str, typer.Option(help="Queues to listen on, commas between.")] = "a2lc-gpu,a2lc-cpu",
) -> None:
    """Work on the rounds that the backend conducts; needs A2LC_REDIS_URL, and the backend's database and artifacts."""
    from a2lc_backend.jobs.worker import run_worker  # noqa: PLC0415
    from a2lc_backend.logs import configure_logs  # noqa: PLC0415

    settings = read_settings()
    names = [name.strip() for name in queues.split(",") if name.strip()]
    known = ("a2lc-gpu", "a2lc-cpu")
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        fail(f"no queue is named {', '.join(unknown) or queues!r}; choose from {', '.join(known)}")
    if not settings.redis_url.get_secret_value():
        fail("a worker gets its jobs by Redis; set A2LC_REDIS_URL, such as redis://127.0.0.1:6379/0")
    configure_logs(settings.log_level, settings.secrets)
    run_worker(settings, names)


@app.command()
def demo(
    label_studio: Annotated[Path, typer.Option(help="The label-studio command of its own environment.")] = Path(
        ".venv-label-studio/bin/label-studio"
    ),
    data: Annotated[Path | None, typer.Option(help="A world folder; scenes are drawn if not given.")] = None,
    images: Annotated[int, typer.Option(min=4, help="Images to use.")] = 48,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds with the simulated annotator.")] = 3,
    budget: Annotated[int, typer.Option(min=1, help="Masks queued a round.")] = 150,
    keep: Annotated[bool, typer.Option(help="Leave the servers running.")] = False,
) -> None:
    """Run three rounds in a real Label Studio with a simulated annotator."""
    from rich.console import Console  # noqa: PLC0415

    from a2lc_backend.bench.files import DataSetError  # noqa: PLC0415
    from a2lc_backend.demo.run import DemoOptions, run_demo  # noqa: PLC0415
    from a2lc_backend.demo.servers import ServerError  # noqa: PLC0415

    try:
        run_demo(DemoOptions(label_studio, data, images, rounds, budget, keep), Console())
    except (ServerError, DataSetError) as error:
        fail(str(error))


@app.command()
def bench(
    data: Annotated[
        Path, typer.Option(help="Folder of a world, of Cityscapes or of PASCAL VOC 2012; which it is is seen.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the report; runs that stand there already are taken up.")],
    methods: Annotated[
        str, typer.Option(help="Commas between: alc, alc-unique, mask, lcm, abc, a2lc-paper, a2lc.")
    ] = "mask,a2lc-paper,a2lc",
    budget: Annotated[
        int | None,
        typer.Option(min=1, help="Masks queried a round; if not given 400, Cityscapes 10,000, VOC 1,000."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of correction.")] = 5,
    seeds: Annotated[str, typer.Option(help="How many (3 means 0, 1, 2), or a list such as 0,2,5.")] = "1",
    proposals: Annotated[
        str | None,
        typer.Option(help="Where masks and first labels come from; if not given world for a world, else superpixels."),
    ] = None,
    backbone: Annotated[
        Path | None, typer.Option(help="Frozen features for the model, a .pt2 or .pth file; else a U-Net is trained.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Whose labels are corrected: train if not given, or trainaug of VOC.")
    ] = None,
) -> None:
    """Compare methods with an oracle annotator; writes report.json, report.md and pictures."""
    from rich.console import Console  # noqa: PLC0415

    from a2lc_backend.bench.experiment import run_bench  # noqa: PLC0415
    from a2lc_backend.bench.files import DataSetError  # noqa: PLC0415
    from a2lc_backend.bench.methods import BenchError, parse_methods, parse_seeds  # noqa: PLC0415
    from a2lc_backend.logs import configure_logs  # noqa: PLC0415
    from a2lc_backend.rounds.runner import RoundFailedError  # noqa: PLC0415

    configure_logs("error")
    try:
        report = run_bench(
            data, parse_methods(methods), budget, rounds, parse_seeds(seeds), out, Console(),
            proposals=proposals, backbone=backbone, split=split,
        )  # fmt: skip
    except (BenchError, DataSetError, RoundFailedError) as error:
        fail(str(error))
    typer.echo(f"report: {report.with_suffix('.md')}")


@app.command()
def connect(
    project: ProjectOption,
    interactive: Annotated[
        bool | None,
        typer.Option(help="Answer smart points, boxes and strokes; by default where weights of SAM are there."),
    ] = None,
) -> None:
    """Connect the running backend to a project, as Settings > Model > Connect does."""
    from a2lc_backend.label_studio import LabelStudioError, attach, connected  # noqa: PLC0415
    from a2lc_backend.weights import Weights  # noqa: PLC0415

    settings = read_settings()
    if interactive is None:
        weights = Weights(settings.weights_folder, settings.accepted_licences)
        interactive = settings.clicks != "off" and (weights.has(settings.sam) or weights.has(settings.sam2))
    try:
        with connected(settings.label_studio_url, settings.label_studio_api_key.get_secret_value()) as client:
            attached = attach(
                client, settings.label_studio_url, project, settings.own_url, interactive=interactive,
                callers=settings.callers,
            )  # fmt: skip
    except LabelStudioError as error:
        fail(str(error))
    state = "connected" if attached.created else "connected anew" if attached.mended else "was connected already"
    typer.echo(f"{state}: ML backend {attached.backend_id}")
    typer.echo(f"start round 0 with: a2lc rounds next --project {project}")


@app.command("label-config")
def print_label_config(
    classes: Annotated[str, typer.Option(help="Names of your own classes, commas between.")] = "",
    preset: Annotated[str, typer.Option(help="camvid, cityscapes or voc.")] = "",
    kind: Annotated[str, typer.Option(help="bitmask (quickest to open), brush or polygon.")] = "bitmask",
    smart: Annotated[bool, typer.Option("--smart", help="With smart points and boxes.")] = False,
) -> None:
    """Print a labeling interface to paste into Settings > Labeling Interface > Code."""
    from a2lc_backend.label_configs import KINDS, PRESETS, label_config, own_colours  # noqa: PLC0415
    from a2lc_backend.regions import LabelConfigError  # noqa: PLC0415

    names = [name.strip() for name in classes.split(",") if name.strip()]
    if bool(names) == bool(preset):
        fail("give either --classes or --preset")
    if preset and preset not in PRESETS:
        fail(f"no preset is named {preset!r}; choose from {', '.join(PRESETS)}")
    if kind not in KINDS:
        fail(f"no kind is named {kind!r}; choose from {', '.join(KINDS)}")
    try:
        typer.echo(label_config(PRESETS[preset] if preset else own_colours(names), kind, smart), nl=False)
    except LabelConfigError as error:
        fail(str(error))


@app.command()
def doctor(
    project: Annotated[int | None, typer.Option("--project", "-p", help="Check this project too.")] = None,
) -> None:
    """Check every connection and name the mend of what is broken."""
    from a2lc_backend.doctor import examine  # noqa: PLC0415

    healthy = True
    for finding in examine(read_settings(), project):
        healthy &= finding.healthy
        mark = typer.style("ok  " if finding.healthy else "FAIL", fg="green" if finding.healthy else "red")
        typer.echo(f"{mark} {finding.what}: {finding.message}")
    if not healthy:
        raise typer.Exit(1)


@app.command()
def health(
    worker: Annotated[bool, typer.Option("--worker", help="Ask for a worker of this machine instead.")] = False,
) -> None:
    """Whether the backend of this machine answers, or a worker of it lives; for containers."""
    settings = read_settings()
    if worker:
        from a2lc_backend.rounds.heartbeat import is_here  # noqa: PLC0415
        from a2lc_backend.store import ALIVE_SECONDS, Ledger  # noqa: PLC0415

        with closing(Ledger(settings.ledger_url)) as ledger:
            alive = [item.name for item in ledger.workers(ALIVE_SECONDS) if is_here(item.name)]
        if not alive:
            fail(f"no worker of this machine has said within {ALIVE_SECONDS:.0f} seconds that it lives")
        typer.echo(f"lives: {', '.join(alive)}")
        return
    import httpx  # noqa: PLC0415

    host = settings.host if settings.host not in {"0.0.0.0", "::"} else "127.0.0.1"  # noqa: S104
    try:
        httpx.get(f"http://{host}:{settings.port}/health", timeout=5, trust_env=False).raise_for_status()
    except httpx.HTTPError as error:
        fail(f"the backend does not answer: {error}")
    typer.echo("answers")
