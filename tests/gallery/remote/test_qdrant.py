"""What a Qdrant server is told, which its local mode does not heed: to compare with every row, and how."""

import json
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from edge.gallery.remote.engine_matcher import upload
from edge.gallery.remote.qdrant import QdrantEngine
from edge.gallery.remote.rotation import Rotation
from edge.gallery.remote.signed_rows import RowSigner
from tests.support.gallery_samples import gallery_of

DONE: dict[str, Any] = {"operation_id": 1, "status": "completed"}
RESULTS: dict[str, Any] = {
    "/collections/faces/exists": {"exists": False},
    "/collections/faces": True,
    "/collections/faces/index": DONE,
    "/collections/faces/points": DONE,
    "/collections/faces/points/query": {"points": []},
}
"""What a server answers to each request. Source: the OpenAPI document of Qdrant."""


def test_a_server_is_told_to_compare_every_row_and_to_index_what_limits_a_search():
    told: list[tuple[str, Any]] = []

    class Listening(BaseHTTPRequestHandler):
        def answer(self) -> None:
            path = self.path.partition("?")[0]
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            told.append((path, json.loads(body) if body else None))
            answer = json.dumps({"result": RESULTS[path], "status": "ok", "time": 0.0}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_PUT = do_POST = answer

        def log_message(self, format: str, *args: object) -> None:
            """Nothing is written."""

    gallery = gallery_of([1])
    with ThreadingHTTPServer(("127.0.0.1", 0), Listening) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        with closing(QdrantEngine.at(f"http://127.0.0.1:{server.server_port}", "faces")) as engine:
            upload(engine, gallery, Rotation(b"site", 128), RowSigner(b"site", "faces"), {})
            engine.nearest(gallery.matrix[0], "m", ("staff",), 4)
        server.shutdown()
        thread.join()
    made = dict(told)["/collections/faces"]
    assert made["hnsw_config"]["m"] == 0
    assert made["quantization_config"]["scalar"]["type"] == "int8"
    indexed = [body["field_name"] for path, body in told if path.endswith("/index")]
    assert indexed == ["model_id", "groups"]
    asked = dict(told)["/collections/faces/points/query"]
    assert {each["key"] for each in asked["filter"]["must"]} == set(indexed)
    quantized = asked["params"]["quantization"]
    assert (quantized["rescore"], quantized["oversampling"]) == (True, 4.0)
