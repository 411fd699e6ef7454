"""A server that does nothing: the floor. It counts bytes and sends as many back as it was told.

`python null_server.py FD`: a listening socket. Each connection begins with two numbers of eight
bytes, how long its requests and their answers are. What a call to it takes is the kernel and the
client; no server in Python is quicker.
"""

import select
import socket
import struct
import sys

LENGTHS = struct.Struct("<QQ")


def serve(listener: socket.socket) -> None:
    """Answer until killed."""
    waiting = select.epoll()
    waiting.register(listener.fileno(), select.EPOLLIN)
    lines: dict[int, tuple[socket.socket, int, bytes]] = {}
    left: dict[int, int] = {}
    into = memoryview(bytearray(1 << 20))
    while True:
        for number, _ in waiting.poll():
            if number == listener.fileno():
                line, _ = listener.accept()
                if line.family != socket.AF_UNIX:
                    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                asked, answered = LENGTHS.unpack(line.recv(LENGTHS.size, socket.MSG_WAITALL))
                lines[line.fileno()] = line, asked, bytes(answered)
                left[line.fileno()] = asked
                waiting.register(line.fileno(), select.EPOLLIN)
                continue
            line, asked, answer = lines[number]
            read = line.recv_into(into)
            left[number] -= read
            if not read:
                waiting.unregister(number)
                line.close()
            elif not left[number]:
                left[number] = asked
                line.sendall(answer)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
