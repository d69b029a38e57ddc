"""GET /capacity/sizing: how many prefill and decode engines a deployment needs, aggregated beside disaggregated."""

from __future__ import annotations

from dataclasses import fields

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.exceptions import Throttled
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from controlplane.api.shapes import Link
from controlplane.api.strict import MAX_ID, refuse_unknown_parameters
from controlplane.costs.prices import prices_at
from controlplane.planning.sizes import AGAIN_S, Busy, Question, answer

LONGEST = 1_000_000  # tokens


class SizingQuery(serializers.Serializer):
    deployment = serializers.IntegerField(min_value=1, max_value=MAX_ID)
    ttft_ms = serializers.FloatField(
        required=False, min_value=1, max_value=1e7, help_text="Aim for the first token. Default: the deployment's."
    )
    itl_ms = serializers.FloatField(
        required=False, min_value=0.1, max_value=1e6, help_text="Aim for the time between tokens, likewise."
    )
    share = serializers.FloatField(
        required=False, min_value=0.5, max_value=0.999, help_text="Of requests within both. Default 0.95."
    )
    headroom = serializers.FloatField(
        required=False, min_value=0.1, max_value=20, help_text="Times the rate that was seen. Default 1.5."
    )
    hours = serializers.FloatField(
        required=False, min_value=0.1, max_value=24 * 31, help_text="Requests of so long ago count. Default 24."
    )
    rate_per_s = serializers.FloatField(
        required=False, min_value=1e-3, max_value=1e4, help_text="Instead of what was asked: requests a second,"
    )
    isl = serializers.IntegerField(required=False, min_value=1, max_value=LONGEST, help_text="tokens of each prompt,")
    osl = serializers.IntegerField(required=False, min_value=1, max_value=LONGEST, help_text="and of each answer.")
    lengths_level = serializers.FloatField(
        required=False,
        min_value=0.5,
        max_value=0.99,
        help_text="Requests are replayed as long as the forecast of the next hour's mean tokens at this level, never "
        "shorter than they were. Default 0.95.",
    )


class SloShape(serializers.Serializer):
    ttft_ms = serializers.FloatField()
    itl_ms = serializers.FloatField()
    share = serializers.FloatField()


class SizedDemandShape(serializers.Serializer):
    requests = serializers.IntegerField()
    seconds = serializers.FloatField()
    rate_per_s = serializers.FloatField(help_text="Before headroom.")
    isl = serializers.FloatField(help_text="Mean tokens of a prompt, as replayed.")
    osl = serializers.FloatField(help_text="Mean tokens of an answer, as replayed.")
    ca2 = serializers.FloatField(help_text="Squared coefficient of variation of the gaps; 1: random, more: bursts.")
    made_up = serializers.BooleanField(help_text="Of rate_per_s, isl and osl, not of requests.")
    headroom = serializers.FloatField()


class LengthShape(serializers.Serializer):
    mean = serializers.DictField(
        child=serializers.FloatField(),
        allow_null=True,
        help_text='Of the next hour, tokens by level, as "0.95"; null: too little is on record.',
    )
    covered = serializers.DictField(
        child=serializers.FloatField(allow_null=True),
        allow_null=True,
        help_text="Of past hours, told by those before: what held; null where none was told yet.",
    )
    windows = serializers.IntegerField(help_text="Past hours that were told so.")
    why = serializers.CharField()
    requests = serializers.DictField(
        child=serializers.FloatField(), help_text="Of single requests as they are replayed, tokens by level."
    )


class LengthsShape(serializers.Serializer):
    level = serializers.FloatField(help_text="As asked.")
    isl = LengthShape(help_text="Of prompts.")
    osl = LengthShape(help_text="Of answers.")


class NowShape(serializers.Serializer):
    prefill = serializers.IntegerField()
    decode = serializers.IntegerField()
    aggregated = serializers.IntegerField()


class EngineOfferShape(serializers.Serializer):
    gpu = serializers.CharField()
    tp = serializers.IntegerField()
    gpus = serializers.IntegerField(help_text="Of the fleet, that such engines could take.")
    source = serializers.CharField(help_text="measured, imported or roofline.")
    profile = serializers.IntegerField(allow_null=True)
    knee_tokens = serializers.IntegerField()
    kv_tokens = serializers.IntegerField()


class EnginesShape(serializers.Serializer):
    count = serializers.IntegerField()
    gpu = serializers.CharField()
    tp = serializers.IntegerField()
    max_num_batched_tokens = serializers.IntegerField()
    max_num_seqs = serializers.IntegerField()


class JudgedShape(serializers.Serializer):
    told = serializers.CharField()
    prefill = EnginesShape(allow_null=True, help_text="Null: each engine does both phases.")
    decode = EnginesShape()
    gpus = serializers.IntegerField()
    prefill_per_decode = serializers.FloatField(
        allow_null=True,
        help_text="P:D: prefill engines that the demand takes for each that decodes, all equally loaded, by their "
        "laws, before counts are whole and queues are heeded; null: each engine does both.",
    )
    price_per_hour = serializers.FloatField(allow_null=True, help_text="Null: not of every GPU is a price known.")
    met = serializers.FloatField(help_text="Share of requests within both aims, in the replay.")
    ttft_ms = serializers.FloatField(help_text="At the aim's share.")
    itl_ms = serializers.FloatField()


class SizingShape(serializers.Serializer):
    deployment = Link()
    model = serializers.CharField()
    slo = SloShape()
    demand = SizedDemandShape()
    lengths = LengthsShape(allow_null=True, help_text="Null: requests are made up.")
    now = NowShape(help_text="Partitions that are assigned.")
    offers = EngineOfferShape(many=True, help_text="Engines that were tried.")
    best = serializers.CharField(allow_null=True, help_text="aggregated or disaggregated; null: neither fits.")
    aggregated = JudgedShape(allow_null=True, help_text="The fewest GPUs that keep the aims; null: none here does.")
    disaggregated = JudgedShape(allow_null=True)
    wanted = JudgedShape(allow_null=True, help_text="Where nothing fits: what would.")
    missing = serializers.DictField(child=serializers.IntegerField(), help_text="GPUs by name that `wanted` lacks.")
    closed_form = JudgedShape(allow_null=True, help_text="What formulas for queues say, judged by the same replay.")
    replays = serializers.IntegerField()
    took_ms = serializers.FloatField()
    notes = serializers.ListField(child=serializers.CharField())


class Sizing(APIView):
    role_action = "view"
    extra_errors = ("429",)

    @extend_schema(
        operation_id="capacity_sizing",
        summary="How many engines a deployment needs",
        description="The requests of the last hours, replayed through the engines that the fleet's GPUs would hold: by "
        "measured or imported profiles of the model, else by a roofline. The fewest GPUs that keep the aims, either "
        "aggregated or disaggregated, and what is missing where none does. Takes seconds of a core: while one "
        "answer is being found, others get 429.",
        tags=["capacity"],
        parameters=[SizingQuery],
        responses=SizingShape,
    )
    def get(self, request: Request) -> Response:
        query = SizingQuery(data=request.query_params.dict())
        refuse_unknown_parameters(request, {field.name for field in fields(Question)})
        query.is_valid(raise_exception=True)
        prices = {name: float(price) for name, price in prices_at(timezone.now()).items()}
        try:
            return Response(answer(Question(**query.validated_data), prices))
        except Busy:
            raise Throttled(AGAIN_S, "Other sizes are being looked for.") from None
