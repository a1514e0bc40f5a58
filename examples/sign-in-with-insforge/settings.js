// The settings of the app: from .env, or, in a clone of the InsForge repository without one, from
// the `make dev` that runs there (or whose demo.json DEMO_JSON names).
const crypto = require('crypto');
const fs = require('fs');
const path = require('path');

require('dotenv').config({ path: path.join(__dirname, '.env'), quiet: true });

const demoFile = process.env.DEMO_JSON || path.join(__dirname, '../../.insforge/demo.json');
if (!process.env.INSFORGE_CLIENT_ID && fs.existsSync(demoFile)) {
  const { base_url, oauth } = JSON.parse(fs.readFileSync(demoFile, 'utf8'));
  process.env.INSFORGE_URL = base_url;
  process.env.INSFORGE_CLIENT_ID = oauth?.confidential_client_id ?? '';
  process.env.INSFORGE_CLIENT_SECRET = oauth?.confidential_client_secret ?? '';
  process.env.SESSION_SECRET ||= crypto.randomBytes(32).toString('hex');
}

for (const name of ['SESSION_SECRET', 'INSFORGE_CLIENT_ID', 'INSFORGE_CLIENT_SECRET']) {
  if (!process.env[name]) {
    console.error(`Missing ${name}: copy .env.example to .env and fill it in, or start \`make dev\` first.`);
    process.exit(1);
  }
}

module.exports = {
  sessionSecret: process.env.SESSION_SECRET,
  clientId: process.env.INSFORGE_CLIENT_ID,
  clientSecret: process.env.INSFORGE_CLIENT_SECRET,
  insforgeUrl: process.env.INSFORGE_URL || 'https://api.insforge.dev',
  redirectUri: process.env.REDIRECT_URI || 'http://localhost:3000/auth/callback',
  scopes: 'user:read organizations:read',
};
