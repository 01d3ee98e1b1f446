// Drives the gateway with the official clients. It reads a list of steps as
// JSON from its argument, and prints what came of each.
import { Composio } from '@composio/core';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

const { url, key, steps } = JSON.parse(process.argv[2]);

const composio = new Composio({ apiKey: key, baseURL: url, allowTracking: false, disableVersionCheck: true });

let mcp;
async function overMCP() {
  if (!mcp) {
    mcp = new Client({ name: 'test', version: '1.0.0' });
    await mcp.connect(new StreamableHTTPClientTransport(new URL(url + '/mcp'), {
      requestInit: { headers: { Authorization: 'Bearer ' + key } },
    }));
  }
  return mcp;
}

const actions = {
  list: async ({ slugs }) => (await composio.tools.getRawComposioTools({ tools: slugs })).map((t) => ({ slug: t.slug, version: t.version, input: t.inputParameters })),
  toolkit: async ({ toolkit }) => (await composio.tools.getRawComposioTools({ toolkits: [toolkit], limit: 100 })).map((t) => t.slug),
  get: async ({ slug, version }) => { const t = await composio.tools.getRawComposioToolBySlug(slug, { version }); return { slug: t.slug, version: t.version }; },
  execute: async ({ slug, ...body }) => composio.tools.execute(slug, body),
  proxy: async (body) => composio.tools.proxyExecute(body),
  raw: async ({ slug, ...body }) => composio.getClient().tools.execute(slug, body),
  accounts: async () => composio.connectedAccounts.list(),
  mcpList: async () => (await (await overMCP()).listTools()).tools.map((t) => t.name).sort(),
  mcpCall: async ({ name, args }) => (await overMCP()).callTool({ name, arguments: args }),
  mcpPrompts: async () => (await overMCP()).listPrompts(),
};

const out = [];
for (const { action, ...args } of steps) {
  try {
    out.push({ result: await actions[action](args) });
  } catch (e) {
    const causes = [];
    for (let c = e; c; c = c.cause) causes.push(String(c.message ?? c));
    out.push({ error: causes.join(' | '), status: e?.status ?? e?.cause?.status ?? e?.statusCode });
  }
}
await mcp?.close();
console.log(JSON.stringify(out));
