"""Simulate Colab's rule for widgets in JupyterLab: a widget message sent outside a request is not delivered.

Colab's page forwards a `comm_msg` only while its parent request is executing: a cell, or a message of the page itself
(googlecolab/colabtools#3373). The parent header of a message names that request; for a thread of the kernel it is the
request that was executing when the thread started, or the newest. The kernel's `status` messages mark the start and
the end of a request. Sources: "Messaging in Jupyter" and "WebSocket kernel wire protocols".
"""

import itertools
import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page, WebSocketRoute

CHANNELS = re.compile(r"/api/kernels/[^/]+/channels")
REQUESTS = ("execute_request", "comm_open", "comm_msg")


class ColabRule:
    """Filter the WebSocket of a page by Colab's rule; count the delivered and dropped messages."""

    def __init__(self) -> None:
        self.executing: set[str] = set()  # message ids of requests
        self.delivered = self.dropped = 0

    def impose(self, page: "Page") -> "ColabRule":
        page.route_web_socket(CHANNELS, self._connect)
        return self

    def _connect(self, page_side: "WebSocketRoute") -> None:
        def deliver(message: str | bytes) -> None:
            if self._passes(*headers(message)):
                page_side.send(message)

        page_side.connect_to_server().on_message(deliver)

    def _passes(self, kind: str, parent: dict[str, Any], content: dict[str, Any]) -> bool:
        request = parent.get("msg_id", "")
        if kind == "status" and parent.get("msg_type") in REQUESTS:
            change = self.executing.discard if content["execution_state"] == "idle" else self.executing.add
            change(request)
        if kind != "comm_msg":
            return True
        passes = request in self.executing
        self.delivered += passes
        self.dropped += not passes
        return passes


def headers(message: str | bytes) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return type, parent header and content of a message in either wire protocol."""
    if isinstance(message, str):
        parsed = json.loads(message)
        return parsed["header"]["msg_type"], parsed["parent_header"], parsed["content"]
    count = int.from_bytes(message[:8], "little")
    offsets = [int.from_bytes(message[8 * n : 8 * n + 8], "little") for n in range(1, count + 1)]
    parts = [message[start:end] for start, end in itertools.pairwise(offsets)]
    header, parent, _, content = (json.loads(part) for part in parts[1:5])  # parts[0] is the channel
    return header["msg_type"], parent, content
