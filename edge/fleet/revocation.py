"""A subject taken out of the galleries of all scopes: wherever that can be, whatever else is broken."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace

from edge.core.errors import EdgeError, FleetError
from edge.fleet.galleries import OfModel, ScopeGalleries
from edge.fleet.reports import Published
from edge.gallery.format.published import full_path, next_path


@dataclass(slots=True)
class Found:
    """Where a subject is: by scope and path the gallery without it; `failed`: by scope, why nobody knows."""

    subject_id: str
    holding: dict[str, dict[str, OfModel]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, subject_id: str, scopes: Iterable[str], galleries: ScopeGalleries) -> "Found":
        """Look for a subject in all scopes."""
        made = cls(subject_id)
        for scope in scopes:
            try:
                for path in (full_path(scope), next_path(scope)):
                    found = galleries.read(scope, path)
                    if found is not None and found[0].subject(subject_id) is not None:
                        without = found[0].without_subject(subject_id)
                        made.holding.setdefault(scope, {})[path] = (without, found[1])
            except EdgeError as error:
                made.failed[scope] = str(error)
        return made

    def take_out(
        self, galleries: ScopeGalleries, told: Callable[[Published], None], left_over: Collection[str] = ()
    ) -> list[Published]:
        """Publish the galleries without the subject. `told` hears of each scope at once.

        Of the scopes `left_over` what was published before goes, too: it may still have the subject.

        Raises:
            FleetError: There are scopes for which that cannot be done; all others are done.
        """
        published = []
        for scope, without in self.holding.items():
            try:
                # A door may be left without anybody: revoking must not fail for the last one.
                done = replace(galleries.publish(scope, without), excluded=1)
            except EdgeError as error:
                self.failed[scope] = str(error)
                continue
            told(done)
            published.append(done)
        why = [f"scope {scope}: {error}" for scope, error in self.failed.items()]
        if left_over:
            try:
                galleries.forget(left_over)
            except EdgeError as error:
                why.append(str(error))
        if why:
            raise FleetError(
                f"{self.subject_id!r} is revoked, but could not be taken out everywhere; mend this and do it "
                f"again: {'; '.join(why)}"
            )
        return published
