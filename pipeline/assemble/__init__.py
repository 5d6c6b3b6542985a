"""Assembling: events are folded into call records. Pure: no I/O, and time is an argument."""
