// The job that pando is for, done by the protocol's official TypeScript clients: one version of a
// package in one branch, another in a second, what differs and why, and back.
//
//   node journey.mjs CLIENT ERA
//
// CLIENT: v2 (the SDK of both eras) or v1 (the SDK that many programs still have)
// ERA: modern (2026-07-28) or legacy (2025-11-25)
// Reads JSON from standard input: {"stdio": {"command", "args", "env"}} or {"http": {"url",
// "token"}}, "machine", the name of the machine to make, and "create", what else its creation is
// told. Prints JSON: what it saw, and in how many calls.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [sdk, era] = process.argv.slice(2);
const { stdio, http, machine, create } = JSON.parse(readFileSync(0, "utf8"));
const info = { name: `journey-${sdk}`, version: "1" };
const capabilities = { elicitation: { form: {} } };

// The packages are installed beside the tests' build, not beside this file.
const installed = createRequire(`${process.env.PANDO_CLIENTS}/journey.mjs`);
const load = (name) => import(pathToFileURL(installed.resolve(name)));

/** Returns a connected client. Whoever it asks agrees. */
async function connect() {
  const root = sdk === "v2" ? "@modelcontextprotocol/client" : "@modelcontextprotocol/sdk/client";
  const file = (name) => (sdk === "v2" ? root : `${root}/${name}.js`);
  const { Client } = await load(file("index"));
  const mode = era === "modern" ? { pin: "2026-07-28" } : "legacy";
  const client = new Client(info, { capabilities, versionNegotiation: { mode } });
  const agree = () => ({ action: "accept", content: { confirm: true } });
  if (sdk === "v2") {
    client.setRequestHandler("elicitation/create", agree);
  } else {
    const { ElicitRequestSchema } = await load("@modelcontextprotocol/sdk/types.js");
    client.setRequestHandler(ElicitRequestSchema, agree);
  }
  if (stdio) {
    const { StdioClientTransport } = await load(`${root}/stdio${sdk === "v2" ? "" : ".js"}`);
    await client.connect(new StdioClientTransport(stdio));
  } else {
    const { StreamableHTTPClientTransport } = await load(file("streamableHttp"));
    const requestInit = { headers: { Authorization: `Bearer ${http.token}` } };
    await client.connect(new StreamableHTTPClientTransport(new URL(http.url), { requestInit }));
  }
  return client;
}

const client = await connect();
const { tools } = await client.listTools();
const known = new Set(tools.map((tool) => tool.name));
let calls = 0;

/** Calls a tool that is listed, and returns its result. */
async function call(name, parameters) {
  assert(known.has(name), `${name} is not listed`);
  calls += 1;
  const answer = await client.callTool({ name, arguments: parameters });
  const said = answer.structuredContent;
  assert.deepEqual(JSON.parse(answer.content[0].text), said, "text and structure differ");
  assert(!answer.isError, JSON.stringify(said));
  return said.result;
}

/** Returns the shell line that makes and installs a package. */
const install = (version) =>
  [
    "mkdir -p /tmp/greet/DEBIAN /tmp/greet/usr/share/greet",
    `echo ${version} > /tmp/greet/usr/share/greet/version`,
    `printf 'Package: greet\\nVersion: ${version}\\nArchitecture: all\\n` +
      "Maintainer: nobody <nobody@localhost>\\nDescription: greets\\n' > /tmp/greet/DEBIAN/control",
    "dpkg-deb --build /tmp/greet /tmp/greet.deb",
    "dpkg -i /tmp/greet.deb",
    "rm -r /tmp/greet /tmp/greet.deb",
  ].join(" && ");

await call("vm_create", { name: machine, ...create });
const { commit_id } = await call("commit_create", { branch: machine, message: "before" });
await call("branch_create", { from: commit_id, names: ["one", "two"] });
await call("exec_run", { address: `${machine}@one`, command: install("1.0") });
await call("exec_run", { address: `${machine}@two`, command: install("2.0") });
const different = await call("state_diff", { from: `${machine}@one`, to: `${machine}@two` });
await call("branch_rollback", { branch: `${machine}@two`, target: commit_id });
const back = { from: commit_id, to: `${machine}@two`, aspects: ["packages"] };
const same = await call("state_diff", back);
await call("vm_delete", { name: machine, force: true, remove_overlays: true });
await client.close();
console.log(JSON.stringify({ calls, listed: tools.length, different, same }));
