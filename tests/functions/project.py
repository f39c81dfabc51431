"""A project on the embedded stack: its objects, its rules, its jobs and their starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import psycopg
from psycopg.types.json import Jsonb

from local.fault_injection import Fault
from local.ittybit_server import Entry
from local.postgres import SUPERUSER
from local.stack import Stack
from tests.waiting import until

AUTOMATION = {"name": "Copy", "workflow": [{"kind": "video"}]}
# With the triggers off. Deleting a few rows takes PostgreSQL a thirtieth of the time of truncating the tables.
_CLEAR = """
set session_replication_role = replica;
delete from ittybit.rules;
delete from ittybit.jobs;
delete from ittybit.outputs;
delete from ittybit.holds;
delete from ittybit.starts;
delete from net.http_request_queue;
update ittybit.settings set project = null, paused = false;
update ittybit.functions set url = null, awaited_since = null, claimed_at = null;
"""


class Project:
    """The project as tests use it: its Storage, its ittybit and its ledger.

    There are three buckets: ``private``, ``open`` to the public, and ``uploads`` for the recordings.
    """

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.http = httpx.Client(trust_env=False, timeout=20)
        self.superuser = psycopg.connect(stack.postgres.dsn(SUPERUSER), autocommit=True)
        self.key = {"apikey": stack.keys.secret_key}
        for bucket in ("private", "open", "uploads"):
            self.storage("POST", "bucket", json={"id": bucket, "name": bucket, "public": bucket == "open"})
        # The generation without automations has instead a task whose result stays at ittybit.
        self.speaks_jobs = not self.speaks("automations")
        self.automation = "" if self.speaks_jobs else str(self.ittybit("POST", "automations", json=AUTOMATION)["id"])
        connection = {
            "name": "supabase-" + urlsplit(stack.supabase_url).netloc.replace(".", "-").replace(":", "-"),
            "kind": "s3",
            "endpoint": f"{stack.supabase_url}/storage/v1/s3",
            "region": "local",
            "access_key_id": stack.keys.s3_access_key_id,
            "secret_access_key": stack.keys.s3_secret_access_key,
        }
        self.connection = str(self.ittybit("POST", "connections", json=connection)["id"])

    def close(self) -> None:
        """Close its connections; the stack goes on."""
        self.http.close()
        self.superuser.close()

    def storage(self, method: str, path: str, **options: Any) -> Any:
        """Call the storage API with the secret key; the answer must be a success."""
        headers = self.key | options.pop("headers", {})
        address = f"{self.stack.supabase_url}/storage/v1/{path}"
        return self.http.request(method, address, headers=headers, **options).raise_for_status().json()

    def ittybit(self, method: str, path: str, **options: Any) -> Any:
        """Call ittybit with its key; the answer must be a success."""
        headers = {"authorization": f"Bearer {self.stack.ittybit_key}"}
        address = f"{self.stack.ittybit_url}/{path}"
        return self.http.request(method, address, headers=headers, **options).raise_for_status().json()

    def speaks(self, generation: str) -> bool:
        """Whether ittybit answers in that generation."""
        headers = {"authorization": f"Bearer {self.stack.ittybit_key}"}
        return self.http.get(f"{self.stack.ittybit_url}/{generation}", headers=headers).is_success

    @property
    def kept(self) -> dict[str, Any]:
        """An action whose result stays at ittybit, as columns of a rule."""
        task = {"kind": "video", "options": {}}
        return {"automation_id": self.automation or None, "task": Jsonb(task) if self.speaks_jobs else None}

    def upload(self, bucket: str, name: str, content: bytes = b"a video") -> None:
        """Store an object, or overwrite it."""
        headers = {"content-type": "video/mp4", "x-upsert": "true"}
        self.storage("POST", f"object/{bucket}/{quote(name)}", content=content, headers=headers)

    def remove(self, bucket: str, name: str) -> None:
        """Delete an object."""
        self.storage("DELETE", f"object/{bucket}/{quote(name)}")

    def clear(self) -> None:
        """Remove all faults, rules and jobs."""
        for faults in (self.stack.supabase, self.stack.ittybit_api):
            faults.clear()
            faults.requests = None
        self.stack.ittybit.require_payment(False)
        self.superuser.execute(_CLEAR)

    def watch(self) -> tuple[Fault, Fault]:
        """From now on, refuse and count every request to Supabase and to ittybit."""
        faults = (self.stack.supabase, self.stack.ittybit_api)
        first, second = (one.add(None, "(?s).*", times=10**9, status=418) for one in faults)
        return first, second

    def wait_for_ittybit(self) -> None:
        """Let ittybit finish what was started. Later, its requests to Storage would be counted as a function's."""
        work = "jobs" if self.speaks_jobs else "tasks"
        self.stack.ittybit.start()
        unfinished = ["queued", "processing"] + ["waiting", "validating", "finishing"] * (not self.speaks_jobs)
        until(lambda: not any(self.ittybit("GET", f"{work}?status={one}&limit=1") for one in unfinished), seconds=30)

    def starts(self, name: str) -> list[Entry]:
        """The starts at ittybit that it would charge for, of sources whose key ends with this name."""
        paths = [(entry, urlsplit(entry.url or "").path) for entry in self.stack.ittybit.journal]
        return [entry for entry, path in paths if path.endswith(quote(name)) and not entry.replay]


