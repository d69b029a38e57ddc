"""Every knob of the control plane. Each is an environment variable with a default that suits one machine."""

from __future__ import annotations

import os
from pathlib import Path

from controlplane.environment import choice, database, flag, number, oidc, secret_key, whole, words
from controlplane.log_lines import logging_config

BASE_DIR = Path(__file__).resolve().parent.parent
VERSION = "0.1.0"

# --- where things are ------------------------------------------------------------------------------------
HOME = Path(os.environ.get("FOREBAY_HOME", BASE_DIR / ".forebay")).resolve()
HOME.mkdir(parents=True, exist_ok=True, mode=0o700)
DATABASES = {"default": database(os.environ.get("FOREBAY_DATABASE_URL", f"sqlite:///{HOME / 'db.sqlite3'}"))}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Valkey or Redis for the nudges, the live samples and the websocket groups. Everything but speed survives its loss.
REDIS_URL = os.environ.get("FOREBAY_REDIS_URL", "redis://127.0.0.1:8002/0")
# What nodes are told to connect to; "" offers no broker to nodes, reports alone then carry the specs.
NODE_BROKER_URL = os.environ.get("FOREBAY_NODE_BROKER_URL", REDIS_URL)
# Give each node an ACL user limited to its own queue. Off: nodes get FOREBAY_NODE_BROKER_URL as it is.
BROKER_ACL = flag("FOREBAY_BROKER_ACL", True)
# Where people and nodes reach the web process, and clients the gateway.
PUBLIC_URL = os.environ.get("FOREBAY_PUBLIC_URL", "http://127.0.0.1:8000")
GATEWAY_URL = os.environ.get("FOREBAY_GATEWAY_URL", "http://127.0.0.1:8001")

# --- Django ----------------------------------------------------------------------------------------------
SECRET_KEY = secret_key(HOME)
DEBUG = flag("FOREBAY_DEBUG", False)
ALLOWED_HOSTS = words("FOREBAY_HOSTS", "localhost,127.0.0.1,[::1]")
CSRF_TRUSTED_ORIGINS = words("FOREBAY_ORIGINS", "")
ROOT_URLCONF = "controlplane.urls"
ASGI_APPLICATION = "controlplane.asgi.application"
USE_TZ = True
TIME_ZONE = "UTC"  # of all pages and of the terminal; they say so
LANGUAGE_CODE = "en"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.socialaccount",
    "axes",
    "channels",
    "django_filters",
    "django_htmx",
    "django_prometheus",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "knox",
    "rest_framework",
    "controlplane",
    "controlplane.audit",
    "controlplane.fleet",
    "controlplane.teams",
    "controlplane.telemetry",
    "controlplane.gateway",
    "controlplane.alerts",
    "controlplane.planning",
    "controlplane.costs",
    "controlplane.scaling",
    "controlplane.api",
    "controlplane.web",
]

MIDDLEWARE = [
    "django_prometheus.middleware.PrometheusBeforeMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "controlplane.audit.middleware.RequestIdMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "axes.middleware.AxesMiddleware",
    "django_prometheus.middleware.PrometheusAfterMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "controlplane.web.context.shell",
            ],
        },
    },
]

STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATIC_ROOT = HOME / "static"
STATIC_ROOT.mkdir(exist_ok=True)  # WhiteNoise warns of a folder that is not there
WHITENOISE_USE_FINDERS = True  # no collectstatic needed: the project serves its own files

# --- who may come in -------------------------------------------------------------------------------------
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "/"
ACCOUNT_LOGIN_METHODS = {"username"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "password1*", "password2*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_ADAPTER = "controlplane.audit.accounts.ClosedSignup"
ACCOUNT_LOGOUT_ON_GET = False
OIDC = oidc()
SOCIALACCOUNT_ADAPTER = "controlplane.audit.sign_on.SignOn"
SOCIALACCOUNT_LOGIN_ON_GET = True  # a form's redirect to another host would need that host in form-action below
SOCIALACCOUNT_REQUESTS_TIMEOUT = 10
MFA_ADAPTER = "controlplane.audit.second_factor.Authenticators"
MFA_SUPPORTED_TYPES = ["totp", "recovery_codes"]
MFA_TOTP_ISSUER = "Forebay"
MFA_TOTP_TOLERANCE = 1  # steps of 30 s that a telephone's clock may be off
MFA_ALLOW_UNVERIFIED_EMAIL = True  # accounts have no address to verify
# The lowest role whose holders need a second factor; until they have one they can do no more than the role below.
REQUIRE_TOTP = choice("FOREBAY_REQUIRE_TOTP", "", ["", "operator", "admin"])
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
AXES_FAILURE_LIMIT = 8
AXES_COOLOFF_TIME = 0.25  # hours
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
AXES_LOCKOUT_TEMPLATE = "account/lockout.html"
AXES_VERBOSE = False

SECURE_COOKIES = flag("FOREBAY_HTTPS", PUBLIC_URL.startswith("https://"))
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_COOKIES
SESSION_COOKIE_AGE = 12 * 3600
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
if SECURE_COOKIES:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "script-src": ["'self'"],
        "style-src": ["'self'", "'unsafe-inline'"],  # Plotly writes style elements and attributes
        "img-src": ["'self'", "data:", "blob:"],
        "connect-src": ["'self'"],
        "frame-ancestors": ["'none'"],
        "base-uri": ["'none'"],
        "form-action": ["'self'"],
        "object-src": ["'none'"],
    }
}

