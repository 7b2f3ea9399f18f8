"""The Redis protocol, RESP2 and RESP3: bytes in, commands out, and replies back to bytes. Pure.

`reader`     requests: an exact, resumable parser for one connection, with limits and Redis's error texts.
`pipeline`   the fast way through a chunk of small whole commands: one split, then every length checked.
`inline`     requests typed by hand: words and quotes on a line.
`writer`     replies: one function for each kind, and constants for the frequent ones.
`replies`    whether bytes are a reply at all.
`numbers`    numbers that clients send: strict integers, cursors, and INCRBYFLOAT's long double.
`glob`       Redis's patterns (KEYS, SCAN MATCH, CONFIG GET), without regular expressions.
"""
