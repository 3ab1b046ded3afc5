"""Report unknown names, and check options against a signature."""

import inspect
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """A one-line message with the unknown name, the nearest existing name, and the existing names.

    If more than thirty exist, only the ten nearest are listed.

    Args:
        kind: Kind of name, in the singular ("loss", "tap").
        name: The unknown name.
        known: The existing names.
    """
    names = sorted(known)
    nearest = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    label = "known"
    if len(names) > 30:
        names, label = get_close_matches(name, names, n=10, cutoff=0.0), "nearest"
    return f"no {kind} named {name!r}{hint} ({label}: {', '.join(names) or 'none'})"


def shortened(text: str, length: int) -> str:
    """A text of at most so many characters: its beginning and its end, where the remedy of a message stands.

    Example:
        >>> shortened("label is aaaaaaaaaaaaaaaa; expected text", 24)
        'label is a .. ected text'
    """
    if len(text) <= length:
        return text
    half = (length - 4) // 2
    return f"{text[:half]} .. {text[-half:]}"


def height_by_width(size: tuple[int, int]) -> str:
    """A size as Pillow gives it, in the order of `data.size` and `train.crop`.

    Args:
        size: Width and height in pixels.

    Example:
        >>> height_by_width((640, 480))
        '480x640'
    """
    width, height = size
    return f"{height}x{width}"


def size_in(text: str) -> tuple[int, int] | None:
    """Height and width in a text such as 512x1024; None if it is no size.

    Example:
        >>> size_in("512x1024"), size_in("[512, 1024]"), size_in("512")
        ((512, 1024), (512, 1024), None)
    """
    found = re.fullmatch(r"\s*(\[?)\s*(\d+)\s*[xX×,]\s*(\d+)\s*(\]?)\s*", text, re.ASCII)
    if found is None or bool(found[1]) != bool(found[4]):
        return None
    return int(found[2]), int(found[3])


def check_options(
    owner: str,
    options: Iterable[str],
    maker: Callable[..., Any],
    besides: Collection[str] = (),
    strict: bool = False,
    also: Collection[str] = (),
) -> None:
    """Refuse options that a class or function does not accept, and values of the wrong type.

    Args:
        owner: Owner of the options, for the message ("pspnet", "loss 'pixelwise'").
        options: Names of the given options, or a mapping of names to values.
        maker: Class or function that receives them.
        besides: Parameters that are not options, since the caller passes them.
        strict: Also refuse options that only `**kwargs` would accept; by default they are allowed.
        also: Options that the caller reads itself, which a message lists.

    Raises:
        ValueError: An option is unknown (the message names the nearest), its name is not text, or its
            value has another type than in the maker's signature.

    Example:
        >>> check_options("round", ["ndigit"], round, besides=["number"])
        Traceback (most recent call last):
        ValueError: no option of round named 'ndigit'; did you mean 'ndigits'? (known: ndigits)
    """
    parameters = _parameters(maker)
    if parameters is None:
        return
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    by_keyword = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    known = [p.name for p in parameters if p.kind in by_keyword and p.name not in besides]
    for option in options:
        if not isinstance(option, str) or (option not in known and (strict or not takes_any)):
            raise ValueError(unknown(f"option of {owner}", str(option), [*known, *also]))
    if isinstance(options, Mapping):
        _check_types(owner, options, maker)


def made(owner: str, maker: Callable[..., Any], *given: Any, **options: Any) -> Any:
    """Call a class or function with options from a recipe; its errors become one line.

    Args:
        owner: Name of the result, for the message ("the data set 'folder'").
        maker: What is called.
        given: Arguments that the caller fills.
        options: Arguments from the recipe.

    Raises:
        ValueError: The call fails; OSError and ValueError pass as they are.

    Example:
        >>> made("a window", range, "wide")
        Traceback (most recent call last):
        ValueError: a window cannot be made: TypeError: 'str' object cannot be interpreted as an integer
    """
    try:
        return maker(*given, **options)
    except (ValueError, OSError):
        raise
    except Exception as error:
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        chosen = f" with {options!r:.200}" if options else ""
        raise ValueError(f"{owner} cannot be made{chosen}: {cause}") from error


