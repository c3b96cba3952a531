"""How right a synthetic image is: arrays in, numbers out.

Sets of images are (N, H, W, 1) in [-1, 1], as everywhere in this package. A measure takes one
slice, (H, W) in [0, 1] as `unit` returns it, another to compare it with, and a boolean mask of the
pixels that count (all by default).
"""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import scipy  # its stats takes a second to load, which it does where it is used
from skimage import exposure, filters, morphology
from skimage import metrics as similarity

BINS = 48
SAME_ANATOMY = 0.05
MOST_COMPARISONS = 250_000


def unit(images: np.ndarray) -> np.ndarray:
    """(N, H, W, 1) in [-1, 1] to (N, H, W) in [0, 1], float64."""
    return (np.asarray(images, np.float64)[..., 0] + 1) / 2


def grey_levels(images: np.ndarray) -> np.ndarray:
    """(N, H, W, 1) in [-1, 1] to 8-bit grey, uint8 (N, H, W)."""
    return np.rint(255 * unit(images)).clip(0, 255).astype(np.uint8)


def find_pairs(x_images: np.ndarray, y_images: np.ndarray) -> np.ndarray:
    """(P, 2) indices of slices of one anatomy in the sets (N, H, W, 1) and (M, H, W, 1).

    By mutual information of 8-bit grey levels in 48 equal bins (Maes et al., IEEE Trans Med Imaging
    16:187, 1997). A pair must exceed every rival by 5 % of its own information. Rivals are the
    other images y for its x, the other images x for its y, and the pair itself with y moved by two
    pixels, up, down, left or right: slices of different heads lose nothing by that. Measured: true
    pairs in stacks 1 mm apart exceed by 24-30 %, with 5 % Rician noise by 6-8 %; slices of
    different heads by less than 2 %. Where a partner is missing, the partner's neighbour may
    be taken for it. Sets of different image sizes have no pairs; in sets of more than 250,000
    combinations (about a minute) none are looked for, with a warning.
    """
    found = []
    if len(x_images) * len(y_images) > MOST_COMPARISONS:
        sizes = f"{len(x_images)} x {len(y_images)}"
        warnings.warn(f"no pairs looked for: {sizes} is over {MOST_COMPARISONS}", stacklevel=2)
    elif len(x_images) and len(y_images) and x_images.shape[1:] == y_images.shape[1:]:
        x, y = (grey_levels(one).astype(int) * BINS // 256 for one in (x_images, y_images))
        information = np.stack([_mutual_information(image, y) for image in x])
        for i, j in enumerate(information.argmax(1)):
            moved = [np.roll(y[j], pixels, axis) for pixels in (-2, 2) for axis in (0, 1)]
            others = np.delete(information[i], j), np.delete(information[:, j], i)
            rivals = np.concatenate([*others, _mutual_information(x[i], moved)])
            if information[i, j] - rivals.max() > SAME_ANATOMY * information[i, j]:
                found.append((i, j))
    return np.array(found, int).reshape(-1, 2)


def _mutual_information(image: np.ndarray, others: Sequence[np.ndarray]) -> np.ndarray:
    """H(A) + H(B) - H(A, B) in nats, of an image of bin numbers with each of the others."""
    joint = np.stack([np.bincount((BINS * image + x).ravel(), minlength=BINS**2) for x in others])
    square = joint.reshape(-1, BINS, BINS)  # (M, BINS²) -> (M, BINS, BINS)
    one, other = (_entropy(square.sum(axis)) for axis in (2, 1))
    # Rounded, so that a blank image shares exactly nothing with any other.
    return np.round(one + other - _entropy(joint), 9)


def _entropy(counts: np.ndarray) -> np.ndarray:
    """H in nats of each row of counts; as `scipy.stats.entropy`, which takes twice the time."""
    return scipy.special.entr(counts / counts.sum(axis=1, keepdims=True)).sum(axis=1)


def psnr(image: np.ndarray, truth: np.ndarray, mask=...) -> float:
    """Peak signal-to-noise ratio in dB: -10 log10 of the mean squared error, the peak being 1."""
    return similarity.peak_signal_noise_ratio(truth[mask], image[mask], data_range=1)


def ssim(image: np.ndarray, truth: np.ndarray, mask=..., channel_axis: int | None = None) -> float:
    """Structural similarity (Wang et al., IEEE Trans Image Process 13:600, 2004).

    scikit-image's with its defaults: uniform 7 x 7 window, sample covariance, K1 = 0.01, K2 = 0.03,
    data range 1, mean without the outermost 3 pixels. With a mask the mean of the map within it. Of
    volumes `channel_axis` is that along which slices lie, each of which is compared by itself.
    """
    options = {"data_range": 1, "channel_axis": channel_axis, "full": True}
    mean, every = similarity.structural_similarity(truth, image, **options)
    return mean if mask is ... else every[mask].mean()


def mae(image: np.ndarray, truth: np.ndarray, mask=...) -> float:
    """Mean absolute error."""
    return np.abs(image[mask] - truth[mask]).mean()


def nmi(image: np.ndarray, truth: np.ndarray, mask=...) -> float:
    """(H(A) + H(B)) / H(A, B), 100 bins (Studholme et al., Pattern Recognition 32:71, 1999)."""
    return similarity.normalized_mutual_information(truth[mask], image[mask], bins=100)


FIDELITY = {"psnr": psnr, "ssim": ssim, "mae": mae, "nmi": nmi}


def gradient_correlation(image: np.ndarray, source: np.ndarray, mask=...) -> float:
    """Pearson's, of Sobel gradient magnitudes: are the edges where the source has them?"""
    return np.corrcoef(*(filters.sobel(x)[mask].ravel() for x in (image, source)))[0, 1]


def histogram_distance(images: np.ndarray, target: np.ndarray) -> float:
    """Wasserstein-1 distance of the grey levels of two sets (N, H, W, 1), on the scale [0, 1]."""
    levels = np.arange(256) / 255
    counts = (np.bincount(grey_levels(x).ravel(), minlength=256) for x in (images, target))
    return scipy.stats.wasserstein_distance(levels, levels, *counts)


def rank_correlation(trust_map: np.ndarray, error: np.ndarray, mask=...) -> float:
    """Spearman's, of a trust map (high where the image is likely wrong) and the absolute error."""
    return scipy.stats.spearmanr(trust_map[mask].ravel(), error[mask].ravel()).statistic


def least_trusted_ratio(trust_map: np.ndarray, error: np.ndarray, mask=...) -> float:
    """Mean error where the trust map is highest (a tenth of the pixels) over that in the rest."""
    ranked = error[mask].ravel()[np.argsort(trust_map[mask].ravel(), kind="stable")]
    rest, least_trusted = np.split(ranked, [len(ranked) * 9 // 10])
    return least_trusted.mean() / rest.mean()


def head_mask(image: np.ndarray) -> np.ndarray:
    """The head in an axial slice: what is above Li's threshold, its convex hull.

    Minimum cross-entropy (Li & Tam, Pattern Recognition Letters 19:771, 1998); an opening removes
    specks of noise. A hull, because the dark skull is open where the image's edge cuts the head.
    """
    bright = scipy.ndimage.binary_opening(image > filters.threshold_li(image))
    return morphology.convex_hull_image(bright) if bright.any() else bright


def brain_mask(t1: np.ndarray) -> np.ndarray:
    """The brain in a T1w slice of a head, or of a bare brain; 1 mm pixels, little noise.

    Above Otsu's threshold, bridges under 5 pixels cut, and connected to what lies deeper than a
    third of the greatest depth in the head (scalp and muscle do not); its sulci closed (radius 5),
    its ventricles filled. Conservative: CSF outside the gyri is left out.
    """
    depth = scipy.ndimage.distance_transform_edt(np.pad(head_mask(t1), 1))[1:-1, 1:-1]
    bright = morphology.opening(t1 > filters.threshold_otsu(t1), morphology.disk(2))
    brain = morphology.reconstruction(bright & (depth > depth.max() / 3), bright) > 0
    return scipy.ndimage.binary_fill_holes(morphology.closing(brain, morphology.disk(5)))


def tissues(t1_images: np.ndarray, t2_images: np.ndarray) -> np.ndarray:
    """Labels of true pairs, uint8 (N, H, W): 0 outside the brain, 1 CSF, 2 grey, 3 white matter.

    k-means with three clusters of the two intensities of every pixel in `brain_mask`, all slices
    together; the clusters are named by their T2w brightness.
    """
    from sklearn.cluster import KMeans  # here, as it takes a second that no training needs

    t1, t2 = unit(t1_images), unit(t2_images)
    brain = np.stack([brain_mask(image) for image in t1])
    labels = np.zeros(brain.shape, np.uint8)
    if brain.any():
        pixels = np.stack([t1[brain], t2[brain]], axis=1)  # two of (N, H, W) -> (pixels, 2)
        model = KMeans(3, n_init=3, random_state=0).fit(pixels[:: len(pixels) // 50_000 + 1])
        darkness = np.argsort(np.argsort(-model.cluster_centers_[:, 1]))
        labels[brain] = 1 + darkness[model.predict(pixels)]
    return labels


def tissue_contrast(image: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Differences of the tissues' means in a slice, CSF - GM and GM - WM; NaN where one is absent.

    Both are positive in T2w images (CSF > GM > WM), both negative in T1w images.
    """
    csf, grey, white = (
        image[labels == tissue].mean() if tissue in labels else np.nan for tissue in (1, 2, 3)
    )
    return csf - grey, grey - white


def histogram_matched(images: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Each image of a set given the grey-level histogram of the whole target set."""
    levels = grey_levels(images)
    reference = grey_levels(target).reshape(-1, levels.shape[2])  # (M, H, W) -> (M H, W)
    matched = np.stack([exposure.match_histograms(image, reference) for image in levels])
    return (matched[..., None] / 127.5 - 1).astype(np.float32)  # (N, H, W) -> (N, H, W, 1)


def lookup_table(source: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The best function of grey level alone: mean truth of each 8-bit source level, (256,)."""
    levels = grey_levels(source)
    found = np.unique(levels)
    means = scipy.ndimage.mean(truth[..., 0], levels, found)
    return np.interp(np.arange(256), found, means).astype(np.float32)


def neighbours(numbers: Sequence[int]) -> np.ndarray:
    """For each slice the index of the one nearest in number, the next before the previous."""
    step = -np.subtract.outer(numbers, numbers).astype(float)
    np.fill_diagonal(step, np.inf)
    return np.abs(step - 0.25).argmin(1)


def baselines(
    sources: np.ndarray,
    targets: np.ndarray,
    pairs: tuple[np.ndarray, np.ndarray],
    target_numbers: Sequence[int],
    chosen: np.ndarray | slice = slice(None),
) -> dict[str, np.ndarray]:
    """Images to `measure` beside the synthetic ones, for the chosen ones of all true pairs.

    `pairs` are indices into the whole sets, `target_numbers` the slice numbers of all targets.
    "lookup_table" is an oracle: it is fitted on all the pairs, whichever are chosen.
    """
    source, truth = (index[chosen] for index in pairs)
    table = lookup_table(sources[pairs[0]], targets[pairs[1]])
    return {
        "source": sources[source],
        "histogram_matched": histogram_matched(sources[source], targets),
        "neighbour": targets[neighbours(target_numbers)[truth]],
        "lookup_table": table[grey_levels(sources[source])][..., None],
    }


def measure(
    source: np.ndarray,
    synthetic: np.ndarray,
    truth: np.ndarray | None = None,
    *,
    target: np.ndarray | None = None,
    heads: Sequence[np.ndarray] | None = None,
    labels: np.ndarray | None = None,
    cycled: np.ndarray | None = None,
    trust_maps: np.ndarray | None = None,
    names: Sequence[str] | None = None,
) -> dict:
    """Every measure that the given sets allow: {"names": [...], measure: `summary`, ...}.

    Sets have the shape of `source`; labels (0 to 3 as `tissues`) and trust maps are (N, H, W), and
    so are `heads`, masks, unless given those of `head_mask` in the source.
    Always: "gradient_correlation" with the source, inside its head.
    `target`, real images of the wanted contrast: "histogram_distance" (its "mean" alone).
    `cycled`, the source translated there and back: "cycle_error", its MAE.
    `truth`: "psnr", "ssim", "mae", "nmi", and inside the head "psnr_head" ...
    with `labels`: inside the brain "psnr_brain" ...; "csf_gm" and "gm_wm" as `tissue_contrast`,
    "csf_gm_ratio" and "gm_wm_ratio" to the truth's, "order_kept" 1 where both are positive, else 0.
    with `trust_maps`: "trust_rank_correlation", "trust_least_trusted_ratio", inside the head, and
    "gradient_rank_correlation", what the source's gradient magnitude achieves as a trust map.
    """
    source, image = unit(source), unit(synthetic)
    whole, heads = [...] * len(source), heads or [head_mask(x) for x in source]
    columns = {"gradient_correlation": each_slice(gradient_correlation, image, source, heads)}
    if cycled is not None:
        columns["cycle_error"] = each_slice(mae, unit(cycled), source, whole)
    if truth is not None:
        truth = unit(truth)
        regions = {"": whole, "_head": heads} | ({} if labels is None else {"_brain": labels > 0})
        for region, masks in regions.items():
            for name, function in FIDELITY.items():
                columns[name + region] = each_slice(function, image, truth, masks)
        if labels is not None:
            contrast, true = (
                np.array([*map(tissue_contrast, x, labels)]).T for x in (image, truth)
            )
            ratio = contrast / true
            columns["csf_gm"], columns["gm_wm"] = contrast
            columns["csf_gm_ratio"], columns["gm_wm_ratio"] = ratio
            columns["order_kept"] = np.where(np.isnan(ratio).any(0), np.nan, (ratio > 0).all(0))
        if trust_maps is not None:
            error, steepness = np.abs(image - truth), map(filters.sobel, source)
            for function in (rank_correlation, least_trusted_ratio):
                values = each_slice(function, trust_maps, error, heads)
                columns[f"trust_{function.__name__}"] = values
            values = each_slice(rank_correlation, steepness, error, heads)
            columns["gradient_rank_correlation"] = values
    result = {"names": [*(names or map(str, range(len(source))))]}
    result |= {name: summary(values) for name, values in columns.items()}
    if target is not None:
        result["histogram_distance"] = {"mean": histogram_distance(synthetic, target)}
    return result


def each_slice(measure: Callable, images, references, masks) -> list[float]:
    """The measure of each slice, not finite where its mask is empty or an image is constant."""
    slices = zip(images, references, masks, strict=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return [measure(x, y, m) if m is ... or m.any() else np.nan for x, y, m in slices]


def summary(values: Sequence[float | None]) -> dict:
    """{"mean", "std" (population's), "min", "max", "per_slice"}, ready for JSON.

    None stands for what is not finite (PSNR of identical images, an absent tissue), uncounted; it
    may be among the values, too.
    """
    finite = [float(x) if np.isfinite(x) else None for x in np.array(values, float)]
    known = [value for value in finite if value is not None]
    statistics = {"mean": np.mean, "std": np.std, "min": np.min, "max": np.max}
    result = {name: float(f(known)) if known else None for name, f in statistics.items()}
    return result | {"per_slice": finite}
