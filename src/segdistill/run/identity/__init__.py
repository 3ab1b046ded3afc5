"""Who made a run: digests of content, and one writer at a time."""

from segdistill.run.identity.record import (
    FILE,
    TRAINING_SEMANTICS,
    Identity,
    IdentityDiffers,
    check_comparable,
    check_network,
    check_resumable,
    check_split,
    check_teacher,
    identify,
    read_identity,
    semantics_of,
)

__all__ = [
    "FILE",
    "TRAINING_SEMANTICS",
    "Identity",
    "IdentityDiffers",
    "check_comparable",
    "check_network",
    "check_resumable",
    "check_split",
    "check_teacher",
    "identify",
    "read_identity",
    "semantics_of",
]
