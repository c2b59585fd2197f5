"""A good token for each request: of one user, and of the client that the path names.

So whatever clientId is generated, its namespace is open, and the request goes all the way.
"""

import base64
import hashlib
import hmac
import json
import os
import time
from urllib.parse import unquote

import schemathesis

# The secret of the server's tokens, as `tests/src/token.rs` has it.
SECRET = os.environ["PREFD_TEST_SECRET"].encode()
USER = "alice"
# Where the path's client is none that a token can name, and is refused for that.
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
    """Which a case has percent-encoded already."""
    return unquote(str((case.path_parameters or {}).get("clientId", "")))


def max_client_id_bytes(case):
    components = case.operation.schema.raw_schema["components"]
    return components["parameters"]["clientId"]["schema"]["maxLength"]


def max_key_bytes(case):
    components = case.operation.schema.raw_schema["components"]
    return components["schemas"]["Preferences"]["propertyNames"]["maxLength"]


def is_control(character):
    return character < "\x20" or "\x7f" <= character <= "\x9f"


# Not remembered, since the next request is of another client.
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
    """Leaves out what is taken for allowed here, and is not."""
    if not case.meta.generation.mode.is_positive:
        return True
    headers = case.headers or {}
    keys = case.body if isinstance(case.body, dict) else {}
    return (
        # The limits are in bytes, and a schema can only count characters.
        len(client_of(case).encode()) <= max_client_id_bytes(case)
        and all(len(key.encode()) <= max_key_bytes(case) for key in keys)
        # Where a header's pattern wants more than letters and digits, the coverage phase of
        # schemathesis has no good value for it, and makes good requests with an empty one.
        and all(headers.get(name) != "" for name in ("If-Match", "If-None-Match"))
    )
