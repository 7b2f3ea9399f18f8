"""From a node's settings to the options of its machines. Pure."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from respkv.membership.options import LAN, LAPTOP, WAN, MembershipOptions

if TYPE_CHECKING:
    from respkv.config.settings import Settings

PRESETS = {"lan": LAN, "wan": WAN, "laptop": LAPTOP}


def membership_options(settings: Settings) -> MembershipOptions:
    """The preset of `failure-detector`, with what the other directives change in it."""
    preset = PRESETS[settings.failure_detector]
    return dataclasses.replace(
        preset,
        protocol="broadcast" if settings.membership_protocol == "broadcast" else "gossip",
        gossip_interval_s=settings.gossip_interval / 1000,
        fanout_count=settings.gossip_fanout,
        detector=dataclasses.replace(preset.detector, phi_down=float(settings.phi_threshold)),
    )
