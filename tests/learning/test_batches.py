import dataclasses
import hashlib

import numpy as np
import pytest
import tensorflow as tf

from cyclegan_tf.dataset.sets import ImageSet, Stored
from cyclegan_tf.learning.batches import simulated_batches, steps_per_epoch, unpaired_batches
from cyclegan_tf.presets import LAPTOP, get_preset
from cyclegan_tf.scans.frame import Frame

HEIGHT, WIDTH = 12, 16


def numbered(count, first=0):
    """Images of which each says in its grey value which one it is."""
    values = (first + np.arange(count)) / 100
    return np.tile(values[:, None, None, None], (1, HEIGHT, WIDTH, 1)).astype("float32")


def written(folder, images):
    stored = Stored(folder)
    for image in images:
        stored.add(image)
    return stored


PLAIN = dataclasses.replace(LAPTOP, flip=False)


def numbers(images):
    """Which images these are."""
    return np.rint(images[:, HEIGHT // 2, WIDTH // 2, 0] * 100).astype(int).tolist()


def textured(count):
    rng = np.random.default_rng(3)
    return rng.uniform(-1, 1, (count, HEIGHT, WIDTH, 1)).astype("float32")


def batches(t1, t2, preset=PLAIN, first=0, last=20, simulated=None):
    stream = unpaired_batches(t1, t2, preset, first, last, simulated)
    return list(stream.as_numpy_iterator())


def order(count=7, steps=28, **changes):
    """The numbers of the T1 and of the T2 images in the order in which they are drawn."""
    preset = dataclasses.replace(PLAIN, **changes)
    drawn = batches(numbered(count), numbered(count), preset, last=steps)
    return [sum((numbers(batch[side]) for batch in drawn), []) for side in (0, 1)]


AUGMENTED = dataclasses.replace(PLAIN, batch_size=3, flip=True, shift=2)


def test_any_step_can_be_the_next():
    t1, t2, pairs = textured(5), textured(7), [textured(4)] * 4
    whole = batches(t1, t2, AUGMENTED, simulated=pairs)
    for first in (1, 6, 19):
        tail = batches(t1, t2, AUGMENTED, first, simulated=pairs)
        assert len(tail) == 20 - first
        for batch, expected in zip(tail, whole[first:], strict=True):
            for images, same in zip(batch, expected, strict=True):
                np.testing.assert_array_equal(images, same)


def shown(scans, epochs):
    """What epochs of the warm start are drawn from where all show the same."""
    return tf.data.Dataset.from_tensors(tf.concat(scans, axis=-1)).repeat(epochs)


def test_any_step_of_the_warm_start_can_be_the_next():
    pairs = [textured(6)] * 4
    whole, tail = (
        list(simulated_batches(shown(pairs, 5 - first), AUGMENTED, first, 2).as_numpy_iterator())
        for first in (0, 3)
    )
    assert len(whole) == 10
    for batch, expected in zip(tail, whole[6:], strict=True):
        np.testing.assert_array_equal(batch, expected)


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_every_image_is_seen_before_any_is_seen_again(batch_size):
    for drawn in order(count=7, steps=28, batch_size=batch_size):
        rounds = np.array(drawn).reshape(-1, 7)
        assert len(rounds) == 4 * batch_size
        assert (np.sort(rounds, axis=1) == np.arange(7)).all()
        assert len(set(map(tuple, rounds))) > 1


def test_t1_and_t2_are_drawn_in_orders_of_their_own():
    t1, t2 = order(count=20, steps=2000)
    assert t1[:20] != t2[:20]
    # Independent orders put the same number in both places once in 20: 100 of 2000 times.
    assert 60 < sum(a == b for a, b in zip(t1, t2, strict=True)) < 140


def test_the_seed_decides_the_order():
    assert order(seed=4) == order(seed=4)
    orders = [tuple(drawn) for seed in range(6) for drawn in order(count=20, seed=seed)]
    assert len(set(orders)) == 12


def test_a_batch_may_be_larger_than_the_set():
    for drawn in order(count=3, steps=3, batch_size=8):
        assert np.bincount(drawn).tolist() == [8, 8, 8]


def test_the_larger_set_is_seen_whole_too_though_the_smaller_ends_the_epoch():
    t1, t2 = numbered(3), numbered(8)
    assert steps_per_epoch(t1, t2, LAPTOP) == 3
    seen = [numbers(batch[1])[0] for batch in batches(t1, t2, last=8)]
    assert sorted(seen) == list(range(8))


def test_an_epoch_of_the_published_data_set_has_the_published_eleven_steps():
    assert steps_per_epoch(numbered(43), numbered(46), get_preset("paper")) == 11
    assert steps_per_epoch(numbered(43), numbered(46), get_preset("laptop")) == 43


def test_images_are_as_they_were_without_augmentation():
    t1, t2 = textured(4), textured(4)
    for (image_1,), (image_2,) in batches(t1, t2, last=4):
        assert any((image_1 == image).all() for image in t1)
        assert any((image_2 == image).all() for image in t2)
        assert image_1.dtype == np.float32 and image_1.shape == (HEIGHT, WIDTH, 1)


def test_flip_mirrors_about_half_of_the_images_each_by_itself():
    (image,), preset = textured(1), dataclasses.replace(PLAIN, flip=True, batch_size=4)
    drawn = batches(image[None], image[None], preset, last=50)
    flipped = np.array(
        [[(one == image[:, ::-1]).all() for one in side] for batch in drawn for side in batch]
    )
    kept = np.array([[(one == image).all() for one in side] for batch in drawn for side in batch])
    assert (flipped ^ kept).all()
    assert 150 < flipped.sum() < 250
    of_batch, of_side = flipped.reshape(50, 2, 4), flipped.reshape(50, 2, 4)[:, :, 0]
    assert (of_batch.min(axis=2) != of_batch.max(axis=2)).any()
    assert (of_side[:, 0] != of_side[:, 1]).any()


def test_shift_moves_by_up_to_so_many_pixels_and_fills_with_black():
    (image,), preset = textured(1), dataclasses.replace(PLAIN, shift=2)
    canvas = np.pad(image, ((2, 2), (2, 2), (0, 0)), constant_values=-1)
    crops = {
        (row, column): canvas[row : row + HEIGHT, column : column + WIDTH]
        for row in range(5)
        for column in range(5)
    }
    found = [
        [place for place, crop in crops.items() if (moved[0] == crop).all()]
        for batch in batches(image[None], image[None], preset, last=100)
        for moved in batch
    ]
    assert all(len(places) == 1 for places in found)
    assert len({places[0] for places in found}) > 20


def test_simulated_pairs_stay_pairs_seen_either_way_up_but_not_moved():
    t1, t2 = textured(9), -textured(9)
    turned = []
    for *_, pair_t1, pair_t2, wanted_t1, wanted_t2 in batches(
        t1[:4], t2[:5], AUGMENTED, simulated=(t1, t2, t1, t2)
    ):
        np.testing.assert_array_equal(pair_t1, wanted_t1)
        np.testing.assert_array_equal(pair_t2, wanted_t2)
        np.testing.assert_array_equal(pair_t1, -pair_t2)
        upright, upside_down = (
            [any((one == image).all() for image in seen) for one in pair_t1]
            for seen in (t1, t1[:, ::-1])
        )
        assert all(a != b for a, b in zip(upright, upside_down, strict=True))
        turned += upside_down
    assert 0.3 < np.mean(turned) < 0.7


def test_the_warm_start_draws_the_same_slices_as_sources_and_targets_and_sees_them_all():
    scans = [numbered(6, first=start) for start in (0, 50, 100, 150)]
    seen = []
    for (t1, t2), (wanted_t2, wanted_t1) in simulated_batches(shown(scans, 2), LAPTOP, 0, 3):
        drawn = [numbers(images.numpy())[0] for images in (t1, t2, wanted_t1, wanted_t2)]
        assert np.diff(drawn).tolist() == [50, 50, 50]
        seen.append(drawn[0])
    assert sorted(seen) == list(range(6))


def test_heads_of_many_scanners_are_seen_whole_in_frames_of_many_sizes():
    heads = np.full((6, 128, 96, 1), -1, np.float32)
    heads[:, 70:110, 10:35] = np.arange(6).reshape(6, 1, 1, 1) / 10
    preset, sizes = dataclasses.replace(LAPTOP, simulator="varied"), set()
    for sources, targets in simulated_batches(shown([heads] * 4, 1), preset, 0, 60):
        size = sources[0].shape[1:3]
        for images in (*sources, *targets):
            assert images.shape[1:3] == size and (images.numpy() > -1).sum() == 40 * 25
        sizes.add(tuple(size))
    assert sizes == {(high, wide) for high in (64, 96, 128) for wide in (64, 96)}


def test_a_slice_without_a_head_has_a_frame_too():
    black = [np.full((2, 64, 64, 1), -1, np.float32)] * 4
    preset = dataclasses.replace(LAPTOP, simulator="varied")
    assert all(x[0].shape[1] % 32 == 0 for x, _ in simulated_batches(shown(black, 1), preset, 0, 9))


def test_the_stream_knows_its_length():
    stream = unpaired_batches(numbered(4), numbered(4), LAPTOP, 3, 10)
    assert int(stream.cardinality()) == 7


# Images on disk


def image_set(stored, frame, members, boxes, origins):
    """Images of which nothing is known but what is to be framed of them and their sources."""
    unknown = np.zeros((3, len(stored)))
    return ImageSet(stored, frame, np.array(members), boxes, origins, *unknown)


@pytest.mark.parametrize("fit", ["pad", "resize"])
def test_images_on_disk_are_drawn_as_those_in_memory(tmp_path, fit):
    rng = np.random.default_rng(5)
    images = [rng.uniform(-1, 1, shape) for shape in ((32, 20), (17, 31), (30, 30), (21, 16))]
    frame, boxes = Frame(fit, 32, 32), np.zeros((4, 4), int)
    if fit == "pad":
        boxes[2:] = [[3, 4, 30, 25], [0, 1, 20, 16]]  # cut to the heads of two of them
    sets = []
    for name, members in (("t1", [3, 0, 2]), ("t2", [1, 2])):
        stored = written(tmp_path / name, images)
        framed = image_set(stored, frame, members, boxes, np.zeros(4, int))
        if fit == "resize":  # as `prepare` does
            every = dataclasses.replace(framed, members=np.arange(4))
            written(framed.files.folder, every[:][..., 0])
        image = images[members[0]]
        image = image[:20, 1:16] if (name, fit) == ("t1", "pad") else image
        np.testing.assert_array_equal(framed[0], frame.apply(image))
        sets.append(framed)
    arrays = [framed[:] for framed in sets]
    for drawn, expected in zip(batches(*sets, AUGMENTED), batches(*arrays, AUGMENTED), strict=True):
        for one, other in zip(drawn, expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_same_seed_draws_what_it_drew_when_all_images_were_in_memory():

    def digest(stream):
        parts = [b"".join(part.tobytes() for part in batch) for batch in stream]
        return hashlib.sha256(b"".join(parts)).hexdigest()[:16]

    preset = dataclasses.replace(LAPTOP, batch_size=3, flip=True, shift=2, seed=5)
    t1, t2, *pairs = (
        np.random.default_rng(seed).uniform(-1, 1, (n, HEIGHT, WIDTH, 1)).astype("float32")
        for n, seed in ((5, 3), (7, 4), (4, 6), (4, 7))
    )
    drawn = batches(t1, t2, preset, last=40, simulated=pairs * 2)
    assert digest(batch[:4] for batch in drawn) == "d48cf5314b616c87"
    assert digest(batches(t1, t2, LAPTOP, 3, 30)) == "aebf0c830c151af3"


# Several sources


def test_several_sources_take_turns_whatever_their_size_and_each_shows_all_of_its_images(tmp_path):
    count, few = 11, 3
    stored = written(tmp_path / "t1", numbered(count)[..., 0])
    frame, boxes = Frame("pad", HEIGHT, WIDTH), np.zeros((count, 4), int)
    origins = (np.arange(count) >= few).astype(int)
    both = image_set(stored, frame, range(count), boxes, origins)
    drawn = sum((numbers(x) for x, _ in batches(both, both, last=2 * 24)), [])
    first, second = drawn[::2], drawn[1::2]
    assert {*first} == {*range(few)} and {*second} == {*range(few, count)}
    assert np.ptp(np.bincount(first)) == np.ptp(np.bincount(second)[few:]) == 0
    alone = dataclasses.replace(both, members=np.arange(few, count))
    whole = dataclasses.replace(alone, origins=np.zeros(count, int))
    for one, other in zip(batches(alone, alone), batches(whole, whole), strict=True):
        np.testing.assert_array_equal(one[0], other[0])
