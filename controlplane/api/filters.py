"""Filters of lists. A value that makes no sense is refused: filtering by nothing would list everything."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime
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


class MomentField(base.IsoDateTimeFilter.field_class):
    """In UTC: databases take fewer offsets than ISO 8601 does, and a year of its own at either end of time."""

    def clean(self, value: Any) -> datetime | None:
        moment = super().clean(value)
        try:
            return moment and moment.astimezone(UTC)
        except OverflowError:
            raise forms.ValidationError(self.error_messages["invalid"], code="invalid") from None


class Moment(base.IsoDateTimeFilter):
    field_class = MomentField


def since(column: str) -> Moment:
    return Moment(field_name=column, lookup_expr="gte", help_text="At or after, ISO 8601.")


def until(column: str) -> Moment:
    return Moment(field_name=column, lookup_expr="lt", help_text="Before, ISO 8601.")
