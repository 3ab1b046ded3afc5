"""Sphinx builds the site from these pages: `make docs`. Nothing is fetched."""

import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).parent))

import generated

import segdistill

project = "segdistill"
author = "The segdistill authors"
copyright = "the segdistill authors"
version = release = segdistill.__version__
language = "en_GB"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

html_theme = "furo"
html_title = f"segdistill {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
pygments_style = "tango"
pygments_dark_style = "monokai"

# Single backticks in our docstrings are code.
default_role = "code"
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
nitpicky = True
# Types of other projects have no page here, and their own sites are not asked.
nitpick_ignore_regex = [("py:.*", ".*")]


class Generated(SphinxDirective):
    """A part of a page that is read off the code: see `generated.PARTS`."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(
            generated.part(self.arguments[0]), allow_section_headings=True
        )


def _docstring(
    _app: Sphinx, _kind: str, _name: str, _thing: Any, _options: Any, lines: list[str]
) -> None:
    lines[:] = generated.to_rst(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("generated", Generated)
    app.connect("autodoc-process-docstring", _docstring)
    return {"parallel_read_safe": True}
