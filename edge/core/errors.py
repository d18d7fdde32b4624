"""Everything that can go wrong, by the attitude it calls for.

A message says what is wrong, where, and how to mend it, in one line, and never holds a secret, an
image, an embedding or a subject's name. A stranger at the door is a decision, never an exception.
`ToldOnce` keeps one that comes again and again from filling the log.
"""

EX_SUCCESS = 0
"""Exit code where all was done."""

EX_FAILURE = 1
"""Exit code where a command failed, or where its answer is no."""

EX_USAGE = 2
"""Exit code where the command line is wrong."""

EX_NO_FACE = 3
"""Exit code where a photo shows no face that can be used."""

EX_INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 and the number of the signal, as shells tell it."""

EX_CONFIG = 78
"""Exit code where the configuration or a model cannot be used. Source: sysexits.h; systemd does not restart a
unit that lists it in RestartPreventExitStatus.
"""

EX_TERMINATED = 143
"""Exit code after a second SIGTERM: 128 and the number of the signal."""

EXIT_CODES = {
    EX_SUCCESS: "Done. `edge identify` found a match, `edge verify` the same subject. `edge run` and "
    "`edge journal follow` were stopped by SIGTERM or Ctrl-C.",
    EX_FAILURE: "The answer is no: a reject, different subjects, somebody who was not enrolled, a device "
    "that did not follow. Or the command failed; one line says why.",
    EX_USAGE: "The command line is wrong: an unknown command or option, a missing argument, options that "
    "contradict each other. The service is not restarted.",
    EX_NO_FACE: "A photo cannot be read, or shows no face that can be used: none, several, too small, "
    "blurred or dark.",
    EX_CONFIG: "The settings, a model, the device's key or another key cannot be read or used. Trying again "
    "would not help, so the service is not restarted.",
    EX_INTERRUPTED: "Ctrl-C, at any moment but where 0 says so. Nothing is printed.",
    EX_TERMINATED: "A second SIGTERM: `edge run` ended at once. What was not delivered is in the outbox.",
}
"""Every code that `edge` ends with by itself, and what it means; deploy/OPERATING.md has the same table."""


class EdgeError(Exception):
    """Root of all errors of this package."""


# Refuse to start: exit EX_CONFIG with one clear line. In a reload: keep the last good.


class ConfigError(EdgeError):
    """The configuration cannot be used; `problems` are its parts where several things are wrong."""

    def __init__(self, message: str, problems: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems or (message,)


class UsageError(ConfigError):
    """The command line is wrong: what it says is impossible, or contradicts itself."""


class ModelError(EdgeError):
    """A model cannot be used."""


class ModelMissingError(ModelError):
    """The model's file is not installed."""


class ModelIntegrityError(ModelError):
    """The model's bytes, or what it computes, are not what the manifest promises."""


class ModelShapeError(ModelError):
    """The model's inputs or outputs are not what the manifest declares."""


# Keep the last good.


class GalleryError(EdgeError):
    """A gallery cannot be read, written or used."""


class GalleryIntegrityError(GalleryError):
    """The bytes of a gallery are not what was written: torn, corrupt or forged."""


class ErasureOwedError(GalleryError):
    """Who was removed is still in older versions on the disk. `version` serves, from now on or as before."""

    def __init__(self, message: str, version: int) -> None:
        super().__init__(message)
        self.version = version


class DeviceKeyError(GalleryError):
    """The gallery does not open under this device's key, or there is no such key."""


class ModelMismatchError(GalleryError):
    """Templates of another embedder: never mixed, never compared."""


class SyncError(GalleryError):
    """The place that galleries are published at gave no answer that can be used."""


class HeldBackError(SyncError):
    """What is offered has run out: it was not renewed, or somebody holds updates back."""


class SignatureError(SyncError):
    """What is offered is not what the fleet's keys have signed."""


class RollbackError(SyncError):
    """What is offered, or the clock that it is judged by, is older than what was seen before."""


