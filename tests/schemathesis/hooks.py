"""Adds a valid token to each generated request.

The token is for the client in the path, so requests with any clientId pass authentication.
"""

import base64
import hashlib
import hmac
import json
import os
import time
from urllib.parse import unquote

import schemathesis

# The HS256 secret of the server: SECRET in tests/src/token.rs.
SECRET = os.environ["PREFD_TEST_SECRET"].encode()
USER = "alice"
# Used if the clientId in the path is invalid, so that no valid token can name it.
ORDINARY_CLIENT = "xyz"


def base64url(value):
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token_of(client):
    claims = {"sub": USER, "client_id": client, "exp": int(time.time()) + 3600}
    message = f"{base64url({'alg': 'HS256', 'typ': 'JWT'})}.{base64url(claims)}"
    signature = hmac.digest(SECRET, message.encode(), hashlib.sha256)
    return f"{message}.{base64url(signature)}"


def client_of(case):
    """Return the client ID in the path. In a case, it is already percent-encoded."""
    return unquote(str((case.path_parameters or {}).get("clientId", "")))


def max_client_id_bytes(case):
    components = case.operation.schema.raw_schema["components"]
    return components["parameters"]["clientId"]["schema"]["maxLength"]


def max_key_bytes(case):
    components = case.operation.schema.raw_schema["components"]
    return components["schemas"]["Preferences"]["propertyNames"]["maxLength"]


def is_control(character):
    return character < "\x20" or "\x7f" <= character <= "\x9f"


# Tokens are not cached, because the next request may be for a different client.
@schemathesis.auth(refresh_interval=None)
class Token:
    def get(self, case, context):
        client = client_of(case)
        fits = 0 < len(client.encode()) <= max_client_id_bytes(case)
        can_be_named = fits and not any(map(is_control, client))
        return token_of(client if can_be_named else ORDINARY_CLIENT)

    def set(self, case, data, context):
        case.headers["Authorization"] = f"Bearer {data}"


@schemathesis.hook
def filter_case(context, case):
    """Skip requests that schemathesis considers valid but the server must reject."""
    if not case.meta.generation.mode.is_positive:
        return True
    headers = case.headers or {}
    keys = case.body if isinstance(case.body, dict) else {}
    return (
        # The limits are in bytes, but a JSON schema counts characters.
        len(client_of(case).encode()) <= max_client_id_bytes(case)
        and all(len(key.encode()) <= max_key_bytes(case) for key in keys)
        # If the pattern of a header requires other characters than letters and digits, the
        # coverage phase of schemathesis finds no valid value and uses an empty one.
        and all(headers.get(name) != "" for name in ("If-Match", "If-None-Match"))
    )
