"""What there is to know of a lab, as data and as a table."""

from __future__ import annotations

from typing import Any

from . import snapshot
from .lab import Lab


def collect(lab: Lab) -> dict[str, Any]:
    """{name, up, release, hosts: {NAME: {kind, state, legs: {INTERFACE: {switch, port, address, cable, carrier}}, disk}},
    blocks: [{from, to, leg, switch}], snapshots: [NAME]}; `disk` only where there is one: the list of its faults."""
    faults = lab.faults()
    hosts: dict[str, Any] = {}
    for machine in lab.machines.values():
        carriers = {link.get("ifalias"): "LOWER_UP" in link["flags"] for link in lab.wiring.links(machine.name)}
        entry: dict[str, Any] = {"kind": machine.host.kind.name, "state": machine.state(), "legs": {}}
        for leg in machine.host.legs:
            entry["legs"][leg.interface] = {
                "switch": leg.switch,
                "port": leg.port,
                "address": str(leg.address),
                "cable": "out" if (leg.host, leg.interface) in faults.cables_out else "in",
                "carrier": carriers.get(leg.parked, False),
            }
        if machine.host.kind.disk:
            entry["disk"] = faults.disk(machine.name)
        hosts[machine.name] = entry
    return {
        "name": lab.layout.name,
        "up": lab.alive(),
        "release": lab.release,
        "hosts": hosts,
        "blocks": [block.record() for block in faults.blocks],
        "snapshots": snapshot.names(lab),
    }


def table(status: dict[str, Any]) -> str:
    rows = [["host", "kind", "state", "legs", "disk"]]
    for name, host in status["hosts"].items():
        legs = [f"{interface} {leg['address']} {leg['switch']}.{leg['port']} {_link(leg)}" for interface, leg in host["legs"].items()] or [
            "-"
        ]
        disk = (", ".join(host["disk"]) or "ok") if "disk" in host else "-"
        rows += [[name, host["kind"], host["state"], legs[0], disk], *(["", "", "", leg, ""] for leg in legs[1:])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [f"lab '{status['name']}', {status['release']}"]
    lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [f"lost on {block['switch']}: what {block['from']} sends to {block['to']}" for block in status["blocks"]]
    if status["snapshots"]:
        lines.append(f"snapshots: {', '.join(status['snapshots'])}")
    return "\n".join(lines)


def _link(leg: dict[str, Any]) -> str:
    if leg["cable"] == "out":
        return "cable out"
    return "up" if leg["carrier"] else "no carrier"
