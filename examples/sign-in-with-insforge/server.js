const crypto = require('crypto');
const express = require('express');
const session = require('express-session');
const config = require('./settings');
const { dashboardPage, errorPage, homePage, popupPage } = require('./pages');

const app = express();
app.use(session({
  secret: config.sessionSecret,
  resave: false,
  saveUninitialized: false,
  cookie: { httpOnly: true, sameSite: 'lax', secure: process.env.NODE_ENV === 'production' },
}));

// What the token and revocation endpoints are told, with our own credentials.
const post = (path, params) => fetch(`${config.insforgeUrl}${path}`, {
  method: 'POST',
  headers: { 'Content-Type': 'application/json' },
  body: JSON.stringify({ client_id: config.clientId, client_secret: config.clientSecret, ...params }),
});

async function requestTokens(params) {
  const response = await post('/api/oauth/v1/token', params);
  const tokens = await response.json();
  if (!response.ok) throw new Error(tokens.error_description || tokens.error || 'no tokens');
  return tokens;
}

// Calls InsForge as the person of this session. An access token lives for an hour: when it is over,
// a new one is fetched, once.
async function callInsforge(req, path) {
  const call = () => fetch(`${config.insforgeUrl}${path}`, {
    headers: { Authorization: `Bearer ${req.session.tokens.access_token}` },
  });
  const response = await call();
  if (response.status !== 401) return response;
  const { refresh_token } = req.session.tokens;
  req.session.tokens = await requestTokens({ grant_type: 'refresh_token', refresh_token });
  return call();
}

app.get('/', (req, res) => (req.session.user ? res.redirect('/dashboard') : res.send(homePage())));

// Step 1: send the person to InsForge.
app.get('/auth/login', (req, res) => {
  const codeVerifier = crypto.randomBytes(32).toString('base64url');
  const state = crypto.randomBytes(16).toString('hex');
  req.session.login = { codeVerifier, state, isPopup: req.query.mode === 'popup' };
  res.redirect(`${config.insforgeUrl}/api/oauth/v1/authorize?${new URLSearchParams({
    client_id: config.clientId,
    redirect_uri: config.redirectUri,
    response_type: 'code',
    scope: config.scopes,
    state,
    code_challenge: crypto.createHash('sha256').update(codeVerifier).digest('base64url'),
    code_challenge_method: 'S256',
  })}`);
});

// Step 2: the person comes back, with a code for us or a reason why not.
app.get(new URL(config.redirectUri).pathname, async (req, res) => {
  const { code, state, error, error_description: why } = req.query;
  const login = req.session.login;
  if (!login || state !== login.state) {
    return res.status(403).send(errorPage('This sign-in was not begun here, or is too old.'));
  }
  delete req.session.login; // good for one attempt
  if (error) return res.status(400).send(errorPage(`OAuth error: ${error}`, why));

  const tokens = await requestTokens({
    grant_type: 'authorization_code',
    code,
    redirect_uri: config.redirectUri,
    code_verifier: login.codeVerifier,
  });
  // A new session for a new person: an old session id may be known to somebody else.
  await new Promise((done, fail) => req.session.regenerate((err) => (err ? fail(err) : done())));
  req.session.tokens = tokens;
  const profile = await callInsforge(req, '/auth/v1/profile');
  if (!profile.ok) throw new Error(`no profile: ${profile.status}`);
  req.session.user = (await profile.json()).user;
  if (login.isPopup) return res.send(popupPage());
  res.redirect('/dashboard');
});

// Step 3: use the access token.
const signedIn = (req, res, next) => (req.session.user ? next() : res.redirect('/'));

app.get('/dashboard', signedIn, (req, res) => res.send(dashboardPage(req.session.user)));

app.get('/api/organizations', signedIn, async (req, res) => {
  const response = await callInsforge(req, '/organizations/v1');
  res.status(response.status).type('json').send(await response.text());
});

// Signed out here, and what InsForge gave us is ended there.
app.post('/auth/logout', signedIn, async (req, res) => {
  await post('/api/oauth/v1/revoke', { token: req.session.tokens.refresh_token });
  req.session.destroy(() => res.redirect('/'));
});

app.use((err, req, res, next) => {
  console.error(err.message);
  res.status(500).send(errorPage('Signing in did not work. Please try again.'));
});

const { port } = new URL(config.redirectUri);
const listener = app.listen(process.env.PORT || port || 3000, () => {
  console.log(`Server running on http://localhost:${listener.address().port}`);
});
