"""Heads of people in many scanners: label maps, protocols, and what a generator is to draw."""

import nibabel
import numpy as np
import pytest

from cyclegan_tf import InputError
from cyclegan_tf.__main__ import main
from cyclegan_tf.contrasts import Contrasts
from cyclegan_tf.presets import PLANES
from cyclegan_tf.simulation import people, physics, protocols, scanners


@pytest.fixture(scope="module")
def anatomies(tmp_path_factory):
    """A folder with one label map: a ball of a head with shells, ventricles and a speck outside."""
    x, y, z = np.indices((120, 130, 120)) - np.array([60, 65, 60])[:, None, None, None]
    radius = np.sqrt(x**2 + (y / 1.1) ** 2 + z**2)
    labels = np.zeros(radius.shape, np.int16)
    for outer, label in ((54, 511), (51, 507), (46, 515), (42, 24), (38, 3), (34, 2), (12, 4)):
        labels[radius < outer] = label
    labels[(x > 0) & (labels == 2)] = 41
    labels[2, 2, 2] = 2
    folder = tmp_path_factory.mktemp("anatomies")
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), folder / "ball.nii.gz")
    return folder


@pytest.fixture(scope="module")
def scans(anatomies):
    return scanners.simulate_scans(12, 3, str(anatomies), slices_a_head=2)


def test_inversion_recovery_nulls_what_has_recovered_half_way():
    # TI = T1 ln(2 / (1 + exp(-TR / T1))) gives no signal; long TR: T1 ln 2.
    fluid = physics.Tissue(4000, 1500, 60, 1.0)
    null = 4000 * np.log(2 / (1 + np.exp(-2000 / 4000)))
    nulled = physics.Sequence(tr=2000, te=3, ti=null)
    assert physics.inversion_recovery_signal(fluid, nulled) == pytest.approx(0, abs=1e-9)
    # 1 - 2 exp(-900/850) / (1 + exp(-2000/850)) = 0.366517 with exp(-3/45) = 0.935507 and PD 0.7
    white = physics.Tissue(850, 70, 45, 0.7)
    signal = physics.inversion_recovery_signal(white, physics.Sequence(tr=2000, te=3, ti=900))
    assert signal == pytest.approx(0.7 * (1 - 2 * 0.346861 / 1.095084) * 0.935507, rel=1e-3)


def test_a_label_map_is_cut_to_its_head_and_a_speck_outside_is_left_out(anatomies):
    anatomy = people.read_anatomy(anatomies / "ball.nii.gz")
    assert max(anatomy.maps.shape[1:]) < 130
    assert np.allclose(anatomy.maps.astype(float).sum(axis=0), 1, atol=0.01)
    assert np.allclose(anatomy.high - anatomy.low, [70, 77, 70], atol=3)


def test_a_file_that_is_no_label_map_is_refused_in_a_sentence(tmp_path):
    path = tmp_path / "t1.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.ones((20, 20, 20), np.int16), np.eye(4)), path)
    with pytest.raises(InputError, match=r"t1.nii.gz is no label map: expected"):
        people.read_anatomy(path)
    path.write_bytes(b"no volume")
    with pytest.raises(InputError, match=r"t1.nii.gz cannot be read as a label map"):
        people.read_anatomy(path)
    labels = np.pad(np.full((2, 2, 1), [[[2]], [[3]]], np.int16), 4)
    nibabel.save(nibabel.Nifti1Image(labels, np.diag([0.5, 1, 1, 1])), path)
    with pytest.raises(InputError, match=r"t1.nii.gz has voxels of 0.5, 1 mm: expected 1"):
        people.read_anatomy(path)
    with pytest.raises(InputError, match="holds no label maps"):
        people.find_anatomies(tmp_path / "absent")


def test_what_is_not_simulated_is_refused_in_a_sentence():
    with pytest.raises(InputError, match="No CT can be simulated: expected others"):
        scanners.simulate_scans(1, 1, contrasts=Contrasts("t1", "ct"))


@pytest.mark.parametrize("model, least", [("gate", 5), ("shipped", 2)])
def test_one_label_map_is_too_few_to_calibrate_by(model, least, anatomies, capsys):
    assert main(["calibrate", model, "--anatomies", str(anatomies)]) == 2
    assert f"holds 1 label maps: expected {least} or more (NIfTI)." in capsys.readouterr().err


