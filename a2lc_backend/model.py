"""The plug for people who serve with `label-studio-ml start`."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

from label_studio_ml import model as ml

from a2lc_backend.label_studio import FOLLOWS
from a2lc_backend.regions import parse_label_config
from a2lc_backend.service import Service, TaskRequest
from a2lc_backend.settings import load_settings


@cache
def _service(process_id: int) -> Service:
    return Service(load_settings())


class A2LCBackend(ml.LabelStudioMLBase):  # type: ignore[misc]
    """A²LC behind label-studio-ml 1.0.9 and 2.x.

    Predictions come from the store. "Start Training" runs the next round in a process of its own: 2.x calls `fit`
    inside the webhook, which Label Studio gives one second, and 1.0.9 calls it in a fork of a server with threads.
    """

    def predict(self, tasks: list[dict[str, Any]], context: object = None, **kwargs: Any) -> list[dict[str, Any]]:
        """Masks and labels of tasks, one entry a task; see `Service.predict`."""
        if not tasks:
            return []
        service = _service(os.getpid())
        project_id = int(tasks[0]["project"])
        config = parse_label_config(self.label_config or "")
        requests = [
            TaskRequest(int(task["data"].get(FOLLOWS, task["id"])), str(task["data"].get(config.image_key, "")))
            for task in tasks
        ]
        prompts = context.get("result") if isinstance(context, dict) else None
        if prompts:
            return [service.suggest(project_id, request, config, prompts) for request in requests]
        return service.predict(project_id, requests, config, service.settings.predict_deadline)

    def fit(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Begin the next round when Label Studio asks for training; every other event only tells.

        1.0.9 calls `fit(tasks, event=…, data=…)`, 2.x `fit(event, data)`.
        """
        event = kwargs.get("event") or (args[0] if args and isinstance(args[0], str) else "")
        data = kwargs.get("data") or (args[1] if len(args) > 1 else {})
        project = (data or {}).get("project")
        project_id = project.get("id") if isinstance(project, dict) else project
        if event != "START_TRAINING" or not isinstance(project_id, int):
            return {}
        command = [sys.executable, "-m", "a2lc_backend", "rounds", "next", "--project", str(project_id), "--here"]
        subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603
        return {"project": project_id}


if hasattr(ml, "SimpleJobManager"):  # label-studio-ml 1.x

    class _Jobs(ml.SimpleJobManager):  # type: ignore[misc]
        """Hands events to `fit` in the server.

        The job manager of 1.0.9 takes the project's model version for one of its own job ids and fails when it is not,
        as it never is here.
        """

        def get_result(self, model_version: str | None = None) -> dict[str, Any]:
            return {}

        def start_run(self, event: str, data: object, job_id: str) -> AbstractContextManager[None]:
            return nullcontext()

        def post_process(self, event: str, data: object, job_id: str, result: object) -> None:
            """Nothing is kept: the ledger has it."""

        def run_job(self, model_class: type[A2LCBackend], args: tuple[str, dict[str, Any], str]) -> None:
            event, data, _ = args
            model_class().fit((), event=event, data=data)

    ml.LabelStudioMLManager.get_job_manager = classmethod(lambda cls: _Jobs(model_dir=cls.model_dir))
