"""Sphinx settings: Markdown in, a static site out."""

project = "SPIKE"
extensions = ["myst_parser"]
myst_heading_anchors = 3
html_theme = "alabaster"
html_theme_options = {"description": "The life of a root key", "fixed_sidebar": True}
html_show_copyright = False
html_show_sphinx = False
