"""A scripted OpenAI-compatible server on loopback, with every fault a real one has. The script says what each request gets."""

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

Script = Callable[[int, dict[str, Any]], dict[str, Any]]


def completion(text: str = "ok", finish: str = "stop", **more: Any) -> dict[str, Any]:
    """A whole chat answer."""
    message = {"role": "assistant", "content": text, **more}
    return {
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5},
    }


class Server:
    """`with Server(script) as s:` answers at s.url. A script returns {status, headers, body | raw | hang | reset | trickle}."""

    def __init__(self, script: Script) -> None:
        self.script, self.seen, self.replied = script, [], 0
        self.headers: list[dict[str, str]] = []
        self.most_at_once = self.at_once = 0
        self.loop = asyncio.new_event_loop()
        self.started = threading.Event()

    def __enter__(self) -> "Server":
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        assert self.started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        server = self.loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        self.started.set()
        self.loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                headers = {"path": line.decode().split()[1]}
                while (h := await reader.readline()) not in (b"\r\n", b""):
                    name, _, value = h.decode().partition(":")
                    headers[name.lower()] = value.strip()
                body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))))
                self.headers.append(headers)
                self.seen.append(body)
                self.at_once += 1
                self.most_at_once = max(self.most_at_once, self.at_once)
                try:
                    if not await self._reply(writer, self.script(len(self.seen) - 1, body)):
                        return
                finally:
                    self.at_once -= 1
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    async def _reply(self, writer: asyncio.StreamWriter, what: dict[str, Any]) -> bool:
        if what.get("wait"):
            await asyncio.sleep(what["wait"])
        if what.get("reset"):
            writer.transport.abort()
            return False
        if what.get("hang"):
            await asyncio.sleep(60)
        data = what["raw"] if "raw" in what else json.dumps(what.get("body", {})).encode()
        status = what.get("status", 200)
        lines = [f"HTTP/1.1 {status} X", "content-type: application/json", f"content-length: {len(data)}"]
        lines += [f"{k}: {v}" for k, v in what.get("headers", {}).items()]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n")
        if what.get("trickle"):
            for byte in data:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(what["trickle"])
        if what.get("cut"):
            writer.write(data[: len(data) // 2])
            await writer.drain()
            writer.transport.abort()
            return False
        writer.write(data)
        await writer.drain()
        self.replied += status == 200
        return True
