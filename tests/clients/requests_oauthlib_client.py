"""requests-oauthlib: a confidential client with HTTP Basic; the device flow as a public one. It knows neither discovery
nor introspection; its own library, oauthlib, writes the revocation."""

import os

os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"  # http, on loopback

import requests
from oauthlib.oauth2 import DeviceClient
from requests.auth import HTTPBasicAuth
from requests_oauthlib import OAuth2Session

from story import (
    BASE, CONFIG, SCOPE, approve_device, authorize, check_profile, check_refreshed, check_revoked, check_tokens, step,
    tell,
)

TOKEN = f"{BASE}/api/oauth/v1/token"


def story() -> None:
    session = OAuth2Session(
        CONFIG["client_id"], redirect_uri=CONFIG["redirect_uri"], scope=SCOPE.split(), pkce="S256"
    )
    url, _state = session.authorization_url(f"{BASE}/api/oauth/v1/authorize")
    callback = authorize(url)
    tokens = dict(
        session.fetch_token(TOKEN, authorization_response=callback, client_secret=CONFIG["client_secret"])
    )
    check_tokens(tokens)
    step("code")

    check_profile(session.get(f"{BASE}/auth/v1/profile").json())
    step("profile")

    basic = HTTPBasicAuth(CONFIG["client_id"], CONFIG["client_secret"])
    fresh = dict(session.refresh_token(TOKEN, refresh_token=tokens["refresh_token"], auth=basic))
    check_refreshed(tokens, fresh)
    step("refresh")

    url, headers, body = session._client.prepare_token_revocation_request(
        f"{BASE}/api/oauth/v1/revoke", fresh["refresh_token"], "refresh_token"
    )
    answer = requests.post(url, data=body, headers=headers, auth=basic, timeout=30)
    assert answer.status_code == 200, answer.text
    check_revoked(fresh["access_token"])
    step("revocation")

    form = {"client_id": CONFIG["public_client_id"], "scope": SCOPE}
    begun = requests.post(f"{BASE}/api/oauth/v1/device_authorization", data=form, timeout=30).json()
    approve_device(begun)
    device = OAuth2Session(client=DeviceClient(CONFIG["public_client_id"]))
    check_tokens(device.fetch_token(TOKEN, device_code=begun["device_code"], include_client_id=True))
    step("device")


tell(story)
