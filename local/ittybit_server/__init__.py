"""A stand-in for ittybit: its HTTP API on a laptop, with media really processed.

Media are processed in this process with FFmpeg's libraries, which come in a wheel; ``transcoding`` says how.

It speaks both generations of the API, as ittybit's public documents and changelog have them:

- *automations* (2025-11 to 2026-01): automations, runs, tasks; moments in seconds; several inputs and outputs a task.
- *jobs* (2026): jobs; moments in milliseconds; one input and one output a job.

Connections, bare JSON bodies, ``{kind, message}`` errors and cursor lists are common to both. Nothing here was compared
with the live service; where the documents are silent or contradict one another, the module concerned says what was
chosen, and ``Shapes`` renders the other reading where a client must bear both.

Left out: webhooks and ``/events``, ``/keys``; the kinds that need a model (speech, nsfw, summary, outline, subtitles,
chapters), ``conditions`` and ``animation``: tasks of those kinds are taken and then fail. State is in memory under one
lock and ends with the process.
"""

from local.ittybit_server.journal import Entry
from local.ittybit_server.serialization import Shapes
from local.ittybit_server.service import Ittybit

__all__ = ["Entry", "Ittybit", "Shapes"]
