"""What a synthetic T2 is good for: tissues segmented, and a scan registered, with it or the truth.

The same code takes the synthetic T2, the true one, and the best table of the T1, which has learned
nothing but is told the truth.
"""

from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk
from scipy import ndimage
from tqdm.auto import tqdm

from ..contrasts import T1_T2, Contrasts, check_simulable, short
from ..simulation.people import Person, find_anatomies, read_anatomy
from ..simulation.scanners import Scanner
from .calibration import HELD_OUT
from .report import markdown_table

TISSUES = ("fluid", "grey", "white")  # the darkest in T1 first
VOXELS = 40_000  # to which a mixture is fitted
TURN, SHIFT = (0.05, -0.04, 0.07), (5.0, -4.0, 3.0)  # of the scan to be registered: radians, mm
COARSE = 2.0  # mm: how finely it shows the head
NOISE = 0.05  # of the greatest value in its brain
THICKNESS = 3.0  # mm, of simulated slices


def measure_use(
    t1: np.ndarray, seconds: dict[str, np.ndarray], brain: np.ndarray, sizes: np.ndarray
) -> dict[str, dict]:
    """How near each second channel comes to "truth", which is one of `seconds`.

    All are volumes (X, Y, Z) of voxels of `sizes` mm, in any unit, `brain` booleans. Returns by
    second channel "ml" of each of TISSUES, their "dice" with those found by the truth, and
    "registration_mm", how far off the voxels of the brain come to lie in the mean: see `register`.
    """
    tissues = {name: segment(t1, second, brain) for name, second in seconds.items()}
    true, found = tissues["truth"], {}
    for name, own in tissues.items():
        found[name] = {"ml": {}, "dice": {}}
        for number, tissue in enumerate(TISSUES):
            one, other = own == number, true == number
            found[name]["ml"][tissue] = float(one.sum() * np.prod(sizes) / 1000)
            overlap = 2 * (one & other).sum() / max(one.sum() + other.sum(), 1)
            found[name]["dice"][tissue] = float(overlap)
        found[name]["registration_mm"] = register(seconds[name], seconds["truth"], brain, sizes)
    return found


def segment(t1: np.ndarray, second: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """The number in TISSUES of each voxel of the brain, -1 elsewhere: a mixture of Gaussians.

    It begins with the darkest fifth of the T1, what is brighter than its half, and what is between;
    in each the two channels vary independently, or else what it finds depends on chance.
    """
    from sklearn.mixture import GaussianMixture

    points = np.stack([t1[brain], second[brain]], axis=1)  # (N, 2)
    points = (points - points.mean(axis=0)) / (points.std(axis=0) + 1e-9)
    chosen = np.random.default_rng(0).permutation(points)[:VOXELS]
    level = np.digitize(chosen[:, 0], np.quantile(chosen[:, 0], [0.2, 0.5]))
    means = np.stack([chosen[level == number].mean(axis=0) for number in range(3)])
    mixture = GaussianMixture(3, covariance_type="diag", means_init=means, random_state=0)
    mixture.fit(chosen)
    order = np.argsort(np.argsort(mixture.means_[:, 0]))  # the rank of each
    labels = np.full(brain.shape, -1)
    labels[brain] = order[mixture.predict(points)]
    return labels


def register(fixed: np.ndarray, truth: np.ndarray, brain: np.ndarray, sizes: np.ndarray) -> float:
    """How far, in mm, a scan is off in the mean over the brain once it is registered to `fixed`.

    The scan is the true T2 as one of diffusion shows it, squared, coarse and noisy, and moved by
    TURN and SHIFT; it is registered rigidly, by `align`.
    """
    rng, middle = np.random.default_rng(0), (ndimage.center_of_mass(brain) * sizes).tolist()
    scan = ndimage.gaussian_filter(np.clip(truth, 0, None) ** 2, COARSE / 2.355 / sizes)
    scan = scan + NOISE * scan[brain].max() * rng.standard_normal(scan.shape)
    known = sitk.Euler3DTransform(middle, *TURN, SHIFT)
    moving = sitk.Resample(_image(scan, sizes), known.GetInverse(), sitk.sitkLinear, 0.0)
    start = sitk.Euler3DTransform(middle)
    found = align(_image(fixed, sizes), moving, _image(brain, sizes), start)
    places = rng.permutation(np.argwhere(brain))[:1000] * sizes
    off = [np.subtract(found.TransformPoint(p), known.TransformPoint(p)) for p in places.tolist()]
    return float(np.linalg.norm(off, axis=1).mean())


def find_offset(x: np.ndarray, y: np.ndarray, head: np.ndarray, sizes: np.ndarray) -> float:
    """How far, in mm, y has to be shifted to lie on x inside the head, by `align`.

    All are (X, Y, Z), of voxels of `sizes` mm; `head` is boolean.
    """
    images = (_image(volume, sizes) for volume in (x, y, head))
    return float(np.linalg.norm(align(*images, sitk.TranslationTransform(3)).GetParameters()))


def align(
    fixed: sitk.Image, moving: sitk.Image, mask: sitk.Image, start: sitk.Transform
) -> sitk.Transform:
    """The transform, of the kind of `start`, that lays `moving` on `fixed` inside the mask.

    By mutual information (Mattes et al., IEEE Trans Med Imaging 22:120, 2003).
    """
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)  # several add up in another order every time
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricFixedMask(sitk.Cast(mask, sitk.sitkUInt8))
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(0.2, seed=1)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 100)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2])
    method.SetSmoothingSigmasPerLevel([2, 1])
    method.SetInitialTransform(start, False)
    return method.Execute(fixed, moving)


