"""A BIDS App: the scans of a BIDS data set → a derivatives data set, and a page a participant."""

import html
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from .. import InputError
from ..runs import write_file
from ..scans.folders import identify, is_bids
from ..translation.translate import Job, read_result, translate_scans
from .viewer import html_page, viewer


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
    label that is not there or, once the others are done, without a scan, and an output folder of
    another data set.
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
    made = [job for job in jobs if job.done and not job.error]
    for subject, own in groupby(made, lambda job: identify(job.source).subject):
        parts = ["<p>Synthetic, <b>not for diagnosis</b>.</p>"]
        for job in own:
            parts += [f"<h2>{html.escape(job.source.name)}</h2>", viewer(read_result(job))]
        write_file(output / f"{subject}.html", html_page(subject, parts))
    if missing := sorted(subjects - {identify(job.source).subject for job in jobs}):
        raise InputError(
            f"{dataset} holds no scan of what was chosen of {', '.join(missing)}: expected one. "
            "The other participants are done."
        )
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
