"""The control socket: one JSON object per line, {"command": ..., "arguments": {...}}.

The answer is {"result": ...} or {"error": "..."}. Commands are the methods of PracticeUpstream
named in COMMANDS; Control is the same set of methods for another process.
"""

import contextlib
import json
import pathlib
import socket
import threading
import time

COMMANDS = ("ready_facts", "counters", "messages", "reset", "add_rule", "add_row", "rules",
            "clear_rules", "limits", "set_limits", "put_account", "use_certificate", "pause",
            "resume", "drop_connections", "stop")
MISTAKES = (ValueError, TypeError, KeyError, OSError, RuntimeError)


class ControlServer:
    """Answers on a unix socket that only its owner can open."""

    def __init__(self, upstream, path):
        self.path = pathlib.Path(path)
        self._upstream = upstream
        self._socket = None

    def start(self):
        self.path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(self.path))
        self.path.chmod(0o600)
        self._socket.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self):
        if self._socket:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
            self.path.unlink(missing_ok=True)

    def _accept(self):
        while True:
            try:
                sock, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        with sock, sock.makefile("rw", encoding="utf-8") as stream, \
                contextlib.suppress(OSError):
            for line in stream:
                request = self._parsed(line)
                is_stop = request.get("command") == "stop"
                answer = {"result": None} if is_stop else self._answer(request)
                stream.write(json.dumps(answer, default=str) + "\n")
                stream.flush()
                if is_stop:
                    self._upstream.stop()
                    return

    @staticmethod
    def _parsed(line):
        try:
            request = json.loads(line)
        except ValueError:
            return {}
        return request if isinstance(request, dict) else {}

    def _answer(self, request):
        command = request.get("command")
        if command not in COMMANDS:
            return {"error": f"no command is called {command!r}; there are {', '.join(COMMANDS)}"}
        try:
            method = getattr(self._upstream, command)
            return {"result": method(**request.get("arguments", {}))}
        except MISTAKES as error:
            return {"error": f"{command}: {error}"}


class ControlError(Exception):
    """The server refused a command, or cannot be reached; the text says why."""


class Control:
    """The methods of PracticeUpstream in COMMANDS, called through the control socket."""

    def __init__(self, path):
        self._path = str(path)

    def __getattr__(self, command):
        if command not in COMMANDS:
            raise AttributeError(command)
        return lambda **arguments: self.call(command, **arguments)

    def call(self, command, **arguments):
        request = json.dumps({"command": command, "arguments": arguments})
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                sock.connect(self._path)
                sock.sendall(request.encode() + b"\n")
                with sock.makefile(encoding="utf-8") as stream:
                    answer = json.loads(stream.readline() or '{"error": "no answer"}')
        except OSError as error:
            raise ControlError(f"{self._path}: {error.strerror or error}") from error
        if "error" in answer:
            raise ControlError(answer["error"])
        return answer["result"]

    def wait_stored(self, count, timeout=30.0):
        """True when at least so many messages are stored before the time is up."""
        deadline = time.monotonic() + timeout
        while len(self.messages()) < count:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
        return True