def test_lesions_take_the_place_of_solid_tissue_and_of_nothing_else(anatomies):
    rng = np.random.default_rng(2)
    person = people.Person(people.read_anatomy(anatomies / "ball.nii.gz"), rng)
    person.lesions, changed = [], []
    parts, _ = person.section("axial", 0.5, 1.0, np.zeros(2), rng)
    for _ in range(20):
        ill = people.with_lesions(parts, rng)
        np.testing.assert_allclose(sum(ill.values()), sum(parts.values()), atol=1e-5)
        for name in {*parts} - {*people.SOLID, "csf"}:
            np.testing.assert_array_equal(ill[name], parts[name])
        grown = sum(ill.get(name, 0) - parts.get(name, 0) for name in ("lesion", "csf"))
        assert grown.min() > -1e-6
        changed.append((grown > 0.1).sum())
    assert min(changed) > 0 and np.ptp(changed) > 500  # mm²: none is like another
    nothing = {name: 0 * part for name, part in parts.items()}
    assert people.with_lesions(nothing, rng) is nothing  # where there is no white matter


def test_the_same_heads_are_seen_by_other_scanners_with_each_seed(anatomies):
    heads = [*scanners.cut_heads(6, 4, str(anatomies), slices_a_head=2)]
    first, again, other = (scanners.scan_heads(heads, [4, view]) for view in (0, 0, 1))
    for images, same, others in zip(first, again, other, strict=True):
        assert images.shape == (6, 217, 181, 1)
        np.testing.assert_array_equal(images, same)
        assert all((image != seen).any() for image, seen in zip(images, others, strict=True))
    # A scanner may leave out skull or face; of what both show the same is wanted, as fine or not.
    both = np.minimum(first.wanted_y, other.wanted_y) > -0.9
    assert np.median(np.abs(first.wanted_y - other.wanted_y)[both]) < 0.01
    assert np.median(np.abs(first.wanted_y - other.wanted_y[::-1])[both]) > 0.1  # of others


def test_what_a_scanner_is_has_nothing_to_do_with_who_is_scanned(anatomies, monkeypatch):
    first = {"cut": [], "scanned": []}

    def noting(kind, draw):
        def wrapped(*args):
            (rng,) = (one for one in args if isinstance(one, np.random.Generator))
            first[kind].append(str(rng.bit_generator.state))
            return draw(*args)

        return wrapped

    monkeypatch.setattr(scanners, "_cut_head", noting("cut", scanners._cut_head))
    monkeypatch.setattr(scanners, "_scan_head", noting("scanned", scanners._scan_head))
    for seed in (0, 1):
        scanners.simulate_scans(4, seed, str(anatomies), slices_a_head=1)
    states = first["cut"] + first["scanned"]
    assert len(first["cut"]) == len(first["scanned"]) and len({*states}) == len(states) >= 16


def test_who_is_ill_has_lesions_in_most_slices(anatomies):
    heads = [*scanners.cut_heads(12, 5, str(anatomies), slices_a_head=1)]
    # The first slice of everyone: but for lesions the same, as chance has not yet had its part.
    well, ill = (scanners.scan_heads(heads, [5], ill=share).wanted_y for share in (0.0, 1.0))
    brighter = ((ill - well) > 0.2).sum(axis=(1, 2, 3))
    assert 12 > (brighter > 0).sum() > 6


@pytest.mark.parametrize("plane", PLANES)
def test_the_shares_of_tissues_are_never_more_than_the_whole(anatomies, plane):
    rng = np.random.default_rng(1)
    person = people.Person(people.read_anatomy(anatomies / "ball.nii.gz"), rng)
    parts, brain = person.section(plane, 0.5, 3.0, np.zeros(2), rng)
    total = sum(parts.values())
    assert total.min() > -1e-5 and total.max() < 1 + 1e-5
    assert brain.max() == pytest.approx(1, abs=0.01) and brain.min() == 0
    inside = brain > 0.9
    assert parts["white"][inside].mean() > 0.3 and parts["csf"][inside].mean() > 0.02


def test_slices_have_the_promised_shape_and_range_and_repeat_bit_for_bit(anatomies, scans):
    again = scanners.simulate_scans(4, 3, str(anatomies), slices_a_head=2)
    for images, same in zip(scans, again, strict=True):
        assert images.shape == (12, 217, 181, 1) and images.dtype == np.float32
        assert images.min() >= -1 and images.max() <= 1.1
        assert np.array_equal(images[:4], same)


def test_what_is_wanted_has_each_tissue_at_its_own_grey_and_the_scans_brightest_at_its_place():
    ones, zeros = np.ones((217, 181), np.float32), np.zeros((217, 181), np.float32)
    grey = {}
    for tissue in ("csf", "grey", "white"):
        parts = {name: ones if name == tissue else zeros for name in ("csf", "grey", "white")}
        grey[tissue] = [protocols.wanted(parts, contrast)[100, 90] for contrast in ("t1", "t2")]
    t1, t2 = np.transpose([grey[tissue] for tissue in ("csf", "grey", "white")])
    assert t1[0] < t1[1] < t1[2] == pytest.approx(1)
    assert t2[2] < t2[1] < t2[0] == pytest.approx(1)


