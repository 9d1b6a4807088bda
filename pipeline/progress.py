"""How a job tells whoever runs it how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""Called as `progress(done, total, note)`, in units of the job's own work items."""
