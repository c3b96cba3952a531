"""`report.html`: on one page a run's result, how right it is and how it was made.

Pictures are embedded and nothing is fetched, so the page can be kept or passed on as it is.
"""

import base64
from pathlib import Path

import mistune

from ..contrasts import arrow
from ..runs import Run, write_file
from .heads import report_heads
from .report import checklist, markdown_table, read_metrics, summarise
from .viewer import html_page

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
WARNING = (
    "**Not for clinical use.** A synthetic image shows what usually goes with such a source: it "
    "can leave out a lesion, or draw one that is not there.\n\nThis page shows the images it was "
    "made from: pass it on only where you may pass on the scans."
)


def write_page(run: Run) -> Path:
    """Write `report.html` into the folder of an evaluated run; returns its path.

    Pictures that the run does not have are left out. Raises InputError without `metrics.json`.
    """
    record, result, heads = run.record, read_metrics(run.folder), run.folder / "heads"
    body, worst = [], heads / "viewer.html"
    if worst.is_file():
        frame = worst.read_text(encoding="utf-8")
        body.append(f"<figure>{frame}<figcaption>{WORST_HEAD}</figcaption></figure>")
    body += _figures(run, RESULT)
    body.append(_html(f"{WARNING}\n\n## How right it is\n\n{summarise(result)}"))
    body += _figures(run, FIDELITY)
    if (heads / "metrics.json").is_file():
        body.append(_html(f"## On real heads\n\n{report_heads(read_metrics(heads))}"))
        body += _figures(run, HEADS)
    body.append(_html(f"## For a reviewer\n\n{checklist(record, result)}\n\n## How it was made"))
    body += _figures(run, ORIGIN)
    made = {"Preset": record["preset"], "Data": record["data"], "Seconds": record["durations"]}
    made |= {"Versions": record["versions"] | {"commit": record["commit"]}}
    body += [_html(markdown_table([(name, ""), *x.items()], "---")) for name, x in made.items()]
    path, there = run.path("report.html"), run.preset.contrasts.directions[0]
    write_file(path, html_page(f"{run.folder.name}: {arrow(there)} and back", body))
    return path


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
