"""The reader of OpenVINO's files: what they say, and what it refuses to read."""

import numpy as np
import pytest

from edge.core.errors import ModelError
from edge.face.build.omz.ir import MAX_OPERATORS, MAX_XML_BYTES, read_ir

WEIGHTS = np.array([1.5, -2.0, 0.25, 8.0], "<f2").tobytes() + np.array([3.0], "<f4").tobytes()

LAYERS = """
<layer id="0" name="x" type="Parameter"><data shape="1,4" element_type="f32"/></layer>
<layer id="1" name="w" type="Const"><data element_type="f16" shape="2, 2" offset="0" size="8"/></layer>
<layer id="2" name="w32" type="Convert"><data destination_type="f32"/></layer>
<layer id="3" name="a" type="Const"><data element_type="f32" shape="" offset="8" size="4"/></layer>
<layer id="4" name="y" type="PReLU"/>
"""

EDGES = """
<edge from-layer="1" from-port="0" to-layer="2" to-port="0"/>
<edge from-layer="2" from-port="1" to-layer="4" to-port="1"/>
<edge from-layer="0" from-port="0" to-layer="4" to-port="0"/>
"""


def document(layers: str = LAYERS, edges: str = EDGES, before: str = '<?xml version="1.0"?>') -> bytes:
    return f"{before}<net><layers>{layers}</layers><edges>{edges}</edges></net>".encode()


def test_operators_and_constants_are_read() -> None:
    ir = read_ir(document(), WEIGHTS)
    assert list(ir.operators) == ["0", "4"]
    assert ir.operators["4"].inputs == ("0", "2"), "in the order of the ports, not of the file"
    assert ir.operators["0"].attributes["shape"] == "1,4"
    assert ir.constants["2"].dtype == np.float64
    np.testing.assert_array_equal(ir.constants["2"], [[1.5, -2.0], [0.25, 8.0]])
    np.testing.assert_array_equal(ir.constants["3"], 3.0)


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        pytest.param(document()[:-8], "cannot be read", id="truncated"),
        pytest.param(b"", "cannot be read", id="empty"),
        pytest.param(
            document(before='<!DOCTYPE net [<!ENTITY e SYSTEM "file:///etc/passwd">]>'),
            "declares a document type",
            id="an external entity",
        ),
        pytest.param(
            document(before='<!DOCTYPE net [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]>').replace(b"x", b"&b;"),
            "declares a document type",
            id="entities that grow",
        ),
        pytest.param(
            '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE net><net/>'.encode("utf-16"),
            "declares a document type",
            id="a document type in another encoding",
        ),
        pytest.param(b"<net>" + b" " * MAX_XML_BYTES + b"</net>", "too large", id="too large"),
        pytest.param(
            document("".join(f'<layer id="{i}" type="Add"/>' for i in range(MAX_OPERATORS + 1)), ""),
            "too many",
            id="too many operators",
        ),
        pytest.param(document(LAYERS * 2), "repeats an operator", id="an operator twice"),
        pytest.param(document(LAYERS.replace('id="0" ', "")), "cannot be read", id="an operator without id"),
        pytest.param(document(edges=EDGES.replace('"2" from', '"9" from')), "not there", id="from nowhere"),
        pytest.param(
            document(edges=EDGES.replace('to-port="1"', 'to-port="?"')), "cannot be read", id="port"
        ),
        pytest.param(document(LAYERS.replace('"f16"', '"i64"')), "constant 1 cannot", id="another type"),
        pytest.param(document(LAYERS.replace('size="8"', 'size="9"')), "constant 1 does", id="another size"),
        pytest.param(
            document(LAYERS.replace('offset="8"', 'offset="9"')), "constant 3 does", id="past the end"
        ),
        pytest.param(
            document(LAYERS.replace('offset="0"', 'offset="-2"')), "constant 1 does", id="before it"
        ),
        pytest.param(document(LAYERS.replace("2, 2", "-2, -2")), "constant 1 does", id="negative sides"),
        pytest.param(
            document(LAYERS.replace("2, 2", "99999999, 99999999")), "constant 1 does", id="a huge constant"
        ),
        pytest.param(
            document(LAYERS + LAYERS.splitlines()[2].replace('id="1"', 'id="5"')),
            "together larger",
            id="constants that share their bytes",
        ),
    ],
)
def test_what_is_no_network_is_refused_in_one_line(xml: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        read_ir(xml, WEIGHTS)
    assert "\n" not in str(caught.value)
