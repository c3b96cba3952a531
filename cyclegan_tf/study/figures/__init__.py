"""Every picture that the notebooks show, from arrays and run folders.

All images are drawn on one grey scale, -1 black and 1 white, the way up that the files have. A
picture of a run is written into its `figures/` as PNG and returned; the others are for sliders, and
are returned alone.
"""

from .dataset import round_trip, samples, spin_echo, spin_echoes
from .learning import animation, cycles, epochs, learning_rates, loss_curves, snapshot, tried
from .networks import draw_networks
from .scores import fidelity, maps, per_slice
from .sliders import dials, three_planes, watch, wipe
