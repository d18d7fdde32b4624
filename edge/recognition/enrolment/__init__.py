"""From photos, or a walk up to a camera, to subjects."""
