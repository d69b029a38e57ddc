"""Filters of lists. A value that makes no sense is refused: filtering by nothing would list everything."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from django import forms
from django.db import models
from django_filters import rest_framework as base


class YesNoField(forms.CharField):
    """true or false in the words that `?flag=` takes everywhere."""

    WORDS = {"true": True, "1": True, "false": False, "0": False}

    def clean(self, value: Any) -> bool | None:
        if value in self.empty_values:
            return None
        if str(value).lower() not in self.WORDS:
            raise forms.ValidationError("Say true or false.", code="invalid")
        return self.WORDS[str(value).lower()]


class YesNo(base.BooleanFilter):
    field_class = YesNoField

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.extra.pop("widget", None)  # it reads any other word as no answer


DEFAULTS = deepcopy(base.FilterSet.FILTER_DEFAULTS)
DEFAULTS[models.BooleanField] = {"filter_class": YesNo}


class Filters(base.FilterSet):
    FILTER_DEFAULTS = DEFAULTS


def since(column: str) -> base.IsoDateTimeFilter:
    return base.IsoDateTimeFilter(field_name=column, lookup_expr="gte", help_text="At or after, ISO 8601.")


def until(column: str) -> base.IsoDateTimeFilter:
    return base.IsoDateTimeFilter(field_name=column, lookup_expr="lt", help_text="Before, ISO 8601.")
