"""Configuration of the documentation; `make docs` builds it and treats every warning as an error."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "poolkit"
copyright = "the poolkit authors"
version = release = installed_version("poolkit")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.intersphinx", "generated"]
intersphinx_mapping: dict[str, tuple[str, None]] = {}  # no network at build time; names of others stay plain text
exclude_patterns = ["_build"]
root_doc = "index"

myst_enable_extensions = ["deflist", "fieldlist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"poolkit {version}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
smartquotes = False  # an option's two dashes are no dash, and a document's quotes are what it says

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
python_use_unqualified_type_names = True

nitpick_ignore_regex = [
    (r"py:.*", r"(?!poolkit).*"),  # names outside the project (the standard library) have no page here
    (
        r"py:.*",
        r"poolkit\.(inventory|locks|operation|state\.(settings|references)|host\.kernel|engine\.plan\.(stored|several)).*",
    ),  # the engine's own parts
    (r"py:.*", r"poolkit\.testing\.(pools|volumes|deaths|documents)\..*"),  # the parts of BackendContract
    (r"py:.*", r".*\.[A-Z]"),  # type variables
]
# An attribute named `type` makes the built-in of that name ambiguous.
suppress_warnings = ["ref.python"]
