"""Telling other services what is finished: at least once, persisted, without ever blocking what is fresh."""

__all__: list[str] = []
