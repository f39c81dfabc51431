"""The fault run: the embedded stack under load and faults, and a count of every broken promise.

``main`` is the command, ``run`` the run. ``plan`` says what happens when, ``chaos`` brings it about while ``uploads``
goes on, ``settling`` lets it come to its end, and ``witness`` counts.
"""

from local.fault_run.command import main
from local.fault_run.run import run

__all__ = ["main", "run"]
