"""What headgate costs and what it reaches, measured: ``python -m benchmarks --help``.

Nothing here is part of the package, and no test asserts on what it measures: that is a fact about a machine on a day.
"""
