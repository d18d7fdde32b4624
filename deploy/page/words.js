"use strict";

// What the words of a door's messages mean to people; deploy/MQTT.md describes them. What to do about a problem is in
// the message itself (health.remedies). A word that is not here is shown as it came.

const WORDS = {
  problems: {
    live_late: "A decision came too late, and nothing opened for it",
    live_missed: "A decision was not sent at once: the broker was not there",
    decisions_slow: "Decisions take longer than 10 s",
    frames_late: "Pictures are old when they are looked at",
    looks_seldom: "A camera is looked at too seldom",
    far_search_behind: "More moves than can be searched; people are found late",
    liveness_failing: "It cannot be measured whether faces are alive",
    gallery_fallback: "An older gallery serves: the newest cannot be read",
    gallery_refused: "The newest gallery cannot be used; the one before it serves",
    gallery_stale: "The gallery is trusted no more",
    gallery_alike: "The enrolled look so alike that many are rejected",
    denials_lost: "The denials of look-alikes are lost; whoever had some is rejected",
    push_rolled_back: "The last push of configuration did not work here",
    journal_refused: "The broker refuses the journal of this door",
    disk_refused: "The disk takes no decision",
    clock_behind: "The clock shows a time that has passed already",
    clock_unsynced: "No time source has set the clock",
    throttled: "The board makes itself slower",
  },
  kinds: {
    match: ["Match", "good"],
    reject: ["Reject", "bad"],
    no_decision: ["No decision", "warn"],
    spoof: ["Spoof", "bad"],
  },
  reasons: {
    below_threshold: "not alike enough to anybody enrolled",
    ambiguous: "too alike to two of the enrolled",
    expired: "enrolled, but not on this day",
    outside_window: "enrolled, but not at this hour",
    not_allowed_here: "enrolled, but not for this door",
    low_quality: "no picture was good enough",
    too_small: "the face was too small",
    too_few_looks: "too few pictures of the face",
    spoof: "the face is not alive",
    gallery_empty: "nobody is enrolled",
    gallery_stale: "the gallery is trusted no more",
  },
  refusals: {
    rollback: "an older version was offered",
    clock: "the door's clock is wrong",
    signature: "the signature is wrong",
    expired: "what is offered has expired; run: edge fleet renew",
    server: "the server does not answer",
    integrity: "it cannot be opened here",
    model: "its embedder cannot be used here",
    config: "the door's settings do not allow it",
    disk: "the disk refuses it",
    gallery: "the gallery is damaged",
    failed: "the synchronisation failed",
  },
};
