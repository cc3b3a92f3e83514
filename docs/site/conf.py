"""Sphinx's settings for the site."""

import stzoo

project = "stzoo"
author = "the authors of stzoo"
release = version = stzoo.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton", "sphinxcontrib.mermaid"]
html_theme = "furo"
html_title = f"stzoo {release}"
html_static_path = ["static"]
html_favicon = "static/favicon.svg"
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer"})]  # no module, which browsers do not load from a disk
html_extra_path: list[str] = []
html_show_copyright = False
exclude_patterns: list[str] = []
templates_path: list[str] = []
default_role = "code"  # in docstrings, what stands between backticks is code
highlight_language = "none"  # what stands in a fence without a language is output

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]
mermaid_version = ""  # no third-party host: build.py puts npm's copy into the site
mermaid_init_config = {  # figures as large as they are, so that words stay readable; narrow enough for a phone
    "startOnLoad": False,
    "flowchart": {"useMaxWidth": False, "nodeSpacing": 20, "rankSpacing": 28, "padding": 8, "wrappingWidth": 140},
}
mermaid_height = "auto"
mermaid_fullscreen = False
mermaid_use_local = "mermaid/mermaid.esm.min.mjs"
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_timeout = 300
nb_merge_streams = True

python_maximum_signature_line_length = 88
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
