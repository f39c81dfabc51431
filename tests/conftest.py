"""How much hypothesis does in the tests: little, and the same each time. ``make fuzz`` looks for more."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# No deadline: on a busy machine an example may take longer than the last one did.
settings.register_profile(
    "tests",
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
