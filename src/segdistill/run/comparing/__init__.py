"""What a comparison consists of: entries with a role, a label and settings."""

from segdistill.run.comparing.claims import claims_of, register, registered
from segdistill.run.comparing.entries import (
    Entry,
    default_names,
    entries_of,
    entry_of,
    method_entry,
)
from segdistill.run.comparing.finished import Finished, finished_runs, seeds_left_out
from segdistill.run.comparing.folds import fold_recipes
from segdistill.run.comparing.overrides import refuse_without_effect
from segdistill.run.comparing.settings import is_distilled, role_of, same_settings, set_keys
from segdistill.run.comparing.tuned import tuned_settings, tuning_remarks

__all__ = [
    "Entry",
    "Finished",
    "claims_of",
    "default_names",
    "entries_of",
    "entry_of",
    "finished_runs",
    "fold_recipes",
    "is_distilled",
    "method_entry",
    "refuse_without_effect",
    "register",
    "registered",
    "role_of",
    "same_settings",
    "seeds_left_out",
    "set_keys",
    "tuned_settings",
    "tuning_remarks",
]