class ClockError(RollbackError):
    """The clock is behind a time that was trusted before."""


class FileError(EdgeError):
    """A small file that matters, as a key or what was seen last, cannot be read or written whole."""


class KeyFileError(FileError):
    """A key's file holds no key, is not there, or others may read it: somebody has to bring another."""


class RefusedError(EdgeError):
    """What somebody sent is refused; `reason` is one word for it, to be counted."""

    def __init__(self, message: str, reason: str = "other") -> None:
        super().__init__(message)
        self.reason = reason


class EnvelopeError(RefusedError):
    """A signed message is not what a trusted key has signed."""


class PushError(RefusedError):
    """A configuration push is refused; what was in force still is."""


class CommandError(RefusedError):
    """A command is refused, or failed; `transaction` is that of the command where it could be read."""

    def __init__(self, message: str, transaction: str | None = None, reason: str = "other") -> None:
        super().__init__(message, reason)
        self.transaction = transaction


class RemoteGalleryError(GalleryError):
    """The remote gallery gave no answer that can be used; the local decision stands."""


class RemoteTimeoutError(RemoteGalleryError):
    """The remote gallery did not answer in time."""


# Retry with back-off and jitter.


class CameraError(EdgeError):
    """A camera cannot be opened or read."""


class LinkError(EdgeError):
    """The broker cannot be reached or refuses us."""


class ClusterError(EdgeError):
    """The machines that work for this one cannot be reached, are gone, or are not what is needed."""


class OutboxError(EdgeError):
    """The outbox cannot be opened or written."""


class OutboxDamagedError(OutboxError):
    """The outbox's database is no longer one."""


class OutboxFullError(OutboxError):
    """The disk has no room for the outbox."""


class OutboxDiskError(OutboxError):
    """The disk failed to read or write; what SQLite holds in memory can no longer be believed."""


# Tell the caller.


class FleetError(EdgeError):
    """What an operator asked of the fleet's repository, keys or devices cannot be done."""


class JournalError(EdgeError):
    """What was heard is no decision, or the file that decisions are kept in cannot be used."""


class JournalAwayError(JournalError):
    """The server that keeps decisions cannot be reached at present."""


class DownloadError(EdgeError):
    """A file cannot be fetched or written, or is not the pinned one."""


class MediaError(EdgeError):
    """A photo or a clip cannot be read."""


class PhotoError(MediaError):
    """A photo cannot be read."""


class PhotoStoreError(EdgeError):
    """The store that photos lie in does not answer, or not to this key: no photo of it can be read."""


class EnrollmentError(EdgeError):
    """A subject cannot be enrolled."""


class NoFaceError(EnrollmentError):
    """The photo shows no face."""


class ManyFacesError(EnrollmentError):
    """The photo shows more than one face."""


class LowQualityError(EnrollmentError):
    """The face is too small, too blurred, too dark or turned away."""


class CollisionError(EnrollmentError):
    """The face is already enrolled as another subject."""


class OtherFaceError(EnrollmentError):
    """The subject is enrolled already, with a face that is not like this one."""


NO_USABLE_FACE = (PhotoError, NoFaceError, ManyFacesError, LowQualityError)
"""Errors that exit with `EX_NO_FACE`: another photo would mend them."""

REFUSE_TO_START = (ConfigError, ModelError, DeviceKeyError, KeyFileError)
"""Errors that exit with `EX_CONFIG`: trying again would not mend them."""


class ToldOnce:
    """Knows which problem the log has: one that comes again is told once, until there was another or none.

    Problems of several parts are kept apart by the part's name.
    """

    def __init__(self) -> None:
        self._told: dict[str, str] = {}

    def is_new(self, problem: object, part: str = "") -> bool:
        """Return whether a problem (an error, or words) is to be told now; asked again it is not."""
        new = self._told.get(part) != str(problem)
        self._told[part] = str(problem)
        return new

    def forget(self, part: str = "") -> None:
        """Note that all is well: whatever comes next is told."""
        self._told.pop(part, None)
