"""The fault run: the embedded stack under load and faults, and a count of every broken promise.

``main`` is the command, ``run`` is one run. ``plan`` decides on the load and the faults. ``uploads`` sends the load
while ``chaos`` makes the faults. ``settling`` waits until every job has ended, and ``witness`` counts.
"""

from local.fault_run.command import main
from local.fault_run.run import run

__all__ = ["main", "run"]