def _image(volume: np.ndarray, sizes: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(volume.T.astype(np.float32))  # (X, Y, Z) -> (Z, Y, X)
    image.SetSpacing(sizes.tolist())
    return image


def report_use(heads: dict[str, dict[str, dict]]) -> str:
    """Markdown of what `measure_use` returned of each head, beside the best table of the T1."""

    def joined(values: dict[str, float], form: str) -> str:
        return " / ".join(format(value, form) for value in values.values())

    tissues = " / ".join(TISSUES)
    table = [["head", f"Dice, {tissues}: this T2", "best table of T1", f"ml, {tissues}: true T2"]]
    table[0] += ["this T2", "best table of T1", "registered to this T2, mm off", "best table"]
    table[0] += ["true T2"]
    for name, use in heads.items():
        made, learned, true = (use[channel] for channel in ("synthetic", "t1_table", "truth"))
        dice = [joined(one["dice"], ".3f") for one in (made, learned)]
        volumes = [joined(one["ml"], ".0f") for one in (true, made, learned)]
        off = [f"{one['registration_mm']:.2f}" for one in (made, learned, true)]
        table.append([name, *dice, *volumes, *off])
    return f"**Used downstream**, as the true T2 would be\n\n{markdown_table(table)}"


def write_heads(
    anatomies: str | Path,
    folder: str | Path,
    contrasts: Contrasts = T1_T2,
    maps: slice = slice(-HELD_OUT, None),
    site: int | None = None,
) -> None:
    """Simulated heads around label maps, those held out, as `pairs.find_heads` takes them.

    Each has a scanner of its own, or all have the one that the seed `site` draws; axial slices
    THICKNESS thick, and fields that were corrected.
    Raises InputError as `find_anatomies`, and for contrasts that are not simulated.
    """
    check_simulable(contrasts, "a model of others")
    names = *map(short, contrasts), "BRAIN"
    for number, path in enumerate(tqdm(find_anatomies(anatomies)[maps], "Simulated heads")):
        rng = np.random.default_rng([21, number])
        drawn = rng if site is None else np.random.default_rng(site)
        scanner, anatomy = Scanner(drawn, contrasts), read_anatomy(path)
        scanner.rng = rng
        scanner.bias = dict.fromkeys(contrasts, 0.0)
        person, height = Person(anatomy, rng), float(anatomy.high[2] - anatomy.low[2])
        count = round(height / THICKNESS)
        rows = []
        for place in (np.arange(count) + 0.5) / count:
            parts, brain = person.section("axial", place, THICKNESS, np.zeros(2), rng)
            kept, parts = scanner.kept(brain, "axial"), scanner.left(parts)
            scans = [scanner.scan(parts, kept, contrast) for contrast in contrasts]
            rows.append([*(1000 * scan for scan in scans), (brain > 0.5) * kept])
        own = Path(folder) / path.name.split(".")[0]
        own.mkdir(parents=True, exist_ok=True)
        for name, slices in zip(names, zip(*rows, strict=True), strict=True):
            voxels = np.stack(slices)[:, ::-1].transpose(2, 1, 0)  # (S, H, W) -> (X, Y, Z)
            affine = np.diag([1, 1, height / count, 1])
            nibabel.save(nibabel.Nifti1Image(np.float32(voxels), affine), own / f"{name}.nii.gz")
