// Runs `oidc-provider`, a real identity provider, on a free port for tests.
//
// The program reads commands from standard input, one line of JSON each, and writes one line of
// JSON to standard output for each. The first line of its output is {"url": …}. The program exits
// at the end of its input.
//
//   {"login": {"user", "client", "resource", "scope"}}  logs a user in, returns an access token
//   {"revoke": {"token", "client"}}  revokes a token of a client
//   {"rotate": true}    signs with a new key, and keeps the old keys published
//   {"withdraw": true}  publishes only the newest key
//
// Tokens for the resource PREFD are JWTs. Tokens for the resource OPAQUE are opaque.

import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto';
import Provider from 'oidc-provider';

const PREFD = 'urn:prefd';
const OPAQUE = 'urn:prefd:opaque';
const SECRET = 'secret';
const REDIRECT = 'http://127.0.0.1/callback';
const SCOPES = ['user:preferences:read:foreign', 'user:preferences:write:foreign'];

const server = createServer((request, response) => answer(request, response));
let answer;
let url;
let keys = [];

function newKey() {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return {
    ...privateKey.export({ format: 'jwk' }),
    use: 'sig', alg: 'ES256', kid: randomBytes(4).toString('hex'),
  };
}

// A provider reads its configuration only once, so a change of the keys needs a new provider. Tokens
// and sessions stay valid, because the process keeps them in memory.
function publish() {
  const provider = new Provider(url, {
    jwks: { keys },
    cookies: { keys: [SECRET] },
    clients: ['xyz', 'other'].map((client_id) => ({
      client_id,
      client_secret: SECRET,
      redirect_uris: [REDIRECT],
      grant_types: ['authorization_code'],
      application_type: 'native',
    })).concat([{
      client_id: 'prefd',
      client_secret: SECRET,
      redirect_uris: [],
      response_types: [],
      grant_types: [],
    }]),
    clientDefaults: { id_token_signed_response_alg: 'ES256' },
    enabledJWA: { idTokenSigningAlgValues: ['ES256'] },
    scopes: ['openid', ...SCOPES],
    pkce: { required: () => false },
    async findAccount(context, id) {
      return { accountId: id, claims: async () => ({ sub: id }) };
    },
    ttl: { AccessToken: 3600 },
    features: {
      devInteractions: { enabled: true },
      introspection: { enabled: true, allowedPolicy: (context, client) => client.clientId === 'prefd' },
      revocation: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: async (context, resource) => ({
          scope: SCOPES.join(' '),
          audience: 'prefd',
          accessTokenFormat: resource === OPAQUE ? 'opaque' : 'jwt',
          jwt: { sign: { alg: 'ES256' } },
        }),
      },
    },
  });
  answer = provider.callback();
}

// Performs the authorization code flow, first as the browser and then as the client.
async function login({ user, client, resource, scope }) {
  const jar = new Map();
  const visit = async (to, body) => {
    const response = await fetch(new URL(to, url), {
      redirect: 'manual',
      method: body ? 'POST' : 'GET',
      body: body && new URLSearchParams(body),
      headers: { cookie: [...jar].map(([name, value]) => `${name}=${value}`).join('; ') },
    });
    for (const cookie of response.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(cookie);
      jar.set(name, value);
    }
    return { at: response.headers.get('location'), text: await response.text() };
  };
  const verifier = randomBytes(32).toString('base64url');
  const query = new URLSearchParams({
    client_id: client, response_type: 'code', redirect_uri: REDIRECT, resource,
    scope: `openid ${scope ?? ''}`.trim(),
    code_challenge: createHash('sha256').update(verifier).digest('base64url'),
    code_challenge_method: 'S256',
  });
  let page = await visit(`/auth?${query}`);
  while (!page.at?.startsWith(REDIRECT)) {
    if (page.at?.includes('/interaction/')) {
      const form = (await visit(page.at)).text;
      const prompt = /name="prompt" value="(\w+)"/.exec(form)[1];
      page = await visit(page.at, prompt === 'login' ? { prompt, login: user, password: 'x' } : { prompt });
    } else if (page.at) {
      page = await visit(page.at);
    } else {
      throw new Error(`the login stopped at this page: ${page.text}`);
    }
  }
  const code = new URL(page.at).searchParams.get('code');
  if (!code) throw new Error(`expected a code in the redirect: ${page.at}`);
  const response = await fetch(new URL('/token', url), {
    method: 'POST',
    headers: { authorization: `Basic ${btoa(`${client}:${SECRET}`)}` },
    body: new URLSearchParams({
      grant_type: 'authorization_code', code, redirect_uri: REDIRECT, resource, code_verifier: verifier,
    }),
  });
  const token = await response.json();
  if (!token.access_token) throw new Error(JSON.stringify(token));
  return { token: token.access_token };
}

async function revoke({ token, client }) {
  const response = await fetch(new URL('/token/revocation', url), {
    method: 'POST',
    headers: { authorization: `Basic ${btoa(`${client}:${SECRET}`)}` },
    body: new URLSearchParams({ token }),
  });
  if (response.status !== 200) throw new Error(await response.text());
  return {};
}

async function execute(command) {
  if (command.login) return login(command.login);
  if (command.revoke) return revoke(command.revoke);
  if (command.rotate) keys = [newKey(), ...keys];
  if (command.withdraw) keys = keys.slice(0, 1);
  publish();
  return {};
}

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

// oidc-provider warns that this configuration is not suitable for production.
console.warn = () => {};
console.info = () => {};
const at = process.argv[2] ?? '0';
server.listen(Number(at), '127.0.0.1', async () => {
  url = `http://127.0.0.1:${server.address().port}`;
  keys = [newKey()];
  publish();
  say({ url });
  for await (const line of createInterface({ input: process.stdin })) {
    try {
      say(await execute(JSON.parse(line)));
    } catch (error) {
      say({ error: String(error?.stack ?? error) });
    }
  }
  process.exit(0);
});
