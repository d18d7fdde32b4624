"""How pushes and the configuration of devices are shown. What devices say of themselves is not trusted."""

from collections.abc import Mapping
from typing import Any

from edge.cli.output import Listing
from edge.fleet.rollout.config import Device


def push_table(title: str, states: Mapping[str, tuple[str, str]]) -> Listing:
    """Return what became of a push at each device, and why."""
    table = Listing("device", "came to", "why", copied=("device",), title=title)
    for device, (state, why) in sorted(states.items()):
        table.add_row(device, state, why)
    return table


def row(device: Device) -> dict[str, Any]:
    """Return what a list of devices tells of one."""
    report = device.report
    return {
        "online": "yes" if device.online else "no" if device.seen else "never seen",
        "desired": device.desired,
        "last": f"{report.layer or ''} {report.version or ''} {report.status}".strip() if report else None,
        "in_force": ", ".join(f"{layer} {v}" for layer, v in report.versions.items()) if report else None,
        "effective": report.effective[:12] if report else None,
        "error": report.error if report else None,
        "refused": f"{report.refused.count}: {report.refused.error}" if report and report.refused else None,
    }


def status_table(site: str, rows: Mapping[str, Mapping[str, Any]]) -> Listing:
    """Return all devices of a site, one `row` each."""
    columns = ("online", "desired", "last push", "in force", "effective", "why", "not believed")
    table = Listing("device", *columns, copied=("device",), title=site)
    for name, values in rows.items():
        table.add_row(name, *("-" if value is None else str(value) for value in values.values()))
    return table


def detail(device: Device) -> dict[str, Any]:
    """Return everything that is known of one device."""
    reported = device.report.model_dump(mode="json") if device.report else None
    return {"online": device.online, "desired": device.desired, "reported": reported}


def detail_table(name: str, device: Device) -> Listing:
    """Return everything that is known of one device, a line for each setting and layer."""
    table, report = Listing("", " ", title=name), device.report
    told: dict[str, Any] = row(device)
    if report is not None:
        told |= {"groups": ", ".join(report.groups) or None, "reported": report.at.isoformat()}
        told |= {f"layer {layer}": f"version {version}" for layer, version in report.versions.items()}
        told |= report.keys
    for key, value in told.items():
        table.add_row(key, "-" if value is None else str(value))
    return table
