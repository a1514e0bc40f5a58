// The other OAuth server of `make bench`: oidc-provider on the same Postgres server as ours, with one
// process for each core. It is given what makes it quick: no ID tokens, no session behind a grant,
// its default access tokens (opaque: a row each, nothing to sign), clients in its configuration.
// It does what ours does at a refresh: looks up the account, rotates the refresh token, issues an
// access token.
//
// From the environment: DATABASE_URL (an empty database), PORT, PROCESSES, CLIENT_ID, CLIENT_SECRET,
// FAMILIES (how many sign-ins of one person there shall be). Writes one line when it is ready, and ends when its
// standard input does.

import cluster from 'node:cluster';
import { generateKeyPairSync, randomBytes, randomUUID } from 'node:crypto';
import { createServer } from 'node:http';

import { Provider } from 'oidc-provider';
import pg from 'pg';

import { adapterOn, createTables } from './adapter.mjs';

const { DATABASE_URL, PORT, PROCESSES, CLIENT_ID, CLIENT_SECRET, FAMILIES } = process.env;
const SCOPE = 'user:read organizations:read';
const HOUR = 60 * 60;
const DAY = 24 * HOUR;

const pool = new pg.Pool({ connectionString: DATABASE_URL, max: 16 });

const createAccounts = () =>
  pool.query('create table oidc_account (id text primary key, email text not null)');

async function findAccount(_ctx, id) {
  const { rows: [account] } = await pool.query({
    name: 'find_account',
    text: 'select id, email from oidc_account where id = $1',
    values: [id],
  });
  return account && { accountId: account.id, claims: () => ({ sub: account.id, email: account.email }) };
}

/** `secrets`: what all processes must have alike. */
function newProvider({ cookieKey, signingKey }) {
  const provider = new Provider(`http://127.0.0.1:${PORT}`, {
    adapter: adapterOn(pool),
    clients: [{
      client_id: CLIENT_ID,
      client_secret: CLIENT_SECRET,
      token_endpoint_auth_method: 'client_secret_post',
      grant_types: ['authorization_code', 'refresh_token'],
      redirect_uris: ['https://app.example/callback'],
      id_token_signed_response_alg: 'ES256',
    }],
    cookies: { keys: [cookieKey] },
    jwks: { keys: [signingKey] },
    findAccount,
    scopes: ['openid', 'offline_access', ...SCOPE.split(' ')],
    rotateRefreshToken: true,
    features: {
      devInteractions: { enabled: false },
      introspection: {
        enabled: true,
        // As ours: its own tokens only.
        allowedPolicy: (_ctx, client, token) => token.clientId === client.clientId,
      },
      revocation: { enabled: true },
    },
    ttl: { AccessToken: HOUR, RefreshToken: 30 * DAY, Grant: 365 * DAY, Session: DAY, Interaction: HOUR },
  });
  provider.on('server_error', (_ctx, error) => console.error(error));
  return provider;
}

/** Somebody who has signed in already: what a code exchange leaves behind, made with its own models. */
async function signIn(provider, families) {
  const client = await provider.Client.find(CLIENT_ID);
  const accountId = randomUUID();
  await pool.query('insert into oidc_account values ($1, $2)', [accountId, 'somebody@example.com']);
  const refreshTokens = [];
  for (let family = 0; family < families; family += 1) {
    const grant = new provider.Grant({ accountId, clientId: CLIENT_ID });
    grant.addOIDCScope(SCOPE);
    const grantId = await grant.save();
    const refreshToken = new provider.RefreshToken({
      accountId, client, grantId, gty: 'authorization_code', scope: SCOPE,
    });
    refreshTokens.push(await refreshToken.save());
  }
  return refreshTokens;
}

if (cluster.isPrimary) {
  process.stdin.resume().on('end', () => process.exit(0));
  const secrets = {
    cookieKey: randomBytes(32).toString('base64url'),
    signingKey: generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' }),
  };
  await createTables(pool);
  await createAccounts();
  const refreshTokens = await signIn(newProvider(secrets), Number(FAMILIES));
  await pool.end();

  let listening = 0;
  cluster.on('exit', (_worker, code) => {
    console.error(`a process ended with ${code}`);
    process.exit(1);
  });
  cluster.on('listening', () => {
    listening += 1;
    if (listening === Number(PROCESSES)) {
      console.log(JSON.stringify({ ready: true, refresh_tokens: refreshTokens, node: process.version }));
    }
  });
  for (let number = 0; number < Number(PROCESSES); number += 1) cluster.fork({ SECRETS: JSON.stringify(secrets) });
} else {
  const provider = newProvider(JSON.parse(process.env.SECRETS));
  createServer(provider.callback()).listen(Number(PORT), '127.0.0.1');
}
