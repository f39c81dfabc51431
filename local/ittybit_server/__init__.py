"""A stand-in for ittybit: its HTTP API on this machine, with real media processing.

FFmpeg's libraries, which come in a wheel, process the media inside this process: see ``transcoding``.

It speaks both generations of the API, as ittybit's public documents and changelog describe them:

- *automations* (2025-11 to 2026-01): automations, runs, tasks; times in seconds; several inputs and outputs a task.
- *jobs* (2026): jobs; times in milliseconds; one input and one output a job.

Both have connections, bare JSON bodies, ``{kind, message}`` errors and cursor lists. Nothing here was compared with the
live service. Where the documents are silent or contradict each other, the module's docstring says what it does. Where a
client must handle both variants, ``Shapes`` renders the other one.

Left out: webhooks, ``/events`` and ``/keys``. Tasks of the kinds that need a model (speech, nsfw, summary, outline,
subtitles, chapters), of ``conditions`` and of ``animation`` are accepted and then fail. State is in memory under one
lock and ends with the process.
"""

from local.ittybit_server.journal import Entry
from local.ittybit_server.serialization import Shapes
from local.ittybit_server.service import Ittybit

__all__ = ["Entry", "Ittybit", "Shapes"]
