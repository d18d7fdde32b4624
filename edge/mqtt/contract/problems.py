"""The problems that `health` names: when each is there, and what to do about it. One table for everybody.

The door looks for them (`device/reports`); guides, Home Assistant and pages show what stands here. For
Prometheus each has a line in deploy/prometheus/mqtt-exporter.yaml.
"""

from enum import StrEnum


class DoorProblem(StrEnum):
    """A word of `health.problems`; `when` says when it is there, `remedy` what an operator does about it."""

    when: str
    remedy: str

    def __new__(cls, word: str, when: str, remedy: str) -> "DoorProblem":
        """Make one of its word, its meaning, and what mends it."""
        made = str.__new__(cls, word)
        made._value_, made.when, made.remedy = word, when, remedy
        return made

    LIVE_LATE = (
        "live_late",
        "in the last two minutes a decision came too late for `event`, and nothing opened for it",
        "look at `latency_ms` of the events; give the door fewer cameras or a faster board",
    )
    LIVE_MISSED = (
        "live_missed",
        "in the last two minutes a decision was not sent as `event` because the broker was not there",
        "look at the broker and the network; the journal has the decision",
    )
    DECISIONS_SLOW = (
        "decisions_slow",
        "of the decisions of the last two minutes one in twenty or more took longer than 10 s from the frame",
        "give the door fewer cameras or a faster board",
    )
    FRAMES_LATE = (
        "frames_late",
        "in the last two minutes frames were more than 2 s old when they were looked at",
        "`frames.late.<camera>` in `counters` says which camera; lower its rate or resolution, and look at "
        "its network",
    )
    LOOKS_SELDOM = (
        "looks_seldom",
        "for two minutes a camera that delivers more is looked at less than four times a second, so that who "
        "walks by is not followed",
        "`cameras` says which; give the door fewer cameras, a smaller picture or a faster board",
    )
    FAR_SEARCH_BEHIND = (
        "far_search_behind",
        "in the last two minutes more moved before a camera than can be searched for far faces; people are "
        "found later, when they are nearer",
        "let the camera see less of a street",
    )
    CAMERA_BLACK = (
        "camera_black",
        "a camera's picture is black; it gives no decision",
        "`cameras` says which; take off its cap, give it light, look at its cable",
    )
    CAMERA_COVERED = (
        "camera_covered",
        "a camera's picture shows nothing but one plain surface; it gives no decision",
        "`cameras` says which; see what hangs or sticks before the lens",
    )
    CAMERA_FROZEN = (
        "camera_frozen",
        "a camera sends the same picture again and again; it gives no decision",
        "`cameras` says which; restart it",
    )
    CAMERA_DEFOCUSED = (
        "camera_defocused",
        "a camera's picture is blurred everywhere, and was sharp before",
        "`cameras` says which; clean the lens, or focus it",
    )
    CAMERA_MOVED = (
        "camera_moved",
        "a camera looks somewhere else than before",
        "`cameras` says which; turn it back, or leave it: after ten minutes the new view is the right one",
    )
    LIVENESS_FAILING = (
        "liveness_failing",
        "in the last two minutes the liveness of a face could not be measured",
        "the log says why; fetch the models of `liveness.model` again",
    )
    PROVIDER_REFUSED = (
        "provider_refused",
        "a model does not run, or runs no more, on the first of `recognition.providers`, but on the next "
        "that works",
        "the log says why; install what it needs, or leave it out of the setting; reload to try it again",
    )
    GALLERY_FALLBACK = (
        "gallery_fallback",
        "the newest gallery cannot be read; an older one serves, with no more rights than the newest granted",
        "enrol or publish again",
    )
    GALLERY_REFUSED = (
        "gallery_refused",
        "the newest gallery cannot be used; the one before it serves",
        "the log says why; publish another",
    )
    GALLERY_STALE = (
        "gallery_stale",
        "the gallery is trusted no more since `not_after` in `gallery/reported`; `sync.stale` says whether "
        "anybody is recognised",
        "run `edge fleet renew`; look at `reason` in `gallery/reported`",
    )
    GALLERY_ALIKE = (
        "gallery_alike",
        "the enrolled look so alike that the threshold is .15 or more higher, and many of them are rejected",
        "run `edge gallery doctor`",
    )
    DENIALS_LOST = (
        "denials_lost",
        "denials are damaged or gone, and whoever had some is rejected as `ambiguous`",
        "restore them, or run `edge gallery deny --forget-lost`",
    )
    PUSH_ROLLED_BACK = (
        "push_rolled_back",
        "the last push did not work here, and was rolled back",
        "`error` in `config/reported` says why; push another",
    )
    JOURNAL_REFUSED = (
        "journal_refused",
        "the broker's access rules refuse the journal",
        "give the device the right, as in deploy/mosquitto/acl",
    )
    DISK_REFUSED = (
        "disk_refused",
        "the disk takes no decision, and those of now are lost with the power",
        "make room, or replace the card",
    )
    CLOCK_BEHIND = (
        "clock_behind",
        "the clock shows a time that has passed already; `access.clock_behind` says what the door does",
        "set the clock",
    )
    CLOCK_UNSYNCED = (
        "clock_unsynced",
        "ten minutes after the start no time source has set the clock",
        "let the board reach a time server (systemd-timesyncd, chrony)",
    )
    THROTTLED = (
        "throttled",
        "the board makes itself slower, because it is hot or has too little power",
        "`device.throttled_by` says why; cool it, or give it the power supply that is made for it",
    )


REMEDIES: dict[str, str] = {each: each.remedy for each in DoorProblem}
"""What mends a problem, by its word."""
