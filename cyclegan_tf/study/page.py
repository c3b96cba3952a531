"""`report.html`: on one page a run's result, how right it is and how it was made.

Its words are those of `report.md`. Pictures are embedded and nothing is fetched, so the page can be
kept or passed on as it is.
"""

import base64
import re
from pathlib import Path

import mistune

from ..contrasts import arrow
from ..runs import Run, listed, write_file
from .heads import report_heads
from .report import checklist, markdown_table, read_metrics, summarise
from .viewer import html_page

TEXT = Path(__file__).with_name("report.md").read_text(encoding="utf-8")
IMAGE = re.compile(r'<p><img src="(.*?)" alt="(.*?)" /></p>')
WORST_HEAD = (
    "A real head, of those measured the one that is worst. Go to the ventricles, and from there to "
    "where the synthetic image and the true one differ: does the trust map, laid over, warn of it?"
)


def write_page(run: Run) -> Path:
    """Write `report.html` into the folder of an evaluated run; returns its path.

    Pictures that the run does not have are left out, and so are real heads (what `evaluate_heads`
    left in its folder `heads`). Raises InputError without `metrics.json`.
    """
    record, result, heads = run.record, read_metrics(run.folder), run.folder / "heads"
    record = record | {"data": record["data"] | {"source": listed(run.data)}}
    (there, back), labels = run.preset.contrasts.directions, run.preset.contrasts.labels
    made = {"Preset": record["preset"], "Data": record["data"], "Seconds": record["durations"]}
    made |= {"Versions": record["versions"] | {"commit": record["commit"]}}
    tables = [markdown_table([(name, ""), *x.items()], "---") for name, x in made.items()]
    on_heads = viewer = ""
    if (heads / "metrics.json").is_file():
        on_heads = f"## On real heads\n\n{report_heads(read_metrics(heads))}"
    if (heads / "viewer.html").is_file():
        frame = (heads / "viewer.html").read_text(encoding="utf-8")
        viewer = f"<figure>{frame}<figcaption>{WORST_HEAD}</figcaption></figure>"
    text = TEXT.format(
        **labels,
        there=there,
        back=back,
        measured=summarise(result),
        heads=on_heads,
        checklist=checklist(record, result),
        made="\n\n".join(tables),
    )

    def embedded(image: re.Match) -> str:
        path = run.folder / image[1]
        if not path.is_file():
            return ""
        data = base64.b64encode(path.read_bytes()).decode()
        source = f"data:image/{path.suffix[1:]};base64,{data}"
        caption = f"<figcaption>{image[2]}</figcaption>"
        return f'<figure><img src="{source}" alt="{path.stem}">{caption}</figure>'

    body = IMAGE.sub(embedded, mistune.create_markdown(plugins=["table"])(text))
    path, title = run.path("report.html"), f"{run.folder.name}: {arrow(there)} and back"
    write_file(path, html_page(title, [viewer, body]))
    return path
