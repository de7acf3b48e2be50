"""Models: the one place where a role, a name, a file or an object becomes a loaded model.

``Reference`` is what a user may write, ``Models`` the models of a run by role, ``needs_of`` and
``check_here`` what a run needs and does not have.  Nothing heavy is imported before a model loads.
"""

from guided.models.missing import Need, check_here, chosen_by, needs_of
from guided.models.references import SCORER_HELP, Located, Reference
from guided.models.run_models import Models

__all__ = [
    "SCORER_HELP", "Located", "Models", "Need", "Reference", "check_here", "chosen_by", "needs_of",
]  # fmt: skip
