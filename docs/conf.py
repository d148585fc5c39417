"""How Sphinx builds the documentation: `sphinx-build -W --keep-going docs build/docs`."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "accumulator"
author = "The accumulator authors"
release = metadata.version("chunk-accumulator")
version = release.partition(".dev")[0]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton", "docstrings", "tables"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

# In docstrings a name in backticks is code, and also a link if the name is documented.
default_role = "py:obj"
autodoc_mock_imports = ["pyarrow", "pyspark", "pandas"]
# Show the alias, as the source does: written out, the union of all events fills a screen.
autodoc_type_aliases = {"Event": "Event", "StreamEvent": "Event"}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80

copybutton_selector = "div:not(.highlight-output) > div.highlight > pre"  # only what a reader types

html_theme = "furo"
html_title = "accumulator"
html_static_path = ["_static"]
html_css_files = ["own.css"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
