// client.mjs URL|COMMAND...: connects with the official TypeScript client to an MCP server, over HTTP or over a pipe, lists its tools,
// has one run that works and one that does not, and prints what it got as JSON.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const [first, ...rest] = process.argv.slice(2);
const token = process.env.MCP_TOKEN;
const transport = first.startsWith("http")
  ? new StreamableHTTPClientTransport(new URL(first), token ? { requestInit: { headers: { Authorization: `Bearer ${token}` } } } : undefined)
  : new StdioClientTransport({ command: first, args: rest, stderr: "inherit" });
const client = new Client({ name: "referee", version: "1" });
await client.connect(transport);
const { tools } = await client.listTools();
const found = await client.callTool({ name: "vault_search", arguments: { text: "ferns" } });
const outside = await client.callTool({ name: "vault_read", arguments: { path: "../outside.md" } });
console.log(JSON.stringify({ server: client.getServerVersion(), tools: tools.map(t => t.name), found, outside }));
await client.close();