@dataclass(frozen=True)
class Job:
    """A job of the ledger that nobody has claimed yet."""

    project: Project
    id: str
    name: str

    @classmethod
    def of_automation(cls, project: Project, name: str, *, bucket: str = "private") -> Self:
        """A job for on-upload, made by a rule and an upload."""
        return cls._make(project, bucket, name, f"{bucket}-kept", project.kept)

    @classmethod
    def of_task(cls, project: Project, name: str, *, bucket: str = "private") -> Self:
        """A job for push-back, whose result goes under ``processed/`` in the bucket ``private``."""
        task = {"kind": "video", "options": {"height": 240}, "destination": "s3://private/processed/{name}"}
        return cls._make(project, bucket, name, f"{bucket}-task", {"task": Jsonb(task)})

    @classmethod
    def of_run(cls, project: Project, name: str, *following: dict[str, Any], bucket: str = "private") -> Self:
        """The same with a run that encodes and uploads; further steps may follow the encode."""
        upload = {"kind": "upload", "options": {"url": "s3://private/processed/{name}"}}
        run = {"tasks": [{"kind": "video", "options": {"height": 240}, "next": [upload, *following]}]}
        return cls._make(project, bucket, name, f"{bucket}-run", {"run": Jsonb(run)})

    @classmethod
    def _make(cls, project: Project, bucket: str, name: str, rule: str, action: dict[str, Any]) -> Self:
        project.stack.sql(
            "insert into ittybit.rules (name, bucket_id, automation_id, task, run) values"
            " (%(rule)s, %(bucket)s, %(automation_id)s, %(task)s, %(run)s) on conflict do nothing",
            {"rule": rule, "bucket": bucket, "automation_id": None, "task": None, "run": None, **action},
        )
        project.upload(bucket, name)
        [(job,)] = project.stack.sql("select id from ittybit.jobs where name = %s and rule = %s", (name, rule))
        return cls(project, str(job), name)

    def now(self) -> None:
        """Make it due now: its wait or its lease ends."""
        self.project.stack.sql("update ittybit.jobs set due_at = now() where id = %s", (self.id,))

    def __getitem__(self, column: str) -> Any:
        """The job's value in a column of the ledger."""
        [(value,)] = self.project.stack.sql(
            "select to_jsonb(j) -> %s from ittybit.jobs j where id = %s", (column, self.id)
        )
        return value

    @property
    def mark(self) -> str:
        """The mark in its source's address, which is also its Idempotency-Key."""
        return f"{self.id}.1"

    @property
    def starts(self) -> list[Entry]:
        """The starts at ittybit with its mark."""
        marked = [e for e in self.project.stack.ittybit.journal if not e.replay and e.url]
        return [e for e in marked if parse_qs(urlsplit(e.url or "").query).get("job") == [self.mark]]

    @property
    def start(self) -> Entry:
        """Its only start, which must be the one in the ledger."""
        [entry] = self.starts
        assert (self["state"], self["ittybit_id"].partition("/")[2]) == ("started", entry.id)
        return entry

    def ended_at_ittybit(self) -> None:
        """Let ittybit finish its run or task."""
        self.project.stack.ittybit.start()
        path = self["ittybit_id"]
        until(lambda: self.project.ittybit("GET", path)["status"] in ("succeeded", "failed", "cancelled"))
