"""Which class each category of an annotation tool is."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from segdistill.labels import IGNORED
from segdistill.names import in_yaml

IGNORE = "ignore"
"""The word that `unannotated` has in place of a class."""


class Categories:
    """Class numbers of categories, which are found by their names.

    A category with the name of a class is that class. `mapping` declares the others, or overrides it.

    Args:
        classes: Names of the classes.
        mapping: `{category: class}`, the class by name or number, or None to ignore its pixels.

    Attributes:
        classes: Names of the classes.
        numbers: Class number of each category by name, 255 where ignored.

    Raises:
        ValueError: The mapping names a class that does not exist.

    Example:
        >>> Categories(["road", "car"], {"truck": "car", "shadow": None}).numbers
        {'road': 0, 'car': 1, 'truck': 1, 'shadow': 255}
    """

    def __init__(
        self, classes: Sequence[str], mapping: Mapping[Any, int | str | None] | None = None
    ) -> None:
        if mapping is not None and not isinstance(mapping, Mapping):
            raise ValueError(f"mapping is {mapping!r:.60}; expected {{category: class}}")
        self.classes = tuple(classes)
        self.numbers = {name: number for number, name in enumerate(classes)}
        for category, target in (mapping or {}).items():
            self.numbers[str(category)] = self._number_of_class(str(category), target)

    def _number_of_class(self, category: str, target: object) -> int:
        if target is None:
            return IGNORED
        if isinstance(target, str) and target in self.classes:
            return self.classes.index(target)
        whole = isinstance(target, int) and not isinstance(target, bool)
        if whole and 0 <= int(str(target)) < len(self.classes):
            return int(str(target))
        raise ValueError(
            f"mapping assigns category {category!r} to {target!r:.60}; expected one of the classes "
            f"{', '.join(self.classes)}, a number in 0..{len(self.classes) - 1}, or null to ignore it"
        )

    def number(self, category: str, place: str) -> int:
        """The class number of a category, 255 if it is ignored.

        Args:
            category: Its name.
            place: Where it occurs, for the message.

        Raises:
            ValueError: It is neither a class nor in the mapping.
        """
        known = self.numbers.get(category)
        if known is None:
            raise ValueError(f"{place}: {self.complaint([category])}")
        return known

    def complaint(self, undeclared: Iterable[str]) -> str:
        """What is wrong with categories that are not declared, and the mapping that declares them."""
        names = sorted(undeclared)
        near = get_close_matches(names[0], self.classes, n=1, cutoff=0.75)
        entries = ", ".join(
            f"{in_yaml(name)}: {in_yaml(near[0]) if near else 'CLASS'}" for name in names[:5]
        )
        what = f"category {names[0]!r} is" if len(names) == 1 else f"categories {names[:5]} are"
        return (
            f"{what} not among the classes {', '.join(self.classes)}; expected a class for each. Add it to "
            f"`classes`, or declare it: mapping: {{{entries}}}, with null to ignore its pixels"
        )


def unannotated_number(unannotated: str, classes: Sequence[str]) -> int:
    """The class number of pixels without annotation, 255 if they are ignored.

    Raises:
        ValueError: There is no such class.
    """
    if unannotated == IGNORE:
        return IGNORED
    if unannotated not in classes:
        raise ValueError(
            f"unannotated is {unannotated!r}, which is not among the classes {', '.join(classes)}; expected a "
            f"class for pixels without annotation, or {IGNORE!r}. Add {unannotated!r} to `classes`, or set "
            f"unannotated: {IGNORE}"
        )
    return list(classes).index(unannotated)
