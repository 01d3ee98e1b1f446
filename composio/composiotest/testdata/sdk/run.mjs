// Does with the official SDK what a program does, and prints what it saw.
// Usage: node run.mjs URL KEY
import { Composio } from '@composio/core';
import { Composio as Client } from '@composio/client';

const [, , baseURL, apiKey] = process.argv;
const seen = {};
const attempt = async (name, f) => {
  try {
    seen[name] = await f();
  } catch (e) {
    const at = e?.cause ?? e;
    seen[name] = { failed: true, status: at?.status ?? e?.status ?? e?.statusCode ?? null, name: e?.name };
    if (process.env.SDK_DEBUG) seen[name].message = String(e?.message) + ' | ' + String(at?.message) + (e?.stack ?? '');
  }
};

const core = new Composio({ apiKey, baseURL, allowTracking: false, disableVersionCheck: true });
await attempt('core.list', async () => {
  const page = await core.connectedAccounts.list({ userIds: ['alice'], toolkitSlugs: ['gmail'] });
  return page.items.map((a) => ({ id: a.id, status: a.status, toolkit: a.toolkit.slug }));
});
await attempt('core.get', async () => {
  const a = await core.connectedAccounts.get('ca_alice');
  return { id: a.id, status: a.status, toolkit: a.toolkit.slug };
});
await attempt('core.execute', async () => {
  const r = await core.tools.execute('GMAIL_FETCH_EMAILS', {
    userId: 'alice', connectedAccountId: 'ca_alice', version: '20260101_00', arguments: { query: 'is:unread' },
  });
  return { successful: r.successful, error: r.error, data: r.data };
});
await attempt('core.execute.failing', async () => {
  const r = await core.tools.execute('GMAIL_SEND_EMAIL', { userId: 'alice', version: '20260101_00', arguments: {} });
  return { successful: r.successful, error: r.error };
});
await attempt('core.execute.another', () =>
  core.tools.execute('GMAIL_FETCH_EMAILS', { userId: 'mallory', connectedAccountId: 'ca_alice', version: '20260101_00', arguments: {} }));
await attempt('core.disable', () => core.connectedAccounts.disable('ca_bob'));
await attempt('core.delete', () => core.connectedAccounts.delete('ca_bob'));
await attempt('core.get.deleted', () => core.connectedAccounts.get('ca_bob'));

const client = new Client({ apiKey, baseURL, maxRetries: 0 });
await attempt('client.list', async () => {
  const page = await client.connectedAccounts.list({ account_type: 'ALL', statuses: ['ACTIVE'], limit: 50 });
  return page.items.map((a) => a.id).sort();
});
await attempt('client.list.default', async () => {
  const page = await client.connectedAccounts.list({ limit: 50 });
  return page.items.map((a) => a.id).sort();
});
await attempt('client.revoke', async () => {
  const r = await client.connectedAccounts.revoke('ca_shared');
  return { tokens: r.revoked_tokens, status: r.connected_account.status };
});
await attempt('client.revoke.again', async () => (await client.connectedAccounts.revoke('ca_shared')).revoked_tokens);
await attempt('client.revoke.expired', () => client.connectedAccounts.revoke('ca_expired'));
await attempt('client.delete', async () => {
  const r = await client.connectedAccounts.delete('ca_shared', { revoke_on_delete: true });
  return { success: r.success, job: typeof r.revoke_job_id };
});
await attempt('client.tools', async () => {
  const page = await client.tools.list({ toolkit_slug: 'gmail' });
  return page.items.map((t) => t.slug).sort();
});
await attempt('client.session', async () => {
  const s = await client.toolRouter.session.create({
    user_id: 'alice', toolkits: { enable: ['gmail'] }, tools: { gmail: { enable: ['GMAIL_FETCH_EMAILS'] } },
  });
  const tools = await client.toolRouter.session.tools(s.session_id);
  await client.toolRouter.session.delete(s.session_id);
  return tools.items.map((t) => t.slug);
});
console.log(JSON.stringify(seen, null, 1));
