"""What the verbs of commands do on this device: quick ones at once, the others as an errand of a child."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edge.camera.photo import COMMAND_PIXELS
from edge.core.errors import CommandError
from edge.core.types import Image
from edge.device.cameras.snapshots import snapshot_jpeg
from edge.device.children.errands import LABEL, PHOTO, Errand, Given, read_json
from edge.device.commands.executor import Action
from edge.device.commands.parse import Command
from edge.device.settings.load import Settings
from edge.mqtt.contract.messages import (
    CameraArgs,
    EnrollArgs,
    PhotoArgs,
    PurgeArgs,
    SubjectArgs,
    SuspendArgs,
)
from edge.recognition.recognizer import Recognizer

MAX_SUBJECTS_TOLD = 1000
"""Subjects that `subjects` lists; it counts all."""

MAX_PHOTO_PIXELS = f"--max-pixels={COMMAND_PIXELS}"
"""Option that a child gets with a photo from elsewhere."""


@dataclass(frozen=True, slots=True)
class Verbs:
    """The verbs of a running door: what they look at, and what they ask of the daemon.

    Children get `config_arguments`, so that they read the same settings. `show` publishes a picture on the
    topic of its camera, and says whether it did.
    """

    settings: Callable[[], Settings]
    recognizer: Callable[[], Recognizer]
    diagnostics: Callable[[], dict[str, Any]]
    picture: Callable[[str], Image | None]
    sync: Callable[[], None]
    reload: Callable[[], None]
    restart: Callable[[], None]
    config_arguments: Sequence[str] = ()
    show: Callable[[str, bytes], bool] = lambda camera, jpeg: False

    def actions(self) -> dict[str, Action]:
        """Return what is done at once, by verb."""
        return {
            "subjects": lambda command: self._subjects(),
            "diagnostics": lambda command: self.diagnostics(),
            "snapshot": self._snapshot,
            "gallery.sync": lambda command: self._sync(),
            "reload": lambda command: _asked(self.reload, "the configuration is read anew"),
            "restart": lambda command: _asked(
                self.restart, "the daemon stops; the service manager starts it"
            ),
        }

    def errand(self, command: Command) -> Errand:
        """Return what a child does for a command.

        Raises:
            CommandError: It makes no sense at this door.
        """
        made = self._errand(command)
        first, *rest = made.arguments
        # Options go before `--`, so that no id and no label is taken for one.
        where = rest.index("--") if "--" in rest else len(rest)
        arguments = (first, *rest[:where], *self.config_arguments, *rest[where:])
        return replace(made, arguments=arguments)

    def _errand(self, command: Command) -> Errand:
        args = command.args
        match command.verb, args:
            case "identify", PhotoArgs():
                return Errand(("identify", "--json", MAX_PHOTO_PIXELS, "--", PHOTO), args.photo, read_json)
            case "selftest", _:
                names = (self.settings().recognition.detector, self.recognizer().stamp.embedder)
                return Errand(("models", "verify", "--", *names))
            case "enroll", EnrollArgs():
                self._check_own_gallery()
                return _enroll(args)
            case "revoke", SubjectArgs():
                self._check_own_gallery()
                return Errand(("subjects", "remove", "--", args.subject))
            case "suspend", SuspendArgs():
                self._check_own_gallery()
                state = "active" if args.lift else "suspended"
                return Errand(("subjects", "set", "--state", state, "--", args.subject))
            case "purge", PurgeArgs():
                self._check_own_gallery()
                return Errand(("gallery", "purge", f"--confirm={args.confirm}"))
        raise CommandError(f"{command.verb}: this device cannot do it")

    def _check_own_gallery(self) -> None:
        if self.settings().sync.url is not None:
            raise CommandError(
                "this door's gallery comes from a fleet, which would undo it; use `edge fleet`"
            )

    def _subjects(self) -> dict[str, Any]:
        gallery, anonymous = self.recognizer().matcher.gallery, self.settings().privacy.anonymous
        told = [
            {"id": each.subject_id, "state": each.access.state, "groups": list(each.groups)}
            | ({} if anonymous else {"label": each.label})
            for each in gallery.subjects[:MAX_SUBJECTS_TOLD]
        ]
        return {"count": gallery.size, "gallery_version": gallery.version, "subjects": told}

    def _snapshot(self, command: Command) -> dict[str, Any]:
        settings = self.settings()
        assert isinstance(command.args, CameraArgs)
        published = command.args.camera in settings.pictured_cameras
        answered = settings.commands.snapshots and not settings.privacy.anonymous
        if not (answered or published):
            raise CommandError(
                "pictures do not leave this device; see commands.snapshots, cameras.<c>.snapshot and "
                "privacy.anonymous"
            )
        image = self.picture(command.args.camera)
        if image is None:
            raise CommandError(
                f"camera {command.args.camera!r} has delivered no frame; there are: "
                f"{', '.join(settings.cameras) or 'none'}"
            )
        jpeg, told = snapshot_jpeg(image), dict[str, Any](camera=command.args.camera)
        if answered:
            told["jpeg"] = base64.b64encode(jpeg).decode()
        if published:
            told["published"] = self.show(command.args.camera, jpeg)
        if not answered and not told["published"]:
            raise CommandError("there were too many pictures of this camera; ask again in some seconds")
        return told

    def _sync(self) -> dict[str, Any]:
        if self.settings().sync.url is None:
            raise CommandError("sync.url is not set; this door has a gallery of its own")
        return _asked(self.sync, "it synchronises; see gallery/reported")


def _enroll(args: EnrollArgs) -> Errand:
    if (args.photo is None) == (args.visit is None):
        raise CommandError("args: give a photo or a visit")
    said: list[str | Given] = [f"--group={group}" for group in args.groups]
    said += [] if args.label is None else ["--label-file", LABEL]
    said += ["--force"] if args.force else []
    said += ["--replace"] if args.replace else []
    if args.visit is not None:
        return Errand(("enroll", *said, f"--visit={args.visit}", "--", args.subject), label=args.label)
    return Errand(
        ("enroll", *said, MAX_PHOTO_PIXELS, "--", args.subject, PHOTO), args.photo, label=args.label
    )


def _asked(ask: Callable[[], None], message: str) -> dict[str, Any]:
    ask()
    return {"message": message}
