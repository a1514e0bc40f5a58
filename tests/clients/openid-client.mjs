// openid-client: a confidential client with HTTP Basic; the device flow as a public one.
import assert from 'node:assert/strict';
import * as oauth from 'openid-client';
import {
  SCOPE, approveDevice, authorize, checkIntrospection, checkProfile, checkRefreshed, checkRevoked,
  checkTokens, config, profileUrl, step, tell,
} from './story.mjs';

// Plain OAuth 2.0 discovery (RFC 8414), over http on loopback.
const discover = (id, authentication) => oauth.discovery(
  new URL(config.base_url), id, undefined, authentication,
  { algorithm: 'oauth2', execute: [oauth.allowInsecureRequests] },
);

tell(async () => {
  const client = await step('discovery', () => (
    discover(config.client_id, oauth.ClientSecretBasic(config.client_secret))));

  const tokens = await step('code', async () => {
    const pkceCodeVerifier = oauth.randomPKCECodeVerifier();
    const expectedState = oauth.randomState();
    const callback = await authorize(oauth.buildAuthorizationUrl(client, {
      redirect_uri: config.redirect_uri,
      scope: SCOPE,
      state: expectedState,
      code_challenge: await oauth.calculatePKCECodeChallenge(pkceCodeVerifier),
      code_challenge_method: 'S256',
    }));
    // Checks state and iss (RFC 9207), too.
    const answer = await oauth.authorizationCodeGrant(client, callback, { pkceCodeVerifier, expectedState });
    checkTokens(answer);
    return answer;
  });

  const user = await step('profile', async () => {
    const answer = await oauth.fetchProtectedResource(client, tokens.access_token, profileUrl(), 'GET');
    return checkProfile(await answer.json());
  });

  const fresh = await step('refresh', async () => {
    const answer = await oauth.refreshTokenGrant(client, tokens.refresh_token);
    checkRefreshed(tokens, answer);
    return answer;
  });

  await step('introspection', async () => {
    checkIntrospection(await oauth.tokenIntrospection(client, fresh.access_token), user);
  });

  await step('revocation', async () => {
    await oauth.tokenRevocation(client, fresh.refresh_token);
    await checkRevoked(fresh.access_token);
    assert.equal((await oauth.tokenIntrospection(client, fresh.access_token)).active, false);
  });

  await step('device', async () => {
    const device = await discover(config.public_client_id, oauth.None());
    const begun = await oauth.initiateDeviceAuthorization(device, { scope: SCOPE });
    await approveDevice(begun);
    const answer = await oauth.pollDeviceAuthorizationGrant(device, begun);
    checkTokens(answer);
    await oauth.tokenRevocation(device, answer.refresh_token);
    await checkRevoked(answer.access_token);
  });
});
