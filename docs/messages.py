"""Makes the commonest mistakes for real and writes the program's answers into faq.md.

`python docs/messages.py` renews the page; a test compares them.
"""

import contextlib
import errno
import io
import logging
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import yaml
from PIL import Image

PAGE = Path(__file__).parent / "faq.md"
COLOURS = np.array([[230, 128, 26], [51, 51, 51], [153, 179, 230]], np.uint8)
Made = Callable[[], list[str]]


def data(root: str = "data/mine", count: int = 10) -> None:
    """Ten photographs of coloured blocks, and masks of the classes 0, 1 and 2."""
    random = np.random.default_rng(0)
    for kind in ("images", "masks"):
        Path(root, kind).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        label = random.integers(0, 3, (4, 6)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
        Image.fromarray(COLOURS[label]).save(f"{root}/images/{number:04}.png")
        Image.fromarray(label).save(f"{root}/masks/{number:04}.png")


def recipe(name: str = "student", **parts: object) -> str:
    """A recipe of a few steps; gives its path."""
    values: dict[str, object] = {
        "data": {
            "name": "folder",
            "root": "data/mine",
            "options": {"classes": ["grass", "road", "car"]},
        },
        "student": {"model": "compact", "options": {"width": 8, "depth": 1}},
        "train": {"steps": 2, "batch": 2, "crop": [32, 32]},
        **parts,
    }
    path = Path("mine") / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(values))
    return str(path)


def trained_teacher(classes: Sequence[str] = ("grass", "road", "car")) -> None:
    """A teacher that two steps have not taught much."""
    options = {"classes": list(classes)}
    path = recipe("teacher", data={"name": "folder", "root": "data/mine", "options": options})
    run(["train", path])


TEACHER = '''
import torch
from torch import nn

class Teacher(nn.Module):
    """Answers with the nearest of three colours; made for RGB in 0..255."""

    def __init__(self, num_classes=3):
        super().__init__()
        colours = torch.tensor([[0.9, 0.5, 0.1], [0.2, 0.2, 0.2], [0.6, 0.7, 0.9]])
        self.body = nn.Conv2d(3, 3, 1, bias=False)
        self.head = nn.Conv2d(3, num_classes, 1)
        with torch.no_grad():
            self.body.weight.copy_(torch.eye(3)[:, :, None, None] / 255)
            self.head.weight.copy_(20 * colours[:, :, None, None])
            self.head.bias.copy_(-10 * colours.square().sum(1))

    def forward(self, images):
        return self.head(self.body(images))
'''


def tap() -> list[str]:
    """A typo in a tap."""
    data()
    trained_teacher()
    student = {"model": "compact", "taps": {"features": "jion"}}
    teacher = {"run": "runs/mine/teacher-s0", "min_miou": 0}
    return ["train", recipe(student=student, teacher=teacher, method="skd")]


def term() -> list[str]:
    """A typo in a key."""
    data()
    return ["train", recipe(), "--train.stpes", "100"]


def classes() -> list[str]:
    """Teacher and data with different classes."""
    data()
    trained_teacher(["grass", "road", "car", "person"])
    return ["train", recipe(teacher={"run": "runs/mine/teacher-s0"}, method="kd")]


def ignored() -> list[str]:
    """The ignore id among the classes: masks of 0 and 255 without a mapping."""
    data()
    for file in Path("data/mine/masks").iterdir():
        Image.fromarray(np.asarray(Image.open(file)).clip(0, 1) * np.uint8(255)).save(file)
    options = {"classes": ["grass", "road"]}
    return ["check", recipe(data={"name": "folder", "root": "data/mine", "options": options})]


def noise() -> list[str]:
    """Black and white masks with what a JPEG left of them."""
    data()
    for file in Path("data/mine/masks").iterdir():
        pixels = np.asarray(Image.open(file)).clip(0, 1) * np.uint8(255)
        pixels[::8, ::4] ^= 1
        Image.fromarray(pixels).save(file)
    options = {"classes": ["grass", "road"], "mapping": {0: 0, 255: 1}}
    return ["check", recipe(data={"name": "folder", "root": "data/mine", "options": options})]


def undeclared() -> list[str]:
    """An id in the masks that is not declared."""
    data()
    mask = np.zeros((32, 48), np.uint8)
    mask[4, 7] = 3
    Image.fromarray(mask).save("data/mine/masks/0003.png")
    return ["check", recipe()]


def mask() -> list[str]:
    """An image without mask."""
    data()
    Path("data/mine/masks/0004.png").unlink()
    return ["train", recipe()]


def size() -> list[str]:
    """A mask of another size than its image."""
    data()
    Image.new("L", (64, 48)).save("data/mine/masks/0005.png")
    return ["train", recipe(), "--data.val_split", "all", "--data.train_split", "all"]


def normalisation() -> list[str]:
    """A teacher that is shown images in another normalisation than it was trained with."""
    import torch
    from safetensors.torch import save_file

    data(count=40)
    Path("mynetworks.py").write_text(TEACHER)
    sys.modules.pop("mynetworks", None)
    sys.path.insert(0, os.getcwd())
    torch.manual_seed(0)
    from mynetworks import Teacher  # type: ignore[import-not-found]

    save_file(Teacher().state_dict(), "teacher.safetensors")
    teacher = {
        "model": "mynetworks.Teacher",
        "weights": "teacher.safetensors",
        "min_miou": 90,
    }
    return ["train", recipe(teacher=teacher, method="kd")]


