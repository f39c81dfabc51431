"""``/automations``: workflows, and running one on a url.

Undocumented, so chosen here: running one answers 201 with the run; running a paused one answers 400
``request_invalid``. Left out: deleting one.
"""

from __future__ import annotations

import time
from typing import Any

from flask import Blueprint, Response

from local.ittybit_server.bodies import (
    AutomationBody,
    AutomationRunBody,
    check_items,
    check_source,
    parse,
    read_json,
)
from local.ittybit_server.errors import find, invalid
from local.ittybit_server.journal import Entry
from local.ittybit_server.paging import page
from local.ittybit_server.records import Automation, Records, Run, new_id
from local.ittybit_server.serialization import Renderer
from local.ittybit_server.starting import Starting, make_run

_ANY_URL = "https://example.com/"  # a placeholder: the real url comes with each run


def automations(records: Records, renderer: Renderer, starting: Starting) -> Blueprint:
    """The routes of automations."""
    part = Blueprint("automations", __name__)

    @part.post("/automations")
    def create_automation() -> Response:
        fields = _fields(read_json())
        now = time.time()
        automation = Automation(new_id("auto"), now, now, fields)
        with records.lock:
            records.automations[automation.id] = automation
            return renderer.answer(renderer.automation(automation), 201)

    @part.get("/automations")
    def list_automations() -> Response:
        with records.lock:
            shown, headers = page(records.automations)
            return renderer.answer([renderer.automation(one) for one in shown], headers=headers)

    @part.get("/automations/<automation_id>")
    def get_automation(automation_id: str) -> Response:
        with records.lock:
            return renderer.answer(renderer.automation(find("automation", records.automations, automation_id)))

    @part.patch("/automations/<automation_id>")
    def change_automation(automation_id: str) -> Response:
        changes = read_json()
        with records.lock:
            automation = find("automation", records.automations, automation_id)
            automation.fields = _fields(automation.fields | changes)
            automation.updated_at = time.time()
            return renderer.answer(renderer.automation(automation))

    @part.post("/automations/<automation_id>/run")
    def run_automation(automation_id: str) -> Response:
        url = parse(AutomationRunBody, read_json()).url

        def accept() -> Run:
            automation = find("automation", records.automations, automation_id)
            if automation.fields["status"] == "paused":
                raise invalid("The automation is paused.")
            check_source(url)
            workflow = parse(AutomationBody, automation.fields).workflow
            return make_run(records, workflow, created_by=automation.id, url=url)

        draft = Entry("POST /automations/:id/run", url, automation_id=automation_id)
        return starting.start(draft, accept, renderer.run)

    return part


def _fields(body: dict[str, Any]) -> dict[str, Any]:
    """The checked fields of an automation, with the workflow as it was sent."""
    checked = parse(AutomationBody, body)
    check_items(checked.workflow, run_url=_ANY_URL)
    return checked.model_dump() | {"workflow": body["workflow"]}
