"""What exporting labels costs: memory and tasks a second, by format, at several sizes.

    python -m benchmarks.export                       # 1,000 and 10,000 tasks × 30 masks, formats without a server
    python -m benchmarks.export --label-studio PATH   # and 500 tasks beside Label Studio's own export of the same

Masks are drawn (320 × 240 pixels, superpixel-like), the store is the product's own: SQLite and files. Each size and
format is exported by a process of its own, which reports its peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from scipy.spatial import cKDTree

from a2lc_backend.demo.servers import Account, label_studio
from a2lc_backend.features import FEATURE_NAMES
from a2lc_backend.label_configs import label_config, own_colours
from a2lc_backend.label_studio import LabelStudioProject, close_client, open_client
from a2lc_backend.masks import IGNORE, MaskSet
from a2lc_backend.rounds.platform import Prediction
from a2lc_backend.rounds.publish import RoundView
from a2lc_backend.rounds.workspace import SOURCES, Labels, Scores, Workspace
from a2lc_backend.store import Artifacts, AutoCorrection, Ledger, Project, TaskState
from benchmarks.scale import _peak

PROJECT = 1
MASKS = 30
SIZE = (240, 320)
CLASSES = tuple(f"class-{number}" for number in range(11))
FORMATS = ("png", "coco-instances", "coco-panoptic", "parquet")
_LAYOUTS = 16


def draw_store(folder: Path, tasks: list[tuple[int, str]], project_id: int = PROJECT) -> None:
    """Write a project as its first two rounds would leave it: a tenth of the masks answered, a fifth corrected."""
    random = np.random.default_rng(0)
    pixels = np.mgrid[: SIZE[0], : SIZE[1]].reshape(2, -1).T
    layouts = [
        (cKDTree(random.random((MASKS, 2)) * SIZE).query(pixels)[1] + 1).astype(np.uint16).reshape(SIZE)
        for _ in range(_LAYOUTS)
    ]
    names = tuple(f"mask-{number}" for number in range(1, MASKS + 1))
    total = len(tasks) * MASKS
    first = random.integers(0, len(CLASSES), total)
    held = first.copy()
    kinds = [SOURCES.index(name) for name in ("foundation", "human", "corrector")]
    sources = random.choice(kinds, total, p=[0.7, 0.1, 0.2])
    changed = np.flatnonzero(sources > 0)
    held[changed] = (first[changed] + 1) % len(CLASSES)
    with closing(Ledger(f"sqlite:///{folder / 'ledger.db'}")) as ledger:
        workspace = Workspace(Artifacts(f"file://{folder / 'artifacts'}"), project_id)
        ledger.save_project(Project(project_id, "drawn", CLASSES))
        keys = []
        features = np.zeros((MASKS, len(FEATURE_NAMES)), np.float32)
        even = np.full((MASKS, len(CLASSES)), 1 / len(CLASSES))
        for place, (task_id, image) in enumerate(tasks):
            keys.append(workspace.mask_key(task_id, image))
            own = first[place * MASKS : (place + 1) * MASKS]
            workspace.write_masks(
                keys[-1], MaskSet(layouts[place % _LAYOUTS], names, own, {}), features, imported=False
            )
            workspace.write_scores(1, task_id, Scores(keys[-1], even, even, np.zeros(MASKS, np.int64)))
        ledger.save_tasks(
            project_id,
            [TaskState(task_id, image, True, key) for (task_id, image), key in zip(tasks, keys, strict=True)],
        )
        for number in range(2):
            record = ledger.begin_round(project_id, 1)
            ledger.save_round(replace(record, version=f"a2lc-r{number}-00000000"))
            ledger.change_status(project_id, number, ["running"], "done")
        owners = [(tasks[index // MASKS][0], names[index % MASKS], index) for index in changed.tolist()]
        ledger.save_auto_corrections(
            project_id, 1, [AutoCorrection(1, task, name, int(first[i]), int(held[i]), 0.9) for task, name, i in owners]
        )
        nothing = np.full(total, np.nan)
        labels = Labels(
            np.array([task_id for task_id, _ in tasks]), tuple(keys), np.full(len(tasks), MASKS), held, sources,
            np.full(total, 0.9), np.full(total, IGNORE), held, nothing, np.full(total, -1), nothing,
        )  # fmt: skip
        workspace.write_labels(1, labels)


def export_here(name: str, target: Path, project_id: int) -> dict[str, float]:
    """Export in this process; seconds, and peak memory before and after, in bytes."""
    from a2lc_backend.export import Filters, Gateway, export_labels, open_labels  # noqa: PLC0415
    from a2lc_backend.settings import load_settings  # noqa: PLC0415

    settings = load_settings()
    before, started = _peak(), time.perf_counter()
    gateway = Gateway(settings, project_id)
    labels = open_labels(gateway, settings, project_id, None, Filters())
    opened = time.perf_counter() - started
    export_labels(labels, name, target, gateway.platform, with_images=False)
    return {"seconds": time.perf_counter() - started, "opening": opened, "peak": _peak(), "before": before}


def measure(name: str, folder: Path, project_id: int = PROJECT, environment: dict[str, str] | None = None) -> Any:
    """Export in a process of its own."""
    target = folder / f"out-{name}"
    command = [sys.executable, "-m", "benchmarks.export", "--here", name, str(target), str(project_id)]
    done = subprocess.run(  # noqa: S603
        command, check=True, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"A2LC_DATA_DIR": str(folder)} | (environment or {}),
    )  # fmt: skip
    written = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    return json.loads(done.stdout) | {"bytes": written}


def line(name: str, tasks: int, found: dict[str, float]) -> str:
    """A row of the table."""
    return (
        f"| {name} | {tasks:,} | {found['seconds']:.1f} s | {tasks / found['seconds']:.0f} | "
        f"{found['peak'] / 2**20:.0f} MiB | {found['bytes'] / 2**20:.0f} MB |"
    )


def against_label_studio(program: Path, tasks: int) -> list[str]:
    """Export a project of some tasks from a real Label Studio, by this program and by Label Studio itself."""
    account = Account()
    lines = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        server = label_studio(program, folder / "label-studio", account).start()
        client = open_client(server.url, account.token)
        try:
            config = label_config(own_colours(CLASSES), "brush")
            project_id = int(client.projects.create(title="drawn", label_config=config).id or 0)
            rows = [{"image": f"{server.url}/static/{number}.jpg"} for number in range(tasks)]
            client.projects.import_tasks(id=project_id, request=rows)
            project = LabelStudioProject(client, server.url, project_id)
            found = project.tasks()
            draw_store(folder, [(task.id, task.image) for task in found], project_id)
            with closing(Ledger(f"sqlite:///{folder / 'ledger.db'}")) as ledger:
                view = RoundView(
                    ledger, Workspace(Artifacts(f"file://{folder / 'artifacts'}"), project_id), project_id, 1
                )
                _annotate(server.url, account.token, project, view)
            environment = {"LABEL_STUDIO_URL": server.url, "LABEL_STUDIO_API_KEY": account.token}
            lines += [
                line(f"a2lc export, {name}", tasks, measure(name, folder, project_id, environment))
                for name in ("label-studio", *FORMATS)
            ]
            lines += [
                _own_export(server.url, account.token, project_id, kind, tasks)
                for kind in ("JSON", "BRUSH_TO_PNG", "COCO")
            ]
        finally:
            close_client(client)
            server.stop()
    return lines


def _annotate(url: str, token: str, project: LabelStudioProject, view: RoundView) -> None:
    """Every region of every task as an annotation: what Label Studio's own export gives out."""
    from a2lc_backend.regions import encode_region  # noqa: PLC0415

    with httpx.Client(headers={"Authorization": f"Token {token}"}, timeout=120) as http:
        for task in project.tasks():
            prediction: Prediction = view.prediction(task.id)
            result = [encode_region(region, project.config) for region in prediction.regions]
            http.post(f"{url}/api/tasks/{task.id}/annotations/", json={"result": result}).raise_for_status()


