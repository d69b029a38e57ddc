"""The control plane's settings with a throw-away home, no broker, and nothing of the developer's own."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

if url := os.environ.get("FOREBAY_TEST_DATABASE_URL"):
    os.environ["FOREBAY_DATABASE_URL"] = url
elif not os.environ.get("FOREBAY_DATABASE_URL", "").startswith("postgres"):
    os.environ.pop("FOREBAY_DATABASE_URL", None)
os.environ["FOREBAY_HOME"] = home = tempfile.mkdtemp(prefix="forebay-test-")
atexit.register(shutil.rmtree, home, ignore_errors=True)
os.environ["FOREBAY_REDIS_URL"] = "redis://127.0.0.1:1/0"  # nothing listens there; see the `broker` fixture
os.environ["FOREBAY_NODE_BROKER_URL"] = os.environ["FOREBAY_REDIS_URL"]
os.environ["FOREBAY_PUBLIC_URL"] = "http://127.0.0.1:8000"

from controlplane.settings import *  # noqa: E402, F403

CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
UPLINK_THREADS = 0  # requests see the test's own database connection
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):  # noqa: F405
    DATABASES["default"]["ENGINE"] = "tests.sqlite3"  # noqa: F405
