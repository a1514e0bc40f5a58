"""Authlib: a confidential client with HTTP Basic; the device flow as a public one."""

import os

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"  # http, on loopback

import requests
from authlib.common.security import generate_token
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata, get_well_known_url
from authlib.oauth2.rfc8628 import DEVICE_CODE_GRANT_TYPE

from story import (
    BASE, CONFIG, SCOPE, approve_device, authorize, check_introspection, check_profile, check_refreshed, check_revoked,
    check_tokens, step, tell,
)


def story() -> None:
    found = requests.get(get_well_known_url(BASE, external=True), timeout=30).json()
    server = AuthorizationServerMetadata(found)
    assert server.issuer == BASE
    # All rules but the one that an issuer is https.
    for rule in [key for key in server.REGISTRY_KEYS if key != "issuer"]:
        getattr(server, f"validate_{rule}")()
    step("discovery")

    session = OAuth2Session(
        CONFIG["client_id"],
        CONFIG["client_secret"],
        scope=SCOPE,
        redirect_uri=CONFIG["redirect_uri"],
        token_endpoint_auth_method="client_secret_basic",
        revocation_endpoint_auth_method="client_secret_basic",
        code_challenge_method="S256",
    )
    verifier = generate_token(48)
    url, state = session.create_authorization_url(server.authorization_endpoint, code_verifier=verifier)
    callback = authorize(url)
    tokens = dict(
        session.fetch_token(
            server.token_endpoint, authorization_response=callback, state=state, code_verifier=verifier
        )
    )
    check_tokens(tokens)
    step("code")

    user = check_profile(session.get(f"{BASE}/auth/v1/profile").json())
    step("profile")

    fresh = dict(session.refresh_token(server.token_endpoint, refresh_token=tokens["refresh_token"]))
    check_refreshed(tokens, fresh)
    step("refresh")

    introspect = lambda token: session.introspect_token(server.introspection_endpoint, token=token).json()
    check_introspection(introspect(fresh["access_token"]), user)
    step("introspection")

    answer = session.revoke_token(server.revocation_endpoint, fresh["refresh_token"], token_type_hint="refresh_token")
    assert answer.status_code == 200, answer.text
    check_revoked(fresh["access_token"])
    assert introspect(fresh["access_token"])["active"] is False
    step("revocation")

    device = OAuth2Session(CONFIG["public_client_id"], token_endpoint_auth_method="none")
    form = {"client_id": CONFIG["public_client_id"], "scope": SCOPE}
    begun = requests.post(server["device_authorization_endpoint"], data=form, timeout=30).json()
    approve_device(begun)
    tokens = device.fetch_token(
        server.token_endpoint, grant_type=DEVICE_CODE_GRANT_TYPE, device_code=begun["device_code"]
    )
    check_tokens(tokens)
    step("device")


tell(story)
