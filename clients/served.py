"""What the tests are told of the node that they speak to. `cargo xtask test` starts it."""

import os

URL = os.environ["TALKA_URL"]
"""Where the node answers, such as http://127.0.0.1:4242."""

STAGES = int(os.environ["TALKA_STAGES"])
"""Over how many stages bard is cut."""

ENCODER_URL = os.environ["TALKA_ENCODER_URL"]
"""A node that has an encoder named bert."""

LOCKED_URL = os.environ["TALKA_LOCKED_URL"]
"""A node that answers only callers with a key."""

LOCKED_KEY = os.environ["TALKA_LOCKED_KEY"]

ROLL = {
    "properties": {"dice": {"enum": [6, 20]}},
    "required": ["dice"],
    "additionalProperties": False,
}
"""The arguments of a function. Bard's context has room for few words."""
