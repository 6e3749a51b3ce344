"""Admission in virtual time: clients with unlimited demand against a provider that tells them little or nothing.

``cases`` is the table of what is asked. ``provider`` says no, ``simulation`` moves requests through time. Who decides
when to send: ``clients`` (headgate's gate), ``peers`` with the laws of ``baselines``, ``oracle`` that knows the limits,
and, in place of all this, ``shell`` (headgate's controller against the provider of ``headgate.testing``). ``play``
plays one case, ``figures`` makes numbers of it, ``table`` shows them; ``series`` makes curves of it, ``pictures`` draws
them and ``svg`` keeps the files small. ``processes`` shares the work.
"""
