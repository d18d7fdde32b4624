"""The gallery in force and the candidate as they lie on the disk: each with its embedder, and exchanged.

The candidate is a gallery of another embedder that this device may be switched to. A running daemon follows
what is committed here.
"""

from dataclasses import replace

from edge.core.errors import GalleryError
from edge.device.assembly.recognizer import choose_embedder, choose_for
from edge.device.assembly.stores import candidate_store, gallery_store
from edge.device.settings.load import Settings
from edge.face.manifest import AUTO, Manifest, embedding_dim, load_manifest
from edge.gallery.gallery import Gallery


def gallery_in_force(settings: Settings) -> tuple[Gallery, Manifest]:
    """Return the gallery that serves, and the manifest of its embedder.

    Raises:
        GalleryError, ModelError: It cannot be read.
    """
    manifest = load_manifest(choose_embedder(settings).name, settings.models_path)
    return gallery_store(settings).load(manifest.model_id, embedding_dim(manifest)), manifest


def candidate_gallery(settings: Settings) -> tuple[Gallery, Manifest]:
    """Return the candidate, and the manifest of its embedder.

    Raises:
        GalleryError: There is none, or it cannot be read.
    """
    store = candidate_store(settings)
    model_id = store.enrolled_with()
    if model_id is None:
        raise GalleryError("there is no candidate; make it with `edge fleet reembed`")
    manifest = load_manifest(choose_for(settings, AUTO, model_id).name, settings.models_path)
    return store.load(manifest.model_id, embedding_dim(manifest)), manifest


def switch_gallery(settings: Settings) -> tuple[Gallery, Manifest]:
    """Exchange the gallery in force and the candidate; returns what serves now.

    Raises:
        GalleryError: There is no candidate, or this device may not embed with its model.
    """
    (current, _), (candidate, manifest) = gallery_in_force(settings), candidate_gallery(settings)
    if settings.recognition.embedder not in (AUTO, manifest.name):
        raise GalleryError(
            f"recognition.embedder: {settings.recognition.embedder!r} is configured, the candidate is of "
            f'{manifest.name!r}; set it to "auto"'
        )
    committed = gallery_store(settings).commit(replace(candidate, version=current.version))
    candidate_store(settings).commit(replace(current, version=candidate.version))
    return committed, manifest
