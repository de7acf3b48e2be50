"""The application layer: what a recipe needs, what it does, and what is kept of it.

``plan`` says what would run and which models are missing; ``run`` runs; ``rerun`` repeats a run
from its folder or from one of its pictures, pixel for pixel; ``history`` and ``show`` look back.
The command line and the Python functions are thin faces of this module.

A recipe that came in a picture or a folder is data: ``consent_requests`` are what it asks for
beyond known models and the files beside it, and nothing of it happens without the user's yes.
"""

from __future__ import annotations

from guided.models import Need
from guided.run_folder import RECIPE_FILE, RUN_FILE
from guided.studio.consent import consent_requests
from guided.studio.planning import OUTPUTS, RunPlan, plan
from guided.studio.records import history, read_record, show
from guided.studio.rerunning import RunRecord, load_run, rerun
from guided.studio.running import run

__all__ = [
    "OUTPUTS", "RECIPE_FILE", "RUN_FILE", "Need", "RunPlan", "RunRecord", "consent_requests",
    "history", "load_run", "plan", "read_record", "rerun", "run", "show",
]  # fmt: skip
