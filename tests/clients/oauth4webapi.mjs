// oauth4webapi: a confidential client with its secret in the body; the device flow as a public one,
// polled once too early.
import assert from 'node:assert/strict';
import * as oauth from 'oauth4webapi';
import {
  SCOPE, approveDevice, authorize, checkIntrospection, checkProfile, checkRefreshed, checkRevoked,
  checkTokens, config, pause, profileUrl, step, tell,
} from './story.mjs';

const http = { [oauth.allowInsecureRequests]: true }; // on loopback

tell(async () => {
  const client = { client_id: config.client_id };
  const authentication = oauth.ClientSecretPost(config.client_secret);

  const server = await step('discovery', async () => {
    const issuer = new URL(config.base_url);
    const answer = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...http });
    const found = await oauth.processDiscoveryResponse(issuer, answer);
    assert.deepEqual(found.code_challenge_methods_supported, ['S256']);
    assert.equal(found.authorization_response_iss_parameter_supported, true);
    assert.ok(!found.response_types_supported.includes('token'), 'there is no implicit grant');
    return found;
  });

  const tokens = await step('code', async () => {
    const verifier = oauth.generateRandomCodeVerifier();
    const state = oauth.generateRandomState();
    const url = new URL(server.authorization_endpoint);
    url.search = new URLSearchParams({
      client_id: client.client_id,
      redirect_uri: config.redirect_uri,
      response_type: 'code',
      scope: SCOPE,
      state,
      code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
      code_challenge_method: 'S256',
    });
    const params = oauth.validateAuthResponse(server, client, await authorize(url), state);
    const answer = await oauth.processAuthorizationCodeResponse(server, client, (
      await oauth.authorizationCodeGrantRequest(
        server, client, authentication, params, config.redirect_uri, verifier, http,
      )));
    checkTokens(answer);
    return answer;
  });

  const user = await step('profile', async () => {
    const answer = await oauth.protectedResourceRequest(
      tokens.access_token, 'GET', profileUrl(), undefined, undefined, http,
    );
    return checkProfile(await answer.json());
  });

  const fresh = await step('refresh', async () => {
    const answer = await oauth.processRefreshTokenResponse(server, client, (
      await oauth.refreshTokenGrantRequest(server, client, authentication, tokens.refresh_token, http)));
    checkRefreshed(tokens, answer);
    return answer;
  });

  const introspect = async (token) => oauth.processIntrospectionResponse(server, client, (
    await oauth.introspectionRequest(server, client, authentication, token, http)));

  await step('introspection', async () => checkIntrospection(await introspect(fresh.access_token), user));

  await step('revocation', async () => {
    // By the access token: the whole grant ends (RFC 7009 section 2.1).
    await oauth.processRevocationResponse((
      await oauth.revocationRequest(server, client, authentication, fresh.access_token, http)));
    await checkRevoked(fresh.access_token);
    assert.equal((await introspect(fresh.refresh_token)).active, false);
  });

  await step('device', async () => {
    const device = { client_id: config.public_client_id };
    const begun = await oauth.processDeviceAuthorizationResponse(server, device, (
      await oauth.deviceAuthorizationRequest(
        server, device, oauth.None(), new URLSearchParams({ scope: SCOPE }), http,
      )));
    const poll = async () => oauth.processDeviceCodeResponse(server, device, (
      await oauth.deviceCodeGrantRequest(server, device, oauth.None(), begun.device_code, http)));
    await assert.rejects(poll, (error) => error.error === 'authorization_pending');
    await approveDevice(begun);
    await pause(begun.interval + 1);
    const answer = await poll();
    checkTokens(answer);
    await assert.rejects(poll, (error) => error.error === 'expired_token', 'a device code works once');
  });
});
