"""The verbs of the activity trail, as they stand between who did it and what it was done to."""

from __future__ import annotations

SAID = {
    "create": "created", "delete": "deleted", "change": "changed", "register": "registered", "assign": "assigned",
    "release": "released", "split": "split", "cordon": "cordoned", "uncordon": "uncordoned", "drain": "drains",
    "revoke": "revoked", "remove": "removed", "label": "labelled", "issue-join-token": "issued",
    "cancel-join-token": "cancelled", "join": "joined", "rejoin": "joined again", "create-user": "created user",
    "set-role": "changed the role of", "disable-user": "disabled user", "enable-user": "enabled user",
    "set-password": "set the password of", "issue-token": "issued a REST token for",
    "revoke-token": "revoked a REST token of", "forget-gpu": "forgot", "cancel-drain": "cancelled the drain of",
    "brake-on": "put on", "brake-off": "took off", "release-brake": "released", "restore-brake": "holds again",
    "rotate-token": "gave a new token to", "alert-fired": "raised an alert on", "alert-resolved": "ended an alert on",
    "qualify": "asked to measure", "withdraw-qualification": "gave up measuring", "accept-gpu": "accepted, as it is,",
    "unaccept-gpu": "took back the acceptance of", "flag-gpu": "now finds below the bar", "unflag-gpu": "now finds fit",
    "gpu-qualified": "passed its qualification", "gpu-below-bar": "did not pass its qualification",
    "gpu-not-measured": "could not be measured", "acknowledge": "acknowledged", "silence": "silenced",
    "end-silence": "ended the silence of", "test": "tried out", "compare-methods": "asked for a",
    "import-activity": "imported", "import-profile": "imported the profile",
    "delete-profile": "deleted the profile", "pool": "changed the place in the pool of",
    "apply": "applied", "dismiss": "dismissed", "propose": "proposed",
    "supersede": "superseded", "hold": "held back", "unhold": "no longer holds back",
    "set-price": "set the price of",
    "measure-engine": "asked to measure an engine of", "cancel-measuring": "gave up measuring an engine of",
    "measured-engine": "measured the profile",
    "fetch-weights": "had weights fetched to", "unfetch-weights": "wants weights no more on",
}  # fmt: skip
SAID_OF_CHANGES = {
    "change": "began", "undo": "began, as an undo,", "drain": "began, to drain a node,", "resume": "resumed",
    "roll-back": "rolls back", "rolled-back": "has rolled back", "done": "has finished",
    "stopped": "could not go on with",
}  # fmt: skip
