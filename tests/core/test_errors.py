"""Errors that come again are told once."""

from edge.core.errors import FileError, ToldOnce


def test_a_problem_is_told_once_until_there_is_another_or_none():
    told = ToldOnce()
    assert [told.is_new(FileError("full")) for _ in range(3)] == [True, False, False]
    assert [told.is_new(FileError("gone")), told.is_new(FileError("full"))] == [True, True]
    told.forget()
    assert told.is_new(FileError("full"))


def test_the_problems_of_two_parts_do_not_hide_each_other():
    told = ToldOnce()
    assert told.is_new("full", "outbox")
    assert told.is_new("full", "gallery")
    told.forget("gallery")
    assert [told.is_new("full", part) for part in ("outbox", "gallery")] == [False, True]
