from edge.core.pacing import Backoff


def test_bounds_double_up_to_the_longest() -> None:
    backoff = Backoff(1.0, 10.0, uniform=lambda low, high: high)

    assert [backoff.next_s() for _ in range(6)] == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_pauses_are_drawn_from_the_whole_range() -> None:
    backoff = Backoff(1.0, 60.0)
    for _ in range(10):
        backoff.next_s()

    drawn = [backoff.next_s() for _ in range(500)]

    assert min(drawn) < 6
    assert max(drawn) > 54
    assert max(drawn) <= 60


def test_success_starts_over() -> None:
    backoff = Backoff(1.0, 60.0, uniform=lambda low, high: high)
    for _ in range(5):
        backoff.next_s()
    backoff.reset()

    assert backoff.next_s() == 1.0


def test_a_lasting_fault_is_tried_slowly() -> None:
    drawn = [Backoff(1.0, 60.0).slow_s() for _ in range(100)]

    assert min(drawn) >= 30
    assert max(drawn) <= 60


def test_thousands_of_failures_do_not_overflow() -> None:
    backoff = Backoff(1.0, 60.0, uniform=lambda low, high: high)

    assert [backoff.next_s() for _ in range(5000)][-1] == 60.0
