"""The parts of the guides that are made from tables. Sends nothing.

In deploy/MQTT.md that is the reference of every channel, message and verb, in deploy/README.md the table of
problems. Each part stands between two lines that people do not see, `BEGIN` or `BEGIN_PROBLEMS` and `END`;
what is around it is written by hand.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel

from edge.core.errors import ConfigError
from edge.mqtt.contract.asyncapi import schema_mode
from edge.mqtt.contract.messages import READS, VERBS
from edge.mqtt.contract.problems import DoorProblem
from edge.mqtt.contract.topics import CHANNELS, MAJOR, PARAMETERS, READERS, Channel, Party

BEGIN = "<!-- From here on, `edge schema guide --out deploy/MQTT.md` writes. -->"
BEGIN_PROBLEMS = "<!-- From here on, `edge schema guide --out deploy/README.md` writes. -->"
END = "<!-- To here. -->"

Schema = dict[str, Any]


def reference() -> str:
    """Return the reference as Markdown."""
    return "\n".join([*_topics(), *_messages(), *_verbs()])


def problems() -> str:
    """Return the problems that `health` names, as a table in Markdown."""
    rows = ((f"`{each}`", each.when, each.remedy) for each in DoorProblem)
    return "\n".join([*_table(("problem", "when", "what to do"), rows), ""])


def replaced(guide: str) -> str:
    """Return a guide with a new part between its two marks.

    Raises:
        ConfigError: It has no such marks.
    """
    mark, part = (BEGIN_PROBLEMS, problems) if BEGIN_PROBLEMS in guide else (BEGIN, reference)
    before, begin, rest = guide.partition(mark)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ConfigError(f"the guide has no lines {BEGIN!r} and {END!r} to write between")
    return f"{before}{begin}\n\n{part()}\n{END}{after}"


def _topics() -> Iterator[str]:
    yield "### Topics\n"
    yield f"Every topic begins with `edge/{MAJOR}/<site>/`. The names in brackets are:\n"
    yield from (f"- `<{name}>`: {_inline(told)}" for name, told in PARAMETERS.items())
    readers = ", ".join(f"`{party}`" for party in Party if party in READERS)
    yield (
        f"\nA device logs in to the broker as `<site>/<device>`, the others as {readers} and `{Party.PAGE}`. "
        f"*Readers* are all of these others but `{Party.PAGE}`. The rules in `deploy/mosquitto/acl` let "
        "everybody do what this table says.\n"
    )
    yield from _table(
        ("topic", "published by", "subscribed to by", "QoS", "retained", "expires after"),
        (
            (
                f"[{_heading(channel)}](#{_anchor(channel)})",
                _parties(channel.publishers),
                _parties(channel.subscribers),
                str(channel.qos),
                "yes" if channel.retained else "no",
                "never" if channel.expiry_s is None else f"{channel.expiry_s} s",
            )
            for channel in CHANNELS
        ),
    )


def _messages() -> Iterator[str]:
    yield "\n### Messages"
    yield (
        "\nA message is a JSON object, unless it says otherwise. Times are UTC in the form "
        "`2026-08-01T07:31:22.481Z`. Scores are cosines from -1 to 1. A value that could not be measured is "
        "null. `[]` stands for each of a list, `*` for any name. A device refuses a message with a field "
        "that is not listed."
    )
    described: dict[type[BaseModel], Channel] = {}
    for channel in CHANNELS:
        yield f"\n#### {_heading(channel)}\n"
        yield _inline(channel.description)
        for payload in channel.payloads:
            if payload in described:
                first = described[payload]
                yield f"\nThe message is that of [{_heading(first)}](#{_anchor(first)})."
                continue
            described[payload] = channel
            yield "\nSigned:\n" if payload is channel.signed else ""
            if channel.content_type == "image/jpeg":
                yield "The message is no JSON: a JPEG."
            elif channel.plain:
                yield f"The message is no JSON: {_type(payload.model_json_schema(), {})}."
            else:
                yield from _fields(payload, channel)


def _verbs() -> Iterator[str]:
    yield "\n### Verbs\n"
    yield "What `command/<verb>` takes in `args`. A verb that changes something has to be signed.\n"
    rows = []
    for verb, args in VERBS.items():
        named = f"`{verb}`", "no" if verb in READS else "yes"
        rows += [(*named, *row) for row in _rows(args.model_json_schema())] or [(*named, "", "", "")]
    yield from _table(("verb", "signed", "argument", "what it is", "meaning"), rows)


def _fields(payload: type[BaseModel], channel: Channel) -> Iterator[str]:
    schema = payload.model_json_schema(mode=schema_mode(channel))
    yield from _table(("field", "what it is", "meaning"), _rows(schema))


def _rows(schema: Schema) -> list[tuple[str, str, str]]:
    """Return name, type and meaning of every field of an object, and of the objects in it."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    for name, kind, told in _fields_of(schema, schema.get("$defs", {}), "", set()):
        kinds, meanings = found.setdefault(name, ([], []))
        kinds.append(kind)
        meanings.append(told)
    return [(name, " or ".join(kinds), " ".join(told)) for name, (kinds, told) in found.items()]


