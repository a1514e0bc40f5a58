// passport-oauth2: an Express app with the strategy as its documentation shows it, with PKCE and
// state. It knows neither discovery nor introspection nor revocation nor the device flow.
import { once } from 'node:events';
import { promisify } from 'node:util';
import express from 'express';
import session from 'express-session';
import passport from 'passport';
import OAuth2Strategy from 'passport-oauth2';
import assert from 'node:assert/strict';
import {
  SCOPE, authorize, checkProfile, checkRefreshed, checkTokens, config, profileUrl, step, tell,
} from './story.mjs';

const strategy = new OAuth2Strategy({
  authorizationURL: `${config.base_url}/api/oauth/v1/authorize`,
  tokenURL: `${config.base_url}/api/oauth/v1/token`,
  clientID: config.client_id,
  clientSecret: config.client_secret,
  callbackURL: config.redirect_uri,
  scope: SCOPE.split(' '),
  pkce: true,
  state: true,
}, (accessToken, refreshToken, params, profile, done) => done(null, { ...params, refresh_token: refreshToken, profile }));

// The library it stands on puts the token into the URL unless told not to.
strategy._oauth2.useAuthorizationHeaderforGET(true);
strategy.userProfile = function userProfile(accessToken, done) {
  this._oauth2.get(String(profileUrl()), accessToken, (error, body) => (
    error ? done(new Error(JSON.stringify(error))) : done(null, JSON.parse(body))));
};

passport.use(strategy);
const app = express();
app.use(session({ secret: 'of a test', resave: false, saveUninitialized: false }));
app.get('/login', passport.authenticate('oauth2', { session: false }));
app.get('/callback', passport.authenticate('oauth2', { session: false, failWithError: true }), (req, res) => {
  res.json(req.user);
});
app.use((error, req, res, next) => {
  res.status(500).json({ error: error.oauthError ? JSON.stringify(error.oauthError) : error.stack });
});

tell(async () => {
  const listener = app.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const here = `http://127.0.0.1:${listener.address().port}`;

  const tokens = await step('code', async () => {
    const sent = await fetch(`${here}/login`, { redirect: 'manual' });
    const cookie = sent.headers.get('set-cookie').split(';')[0];
    const callback = await authorize(sent.headers.get('location'));
    const answer = await fetch(`${here}/callback${callback.search}`, { headers: { cookie } });
    const user = await answer.json();
    assert.equal(answer.status, 200, user.error);
    checkTokens(user);
    return user;
  });

  await step('profile', () => checkProfile(tokens.profile));

  await step('refresh', async () => {
    const refresh = promisify((token, done) => strategy._oauth2.getOAuthAccessToken(
      token, { grant_type: 'refresh_token' }, (error, accessToken, refreshToken, params) => done(
        error && new Error(JSON.stringify(error)), { ...params, refresh_token: refreshToken },
      ),
    ));
    checkRefreshed(tokens, await refresh(tokens.refresh_token));
  });
});
