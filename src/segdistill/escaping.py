"""Text that comes from users' files, made fit to be shown: one function for each medium.

Names of classes, files and runs may hold anything: control characters that a terminal obeys, line breaks that forge a
row of a table, marks that turn the direction of writing or cannot be seen, and markup.
"""

import re
import unicodedata

# Letters that look like nothing at all, though they are no format characters.
_BLANK = "\u115f\u1160\u3164\uffa0\u2800"
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_MARKDOWN = re.compile(r"[\\`*\[\]<>&|~$!#]|(?<![^\W_])_|_(?![^\W_])")


def terminal_line(text: object) -> str:
    """A name or message as one line for a terminal, a log or a cell of a table.

    Example:
        >>> terminal_line("road" + chr(27) + "[2J" + chr(10) + "sky")
        'road\\\\x1b[2J\\\\nsky'
    """
    return _visible(str(text))


def terminal_text(text: str) -> str:
    """Lines for a terminal whose names were made safe by `terminal_line`; line breaks stay."""
    return _visible(text, keep="\n")


def markdown(text: object) -> str:
    """Plain text inside a paragraph or a cell of Markdown.

    Example:
        >>> markdown("car | 99 | <b>")
        'car \\\\| 99 \\\\| &lt;b&gt;'
    """
    entities = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
    return _MARKDOWN.sub(lambda found: entities.get(found[0], f"\\{found[0]}"), _visible(str(text)))


def markdown_code(text: object) -> str:
    """The inside of a code span of Markdown, where a backslash escapes nothing.

    Example:
        >>> markdown_code("a`|b")
        "a'\\\\x7cb"
    """
    return _visible(str(text)).replace("`", "'").replace("|", r"\x7c") or " "


def html(text: str) -> str:
    """Text of a page before its `<`, `&` and quotes are escaped, as Jinja does; line breaks stay."""
    return _visible(text, keep="\n\t")


def _visible(text: str, keep: str = "") -> str:
    """Characters that control, or that cannot be seen, as Python writes them: `\\x1b`, `\\u202e`."""
    hidden = {one for one in set(text) if _is_hidden(one)} - set(keep)
    return text.translate({ord(one): one.encode("unicode_escape").decode() for one in hidden})


def _is_hidden(one: str) -> bool:
    return unicodedata.category(one) in _HIDDEN or one in _BLANK
