"""Shapes and types checked, one thread per test process, and real data if available."""

import gc
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Keep cached values, such as digests of files, out of the user's cache.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="segdistill-cache-")
# And which modules are trusted stays out of the user's settings.
os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp(prefix="segdistill-config-")


def pytest_configure(config: pytest.Config) -> None:
    """Import torch and the checks where tests run, not where they are only handed to workers."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return
    import torch

    from tests import checked

    checked.install()
    torch.set_num_threads(1)
    if not torch.cuda.is_available():
        # Otherwise each step of an optimizer looks for the driver, for as long as a small step takes.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_finish() -> None:
    """Look for garbage only among what the tests make: libraries and tests are millions of objects."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Libraries complain of what is left when Python ends."""
    gc.unfreeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Neighbouring tests for one worker, which shares their fixtures; an idle worker takes from the other."""
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Before the fixtures of a test, whose calls are the first to be checked."""
    from tests import checked

    checked.begin_test()


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """A command leaves the log set up for its process; the next test begins without that."""
    logger = logging.getLogger("segdistill")
    before = logger.handlers[:], logger.propagate, logger.level
    yield
    logger.handlers, logger.propagate = before[:2]
    logger.setLevel(before[2])


@pytest.fixture(scope="session", autouse=True)
def known_scenes() -> Iterator[None]:
    """Scenes are drawn once in each process, except in the tests of how they are drawn."""
    from tests import scenes

    with pytest.MonkeyPatch.context() as patch:
        scenes.remember(patch)
        yield


@pytest.fixture(scope="session", autouse=True)
def known_sources() -> Iterator[None]:
    """A training by the tests' own network digests their code, which is done once in each process."""
    from tests import sources

    with pytest.MonkeyPatch.context() as patch:
        sources.remember(patch)
        yield


@pytest.fixture(scope="session", autouse=True)
def unsynced() -> Iterator[None]:
    """No waiting for the disk: a file that is written outlives its process, and no test takes the power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def known_operators() -> Iterator[None]:
    """The exporter's table of operators is filled once in each process: it takes a quarter of a small export."""
    from tests import operators

    with pytest.MonkeyPatch.context() as patch:
        operators.remember(patch)
        yield


@pytest.fixture(scope="session", autouse=True)
def brief_readouts() -> Iterator[None]:
    """Ten steps for readouts of the position, except in their tests: 300 take longer than a small training."""
    from segdistill.losses import position, readout

    def fit(batches: Any, steps: int, *arguments: Any, **options: Any) -> Any:
        return readout.fit_readout(batches, min(steps, 10), *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(position, "fit_readout", fit)
        yield


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No checks, for arguments that the annotations forbid and the code refuses with a message."""
    import jaxtyping

    monkeypatch.setitem(vars(jaxtyping.config), "jaxtyping_disable", True)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports whose charts are laid out but not drawn, and whose readouts are fitted briefly."""
    from segdistill.run.reporting import charts, pictures

    monkeypatch.setattr(pictures, "_READOUT_STEPS", 10)
    monkeypatch.setattr(charts, "to_svg", lambda *_: "<svg></svg>")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder in SEGDISTILL_DATA; without it the test is skipped."""
    path = os.environ.get("SEGDISTILL_DATA")
    if not path:
        pytest.skip("SEGDISTILL_DATA names no folder with the real data sets and weights")
    return Path(path)
