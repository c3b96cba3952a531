"""A BIDS App: the scans of a BIDS data set → a derivatives data set, and a page a participant."""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from .. import InputError
from ..runs import write_file
from ..scans.folders import identify, is_bids
from ..translation import Job, read_result, translate_scans
from .viewer import viewer

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{name}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body {{ max-width: 60rem; margin: 2rem auto; font-family: sans-serif }}</style></head>
<body><h1>{name}</h1><p>Synthetic, <b>not for diagnosis</b>.</p>
{scans}
</body></html>
"""


def translate_participants(
    dataset: Path,
    output: Path,
    participants: Sequence[str] = (),
    sessions: Sequence[str] = (),
    **options,
) -> list[Job]:
    """Translate the T1w scans of a BIDS data set, and write `sub-LABEL.html` for each participant.

    `participants` and `sessions` are labels with or without `sub-` and `ses-`; none are all. The
    options are those of `translate_scans`. A page shows source, synthetic contrast and trust map
    in three planes on one crosshair. Raises InputError for a folder that is no BIDS data set, a
    label that is not there, and an output folder of another data set.
    """
    if not is_bids(dataset):
        raise InputError(f"{dataset} is no BIDS data set: expected folders sub-LABEL/[ses-*/]anat.")
    subjects = _folders(dataset, "sub-", participants, "participant")
    visits = _folders(dataset, "sub-*/ses-", sessions, "session")
    jobs = translate_scans(
        dataset,
        output,
        only=lambda path: (
            (not participants or identify(path).subject in subjects)
            and (not sessions or identify(path).visit in visits)
        ),
        **options,
    )
    (output / ".bidsignore").write_text("*.html\n")
    of_subject = defaultdict(list)
    for job in jobs:
        if job.done and not job.error:
            of_subject[identify(job.source).subject].append(job)
    for subject, done in of_subject.items():
        shown = [
            f"<h2>{html.escape(job.source.name)}</h2>\n{viewer(read_result(job))}" for job in done
        ]
        page = PAGE.format(name=subject, scans="\n".join(shown))
        write_file(output / f"{subject}.html", page)
    return jobs


def _folders(dataset: Path, prefix: str, labels: Sequence[str], kind: str) -> set[str]:
    """The names of the folders with these labels."""
    there = {path.name for path in dataset.glob(f"{prefix}*") if path.is_dir()}
    start = prefix.rpartition("/")[2]
    wanted = {start + label.removeprefix(start) for label in labels}
    if missing := sorted(wanted - there):
        known = ", ".join(sorted(name.removeprefix(start) for name in there)) or "none"
        raise InputError(
            f"{dataset} has no {kind} {missing[0].removeprefix(start)}: expected one of {known}."
        )
    return wanted
