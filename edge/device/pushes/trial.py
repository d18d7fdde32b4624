"""PushTrial: tries configuration pushes in the running daemon, and keeps them or rolls them back."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any, Protocol

from edge.core.clock import Clock, SystemClock
from edge.core.errors import ConfigError, EdgeError, PushError, RefusedError, ToldOnce
from edge.core.metrics import Metrics
from edge.core.pacing import TokenBucket
from edge.device.pushes.memory import PushMemory, PushRecord
from edge.device.pushes.push import (
    Desired,
    Floor,
    PushLayer,
    PushReport,
    RefusedPush,
    Status,
    acknowledged,
    checked,
    effective_hash,
    refusals,
)
from edge.device.settings.load import Settings
from edge.mqtt.contract.encode import to_millisecond

log = logging.getLogger(__name__)

SETTLE = 0.5
"""Share of `push.probation_s` that has to pass before a push is kept: threads are late after 10 s."""

STEADY_S, STEADY = 5.0, 0.25
"""For how long a camera must have delivered without a break when a push is judged: seconds, or this share of
`push.probation_s` where that is less. One that gives a frame with each new connection does not.
"""

LINES_PER_S, LINES_AT_ONCE = 1.0, 3
"""What the log says of pushes that are refused, which anybody may send; all of them are counted."""

TELL_AGAIN_S = 1.0
"""Between two reports about pushes that are refused, which anybody may send in any number."""

RETRY_S = 5.0
"""Pause before what a disk refused is tried again."""

INTERRUPTED = "the daemon was restarted while it was read; push it again with a higher version"
FAILED = "it failed in a way that nobody thought of; the device's log says how"
RESTARTED = "the daemon was restarted while it was on trial"


class PushState(Enum):
    """Where a push stands; `PushTrial` has the rules."""

    RECEIVED = "received"
    CHECKED = "checked"
    ON_TRIAL = "on trial"
    KEPT = "kept"
    ROLLED_BACK = "rolled back"
    REJECTED = "rejected"
    REFUSED = "refused"


RULES: Mapping[PushState, frozenset[PushState]] = {
    PushState.RECEIVED: frozenset({PushState.CHECKED, PushState.REFUSED}),
    PushState.CHECKED: frozenset({PushState.ON_TRIAL, PushState.REJECTED}),
    PushState.ON_TRIAL: frozenset({PushState.KEPT, PushState.ROLLED_BACK}),
    PushState.KEPT: frozenset(),
    PushState.ROLLED_BACK: frozenset(),
    PushState.REJECTED: frozenset(),
    PushState.REFUSED: frozenset(),
}
"""Which states may follow which, as `PushTrial` explains."""

LEVELS = {
    PushState.CHECKED: logging.DEBUG,
    PushState.ON_TRIAL: logging.INFO,
    PushState.KEPT: logging.INFO,
    PushState.ROLLED_BACK: logging.ERROR,
    PushState.REJECTED: logging.ERROR,
    PushState.REFUSED: logging.WARNING,
}
"""How loudly the log tells that a push has entered a state."""

STATES: Mapping[Status, PushState] = {
    "pending": PushState.ON_TRIAL,
    "applied": PushState.KEPT,
    "rolled_back": PushState.ROLLED_BACK,
    "rejected": PushState.REJECTED,
}
"""What a report says of a push, as a state."""


@dataclass(slots=True)
class Push:
    """One push for a layer: the message, its version once it was checked, and where it stands."""

    layer: str
    data: bytes = field(repr=False)
    version: int | None = None
    state: PushState = PushState.RECEIVED

    def enter(self, state: PushState) -> None:
        """Enter the next state.

        Raises:
            ValueError: It is none that may follow.
        """
        if state not in RULES[self.state]:
            raise ValueError(f"a push that is {self.state.value} cannot become {state.value}")
        self.state = state


@dataclass(frozen=True, slots=True)
class Seen:
    """How the door does: frames looked at by camera, who delivers, the broker, threads that are late.

    `delivering` says for how many seconds a camera that delivers has done so without a break.
    """

    frames: Mapping[str, int]
    delivering: Mapping[str, float]
    connected: bool
    late: Sequence[str] = ()


class RunningDaemon(Protocol):
    """The daemon that pushes are tried in."""

    def settings(self) -> Settings:
        """Return the settings in force."""
        ...

    def apply(self, settings: Settings) -> None:
        """Put settings in force.

        Raises:
            EdgeError, OSError: They cannot be; nothing has changed.
        """
        ...

    def seen(self) -> Seen:
        """Return how the door does."""
        ...

    def self_test(self) -> None:
        """Let every model in force compute what its manifest knows the answer to.

        Raises:
            EdgeError: One computes something else.
        """
        ...

    def tell(self, told: Mapping[str, Any]) -> None:
        """Publish what `config/reported` says, but for the time."""
        ...


@dataclass(frozen=True, slots=True)
class Watch:
    """A door under watch from `began_s` (monotonic) for up to `limit_s`; `before`: how it did until then."""

    began_s: float
    limit_s: float
    before: Seen

    def objection(self, seen: Seen) -> str | None:
        """Return what does not work that worked before, None where nothing does."""
        still = sorted(
            camera
            for camera in self.before.delivering
            if seen.frames.get(camera, 0) <= self.before.frames.get(camera, 0)
        )
        if still:
            return f"no frame of {', '.join(still)} was looked at"
        steady_s = min(STEADY_S, STEADY * self.limit_s)
        broken = sorted(name for name in self.before.delivering if seen.delivering.get(name, 0.0) < steady_s)
        if broken:
            return f"{', '.join(broken)} comes and goes: it has not delivered for {steady_s:.0f} s on end"
        if self.before.connected and not seen.connected:
            return "the connection to the broker is lost"
        new = sorted(set(seen.late) - set(self.before.late))
        return f"threads are late: {', '.join(new)}" if new else None

    def over(self, now_s: float, seen: Seen) -> bool:
        """Return whether it has ended: well, or because the time is up."""
        spent_s = now_s - self.began_s
        if spent_s >= self.limit_s:
            return True
        return spent_s >= SETTLE * self.limit_s and self.objection(seen) is None


class PushTrial:
    """One device's pushes, at most one of them on trial. Used by the main thread.

    It works on the disk, which is `memory`, and on the running `daemon`; `refused` is the last push that was
    refused. The rules that every push follows:

    * A push is RECEIVED when it comes over MQTT. While another one is on trial it waits for its end.
    * RECEIVED -> CHECKED: a trusted key signed it, for this device, with a higher version than came before.
      The version is spent, on the disk, before the push is read any further.
    * RECEIVED -> REFUSED: it is anything else, it cannot be known what came before, or another push for the
      same layer came while it waited. Anybody can send such a message: it is counted, shown as `refused`, and
      changes no report. The same push once more is no news, and is passed over.
    * CHECKED -> ON_TRIAL: every key of it may be pushed, the settings go together, and the daemon has put
      them in force. Before it did, the disk knew that they are only tried.
    * CHECKED -> REJECTED: one of these is not so; the settings that were in force still are.
    * ON_TRIAL -> KEPT: the door works, which takes between half of `push.probation_s` and all of it to see:
      every camera that delivered does so without a break and its frames are looked at, the broker is there if
      it was, no thread became late, and models that were changed compute what they should. The disk knows
      before anybody is told.
    * ON_TRIAL -> ROLLED_BACK: the door does not work, or the daemon was restarted. The last good settings are
      put in force again, as often as it takes.
    * KEPT, ROLLED_BACK, REJECTED and REFUSED are ends. Of all but the last, `state` and the report tell, also
      after a restart, until the next push is checked.

    Example, of a door that works (`tests.support.pushes` has one, and signs):

    >>> trial = PushTrial(PushMemory(door.read), door, Metrics(), door.clock)
    >>> trial.take("device", push(1, {"decision": {"target_fpir": 0.0001}}))
    >>> trial.state, door.settings().decision.target_fpir
    (<PushState.ON_TRIAL: 'on trial'>, 0.0001)
    >>> door.clock.now_s += door.settings().push.probation_s
    >>> trial.tick()
    >>> trial.state
    <PushState.KEPT: 'kept'>
    >>> trial.take("device", b"nonsense")
    >>> trial.refused.reason, trial.state
    ('no_envelope', <PushState.KEPT: 'kept'>)
    """

    def __init__(
        self, memory: PushMemory, daemon: RunningDaemon, metrics: Metrics, clock: Clock | None = None
    ) -> None:
        self._memory = memory
        self._daemon = daemon
        self._metrics = metrics
        self._clock = clock or SystemClock()
        self._lines = TokenBucket(LINES_PER_S, LINES_AT_ONCE, self._clock.monotonic)
        self._waiting: dict[str, Push] = {}
        self._on_trial: tuple[Push, Watch] | None = None
        self._before = daemon.settings()
        self.refused: RefusedPush | None = None
        self._roll_back_interrupted()
        # What is still to be done: put the last good settings in force; read first what was kept before.
        self._good_is_due = False
        self._start_is_due = memory.unread is not None or self._differs(self._before)
        self._retry_s = -float("inf")
        self._told_wrong = ToldOnce()
        self._told_s = -float("inf")
        self._told_refusals = self.refusals

    @property
    def state(self) -> PushState | None:
        """Where the last push that was checked stands, None where there was none."""
        return STATES.get(self._memory.report.status)

    @property
    def refusals(self) -> int:
        """How many pushes were refused or rejected since the daemon started, for whatever reason."""
        return self._metrics.counts().get("config.refused", 0)

    def take(self, layer: str, data: bytes) -> None:
        """Take a push that was received for a layer."""
        self._catch_up()
        self._receive(Push(layer, data))

    def tick(self) -> None:
        """Keep or roll back what is on trial, when it is time; try again what could not be done."""
        self._tell_refused()
        if self._clock.monotonic() < self._retry_s:
            return
        if self._start_is_due and not self._read_again():
            self._retry_s = self._clock.monotonic() + RETRY_S
            return
        try:
            ended = self._judge()
            if self._good_is_due:
                self._daemon.apply(self._good())
                self._good_is_due, ended = False, True
            if ended:
                self.tell()
                waiting, self._waiting = self._waiting, {}
                for push in waiting.values():
                    self._receive(push)
            self._memory.write_again()
        except (EdgeError, OSError) as error:
            self._retry_s = self._clock.monotonic() + RETRY_S
            if self._told_wrong.is_new(error):
                log.error("push: %s", error)
        else:
            self._told_wrong.forget()

    def tell(self) -> None:
        """Show what came of the last push, and what is in force."""
        self._roll_back_interrupted()
        self._told_s, self._told_refusals = self._clock.monotonic(), self.refusals
        refused = None if self.refused is None else {**asdict(self.refused), "count": self.refusals}
        self._daemon.tell(
            {
                **self._memory.report.model_dump(),
                "versions": self._memory.versions,
                "groups": list(self._memory.groups),
                "effective": effective_hash(self._daemon.settings()),
                "refused": refused,
            }
        )

    def _receive(self, push: Push) -> None:
        before = self._memory.report
        try:
            self._check(push)
        except Exception:
            self._fail(push)
            raise
        finally:
            self._tell_since(before)

    def _tell_since(self, before: PushReport) -> None:
        """Tell what has become of a push since there was the report `before`."""
        if self._memory.report is before:
            self._tell_refused()
        else:
            self.tell()

    def _check(self, push: Push) -> None:
        memory = self._memory
        try:
            if memory.unread is not None:
                raise PushError(f"what was pushed before is not known: {memory.unread}", "memory")
            found = checked(push.data, push.layer, memory.who, memory.record.floors.get(push.layer))
        except PushError as error:
            self._refuse(push, error)
            return
        if found is None:
            return
        if self._on_trial is not None:
            self._wait(push)
            return
        push.version = found[1].version
        self._enter(push, PushState.CHECKED)
        settings = self._asked_for(push, *found)
        if settings is not None:
            self._try(push, settings)

    def _wait(self, push: Push) -> None:
        """Let a push wait for the end of the trial, in place of one for the same layer."""
        earlier = self._waiting.get(push.layer)
        if earlier is not None:
            self._count("superseded")
            self._enter(earlier, PushState.REFUSED, "another one came for its layer while it waited")
        self._waiting[push.layer] = push

    def _asked_for(self, push: Push, desired: Desired, floor: Floor) -> Settings | None:
        """Return the settings that a push asks for, written down as on trial; None: it is rejected."""
        memory, keys = self._memory, dict[str, str]()
        try:
            floors = memory.record.floors | {push.layer: floor}
            unread = PushReport(status="rejected", layer=push.layer, version=push.version, error=INTERRUPTED)
            memory.remember(memory.record.model_copy(update={"floors": floors, "last": unread}))
            keys = refusals(desired.patch, memory.local)
            if keys:
                names = ", ".join(sorted(keys))[:200]
                raise PushError(f"{len(keys)} of its keys cannot be pushed: {names}", "keys")
            tried = {push.layer: PushLayer(version=floor.version, patch=desired.patch)}
            record = memory.record.model_copy(update={"trial": tried})
            settings = memory.settings_with(record)
            memory.remember(self._with_report(push, record, "pending"))
        except EdgeError as error:
            reason = error.reason if isinstance(error, RefusedError) else "settings"
            self._reject(push, str(error), reason, keys)
            return None
        return settings

    def _try(self, push: Push, settings: Settings) -> None:
        seen, before = self._daemon.seen(), self._daemon.settings()
        try:
            self._daemon.apply(settings)
        except (EdgeError, OSError) as error:
            self._reject(push, str(error), "build", {})
            return
        self._before, self._good_is_due = before, False
        self._on_trial = push, Watch(self._clock.monotonic(), settings.push.probation_s, seen)
        self._enter(push, PushState.ON_TRIAL)

    def _judge(self) -> bool:
        """Return whether what is on trial was kept; where it has to go, the last good is due.

        Raises:
            FileError: It cannot be kept yet; it is watched on.
        """
        if self._on_trial is None:
            return False
        (push, watch), seen = self._on_trial, self._daemon.seen()
        if not watch.over(self._clock.monotonic(), seen):
            return False
        why = watch.objection(seen) or self._failure()
        if why is None:
            self._keep(push)
        else:
            self._metrics.count("config.rolled_back")
            self._roll_back(push, why)
            self._good_is_due = True
        self._on_trial = None
        return why is None

    def _failure(self) -> str | None:
        """Return what is wrong with models that a push has changed: a still scene asks them nothing."""
        now, before = self._daemon.settings(), self._before
        if (now.recognition, now.liveness) == (before.recognition, before.liveness):
            return None
        try:
            self._daemon.self_test()
        except EdgeError as error:
            return str(error)
        return None

    def _keep(self, push: Push) -> None:
        """Make a push good: the door works under it.

        Raises:
            FileError: It cannot be written down.
        """
        record = self._memory.record
        record = record.model_copy(update={"good": record.good | record.trial, "trial": {}})
        self._memory.remember(self._with_report(push, record, "applied"))
        self._metrics.count("config.applied")
        self._enter(push, PushState.KEPT)

    def _roll_back(self, push: Push, why: str) -> None:
        """Forget what is on trial, also where the disk refuses: a restart forgets it, too."""
        self._settle(push, "rolled_back", why)
        self._enter(push, PushState.ROLLED_BACK, why)

    def _roll_back_interrupted(self) -> None:
        """Roll back what was on trial when the daemon ended, if anything."""
        if self._memory.interrupted is not None:
            layer, version = self._memory.interrupted
            self._roll_back(Push(layer, b"", version, PushState.ON_TRIAL), RESTARTED)

    def _fail(self, push: Push) -> None:
        """End a push whose reading failed in a way that nobody thought of."""
        if push.state is PushState.RECEIVED:
            self._refuse(push, PushError(FAILED))
        elif push.state is PushState.CHECKED:
            self._reject(push, FAILED, "other", {})

    def _reject(self, push: Push, why: str, reason: str, keys: Mapping[str, str]) -> None:
        self._count(reason)
        self._settle(push, "rejected", why, keys)
        self._enter(push, PushState.REJECTED, f"{why}; the last good settings stay")

    def _refuse(self, push: Push, error: PushError) -> None:
        self._count(error.reason)
        digest = hashlib.sha256(push.data).hexdigest()
        at = to_millisecond(self._clock.now())
        self.refused = RefusedPush(at, push.layer, error.reason, str(error), digest)
        self._enter(push, PushState.REFUSED, str(error))

    def _enter(self, push: Push, state: PushState, why: str = "") -> None:
        """Let a push enter a state, and say so in the log."""
        was = push.state.value
        push.enter(state)
        if state is not PushState.REFUSED or self._lines.take():
            extra = {"layer": push.layer, "version": push.version, "was": was, "refusals": self.refusals}
            log.log(LEVELS[state], "push %s%s", state.value, f": {why}" if why else "", extra=extra)

    def _with_report(self, push: Push, record: PushRecord, status: Status) -> PushRecord:
        """Return what is remembered with a report of a push that is in force."""
        keys = acknowledged(push.layer, record.layers(self._memory.groups))
        report = PushReport(status=status, layer=push.layer, version=push.version, keys=keys)
        return record.model_copy(update={"last": report})

    def _settle(self, push: Push, status: Status, why: str, keys: Mapping[str, str] | None = None) -> None:
        """Remember that a push is not in force, and why."""
        report = PushReport(
            status=status, layer=push.layer, version=push.version, keys=dict(keys or {}), error=why
        )
        self._memory.settle(self._memory.record.model_copy(update={"last": report, "trial": {}}))

    def _catch_up(self) -> None:
        """Put in force what was kept before the start where the disk gives it only now."""
        if self._start_is_due and self._read_again():
            self._retry_s = -float("inf")
            self.tick()

    def _read_again(self) -> bool:
        """Return whether what was kept before the start is known; it is to be put in force then."""
        if self._memory.read_again():
            self._roll_back_interrupted()
            self._start_is_due, self._good_is_due = False, True
        return not self._start_is_due

    def _good(self) -> Settings:
        """Return the settings to go back to: those of before where edge.toml cannot be read any more."""
        try:
            return self._memory.settings()
        except ConfigError as error:
            log.error("edge.toml and the pushes make no settings, what was in force goes on: %s", error)
            return self._before

    def _differs(self, settings: Settings) -> bool:
        """Return whether these settings are not those to go back to."""
        return effective_hash(self._good()) != effective_hash(settings)

    def _tell_refused(self) -> None:
        if self._good_is_due:
            return  # what is in force is not what the memory says
        if self.refusals != self._told_refusals and self._clock.monotonic() - self._told_s >= TELL_AGAIN_S:
            self.tell()

    def _count(self, reason: str) -> None:
        self._metrics.count("config.refused")
        self._metrics.count(f"config.refused.{reason}")