STUDENT = '''
import torch
from torch import nn

class Student(nn.Module):
    """Returns probabilities."""

    def __init__(self, num_classes):
        super().__init__()
        self.body = nn.Conv2d(3, 8, 3, padding=1)
        self.head = nn.Conv2d(8, num_classes, 1)

    def forward(self, images):
        return self.head(self.body(images).relu()).softmax(1)

class Photos(torch.utils.data.Dataset):
    """Normalises its images."""

    classes = ["grass", "road", "car"]

    def __len__(self):
        return 10

    def __getitem__(self, index):
        image = torch.rand(3, 32, 48, generator=torch.Generator().manual_seed(index))
        return (image - 0.45) / 0.225, (3 * image[0]).long()
'''


def own_code() -> None:
    """A module with a network and a data set that can be imported from the working folder."""
    Path("mycode.py").write_text(STUDENT)
    sys.modules.pop("mycode", None)
    sys.path.insert(0, os.getcwd())


def pixels() -> list[str]:
    """A data set of one's own that normalises its images."""
    own_code()
    return ["train", recipe(data={"name": "mycode.Photos"})]


def probabilities() -> list[str]:
    """A network of one's own that ends in a softmax."""
    data()
    own_code()
    return ["train", recipe(student={"model": "mycode.Student"})]


def batch() -> list[str]:
    """A batch of one with batch normalisation."""
    data()
    return ["train", recipe(student={"model": "pspnet_r18_half"}), "--train.batch", "1"]


def disk() -> list[str]:
    """A full disk, as it is met by the first checkpoint."""
    data()
    return ["train", recipe(train={"steps": 4, "batch": 2, "crop": [32, 32], "save_every": 1})]


class Usage(NamedTuple):
    """What is left of a disk."""

    free: int


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """Nothing more of a checkpoint fits."""
    real = os.fsync

    def fsync(file: int) -> None:
        if ".ckpt" in os.readlink(f"/proc/self/fd/{file}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(file)

    with mock.patch("os.fsync", fsync), mock.patch("shutil.disk_usage", return_value=Usage(0)):
        yield


def folder() -> list[str]:
    """A run folder that cannot be written."""
    data()
    Path("runs").write_text("a file, where a folder is needed")
    return ["train", recipe()]


def memory() -> list[str]:
    """Crops that do not fit the memory: half a GiB is left."""
    data()
    return ["train", recipe(), "--train.crop", "[2048,2048]", "--train.batch", "8"]


MISTAKES: dict[str, Made] = {
    made.__name__: made
    for made in (
        tap,
        term,
        classes,
        ignored,
        noise,
        undeclared,
        mask,
        size,
        normalisation,
        pixels,
        probabilities,
        batch,
        memory,
        disk,
        folder,
    )
}


def run(argv: list[str]) -> str:
    """What a command writes to standard error and output."""
    from segdistill.cli import main

    written = io.StringIO()
    with (
        contextlib.redirect_stderr(written),
        contextlib.redirect_stdout(written),
        contextlib.suppress(SystemExit),
    ):
        main(argv)
    return written.getvalue()


LITTLE = """
import resource, sys, torch
import segdistill.run.training.train
from segdistill.cli import main
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**29,) * 2)
main(sys.argv[1:])
"""


def in_little_memory(argv: list[str]) -> str:
    """The same in a process that may take half a GiB more than the libraries need."""
    done = subprocess.run(
        [sys.executable, "-c", LITTLE, *argv], capture_output=True, text=True, check=False
    )
    return done.stderr + done.stdout


def answer(name: str) -> str:
    """Make a mistake in a folder of its own; the message alone, without what is printed before it."""
    before, path, logger = os.getcwd(), list(sys.path), logging.getLogger("segdistill")
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        try:
            argv = MISTAKES[name]()
            with full_disk() if name == "disk" else contextlib.nullcontext():
                text = in_little_memory(argv) if name == "memory" else run(argv)
        finally:
            os.chdir(before)
            sys.path[:] = path
            logger.handlers.clear()
    lines = [line for line in text.splitlines() if line.strip()]
    problems = [line for line in lines if line.startswith("problem:")]
    final = [line for line in lines if line.startswith("segdistill:")]
    return " ".join((problems or final or lines)[-1].split())


_QUOTE = re.compile(r"(<!-- message: (\w+) -->\n```text\n)(.*?)(\n```)", re.DOTALL)


def quoted(page: str) -> dict[str, str]:
    """The messages on the page, by the name of the mistake, each as one line."""
    return {found[2]: " ".join(found[3].split()) for found in _QUOTE.finditer(page)}


def renewed(page: str) -> str:
    """The page with every message as the program gives it now."""

    def again(found: re.Match[str]) -> str:
        text = textwrap.fill(answer(found[2]), 108, break_long_words=False, break_on_hyphens=False)
        return found[1] + text + found[4]

    return _QUOTE.sub(again, page)


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text("utf-8")), "utf-8")