def _own_export(url: str, token: str, project_id: int, kind: str, tasks: int) -> str:
    """A row about what Label Studio's own export takes."""
    started, size = time.perf_counter(), 0
    address = f"{url}/api/projects/{project_id}/export"
    query = {"exportType": kind, "download_all_tasks": "true", "download_resources": "false"}
    with httpx.stream("GET", address, params=query, headers={"Authorization": f"Token {token}"}, timeout=1800) as reply:
        for part in reply.iter_bytes():
            size += len(part)
        status = reply.status_code
    seconds = time.perf_counter() - started
    what = f"Label Studio's own, {kind}"
    if status != 200:
        return f"| {what} | {tasks:,} | status {status} | | | |"
    return f"| {what} | {tasks:,} | {seconds:.1f} s | {tasks / seconds:.0f} | | {size / 2**20:.0f} MB |"


def main(arguments: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--label-studio", type=Path, help="the label-studio command of its own environment")
    parser.add_argument("--served", type=int, default=500, help="tasks of the project in Label Studio")
    parser.add_argument("--here", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.here:
        name, target, project_id = options.here
        print(json.dumps(export_here(name, Path(target), int(project_id))))  # noqa: T201
        return 0
    print("| what | tasks | time | tasks a second | peak memory | written |")  # noqa: T201
    print("| --- | ---: | ---: | ---: | ---: | ---: |", flush=True)  # noqa: T201
    for tasks in options.tasks:
        with tempfile.TemporaryDirectory() as place:
            draw_store(Path(place), [(number, f"/data/{number}.jpg") for number in range(1, tasks + 1)])
            for name in FORMATS:
                print(line(name, tasks, measure(name, Path(place))), flush=True)  # noqa: T201
    if options.label_studio:
        for row in against_label_studio(options.label_studio, options.served):
            print(row)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
