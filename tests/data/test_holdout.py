"""Which items training never sees."""

import pytest

from segrefiner.data.holdout import held_back, is_held_back


@pytest.mark.parametrize(("count", "every", "expected"), [(85, 40, [39, 79]), (39, 40, []), (20, 10, [9, 19])])
def test_the_last_of_every_so_many_is_held_back(count: int, every: int, expected: list[int]) -> None:
    assert held_back(range(count), every) == expected
    assert [i for i in range(count) if is_held_back(i, every)] == expected


def test_nothing_is_held_back_where_that_is_not_asked_for() -> None:
    assert held_back("abc", 0) == []
