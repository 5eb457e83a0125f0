"""How Sphinx builds the book; ``make docs`` runs it. No page loads anything from the internet."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

project = "AlexNet from scratch"
author = "the authors of alexnet-from-scratch"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "docs._ext.book"]
exclude_patterns = ["_ext", "_templates", "xray", "exercises", "parity.md"]  # numerics.md shows what parity.json holds

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_type_aliases = {"DTypeLike": "DTypeLike"}  # else a signature shows what it stands for, ten lines

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

# The one place for the public addresses, empty until there are any: of the book, and of the repository.
html_baseurl = ""
REPOSITORY = ""
if html_baseurl:
    myst_html_meta = {"property=og:title": project, "property=og:image": f"{html_baseurl}/_static/activations.png"}

html_theme = "furo"
html_title = project
html_static_path = ["_static", "../alexnet_from_scratch/networks/mini-fashion-mnist/activations.png"]
templates_path = ["_templates"]
html_css_files = ["book.css"]
html_math_renderer = "mathml"
html_show_copyright = False
html_copy_source = False
pygments_style = "a11y-light"
pygments_dark_style = "monokai"
