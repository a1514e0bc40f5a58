// simple-oauth2: once with HTTP Basic and form bodies, once with everything in JSON bodies. It knows
// neither discovery nor introspection nor the device flow.
import { createHash, randomBytes } from 'node:crypto';
import assert from 'node:assert/strict';
import { AuthorizationCode } from 'simple-oauth2';
import {
  SCOPE, authorize, checkProfile, checkRefreshed, checkRevoked, checkTokens, config, profileUrl, step, tell,
} from './story.mjs';

async function story(label, options) {
  const client = new AuthorizationCode({
    client: { id: config.client_id, secret: config.client_secret },
    auth: {
      tokenHost: config.base_url,
      authorizePath: '/api/oauth/v1/authorize',
      tokenPath: '/api/oauth/v1/token',
      revokePath: '/api/oauth/v1/revoke',
    },
    options,
  });

  const tokens = await step(`code (${label})`, async () => {
    const verifier = randomBytes(32).toString('base64url');
    const state = randomBytes(16).toString('hex');
    const callback = await authorize(client.authorizeURL({
      redirect_uri: config.redirect_uri,
      scope: SCOPE,
      state,
      code_challenge: createHash('sha256').update(verifier).digest('base64url'),
      code_challenge_method: 'S256',
    }));
    assert.equal(callback.searchParams.get('state'), state);
    const answer = await client.getToken({
      code: callback.searchParams.get('code'),
      redirect_uri: config.redirect_uri,
      code_verifier: verifier,
    });
    checkTokens(answer.token);
    assert.equal(answer.expired(), false);
    return answer;
  });

  await step(`profile (${label})`, async () => {
    const headers = { Authorization: `Bearer ${tokens.token.access_token}` };
    checkProfile(await (await fetch(profileUrl(), { headers })).json());
  });

  const fresh = await step(`refresh (${label})`, async () => {
    const answer = await tokens.refresh();
    checkRefreshed(tokens.token, answer.token);
    return answer;
  });

  // It expects JSON even where RFC 7009 section 2.2 has nothing to say.
  await step(`revocation (${label})`, async () => {
    await fresh.revokeAll();
    await checkRevoked(fresh.token.access_token);
  });
}

tell(async () => {
  await story('basic, form', { authorizationMethod: 'header', bodyFormat: 'form' });
  await story('body, json', { authorizationMethod: 'body', bodyFormat: 'json' });
});
