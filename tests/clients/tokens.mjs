// Counts what the tools that a server lists cost a model: name, description and input schema, in
// tokens of o200k.
//
//   node tokens.mjs COMMAND [ARGUMENT]…
//
// Prints JSON: how many tools there are, their tokens together, and those of the largest.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const installed = createRequire(`${process.env.PANDO_CLIENTS}/tokens.mjs`);
const load = (name) => import(pathToFileURL(installed.resolve(name)));
const { Client } = await load("@modelcontextprotocol/client");
const { StdioClientTransport } = await load("@modelcontextprotocol/client/stdio");
const { countTokens } = await load("gpt-tokenizer/encoding/o200k_base");

const [command, ...args] = process.argv.slice(2);
const client = new Client({ name: "tokens", version: "1" });
await client.connect(new StdioClientTransport({ command, args, env: process.env }));
const { tools } = await client.listTools();
await client.close();

const counted = tools.map(({ name, description, inputSchema }) => {
  return { name, tokens: countTokens(JSON.stringify({ name, description, inputSchema })) };
});
counted.sort((one, other) => other.tokens - one.tokens);
const total = counted.reduce((sum, { tokens }) => sum + tokens, 0);
console.log(JSON.stringify({ tools: tools.length, total, largest: counted[0] }));
