"""`report.html`: on one page a run's result, how right it is and how it was made.

Pictures are embedded and nothing is fetched, so the page can be kept or passed on as it is.
"""

import base64
import html
from pathlib import Path

import mistune

from ..contrasts import arrow
from ..runs import Run, write_file
from .heads import report_heads
from .report import checklist, markdown_table, read_metrics, summarise

RESULT = {  # pictures of a run's `figures/`, with captions
    "epochs_{there}.png": "Look at fluid in the ventricles, and at white matter beside grey: are "
    "they as in the true {y}?",
    "epochs_{back}.png": "The other way: {x} made from {y}.",
    "training.gif": "The same slices, epoch by epoch: where does it still move at the end?",
}
FIDELITY = {
    "error_{there}.png": "The worst slices first. Black is right; the brightest is off by a fifth "
    "of the scale or more.",
    "trust_{there}.png": "What can be said without the truth: bright is where not to trust.",
    "per_slice_{there}.png": "A mean hides the slice that failed; held-out slices are shaded.",
    "fidelity.png": "Could the losses have told? Fidelity of four slices beside them.",
}
WORST_HEAD = (
    "A real head, of those measured the one that is worst. Go to the ventricles, and from there to "
    "where the synthetic image and the true one differ: does the trust map, laid over, warn of it?"
)
HEADS = {
    "../heads/heads.png": "Real heads, the worst first, fitted to the true {y} by a straight "
    "line. Are fluid and white matter as bright as there, and lesions there?",
}
ORIGIN = {
    "samples.png": "What it learned from, {x} and {y}, in no pairs: follow fluid in both.",
    "losses.png": "The losses. Falling or not, they do not say whether the image is right.",
}
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: auto; padding: 1rem; }}
body {{ overflow-wrap: anywhere; color: #222; background: #fff; }}
figure {{ margin: 1.5rem 0; }}
img {{ max-width: 100%; height: auto; }}
figcaption {{ color: #555; }}
.wide {{ overflow-x: auto; overflow-wrap: normal; }}
td, th {{ padding: 0.1rem 0.6rem; border-bottom: 1px solid #ddd; text-align: left; }}
</style>
<body>
{body}
</body>
</html>
"""


def write_page(run: Run) -> Path:
    """Write `report.html` into the folder of an evaluated run; returns its path.

    Pictures that the run does not have are left out. Raises InputError without `metrics.json`.
    """
    record, result = run.record, read_metrics(run.folder)
    there = run.preset.contrasts.directions[0]
    title = html.escape(f"{run.folder.name}: {arrow(there)} and back")
    made = {"Preset": record["preset"], "Data": record["data"], "Seconds": record["durations"]}
    made |= {"Versions": record["versions"] | {"commit": record["commit"]}}
    body = [
        f"<h1>{title}</h1>",
        *_worst_head(run),
        *_figures(run, RESULT),
        _html(
            "**Not for clinical use.** A synthetic image shows what usually goes with such a "
            "source: it can leave out a lesion, or draw one that is not there.\n\n"
            "This page shows the images it was made from: pass it on only where you may pass on "
            "the scans.\n\n## How right it is"
        ),
        _html(summarise(result)),
        *_figures(run, FIDELITY),
        *_real_heads(run),
        _html(f"## For a reviewer\n\n{checklist(record, result)}"),
        _html("## How it was made"),
        *_figures(run, ORIGIN),
        *(_html(markdown_table([(name, ""), *x.items()], "---")) for name, x in made.items()),
    ]
    path = run.path("report.html")
    write_file(path, PAGE.format(title=title, body="\n".join(body)))
    return path


def _worst_head(run: Run) -> list[str]:
    path = run.folder / "heads" / "viewer.html"
    if not path.is_file():
        return []
    frame = path.read_text(encoding="utf-8")
    return [f"<figure>{frame}<figcaption>{WORST_HEAD}</figcaption></figure>"]


def _real_heads(run: Run) -> list[str]:
    """What `heads.evaluate_heads` has left in the run's folder `heads`, if it has."""
    if not (run.folder / "heads" / "metrics.json").is_file():
        return []
    table = report_heads(read_metrics(run.folder / "heads"))
    return [_html(f"## On real heads\n\n{table}"), *_figures(run, HEADS)]


def _html(markdown: str) -> str:
    page = mistune.create_markdown(plugins=["table"])(markdown)
    return page.replace("<table>", '<div class="wide"><table>').replace(
        "</table>", "</table></div>"
    )


def _figures(run: Run, captions: dict[str, str]) -> list[str]:
    figures, contrasts = [], run.preset.contrasts
    named = dict(zip(("there", "back"), contrasts.directions, strict=True)) | contrasts.labels
    for name, caption in captions.items():
        path, caption = run.folder / "figures" / name.format(**named), caption.format(**named)
        if path.is_file():
            data = base64.b64encode(path.read_bytes()).decode()
            source = f"data:image/{path.suffix[1:]};base64,{data}"
            figures.append(
                f'<figure><img src="{source}" alt="{path.stem}">'
                f"<figcaption>{caption}</figcaption></figure>"
            )
    return figures
