// What the scripts of this folder share. Each is one story, told by one library, which a test drives:
//
//   node openid-client.mjs '{"base_url": …, "client_id": …, "client_secret": …, "public_client_id": …,
//                            "redirect_uri": …}'        (or the same JSON in OAUTH_CONFIG)
//
// The script writes JSON lines and reads one line for each that asks for something:
//   {"authorize": URL}          open it, sign in, consent; answer with the URL of the callback
//   {"device": {"user_code": …}} approve it; answer with any line
//   {"ok": ["discovery", …]}     the end, exit code 0; otherwise the reason on stderr and exit code 1
import assert from 'node:assert/strict';
import { createInterface } from 'node:readline';

export const config = JSON.parse(process.argv[2] ?? process.env.OAUTH_CONFIG ?? '{}');
export const SCOPE = 'user:read organizations:read';

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

async function ask(question) {
  console.log(JSON.stringify(question));
  const { value, done } = await lines.next();
  if (done) throw new Error('the one who should answer has gone');
  return value.trim();
}

// The URL to which a person was sent back.
export const authorize = async (url) => new URL(await ask({ authorize: String(url) }));

export const approveDevice = (answer) => ask({ device: answer });

const done = [];
let doing = 'the beginning';

export async function step(name, work) {
  doing = name;
  const result = await work();
  done.push(name);
  return result;
}

export async function tell(story) {
  try {
    for (const key of ['base_url', 'client_id', 'client_secret', 'public_client_id', 'redirect_uri']) {
      assert.ok(config[key], `the configuration lacks ${key}`);
    }
    await story();
    console.log(JSON.stringify({ ok: done }));
    process.exit(0);
  } catch (error) {
    const cause = error.cause ? `\ncause: ${JSON.stringify(error.cause) ?? error.cause}` : '';
    console.error(`${doing}: ${error.stack ?? error}${cause}`);
    process.exit(1);
  }
}

// ---- What every client must find ----

export const profileUrl = () => new URL('/auth/v1/profile', config.base_url);

export function checkProfile({ user }) {
  assert.match(user.id, /^[0-9a-f-]{36}$/);
  assert.match(user.email, /@/);
  assert.equal(user.email_verified, true);
  return user;
}

export function checkTokens(tokens) {
  assert.ok(tokens.access_token && tokens.refresh_token, 'both tokens are there');
  assert.equal(tokens.token_type.toLowerCase(), 'bearer');
  assert.deepEqual(tokens.scope.split(' ').sort(), SCOPE.split(' ').sort());
}

export function checkRefreshed(before, after) {
  checkTokens(after);
  assert.notEqual(after.refresh_token, before.refresh_token, 'refresh tokens rotate');
  assert.notEqual(after.access_token, before.access_token);
}

export function checkIntrospection(answer, user) {
  assert.equal(answer.active, true);
  assert.equal(answer.client_id, config.client_id);
  assert.equal(answer.sub, user.id);
  assert.deepEqual(answer.scope.split(' ').sort(), SCOPE.split(' ').sort());
}

// With plain fetch, so that no library's error stands between.
export async function checkRevoked(accessToken) {
  const answer = await fetch(profileUrl(), { headers: { Authorization: `Bearer ${accessToken}` } });
  assert.equal(answer.status, 401, 'the access token ends with its grant');
  assert.match(answer.headers.get('www-authenticate') ?? '', /^Bearer .*invalid_token/);
}

export const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
