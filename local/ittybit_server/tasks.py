"""``/tasks`` and ``/runs``. Left out: the list of runs; the task list's filters ``kind`` and ``created_by``."""

from __future__ import annotations

from typing import get_args

from flask import Blueprint, Response, request

from local.ittybit_server.bodies import Item, RunBody, check_items, parse, read_json
from local.ittybit_server.errors import find, invalid
from local.ittybit_server.journal import Entry
from local.ittybit_server.paging import page
from local.ittybit_server.records import Records, Run, Status
from local.ittybit_server.serialization import Renderer
from local.ittybit_server.starting import Starting, make_run


def tasks_and_runs(records: Records, renderer: Renderer, starting: Starting) -> Blueprint:
    """The routes of tasks and runs."""
    part = Blueprint("tasks_and_runs", __name__)

    @part.post("/tasks")
    def create_task() -> Response:
        # Only the tasks of runs have ``next``.
        item = parse(Item, read_json()).model_copy(update={"next": []})

        def accept() -> Run:
            check_items([item])
            return make_run(records, [item])

        draft = Entry("POST /tasks", item.source)
        return starting.start(draft, accept, lambda run: renderer.task(run.tasks[0]))

    @part.get("/tasks")
    def list_tasks() -> Response:
        status, run_id = request.args.get("status"), request.args.get("run_id")
        if status not in {None, "ready", *get_args(Status)}:
            raise invalid(f"status must be one of {', '.join(get_args(Status))}.")
        # ``ready`` is another word for ``succeeded``.
        wanted = {None: get_args(Status), "ready": ("succeeded",)}.get(status, (status,))
        with records.lock:
            run = records.runs.get(run_id) if run_id else None
            # List only the run's own tasks: filtering all tasks would take longer with every run.
            tasks = records.tasks if run_id is None else {task.id: task for task in run.tasks} if run else {}
            shown, headers = page(tasks, lambda task: task.status in wanted)
            return renderer.answer_page(shown, renderer.task, headers)

    @part.get("/tasks/<task_id>")
    def get_task(task_id: str) -> Response:
        with records.lock:
            return renderer.answer(renderer.task(find("task", records.tasks, task_id)))

    @part.post("/runs")
    def create_run() -> Response:
        body = parse(RunBody, read_json())
        items = body.tasks

        def accept() -> Run:
            check_items(items)
            return make_run(records, items, metadata=body.metadata)

        draft = Entry("POST /runs", items[0].source, metadata=body.metadata)
        return starting.start(draft, accept, renderer.run)

    @part.get("/runs/<run_id>")
    def get_run(run_id: str) -> Response:
        with records.lock:
            return renderer.answer(renderer.run(find("run", records.runs, run_id)))

    return part
