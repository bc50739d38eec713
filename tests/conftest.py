"""What holds for all tests: hypothesis draws the same examples in every run, and remembers none.

Tests run in several processes, each of which computes with one thread: more would wait for each other's cores.
"""

import os

from hypothesis import HealthCheck, settings

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before anything imports PyTorch; processes that tests start inherit it.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile(
    "steady",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("steady")
