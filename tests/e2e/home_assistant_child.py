"""Runs under the Python of a Home Assistant: starts it, and prints what happens as one JSON line each.

Told are states of entities, devices that come ("device <identifier>"), automations that run ("ran <entity>"),
and what has statistics ("statistics"). A line of its input calls a service: DOMAIN SERVICE JSON; the line
"statistics" asks for them.

Usage: python home_assistant_child.py CONFIG_DIRECTORY
"""

import asyncio
import json
import sys

from homeassistant import bootstrap, runner
from homeassistant.components.recorder.statistics import async_list_statistic_ids
from homeassistant.const import EVENT_STATE_CHANGED
from homeassistant.core import callback
from homeassistant.helpers import device_registry


def say(entity, state, attributes=None):
    told = {"entity": entity, "state": state, "attributes": attributes or {}}
    print(json.dumps(told, default=str), flush=True)


@callback
def tell(event):
    state = event.data["new_state"]
    told = {} if state is None else {name: str(value) for name, value in state.attributes.items()}
    say(event.data["entity_id"], None if state is None else state.state, told)


@callback
def tell_run(event):
    say(f"ran {event.data['entity_id']}", event.data["source"])


async def main(directory):
    bootstrap.DEFAULT_INTEGRATIONS = bootstrap.CRITICAL_INTEGRATIONS = set()  # no pages for people
    home = await bootstrap.async_setup_hass(runner.RuntimeConfig(config_dir=directory, skip_pip=True))
    assert home is not None
    devices = device_registry.async_get(home)

    @callback
    def tell_device(event):
        device = devices.async_get(event.data["device_id"])
        for _, identifier in device.identifiers if device else ():
            say(f"device {identifier}", device.id, {"name": device.name, "via": device.via_device_id})

    home.bus.async_listen(EVENT_STATE_CHANGED, tell)
    home.bus.async_listen(device_registry.EVENT_DEVICE_REGISTRY_UPDATED, tell_device)
    home.bus.async_listen("automation_triggered", tell_run)
    await home.async_start()
    say("started", "on")
    while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
        if line == "statistics":
            say(
                "statistics",
                "told",
                {each["statistic_id"]: each for each in await async_list_statistic_ids(home)},
            )
        else:
            domain, service, data = line.split(" ", 2)
            await home.services.async_call(domain, service, json.loads(data), blocking=True)


asyncio.run(main(sys.argv[1]))