# --- REST ------------------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "controlplane.api.authentication.ApiToken",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["controlplane.api.permissions.RolePermission"],
    "DEFAULT_PAGINATION_CLASS": "controlplane.api.pagination.Pages",
    "PAGE_SIZE": 50,
    "DEFAULT_FILTER_BACKENDS": [
        "django_filters.rest_framework.DjangoFilterBackend",
        "rest_framework.filters.OrderingFilter",
    ],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["controlplane.api.parsers.BoundedJSONParser"],
    "DEFAULT_SCHEMA_CLASS": "controlplane.api.schema.ProblemSchema",
    "EXCEPTION_HANDLER": "controlplane.api.problems.handler",
    "DEFAULT_VERSIONING_CLASS": None,
}
REST_KNOX = {"TOKEN_TTL": None, "TOKEN_LIMIT_PER_USER": None, "AUTO_REFRESH": False}
SPECTACULAR_SETTINGS = {
    "TITLE": "Forebay admin API",
    "VERSION": VERSION,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "controlplane.api.introduction.introduce",
    ],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_NAME_OVERRIDES": {
        "Role": "controlplane.api.shapes.ROLES",
        "Phase": "controlplane.api.shapes.PHASES",
        "NodeStatus": "controlplane.api.shapes.NODE_STATUSES",
        "PartitionStatus": "controlplane.api.shapes.PARTITION_STATUSES",
        "AccountRole": "controlplane.api.me.ACCOUNT_ROLES",
        "GivenRole": "controlplane.api.me.GIVEN_ROLES",
        "TokenScope": "controlplane.api.me.TOKEN_SCOPES",
        "GivenScope": "controlplane.api.me.GIVEN_SCOPES",
        "MoveAction": "controlplane.api.change_shapes.ACTIONS",
        "StepState": "controlplane.api.change_shapes.STEP_STATES",
        "ChangeState": "controlplane.fleet.models.Change.State",
        "ChangeKind": "controlplane.fleet.models.Change.Kind",
        "DeploymentMode": "controlplane.fleet.models.Deployment.Mode",
        "PoolShape": "controlplane.fleet.models.Deployment.PoolShape",
        "ProfileSource": "controlplane.planning.models.EngineProfile.Source",
        "ProfileRunState": "controlplane.planning.models.ProfileRun.State",
        "AlertState": "controlplane.alerts.models.Alert.State",
        "Severity": "controlplane.alerts.models.SEVERITY_CHOICES",
        "AlertTargetKind": "controlplane.alerts.models.AlertTarget.Kind",
        "ScalingPlanState": "controlplane.scaling.models.ScalingPlan.State",
        "HealthStatus": "controlplane.api.health.STATUSES",
        "UpOrDown": "controlplane.api.health.UP_OR_DOWN",
    },
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "persistAuthorization": False, "displayOperationId": True},
}

# --- Celery, Channels ------------------------------------------------------------------------------------
_LAYER = "channels_redis.pubsub.RedisPubSubChannelLayer"
CHANNEL_LAYERS = {"default": {"BACKEND": _LAYER, "CONFIG": {"hosts": [REDIS_URL]}}}
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}

