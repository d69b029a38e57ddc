"""Money and what it is paid for, as people read them. The currency stands beside it, or over its column."""

from __future__ import annotations

from decimal import Decimal

from django import template

from controlplane.web.templatetags.present import UNKNOWN, figure

register = template.Library()
CENTS, MOST = 2, 6  # decimals


@register.filter
def price(value: Decimal | float | None) -> str:
    """To the cent, and beyond it only what is not 0: 2 is 2.00, 0.0375 stays."""
    if value is None:
        return UNKNOWN
    whole, decimals = f"{value:,.{MOST}f}".split(".")
    return f"{whole}.{decimals.rstrip('0').ljust(CENTS, '0')}"


@register.filter
def gpu_hours(gpu_s: float) -> str:
    return figure(gpu_s / 3600, "GPU-hours")
