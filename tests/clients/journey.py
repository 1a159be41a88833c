"""The job that pando is for, done by the protocol's official Python client: one version of a
package in one branch, another in a second, what differs and why, and back.

    python journey.py ERA

ERA: modern (2026-07-28) or legacy (2025-11-25)
Reads JSON from standard input: {"stdio": {"command", "args", "env"}} or {"http": {"url", "token"}},
"machine", the name of the machine to make, and "create", what else its creation is told. Prints
JSON: what it saw, and in how many calls. It can ask nobody: what must be confirmed comes back as a
plan, with the call that carries it out.
"""

import asyncio
import json
import sys

import httpx2
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client


def install(version: str) -> str:
    """Returns the shell line that makes and installs a package."""
    control = (
        f"Package: greet\\nVersion: {version}\\nArchitecture: all\\n"
        "Maintainer: nobody <nobody@localhost>\\nDescription: greets\\n"
    )
    return " && ".join([
        "mkdir -p /tmp/greet/DEBIAN /tmp/greet/usr/share/greet",
        f"echo {version} > /tmp/greet/usr/share/greet/version",
        f"printf '{control}' > /tmp/greet/DEBIAN/control",
        "dpkg-deb --build /tmp/greet /tmp/greet.deb",
        "dpkg -i /tmp/greet.deb",
        "rm -r /tmp/greet /tmp/greet.deb",
    ])


class Session:
    """Calls tools, and counts the calls."""

    def __init__(self, client, known):
        self.client, self.known, self.calls = client, known, 0

    async def call(self, name, parameters):
        """Calls a tool that is listed, and returns its result and the call that comes next."""
        assert name in self.known, f"{name} is not listed"
        self.calls += 1
        answer = await self.client.call_tool(name, parameters)
        said = answer.structured_content
        assert json.loads(answer.content[0].text) == said, "text and structure differ"
        assert not answer.is_error or said.get("next"), said
        return said["result"], said.get("next")


async def journey(client, machine, create):
    tools = (await client.list_tools()).tools
    session = Session(client, {tool.name for tool in tools})
    one, two = f"{machine}@one", f"{machine}@two"
    await session.call("vm_create", {"name": machine, **create})
    made, _ = await session.call("commit_create", {"branch": machine, "message": "before"})
    commit = made["commit_id"]
    await session.call("branch_create", {"from": commit, "names": ["one", "two"]})
    await session.call("exec_run", {"address": one, "command": install("1.0")})
    await session.call("exec_run", {"address": two, "command": install("2.0")})
    different, _ = await session.call("state_diff", {"from": one, "to": two})
    await session.call("branch_rollback", {"branch": two, "target": commit})
    same, _ = await session.call(
        "state_diff", {"from": commit, "to": two, "aspects": ["packages"]}
    )
    plan = {"name": machine, "force": True, "remove_overlays": True}
    _, confirm = await session.call("vm_delete", plan)
    await session.call(confirm["tool"], confirm["arguments"])
    seen = {"calls": session.calls, "listed": len(tools), "different": different, "same": same}
    print(json.dumps(seen))


async def main():
    given = json.load(sys.stdin)
    mode = "2026-07-28" if sys.argv[1] == "modern" else "legacy"
    if "stdio" in given:
        transport = stdio_client(StdioServerParameters(**given["stdio"]))
        async with Client(transport, mode=mode) as client:
            return await journey(client, given["machine"], given["create"])
    headers = {"Authorization": f"Bearer {given['http']['token']}"}
    async with httpx2.AsyncClient(headers=headers, timeout=120) as http:
        transport = streamable_http_client(given["http"]["url"], http_client=http)
        async with Client(transport, mode=mode) as client:
            await journey(client, given["machine"], given["create"])


asyncio.run(main())
