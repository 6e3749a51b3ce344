"""How well work is ordered, in virtual time: pipelines whose tasks take a time that is written down, and lower bounds.

What a run reaches and what it could reach both come from the same list of durations, so a ratio says how far from the
best the schedule was, and nothing about the machine.
"""
