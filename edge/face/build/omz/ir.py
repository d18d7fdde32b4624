"""Read a network in OpenVINO's IR, version 11: operators from the .xml, their constants from the .bin.

Only what lies in the two files is read: a document type, and with it every entity, is refused, and each size
is bounded before anything is made of it. Runs nothing, and knows no network.

Source: docs.openvino.ai, "OpenVINO IR format"; checked with face-reidentification-retail-0095.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat

import numpy as np

from edge.core.errors import ModelError
from edge.face.build.network import Floats

MAX_XML_BYTES = 4 * 1024 * 1024
"""Ten times the largest that is read here."""

MAX_OPERATORS = 10_000
"""The network that is read here has 686."""

CONSTANT_TYPES: dict[str, np.dtype[Any]] = {"f16": np.dtype("<f2"), "f32": np.dtype("<f4")}
"""Element types of constants, little-endian in the .bin."""


@dataclass(frozen=True, slots=True, eq=False)
class Operator:
    """One operator; `inputs` are the ids of those whose only output it takes, in the order of its ports."""

    kind: str
    attributes: Mapping[str, str]
    inputs: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Ir:
    """A network: its operators by id, in the file's order; constants are not among them, but arrays by id."""

    operators: Mapping[str, Operator]
    constants: Mapping[str, Floats]


@dataclass(slots=True)
class _Document:
    """What the .xml says, collected while it is read. `inputs` are port -> source of each operator."""

    kinds: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, dict[str, str]] = field(default_factory=dict)
    inputs: dict[str, dict[int, str]] = field(default_factory=dict)
    current: str | None = None

    def begin(self, tag: str, values: dict[str, str]) -> None:
        if tag == "layer":
            self.current = values["id"]
            if self.current in self.kinds or len(self.kinds) >= MAX_OPERATORS:
                raise ModelError("the parent model's .xml repeats an operator or has too many")
            self.kinds[self.current] = values["type"]
        elif tag == "data" and self.current is not None:
            self.attributes[self.current] = values
        elif tag == "edge":
            self.inputs.setdefault(values["to-layer"], {})[int(values["to-port"])] = values["from-layer"]

    def end(self, tag: str) -> None:
        if tag == "layer":
            self.current = None


def read_ir(xml: bytes, weights: bytes) -> Ir:
    """Read both files of a network.

    Raises:
        ModelError: They are not an IR that this reader understands.
    """
    document = _parse(xml)
    constants: dict[str, Floats] = {}
    operators: dict[str, Operator] = {}
    left = len(weights)
    for name, kind in document.kinds.items():
        ports = document.inputs.get(name, {})
        inputs = tuple(ports[port] for port in sorted(ports))
        if any(source not in document.kinds for source in inputs):
            raise ModelError(f"the parent model's operator {name} takes one that is not there")
        attributes = document.attributes.get(name, {})
        if kind == "Const":
            constants[name] = _constant(name, attributes, weights)
            left -= int(attributes["size"])
            if left < 0:
                raise ModelError("the parent model's constants are together larger than its .bin")
        elif kind == "Convert" and inputs[:1] and inputs[0] in constants:
            constants[name] = constants[inputs[0]]
        else:
            operators[name] = Operator(kind, attributes, inputs)
    return Ir(operators, constants)


def _parse(xml: bytes) -> _Document:
    if len(xml) > MAX_XML_BYTES:
        raise ModelError("the parent model's .xml is too large")
    document = _Document()
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = _refuse_doctype
    parser.StartElementHandler = document.begin
    parser.EndElementHandler = document.end
    try:
        parser.Parse(xml, True)
    except (expat.ExpatError, KeyError, ValueError) as error:
        raise ModelError(f"the parent model's .xml cannot be read: {error}") from None
    return document


def _refuse_doctype(*_: object) -> None:
    raise ModelError("the parent model's .xml declares a document type; an IR has none")


def _constant(name: str, attributes: Mapping[str, str], weights: bytes) -> Floats:
    try:
        element = CONSTANT_TYPES[attributes["element_type"]]
        shape = tuple(int(side) for side in attributes["shape"].split(",") if side.strip())
        offset, size = int(attributes["offset"]), int(attributes["size"])
    except (KeyError, ValueError):
        raise ModelError(f"the parent model's constant {name} cannot be understood") from None
    whole = min(shape, default=1) > 0 and size == math.prod(shape) * element.itemsize
    if not whole or offset < 0 or offset + size > len(weights):
        raise ModelError(f"the parent model's constant {name} does not lie in the .bin")
    values = np.frombuffer(weights, element, math.prod(shape), offset)
    return np.asarray(values.reshape(shape), np.float64)
