"""Runs under the Python of a Home Assistant: starts it, and prints every state as one JSON line.

Usage: python home_assistant_child.py CONFIG_DIRECTORY
"""

import asyncio
import json
import sys

from homeassistant import bootstrap, runner
from homeassistant.const import EVENT_STATE_CHANGED
from homeassistant.core import callback


@callback
def tell(event):
    state = event.data["new_state"]
    told = {"entity": event.data["entity_id"], "state": None if state is None else state.state}
    if state is not None:
        told["attributes"] = {name: str(value) for name, value in state.attributes.items()}
    print(json.dumps(told), flush=True)


async def main(directory):
    bootstrap.DEFAULT_INTEGRATIONS = bootstrap.CRITICAL_INTEGRATIONS = set()  # no pages for people
    home = await bootstrap.async_setup_hass(runner.RuntimeConfig(config_dir=directory, skip_pip=True))
    assert home is not None
    home.bus.async_listen(EVENT_STATE_CHANGED, tell)
    await home.async_start()
    print(json.dumps({"entity": "started", "state": "on"}), flush=True)
    await asyncio.Event().wait()


asyncio.run(main(sys.argv[1]))
