"""Profiles of engines: what one was measured to do on which GPUs, its laws and its knee."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.api.deployments import Words
from controlplane.api.filters import Filters
from controlplane.api.parsers import MAX_BODY_BYTES
from controlplane.api.resource import DRY_RUN, REASON, Resource
from controlplane.api.shapes import Link
from controlplane.api.strict import Id, Reason
from controlplane.planning import knees, profiles
from controlplane.planning.models import EngineProfile
from controlplane.planning.profile_facts import shown


class FitShape(serializers.Serializer):
    measured = serializers.IntegerField(help_text="Points.")
    left_out = serializers.IntegerField(help_text="Of them, those more than half off every such law.")
    mean_error = serializers.FloatField(help_text="Of the law at the points, 0.05 is 5%.")
    worst_error = serializers.FloatField()


class PrefillShape(FitShape):
    """A step of n tokens of prompts of L tokens each takes max(floor_ms, a + b n + c n L) ms."""

    floor_ms = serializers.FloatField()
    a = serializers.FloatField()
    b = serializers.FloatField()
    c = serializers.FloatField()


class DecodeShape(FitShape):
    """From a token to the next, B sequences with ctx tokens each: o + u B + v B ctx ms."""

    o = serializers.FloatField()
    u = serializers.FloatField()
    v = serializers.FloatField()


class KneeShape(serializers.Serializer):
    tokens = serializers.IntegerField(help_text="The smallest step that fills the GPU: for max_num_batched_tokens.")
    plateau_tokens_per_s = serializers.FloatField()
    fraction = serializers.FloatField(help_text="Of the plateau, that such a step reaches.")
    measured = serializers.BooleanField(help_text="Read off the points; false: from the law, too few sizes.")


class PointShape(serializers.Serializer):
    law_ms = serializers.FloatField()
    error = serializers.FloatField(help_text="Law over measured, less one.")
    left_out = serializers.BooleanField()


class PrefillPointShape(PointShape):
    tokens = serializers.IntegerField()
    batch = serializers.IntegerField()
    context = serializers.IntegerField()
    step_ms = serializers.FloatField()


class DecodePointShape(PointShape):
    concurrency = serializers.IntegerField()
    context = serializers.IntegerField()
    itl_ms = serializers.FloatField()


class ProfileShape(serializers.ModelSerializer):
    """Laws and knee are derived from the points."""

    flags = serializers.ListField(child=serializers.CharField())
    notes = serializers.ListField(child=serializers.CharField(), help_text="What is to be known of the points.")
    problem = serializers.CharField(help_text="Why the points make no law; empty: they do.")
    prefill = PrefillShape(allow_null=True)
    decode = DecodeShape(allow_null=True)
    knee = KneeShape(allow_null=True)

    class Meta:
        model = EngineProfile
        fields = [
            "id", "model", "gpu", "tp", "engine_version", "flags", "source", "origin", "notes", "kv_tokens",
            "max_num_seqs", "created_by", "created_at", "problem", "prefill", "decode", "knee",
        ]  # fmt: skip
        extra_kwargs = {
            "kv_tokens": {"help_text": "Tokens of KV that it has room for. Null: not known."},
            "max_num_seqs": {"help_text": "Null: not known."},
            "origin": {"help_text": "The table, or the partition that was measured."},
        }

    def to_representation(self, row: EngineProfile) -> dict[str, Any]:
        return {**shown(row, points=False), "created_at": self.fields["created_at"].to_representation(row.created_at)}


class PrefillDetail(PrefillShape):
    points = PrefillPointShape(many=True)


class DecodeDetail(DecodeShape):
    points = DecodePointShape(many=True)


class ProfileDetail(ProfileShape):
    prefill = PrefillDetail(allow_null=True)
    decode = DecodeDetail(allow_null=True)

    def to_representation(self, row: EngineProfile) -> dict[str, Any]:
        return {**super().to_representation(row), **{k: shown(row, points=True)[k] for k in ("prefill", "decode")}}


class ImportedShape(serializers.Serializer):
    profiles = ProfileShape(many=True)
    replaced = serializers.IntegerField(help_text="Profiles of the same engines that an import had brought before.")
    left_out = serializers.ListField(child=serializers.CharField(), help_text="Engines without a law, and why.")


class Renames(serializers.DictField):
    child = serializers.CharField(max_length=255)


class ImportBody(Reason):
    table = serializers.CharField(
        max_length=MAX_BODY_BYTES,
        trim_whitespace=False,
        help_text="CSV with a header: Splitwise's or AIConfigurator's.",
    )
    name = serializers.CharField(max_length=255, required=False, default="the table", help_text="Where it is from.")
    models = Renames(required=False, help_text="What the fleet calls models that the table names otherwise.")
    gpus = Renames(required=False, help_text="What agents call GPUs that the table names otherwise.")


class ApplyBody(Reason):
    deployment = Id(help_text="Whose engines take it.")
    force = serializers.BooleanField(
        required=False, default=False, help_text="Do it though running engines are replaced at once."
    )


class AppliedShape(serializers.Serializer):
    deployment = Link()
    column = serializers.CharField(help_text="prefill_args where it has such engines of their own, else engine_args.")
    tokens = serializers.IntegerField(help_text="Of a step, at most: its --max-num-batched-tokens.")
    before = Words(help_text="That column: sent to `PATCH deployments/{id}` it takes this back.")
    after = Words()
    engines = serializers.IntegerField(help_text="Running ones that are replaced; 0: nothing ends.")
    notes = serializers.ListField(child=serializers.CharField(), help_text="What is to be known of the number.")


class ProfileFilters(Filters):
    class Meta:
        model = EngineProfile
        fields = ["model", "gpu", "tp", "source"]


@extend_schema_view(
    list=extend_schema(summary="List profiles", description="The newest first."),
    retrieve=extend_schema(
        summary="One profile", description="With its points, and how far its laws are off each.",
        responses=ProfileDetail,
    ),
)  # fmt: skip
class Profiles(ListModelMixin, RetrieveModelMixin, Resource):
    """What engines were measured to do."""

    noun = "profile"
    role_actions = {"create": "profile.change", "destroy": "profile.change", "apply": "deployment.change"}
    preview_actions = {"apply": "view"}
    queryset = EngineProfile.objects.all()
    serializer_class = ProfileShape
    filterset_class = ProfileFilters
    ordering = ["-id"]
    ordering_fields = ["id", "model", "gpu", "tp", "created_at"]
    parameters = {"destroy": {"reason"}, "apply": {"dry_run"}}
    bodies = {"create": ImportBody, "apply": ApplyBody}

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return Response(ProfileDetail(self.get_object()).data)

    @extend_schema(
        summary="Import a table of measured times",
        description="A profile of each engine in it: model, GPU and tensor parallel degree. Profiles of the same "
        "engines that an import brought before are replaced. Nothing is imported where a row cannot be read.",
        request=ImportBody,
        responses={201: ImportedShape},
        examples=[
            OpenApiExample(
                "Splitwise's form",
                value={
                    "table": "model,hardware,prompt_size,batch_size,token_size,prompt_time,token_time,tensor_parallel\n"
                    "llama2-70b,h100-80gb,512,1,128,68.9,20.1,4\n",
                    "gpus": {"h100-80gb": "NVIDIA H100 80GB HBM3"},
                },
                request_only=True,
            )
        ],
    )
    def create(self, request: Request) -> Response:
        body = self.body()
        made = profiles.import_table(
            body["table"], name=body["name"], models=body.get("models"), gpus=body.get("gpus"), reason=body["reason"],
            actor=self.actor,
        )  # fmt: skip
        answer = {"profiles": made.made, "replaced": made.replaced, "left_out": made.left_out}
        return Response(ImportedShape(answer).data, HTTPStatus.CREATED)

    @extend_schema(
        summary="Forget a profile",
        description="What goes by it goes by the newest other one of the same engine, if there is one.",
        parameters=[REASON],
        responses={204: OpenApiResponse(description="It is forgotten.")},
    )
    def destroy(self, request: Request, pk: str) -> Response:
        profiles.delete_profile(self.id, actor=self.actor, reason=self.reason())
        return Response(status=HTTPStatus.NO_CONTENT)

    @extend_schema(
        summary="Have engines take its batch",
        description="The smallest batch of prompts that fills the GPU becomes the most that a step of a deployment's "
        "engines takes: a larger one makes prompts wait for one another and is no faster. Engines that run start "
        "again, which is refused unless `force`. With `dry_run=true` nothing changes.",
        parameters=[DRY_RUN],
        request=ApplyBody,
        responses=AppliedShape,
        examples=[
            OpenApiExample("at night", value={"deployment": 1, "force": True, "reason": "TTFT"}, request_only=True)
        ],
    )
    @action(detail=True, methods=["post"])
    def apply(self, request: Request, pk: str) -> Response:
        body = self.body()
        if self.flag("dry_run"):
            return Response(AppliedShape(knees.look(self.id, body["deployment"])).data)
        done = knees.apply(
            self.id, body["deployment"], force=body["force"], reason=body["reason"], actor=self.actor
        )  # fmt: skip
        return Response(AppliedShape(done).data)
