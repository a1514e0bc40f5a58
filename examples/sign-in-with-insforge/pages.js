// The pages of the app. `html` escapes what is put into it.
const escape = (text) => String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
const html = (parts, ...values) => String.raw({ raw: parts }, ...values.map(escape));

const page = (title, body) => `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>${escape(title)}</title>
<style>
  :root { color-scheme: light dark; }
  body { font: 1rem/1.5 system-ui, sans-serif; max-width: 32rem; margin: 15vh auto 0; padding: 0 1rem; }
  a, button { font: inherit; }
</style>
<main>${body}</main>
</html>`;

exports.homePage = () => page('Sample app', `
<h1>Sample app</h1>
<p><a id="sign-in" href="/auth/login">Sign in with InsForge</a></p>
<p><button id="sign-in-popup" type="button">Sign in in a popup window</button></p>
<script>
  document.getElementById('sign-in-popup').addEventListener('click', () => {
    const popup = window.open('/auth/login?mode=popup', 'insforge-oauth', 'width=500,height=600');
    window.addEventListener('message', (event) => {
      if (event.origin !== window.location.origin) return;
      if (event.data.type === 'oauth-complete') {
        popup.close();
        window.location.reload();
      }
    });
  });
</script>`);

exports.popupPage = () => page('Signed in', `
<p>You are signed in. You can close this window.</p>
<script>
  window.opener?.postMessage({ type: 'oauth-complete' }, window.location.origin);
</script>`);

exports.dashboardPage = (user) => page('Dashboard', html`
<h1>Hello <span id="name">${user.profile?.name ?? user.name}</span></h1>
<p>You are signed in as <span id="email">${user.email}</span>.</p>
<form action="/api/organizations"><button id="organizations">Show my organizations</button></form>
<form action="/auth/logout" method="post"><button id="sign-out">Sign out</button></form>`);

exports.errorPage = (message, detail = '') => page('Not signed in', html`
<h1>Not signed in</h1>
<p id="error">${message}</p>
<p>${detail}</p>
<p><a href="/">Back</a></p>`);
