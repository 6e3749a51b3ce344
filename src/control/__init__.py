"""Control of an engine from outside: a local socket that takes one command a line, and who speaks to it.

Who may open the socket may command: it is the user's own (mode 0600), in a directory that nobody else may enter.
"""

from __future__ import annotations

from .client import ask, find_sockets
from .places import control_directory
from .ports import Controlled
from .protocol import VERSION, Command
from .server import ControlSocket, open_control

__all__ = [
    "VERSION",
    "Command",
    "ControlSocket",
    "Controlled",
    "ask",
    "control_directory",
    "find_sockets",
    "open_control",
]
