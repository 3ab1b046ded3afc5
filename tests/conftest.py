"""Shape checks on, one thread a test process, and the real data where there is any."""

import os
import tempfile
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

install_import_hook("segdistill.losses", "beartype.beartype")

torch.set_num_threads(1)
# What is remembered from run to run, digests of files for one, stays out of the user's cache.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="segdistill-cache-")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder that SEGDISTILL_DATA names; without it the test is skipped."""
    path = os.environ.get("SEGDISTILL_DATA")
    if not path:
        pytest.skip("SEGDISTILL_DATA names no folder with the real data sets and weights")
    return Path(path)
