"""The contrasts that scans may have, and what files, figures and sentences call a run's two."""

import re
from typing import NamedTuple

from . import InputError

NAMES = {"t1": "T1w", "t2": "T2w", "pd": "PDw", "flair": "FLAIR", "t1gd": "T1wGd", "ct": "CT"}
"""A contrast's name for users, by what it is called in code and in files' names."""
WITH_AGENT = "T1w after contrast agent"  # T1wGd in sentences, `ce-*_T1w` in BIDS
SPOKEN = NAMES | {"t1gd": WITH_AGENT}
SIMULABLE = ("t1", "t2", "pd", "flair")
"""Those of which heads can be simulated to learn from."""
HEAD, SPINE, OTHER = BODY_PARTS = "head", "spine", "other"
"""What is scanned. Only of a head is there a brain to scale grey values by; only a head and a spine
can be simulated."""


def short(contrast: str) -> str:
    """What titles call a contrast, and folders of it: `T1`, `FLAIR`."""
    return NAMES[contrast].replace("w", "")


def arrow(direction: str) -> str:
    """What titles call a direction: of `t1_to_flair` it is `T1 → FLAIR`."""
    return " → ".join(map(short, direction.split("_to_")))


def check_simulable(contrasts: "Contrasts", expected: str, body_part: str = HEAD) -> None:
    """Raises InputError, saying what is expected, where one cannot be simulated to learn from."""
    if body_part == OTHER:
        raise InputError(f"Only {HEAD} and {SPINE} can be simulated: expected {expected}.")
    simulable = (*SIMULABLE, "ct") if body_part == SPINE else SIMULABLE
    if others := [SPOKEN[contrast] for contrast in contrasts if contrast not in simulable]:
        raise InputError(f"No {' and no '.join(others)} can be simulated: expected {expected}.")


class Contrasts(NamedTuple):
    """The two contrasts of a run, keys of NAMES: x is the source, y the target."""

    x: str
    y: str

    @classmethod
    def of(cls, direction: str) -> "Contrasts":
        """Those of `t1_to_flair`."""
        return cls(*direction.split("_to_"))

    @property
    def directions(self) -> tuple[str, str]:
        """There and back: `t1_to_flair`, `flair_to_t1`."""
        return f"{self.x}_to_{self.y}", f"{self.y}_to_{self.x}"

    @property
    def labels(self) -> dict[str, str]:
        return {side: short(contrast) for side, contrast in self._asdict().items()}

    def named(self, text: str) -> str:
        """A name of x and y as files have it: of `fake_y` it is `fake_flair`."""
        return re.sub("(?<![a-z])[xy](?![a-z])", lambda side: getattr(self, side[0]), text)


T1_T2 = Contrasts("t1", "t2")
"""Those of what ships, of the published data set and of all versions up to 0.1."""
