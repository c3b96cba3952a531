"""How Sphinx renders the course for `make site`: the notebooks as they were executed."""

from docutils.nodes import SkipNode
from docutils.utils.math.latex2mathml import tex2mathml

project = html_title = "From T1 to T2"
extensions = ["myst_nb"]
include_patterns = ["index.md", "README.md", "notebooks/*.ipynb", "outputs/gallery/README.md"]
html_theme = "furo"
html_static_path = html_css_files = ["site.css"]
html_show_copyright = html_copy_source = False
html_math_renderer = "mathml"
myst_enable_extensions = ["dollarmath"]
nb_execution_mode = "off"
nb_merge_streams, nb_output_stderr = True, "remove"
nb_render_markdown_format = "myst"  # which has tables
nb_ipywidgets_js = {}  # it would be fetched; sliders need a kernel, and a picture stands for them
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
suppress_warnings = ["misc.highlighting_failure"]  # a line for the shell is no Python


def setup(app):
    """Equations as MathML, which browsers draw without a script or a network."""

    def renderer(block: bool):
        def visit(page, node):
            page.body.append(tex2mathml(node.astext(), as_block=block))
            raise SkipNode

        return visit, None

    app.add_html_math_renderer("mathml", renderer(False), renderer(True))
