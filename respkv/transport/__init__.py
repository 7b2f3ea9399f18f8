"""What travels between nodes. Pure: bytes in, bytes out.

`frames` packs the sections of a turn into one frame for a peer, and unpacks it.
`bounds` says how long any of this may be.
`packets` cuts frames into packets, so that a heartbeat can pass between two pieces of a large value.
`handshake` proves knowledge of the cluster's secret before anything else is said.
`border` reads the messages inside the sections.
`turn` collects what the machines of a node want sent and logged while a turn lasts.
"""