def scanner(**settings):
    """A scanner without anything that a patient's session draws at random, but for settings."""
    made = scanners.Scanner(np.random.default_rng(1))
    plain = {"resolved": 1.0, "moved": np.zeros(2), "floor": 0, "gamma": 1, "noisy": False}
    plain |= {name: dict.fromkeys(("t1", "t2"), 0.0) for name in ("sharpness", "noise", "bias")}
    for name, value in (plain | {"cropped": np.zeros(4, int)} | settings).items():
        setattr(made, name, value)
    return made


def test_extraction_leaves_fluid_around_the_brain_and_nothing_beyond_its_mask(anatomies):
    rng = np.random.default_rng(1)
    person = people.Person(people.read_anatomy(anatomies / "ball.nii.gz"), rng)
    whole, brain = person.section("axial", 0.5, 1.0, np.zeros(2), rng)
    alone = scanners.brain_alone(whole)
    assert np.allclose(sum(alone.values()), 1, atol=1e-4)
    bone = sum(whole.values()) < 0.1
    assert alone["sulcal"][bone].mean() > 0.9
    for name in ("white", "grey", "csf"):
        assert np.array_equal(alone[name], whole[name])
    kept = scanner(stripped=True, hull=0.5, edge=60, ragged=0.0).kept(brain, "axial")
    assert (kept[brain > 0.55] == 1).all() and (kept[brain < 0.45] == 0).all()


def test_a_face_is_removed_in_front_of_the_brain_and_nothing_of_the_brain():
    rows, columns = np.indices((217, 181))
    brain = 1.0 * (np.hypot(rows - 108, columns - 90) < 70)
    kept = scanner(stripped=False, faceless=True).kept(brain, "axial")
    assert not kept[:30].any() and kept[brain > 0].all() and kept[150:].all()


def test_what_lies_outside_the_field_of_view_is_black():
    cropped = scanner(stripped=False, faceless=False, cropped=np.array([10, 0, 20, 5]))
    kept = cropped.kept(np.ones((217, 181)), "axial")
    assert kept.sum() == (217 - 10) * (181 - 25) and kept[10:, 20:176].all()


def test_motion_of_the_whole_read_out_moves_the_image_and_an_early_end_rings():
    image = np.zeros((217, 181))
    image[80:120, 60:100] = 1
    moved = scanner(moved=np.array([0.0, 3.0]), moment=-2.0)._read_out(image)
    assert np.allclose(np.roll(image, -3, axis=1), moved, atol=1e-6)
    ringing = scanner(resolved=0.6)._read_out(image)
    assert ringing[100, 80] == pytest.approx(1, abs=0.05) and ringing.max() > 1.05
    assert np.array_equal(scanner()._read_out(image), image)


def test_a_sharpened_edge_is_steeper_and_a_flat_tissue_stays_as_it_is():
    image = np.zeros((217, 181))
    image[:, 90:] = 1
    blur = dict.fromkeys(("t1", "t2"), 0.8)
    plain, sharp = (
        scanner(blur=blur, sharpness={"t1": by}).resolve(image, "t1")[100] for by in (0.0, 2.0)
    )
    assert np.diff(sharp).max() > 1.2 * np.diff(plain).max()
    assert np.allclose(plain[[20, 160]], [0, 1]) and np.allclose(sharp[[20, 160]], [0, 1])


def test_a_stripped_heads_air_is_black_in_what_is_wanted_as_in_the_scan(scans):
    stripped = (scans.x == -1).mean(axis=(1, 2, 3)) > 0.6
    assert stripped.any()
    for images in (scans.wanted_x, scans.wanted_y):
        assert (images[stripped][scans.x[stripped] == -1] < -0.9).mean() > 0.95


def test_protocols_give_each_contrast_its_order_of_tissues_in_every_scanner():
    for seed in range(200):
        rng = np.random.default_rng(seed)
        tissues = (protocols.IN_VIVO, protocols.IN_VIVO_3T)[seed % 2]
        for contrast, draw in protocols.PROTOCOLS.items():
            signal, sequence = draw(rng, tissues)
            white, grey, fluid = (signal(tissues[x], sequence) for x in ("white", "grey", "csf"))
            right = {
                "t1": white > grey > fluid,
                "t2": fluid > grey > white,
                "pd": abs(white - grey) < 0.35 * grey,
                "flair": fluid < min(grey, white),
            }
            assert right[contrast], (seed, contrast, sequence)


def test_the_average_brain_serves_where_no_label_maps_are_given():
    scans = scanners.simulate_scans(4, 1, slices_a_head=2)
    assert all(images.shape == (4, 217, 181, 1) for images in scans)
    assert all(np.isfinite(images).all() and np.ptp(images) > 1 for images in scans)


def test_no_slices_are_refused():
    with pytest.raises(InputError, match="count must be at least 1, found 0"):
        scanners.simulate_scans(0, 1)