def _fields_of(
    node: Schema, known: Schema, above: str, expanded: set[tuple[str, str]]
) -> Iterator[tuple[str, str, str]]:
    """Yield the fields below `above`; an object that stands there under two names is shown once."""
    for name, field in node.get("properties", {}).items():
        kind = _type(field, known) + ("" if name in node.get("required", ()) else ", may be absent")
        told = field.get("description") or _resolved(field, known).get("description", "")
        yield f"{above}`{name}`", kind, _inline(told)
        for part, suffix in _objects(field, known):
            if (place := (above + suffix, part["title"])) not in expanded:
                expanded.add(place)
                yield from _fields_of(part, known, f"{above}`{name}`{suffix}.", expanded)


def _objects(node: Schema, known: Schema) -> Iterator[tuple[Schema, str]]:
    """Yield the objects with fields of their own that a field may hold, and what goes before these names."""
    node = _resolved(node, known)
    if "properties" in node:
        yield node, ""
    for each in node.get("anyOf", ()):
        yield from _objects(each, known)
    if isinstance(items := node.get("items"), dict):
        yield from ((part, f"[]{suffix}") for part, suffix in _objects(items, known))
    if isinstance(values := node.get("additionalProperties"), dict):
        yield from ((part, f".`*`{suffix}") for part, suffix in _objects(values, known))


def _type(node: Schema, known: Schema) -> str:
    """Return what a value may be, in words."""
    node = _resolved(node, known)
    match node:
        case {"anyOf": options}:
            return " or ".join(dict.fromkeys(_type(each, known) for each in options))
        case {"const": value}:
            return f"`{value}`"
        case {"enum": values}:
            return ", ".join(f"`{value}`" for value in values)
        case {"type": "array", "prefixItems": items}:
            return f"list of {len(items)}: {_type(items[0], known)}"
        case {"type": "array", "items": items}:
            return f"list of: {_type(items, known)}"
        case {"type": "array"}:
            return "list"
        case {"type": "string", "format": "date-time"}:
            return "time"
        case {"type": "integer" | "number" as kind}:
            return _number(node, kind)
        case {"type": kind}:
            return {"string": "text", "boolean": "true or false", "object": "object", "null": "null"}[kind]
        case _:
            return "anything"


def _number(node: Schema, kind: str) -> str:
    low, high = node.get("minimum"), node.get("maximum", node.get("exclusiveMaximum"))
    if low is None:
        return kind
    return f"{kind} from {low:g}" + (f" to {high:g}" if high is not None and high < 1000 else "")


def _resolved(node: Schema, known: Schema) -> Schema:
    name = node.get("$ref", "").rpartition("/")[2]
    return known[name] if name else node


def _heading(channel: Channel) -> str:
    return f"`{channel.path.replace('{', '<').replace('}', '>')}`"


def _anchor(channel: Channel) -> str:
    """Return what a channel's heading is linked by: GitHub keeps letters, digits, - and _ in lower case."""
    return "".join(each for each in _heading(channel).lower() if each.isalnum() or each in "-_")


def _parties(parties: frozenset[Party]) -> str:
    if parties >= READERS:
        return ", ".join(["readers", *(f"`{party}`" for party in Party if party in parties - READERS)])
    return ", ".join(f"`{party}`" for party in Party if party in parties)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    cells = list(head)
    yield _line(cells)
    yield _line("---" for _ in cells)
    yield from (_line(row) for row in rows)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(each.replace("|", "\\|") for each in cells) + " |"


def _inline(text: str) -> str:
    """Return a description as Markdown: `<name>` is no tag."""
    return text.replace("<", "&lt;") if "`" not in text else text
