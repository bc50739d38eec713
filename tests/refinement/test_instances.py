"""Laws of separated instances: no mask gains at another one's expense, and all else stays."""

import tracemalloc
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from helpers.tiny import TINY, restless
from segrefiner import Refiner
from segrefiner.errors import InputError
from segrefiner.model.unet import DenoisingUNet
from segrefiner.refinement.instances import separate

Pair = tuple[NDArray[np.bool_], NDArray[np.float32]]
SIZE = (4, 5)
PAIRS = st.lists(
    st.tuples(
        arrays(bool, SIZE),
        # Few values, so that equal probabilities are common.
        arrays(np.float32, SIZE, elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])),
    ),
    max_size=5,
)


def expected(pairs: list[Pair]) -> list[NDArray[np.bool_]]:
    """Pixel by pixel, as the law says it."""
    refined = [probability >= 0.5 for _, probability in pairs]
    masks = [mask.copy() for mask in refined]
    for i, (coarse, _) in enumerate(pairs):
        same = [k for k, (other, _) in enumerate(pairs) if np.array_equal(other, coarse)]
        others = [k for k in range(len(pairs)) if k not in same]
        for place in zip(*np.nonzero(refined[i] & ~coarse), strict=True):
            most = max(pairs[k][1][place] for k in same)
            for k in others:
                keeps = pairs[k][0][place] and (refined[k][place] or not (refined[k] & pairs[k][0]).any())
                gains = not pairs[k][0][place] and refined[k][place]
                if keeps or (gains and pairs[k][1][place] >= most):
                    masks[i][place] = False
    return masks


@settings(max_examples=200)
@given(PAIRS)
def test_only_what_others_have_is_taken_back(pairs: list[Pair]) -> None:
    before = [(coarse.copy(), probability.copy()) for coarse, probability in pairs]
    results = list(separate(iter(pairs)))
    for (probability, lost), wanted, (_, given_) in zip(results, expected(pairs), before, strict=True):
        np.testing.assert_array_equal(probability >= 0.5, wanted)
        assert lost == np.count_nonzero(probability != given_)
        np.testing.assert_array_equal(probability[wanted == (given_ >= 0.5)], given_[wanted == (given_ >= 0.5)])
    for pair, unchanged in zip(pairs, before, strict=True):
        np.testing.assert_array_equal(pair[1], unchanged[1])


@settings(max_examples=200)
@given(PAIRS)
def test_masks_overlap_at_most_where_coarse_ones_do(pairs: list[Pair]) -> None:
    masks = [probability >= 0.5 for probability, _ in separate(pairs)]
    for i, (one, _) in enumerate(pairs):
        for k, (other, _) in enumerate(pairs[:i]):
            if not np.array_equal(one, other):
                assert not (masks[i] & masks[k] & ~(one & other)).any()


@settings(max_examples=50)
@given(PAIRS, st.randoms(use_true_random=False))
def test_order_is_of_no_matter(pairs: list[Pair], random: object) -> None:
    order = list(range(len(pairs)))
    random.shuffle(order)  # type: ignore[attr-defined]
    straight = list(separate(pairs))
    for place, (probability, lost) in zip(order, separate([pairs[i] for i in order]), strict=True):
        np.testing.assert_array_equal(probability, straight[place][0])
        assert lost == straight[place][1]


def disc(x: float, radius: float, size: tuple[int, int] = (60, 100)) -> NDArray[np.bool_]:
    rows, columns = np.ogrid[: size[0], : size[1]]
    return np.asarray((rows - size[0] / 2) ** 2 + (columns - x) ** 2 < radius**2)


def test_neighbours_meet_where_both_grow() -> None:
    coarse = [disc(30, 15), disc(70, 15)]
    ramp = np.abs(np.arange(100)[None] - np.array([[30], [70]]))
    refined = [np.where(disc(x, 30), 1 - ramp[i] / 100, 0).astype(np.float32) for i, x in enumerate((30, 70))]
    (left, lost), (right, also) = separate(zip(coarse, refined, strict=True))
    assert not ((left >= 0.5) & (right >= 0.5)).any() and lost and also
    assert (left >= 0.5)[30, 49] and (right >= 0.5)[30, 51] and not (left >= 0.5)[30, 50]


def test_an_instance_listed_twice_does_not_compete_with_itself() -> None:
    coarse, refined = disc(50, 15), disc(50, 18).astype(np.float32)
    for probability, lost in separate([(coarse, refined), (coarse.copy(), refined.copy())]):
        np.testing.assert_array_equal(probability, refined)
        assert not lost


def test_memory_does_not_grow_with_the_number_of_masks() -> None:
    size = (600, 600)
    peaks = []
    for count in (4, 64):

        def pairs(count: int = count) -> Iterator[Pair]:
            for i in range(count):
                yield disc(100 + 6 * i, 80, size), 0.9 * disc(100 + 6 * i, 90, size).astype(np.float32)

        tracemalloc.start()
        for _ in separate(pairs()):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 64 * 5000


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    return Refiner(DenoisingUNet(TINY), pipeline=restless)


def photo() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(200, 256, (60, 100, 3)).astype(np.uint8)


def test_separated_results_and_their_reports_agree(refiner: Refiner) -> None:
    masks = [disc(30, 18), disc(50, 2.5), disc(70, 18)]
    alone = list(refiner.instances(photo(), masks))
    results = list(refiner.instances(photo(), iter(masks), separate=True))
    assert any((a.mask & b.mask).any() for a, b in pairwise(alone))
    assert not any((a.mask & b.mask).any() for a, b in pairwise(results))
    assert any(result.report.ceded for result in results) and not any(result.report.ceded for result in alone)
    for one, before, coarse in zip(results, alone, masks, strict=True):
        report = one.report
        np.testing.assert_array_equal(one.mask, one.probability >= 0.5)
        assert report.changed == pytest.approx(np.mean(one.mask != coarse))
        assert report.agreement == pytest.approx((one.mask & coarse).sum() / (one.mask | coarse).sum())
        assert report.ceded == pytest.approx(np.mean(one.mask != before.mask))
        assert ("of other masks" in str(report)) == bool(report.ceded)


def test_an_error_comes_after_the_results_before_it(refiner: Refiner) -> None:
    found = []
    with pytest.raises(InputError):
        for result in refiner.instances(photo(), [disc(30, 18), disc(69, 18), disc(9, 5, (9, 9))], separate=True):
            found.append(result)
    assert len(found) == 2


def test_an_instance_that_is_listed_twice_gains_by_its_surest_mask() -> None:
    nothing = np.zeros((1, 2), bool)
    sure, hardly, other = (np.array([[0, p]], np.float32) for p in (0.75, 0.5, 0.5))
    results = list(separate([(nothing, sure), (nothing, hardly), (np.array([[True, False]]), other)]))
    assert [lost for _, lost in results] == [0, 0, 1]
