"""TypeScript types made of the JSON Schemas: they compile under `strict`, and tell right from wrong."""

import json
import re
import subprocess
from pathlib import Path

from edge.mqtt.contract.asyncapi import json_schemas
from tests.support.node import node_program

CONSUMER = """
for (const event of event_examples) {
    const box: [number, number, number, number] | null = event.bbox;
    const best: number | null | undefined = event.score?.best;
    const unknown: unknown = event["a_field_of_a_newer_door"];
    // @ts-expect-error: there may be no score
    event.score.best;
    // @ts-expect-error: no such kind
    event.event_type = "opened";
    // @ts-expect-error: a box has four numbers
    event.bbox = [0, 0, 1];
    void [box, best, unknown];
}
// @ts-expect-error: a device takes no field that is not listed
gallery_desired_examples.push({ version: 1, forced: true });
"""


def test_generated_types_compile_and_hold_the_examples(tmp_path: Path):
    schemas = json_schemas()
    for name, schema in schemas.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(schema))
    make = [node_program("json2ts"), "-i", f"{tmp_path}/*.json", "-o", tmp_path]
    subprocess.run(make, check=True, capture_output=True, timeout=300)

    consumer = ""
    for name, schema in schemas.items():
        types, title = (tmp_path / f"{name}.d.ts").read_text(), schema["title"]
        aliases = set(re.findall(r"export type (\w+)", types))
        assert aliases <= {title, "EventType", "Reason"}, f"{name}: a field has a type of its own"
        consumer += f'import type {{ {title} as {name}_type }} from "./{name}";\n'
        consumer += f"const {name}_examples: {name}_type[] = {json.dumps(schema['examples'])};\n"
        consumer += f"void {name}_examples;\n"
    (tmp_path / "consumer.ts").write_text(consumer + CONSUMER)
    compiled = subprocess.run(
        [node_program("tsc"), "--strict", "--noEmit", "--target", "es2022", "--types", "", "consumer.ts"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert compiled.returncode == 0, compiled.stdout