# --- Forebay ---------------------------------------------------------------------------------------------
# Threads of the web process that take the nodes' reports, each with its own database connection; 0: none of their own.
# SQLite has one writer at a time: more threads would wait for each other.
UPLINK_THREADS = whole("FOREBAY_UPLINK_THREADS", 2 if "sqlite" in str(DATABASES["default"]["ENGINE"]) else 4)
WEB_PROCESSES = whole("FOREBAY_WEB_PROCESSES", 1, least=1)
REPORT_PERIOD_S = number("FOREBAY_REPORT_PERIOD_S", 1.0, least=0.1)
SILENT_AFTER_S = number("FOREBAY_SILENT_AFTER_S", 10, least=0.5)
# Nothing happens by itself while this share of the nodes, and so many at the least, are silent; a node counts for so
# long after it was heard, and things must be well again for so long.
BRAKE_SHARE = number("FOREBAY_BRAKE_SHARE", 1 / 3)
BRAKE_LEAST = whole("FOREBAY_BRAKE_LEAST", 2)
BRAKE_WITHIN_S = number("FOREBAY_BRAKE_WITHIN_S", 3600)
BRAKE_SETTLE_S = number("FOREBAY_BRAKE_SETTLE_S", 60)
JOIN_TOKEN_TTL_S = whole("FOREBAY_JOIN_TOKEN_TTL_S", 3600, least=1)
KV_LEASE_S = whole("FOREBAY_KV_LEASE_S", 30, least=1)
KV_DEADLINE_S = number("FOREBAY_KV_DEADLINE_S", 10, least=0.1)
GATEWAY_CONTINUATIONS = whole("FOREBAY_GATEWAY_CONTINUATIONS", 3)
GATEWAY_WAIT_S = number("FOREBAY_GATEWAY_WAIT_S", 20)
GATEWAY_OVERFLOW_S = number("FOREBAY_GATEWAY_OVERFLOW_S", 2)
GATEWAY_HOLD_S = number("FOREBAY_GATEWAY_HOLD_S", 180)
# So much later is a token of a stream, at most, for several of them to be passed on at one waking; 0: at once.
GATEWAY_STREAM_REST_MS = number("FOREBAY_GATEWAY_STREAM_REST_MS", 2)
# A stream that waits for that says so this often, for proxies that end quiet connections; 0: never.
GATEWAY_HOLD_COMMENTS_S = number("FOREBAY_GATEWAY_HOLD_COMMENTS_S", 0)
# Which devices are measured without being asked for, when they join and every so often while nothing is assigned to
# them; for how long they are kept at work; and below what share of their siblings' median, or of the published figure,
# or by what loss of rate, they are kept out of placement.
QUALIFY = choice("FOREBAY_QUALIFY", "gpus", ["gpus", "all", "never"])  # all: CPU slots, too
QUALIFY_EVERY_H = number("FOREBAY_QUALIFY_EVERY_H", 168)
QUALIFY_SOAK_S = number("FOREBAY_QUALIFY_SOAK_S", 30)
QUALIFY_SOAK_CPU_S = number("FOREBAY_QUALIFY_SOAK_CPU_S", 2)
QUALIFY_SIBLINGS = number("FOREBAY_QUALIFY_SIBLINGS", 0.8)
QUALIFY_PUBLISHED = number("FOREBAY_QUALIFY_PUBLISHED", 0.6)
QUALIFY_DRIFT = number("FOREBAY_QUALIFY_DRIFT", 0.15)
SAMPLE_EVERY_S = whole("FOREBAY_SAMPLE_EVERY_S", 10, least=1)
SAMPLE_KEEP_H = whole("FOREBAY_SAMPLE_KEEP_H", 48, least=1)
SAMPLE_MINUTE_KEEP_DAYS = whole("FOREBAY_SAMPLE_MINUTE_KEEP_DAYS", 30, least=1)
SAMPLE_HOUR_KEEP_DAYS = whole("FOREBAY_SAMPLE_HOUR_KEEP_DAYS", 400, least=1)
RECORD_KEEP_DAYS = whole("FOREBAY_RECORD_KEEP_DAYS", 30, least=1)
# A model counts as active until so long after its last request; of what is held ready so many activations may wait.
CAPACITY_KEEP_ALIVE_S = whole("FOREBAY_CAPACITY_KEEP_ALIVE_S", 300)
CAPACITY_MOST_COLD = number("FOREBAY_CAPACITY_MOST_COLD", 0.01)
SCALING_EVERY_S = number("FOREBAY_SCALING_EVERY_S", 60, least=1)  # between two looks of the planner
POOL_FREE = whole("FOREBAY_POOL_FREE", 1)
POOL_EMPTIED = whole("FOREBAY_POOL_EMPTIED", 2)  # of those held beyond the active ones, at most
POOL_MIN_RESIDENCE_S = number("FOREBAY_POOL_MIN_RESIDENCE_S", 30)
POOL_START_S = number("FOREBAY_POOL_START_S", 900, least=1)
POOL_PREDICT = flag("FOREBAY_POOL_PREDICT", True)
POOL_FETCH = flag("FOREBAY_POOL_FETCH", True)
POOL_LEARN_KEEP_ALIVE = flag("FOREBAY_POOL_LEARN_KEEP_ALIVE", True)
POOL_SLEEPERS = whole("FOREBAY_POOL_SLEEPERS", 0)  # engines that may sleep in a slot on GPUs; 0: none
POOL_KEEP_DAYS = whole("FOREBAY_POOL_KEEP_DAYS", 30, least=1)
ACTIVITY_KEEP_DAYS = whole("FOREBAY_ACTIVITY_KEEP_DAYS", 400, least=1)
FORECAST_KEEP_DAYS = whole("FOREBAY_FORECAST_KEEP_DAYS", 90, least=1)
ALERT_KEEP_DAYS = whole("FOREBAY_ALERT_KEEP_DAYS", 90, least=1)
# Where alerts by e-mail go out: smtp://user:password@host:587 (STARTTLS), smtps://host:465, or smtp+plain://host:25.
SMTP_URL = os.environ.get("FOREBAY_SMTP_URL", "")
SMTP_FROM = os.environ.get("FOREBAY_SMTP_FROM", "forebay@localhost")
# What money is counted in; a label, nothing is converted.
CURRENCY = os.environ.get("FOREBAY_CURRENCY", "USD")
USAGE_KEEP_DAYS = whole("FOREBAY_USAGE_KEEP_DAYS", 800, least=1)
IDEMPOTENCY_KEEP_H = whole("FOREBAY_IDEMPOTENCY_KEEP_H", 24, least=1)

LOGGING = logging_config(os.environ.get("FOREBAY_LOG_LEVEL", "INFO"), as_json=flag("FOREBAY_LOG_JSON", False))