def _check_types(owner: str, options: Mapping[Any, Any], maker: Callable[..., Any]) -> None:
    called = maker.__init__ if inspect.isclass(maker) else maker
    try:
        stated = get_type_hints(called)
    except Exception:  # annotations that only a type checker can evaluate are ignored
        return
    for option, value in options.items():
        if option in stated and not fits(value, stated[option]):
            raise ValueError(
                f"{owner}: option {option} is {value!r:.60}; expected {in_words(stated[option])}"
                f"{hint(value)}"
            )
        if option != "seed" and isinstance(value, int) and abs(value) > _GREATEST:
            raise ValueError(
                f"{owner}: option {option} is {value}; expected at most {_GREATEST}, as anything of that many "
                "parts is never finished. Lower it"
            )


_GREATEST = 10**9


def in_yaml(text: str) -> str:
    """Text as it stands in a list or mapping in braces of a recipe: quoted where YAML would read something else.

    Whole numbers stay as they are, since names are read as text.

    Example:
        >>> in_yaml("car"), in_yaml("7"), in_yaml("no"), in_yaml("a: b"), in_yaml(" car ")
        ('car', '7', '"no"', '"a: b"', '" car "')
    """
    if re.fullmatch(r"0|[1-9]\d*", text, re.ASCII):
        return text
    try:
        read = yaml.safe_load(f"{{{text}: 0, k: [{text}]}}")
    except yaml.YAMLError:
        read = None
    return text if read == {text: 0, "k": [text]} else json.dumps(text, ensure_ascii=False)


def hint(value: Any) -> str:
    """What to do about words and numbers that YAML takes for something else, among others that it does not."""
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+[eE][-+]?\d+", value):
        mantissa, _, exponent = value.lower().partition("e")
        return f". Write {mantissa}.0e{int(exponent):+d}, as YAML takes {value} for text"
    if isinstance(value, list) and any(isinstance(one, bool) for one in value):
        return ". Quote words such as no, yes, on and off, which YAML takes for true or false"
    return ""


def fitting(options: Mapping[Any, Any], maker: Callable[..., Any]) -> dict[str, Any]:
    """Those of some options that a class accepts, with values of the stated types."""
    kept = {}
    for option, value in options.items():
        with suppress(ValueError):
            check_options("", {option: value}, maker, strict=True)
            kept[option] = value
    return kept


def fits(value: Any, annotation: Any) -> bool:
    """Whether a plain value (of YAML or JSON) fits a type; any value fits a type without plain values.

    Example:
        >>> fits([32, 48], tuple[int, int]), fits("32", int), fits(True, float)
        (True, False, False)
    """
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if annotation in (None, NoneType):
        return value is None
    if annotation in (bool, str):
        return isinstance(value, annotation)
    if annotation in (int, float):
        numbers = (int,) if annotation is int else (int, float)
        return isinstance(value, numbers) and not isinstance(value, bool)
    if annotation is Path:
        return isinstance(value, str | Path)
    if origin is tuple and inner and inner[-1] is not ...:
        sized = isinstance(value, list | tuple) and len(value) == len(inner)
        return sized and all(map(fits, value, inner))
    if origin in (list, tuple, Sequence):
        return isinstance(value, list | tuple) and all(fits(item, inner[0]) for item in value)
    if origin in (dict, Mapping):
        return isinstance(value, Mapping)
    return True


_WORDS = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "text",
    NoneType: "null",
}


def in_words(annotation: Any) -> str:
    """A type in the words of a recipe: `an integer or null`."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation in _WORDS:
        return _WORDS[annotation]
    if origin in (Union, UnionType):
        return " or ".join(map(in_words, inner))
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if origin is tuple and inner and inner[-1] is not ...:
        return f"a list of {len(inner)} values"
    if origin in (list, tuple, Sequence):
        return {str: "a list of text", int: "a list of integers"}.get(inner[0], "a list")
    if origin in (dict, Mapping):
        return "a mapping"
    return str(getattr(annotation, "__name__", annotation))


def _parameters(maker: Callable[..., Any]) -> list[inspect.Parameter] | None:
    """The parameters of a callable; None if it has no signature, like some written in C."""
    try:
        return list(inspect.signature(maker).parameters.values())
    except ValueError:
        return None
