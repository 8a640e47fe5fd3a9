"""Sphinx's settings; `build.py` says where the pages come from."""

from verydeep.basics.version import VERSION

project = "verydeep"
author = copyright = "2026 the verydeep authors"
version = release = VERSION
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "pydata_sphinx_theme"
html_title = "verydeep"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_theme_options = {
    "logo": {"text": "verydeep"},
    "show_prev_next": False,
    "navbar_end": ["theme-switcher"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
}
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
highlight_language = "none"
default_role = "py:obj"  # so that `names` in docstrings are links where they are names of ours
myst_heading_anchors = 4
napoleon_google_docstring = False
napoleon_use_rtype = False
autodoc_typehints = "none"  # the docstrings say types with shapes, units and ranges
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True
