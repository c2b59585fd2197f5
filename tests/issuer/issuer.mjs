// A real identity provider for tests: `oidc-provider`, on a port of its own. It is told
// what to do by lines of JSON on standard input, and answers each with one on standard
// output; it ends with its input. The first line that it prints is {"url": …}.
//
//   {"login": {"user", "client", "resource", "scope"}}  a user logs in: the access token
//   {"rotate": true}   signs with a new key from now on, and goes on publishing the old
//   {"withdraw": true} publishes the newest key only
//
// A token for the resource PREFD is a JWT, one for OPAQUE is not.

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

// The configuration is read once, so other keys take another provider; what it has stored
// is the process's.
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

// The authorization code flow, as a browser and then a client go through it.
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
      throw new Error(`the login ends at: ${page.text}`);
    }
  }
  const code = new URL(page.at).searchParams.get('code');
  if (!code) throw new Error(`no code: ${page.at}`);
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

async function carryOut(order) {
  if (order.login) return login(order.login);
  if (order.revoke) return revoke(order.revoke);
  if (order.rotate) keys = [newKey(), ...keys];
  if (order.withdraw) keys = keys.slice(0, 1);
  publish();
  return {};
}

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

// What it warns of is that this is no way to run it in earnest.
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
      say(await carryOut(JSON.parse(line)));
    } catch (error) {
      say({ error: String(error?.stack ?? error) });
    }
  }
  process.exit(0);
});
