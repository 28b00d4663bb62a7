#!/usr/bin/python3 -IS
"""ssh's ProxyCommand (with ProxyUseFdpass): connect to a port of the loopback in a network namespace, hand over the socket."""

import ctypes
import os
import socket
import sys


def main() -> None:
    namespace, port = sys.argv[1:]
    try:
        there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    except OSError:
        sys.exit(f"{namespace} is off")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(there, 0x40000000) != 0:
        sys.exit(f"setns {namespace}: {os.strerror(ctypes.get_errno())}")
    try:
        connection = socket.create_connection(("127.0.0.1", int(port)), timeout=10)
    except OSError as error:
        sys.exit(f"{namespace}: {error.strerror or error}")
    connection.setblocking(True)
    socket.send_fds(socket.socket(fileno=1), [b"\0"], [connection.fileno()])


main()
