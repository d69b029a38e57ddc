"""The columns of what can have owners."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class Owned(models.Model):
    """What an admin may keep to few hands: then only its owners may change it, besides admins."""

    # services
    restricted = models.BooleanField(default=False)  # apart from the owners: with the last of them it is not set free
    owners = models.ManyToManyField(settings.AUTH_USER_MODEL, blank=True, related_name="+")

    class Meta:
        abstract = True
