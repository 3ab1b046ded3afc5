"""What is asked for as text: a latency such as 8ms, a size such as 512x1024."""

import re

from segdistill.names import size_in
from segdistill.run.evaluation import Size

_LATENCY = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(ms|s)\s*")


def milliseconds(text: str) -> float:
    """Read a latency in milliseconds or seconds.

    Raises:
        ValueError: It is no number above 0 with one of the two units.

    Example:
        >>> milliseconds("8ms"), milliseconds("0.008 s")
        (8.0, 8.0)
    """
    match = _LATENCY.fullmatch(text)
    value = 0.0 if match is None else float(match[1])
    if match is None or value == 0:
        raise ValueError(
            f"--latency is {text!r:.60}; expected a number above 0 and its unit, such as 8ms or 0.008s"
        )
    return value if match[2] == "ms" else round(1000 * value, 9)


def height_and_width(text: str) -> Size:
    """Read a size in pixels.

    Raises:
        ValueError: It is not two positive integers.

    Example:
        >>> height_and_width("512x1024"), height_and_width("[512, 1024]")
        ((512, 1024), (512, 1024))
    """
    size = size_in(text)
    if size is None or min(size) < 1:
        raise ValueError(
            f"--size is {text!r:.60}; expected height x width in pixels, such as 512x1024"
        )
    return size
