import os
import sqlite3
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import Subset

import segdistill
from segdistill.data import build_dataset
from segdistill.run.folder import file_sha256
from segdistill.run.identity import digests
from segdistill.run.identity.data import data_digest
from segdistill.run.identity.digests import file_digests, state_digest


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "segdistill" / "digests.sqlite"


def _old(path: Path) -> Path:
    """A file whose times lie in the past, so that its digest is worth remembering."""
    path.write_bytes(b"first")
    os.utime(path, (1, 1))
    return path


def test_digests_are_remembered_and_a_touched_file_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "_SETTLED", -1e9)
    read: list[Path] = []

    def counted(path: Path) -> str:
        read.append(path)
        return file_sha256(path)

    monkeypatch.setattr(digests, "file_sha256", counted)
    paths = [_old(tmp_path / name) for name in ("a", "b")]
    first = file_digests(paths)
    assert file_digests(paths) == first == [file_sha256(path) for path in paths]
    assert sorted(read) == paths
    # Same size, same modification time, other content.
    paths[0].write_bytes(b"other")
    os.utime(paths[0], (1, 1))
    assert file_digests(paths) == [file_sha256(path) for path in paths]
    assert sorted(read[2:]) == paths[:1]


def test_a_file_written_just_now_is_not_remembered(tmp_path: Path, memory: Path) -> None:
    file_digests([_old(tmp_path / "a")])
    with sqlite3.connect(memory) as connection:
        assert connection.execute("SELECT count(*) FROM digests").fetchone() == (0,)


@pytest.mark.parametrize("broken", ["damaged", "a folder", "no home"])
def test_nothing_to_remember_in_costs_only_time(
    broken: str, tmp_path: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if broken == "no home":
        monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    elif broken == "damaged":
        memory.parent.mkdir(parents=True)
        memory.write_text("no database at all" * 100)
    else:
        memory.mkdir(parents=True)
    path = _old(tmp_path / "a")
    assert file_digests([path]) == [file_sha256(path)]


def test_the_state_of_a_network_is_its_names_types_shapes_and_values() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    before = state_digest(plain)
    wrapped = segdistill.wrap(plain, 2)
    assert state_digest(wrapped) == before == state_digest(torch.compile(plain))
    changes = [
        lambda: plain[0].weight.data.flatten()[0:1].add_(1e-3),
        lambda: plain[1].running_var.mul_(2),
        lambda: plain[1].num_batches_tracked.add_(1),
        lambda: plain.half(),
    ]
    seen = {before}
    for change in changes:
        change()
        assert state_digest(plain) not in seen
        seen.add(state_digest(plain))


def test_files_are_told_apart_by_names_and_bytes_wherever_they_lie(
    tmp_path: Path,
) -> None:
    from tests.run.identity.folders import write_pairs

    options = {"classes": ["ground", "sky"], "val_fraction": 0.25}

    def digest(root: Path, **changes: object) -> str | None:
        return data_digest(build_dataset("folder", root, "train", **{**options, **changes}))

    one = write_pairs(tmp_path / "one")
    first = digest(one)
    assert first == digest(write_pairs(tmp_path / "moved"))
    assert first != digest(one, mapping={0: 1, 1: 0})
    assert first != digest(one, limit=2)
    assert digest(write_pairs(one, flipped=range(8))) != first
    assert digest(write_pairs(one)) == first
    for kind in ("images", "masks"):
        for file in (one / kind).iterdir():
            file.rename(file.with_stem(f"a{file.stem}"))
    assert digest(one) != first


def test_a_subset_is_its_own_samples() -> None:
    scenes = build_dataset("synthetic", size=(32, 32), count=5)
    assert data_digest(scenes) == data_digest(build_dataset("synthetic", size=(32, 32), count=5))
    assert data_digest(scenes) != data_digest(build_dataset("synthetic", size=(32, 32), count=4))
    assert data_digest(Subset(scenes, [0, 1])) != data_digest(Subset(scenes, [1, 2]))
