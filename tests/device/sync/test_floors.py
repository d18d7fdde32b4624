"""What a device remembers of galleries, as an earlier release wrote it."""

import json
from pathlib import Path

from edge.device.sync.floors import FILE_NAME, candidate_version, load_floors, save_floors

OLD = {"beside_sha256": "ab" * 32, "beside_version": 7, "beside_as": 3}


def test_the_candidate_is_known_by_its_names_in_the_last_release_and_written_by_those_now(tmp_path: Path):
    path = tmp_path / FILE_NAME
    path.write_text(json.dumps({"scope": "front", "installed_version": 5, "installed_as": 2, **OLD}))
    floors = load_floors(path, "front")
    assert (floors.candidate_sha256, floors.candidate_version, floors.candidate_as) == ("ab" * 32, 7, 3)
    assert candidate_version(path, "front", 3) == 7
    save_floors(path, floors)
    assert OLD.keys().isdisjoint(json.loads(path.read_text()))
    assert load_floors(path, "front") == floors
