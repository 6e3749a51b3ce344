"""Admission in virtual time: clients with unlimited demand against a provider that tells them little or nothing.

``provider`` says no, ``simulation`` moves requests through time, ``clients`` decides when to send, ``oracle`` knows the
limits, ``cases`` is the table, ``play`` plays one case, ``figures`` makes numbers of it, ``table`` shows them.
"""
