"""Addresses of the pages."""

from django.urls import URLPattern, URLResolver, path

from controlplane.web.views import (
    account,
    activity,
    board,
    brake,
    changes,
    deployments,
    drains,
    fleet,
    nodes,
    owners,
    palette,
    partitions,
    people,
    registry,
    shifts,
    sign_on,
)

app_name = "web"
urlpatterns: list[URLPattern | URLResolver] = [
    path("", fleet.home, name="fleet"),
    path("palette", palette.palette, name="palette"),
    path("board/", board.board, name="board"),
    path("board/preview", board.board_preview, name="board-preview"),
    path("board/plan", board.plan, name="plan"),
    path("board/apply", board.board_apply, name="board-apply"),
    path("board/shift", shifts.shift, name="board-shift"),
    path("changes/", changes.changes, name="changes"),
    path("changes/recent", changes.recent, name="changes-recent"),
    path("changes/<int:pk>/", changes.change, name="change"),
    path("changes/<int:pk>/progress", changes.progress, name="change-progress"),
    path("changes/<int:pk>/resume", changes.resume, name="change-resume"),
    path("changes/<int:pk>/rollback", changes.rollback, name="change-rollback"),
    path("changes/<int:pk>/undo", changes.undo, name="change-undo"),
    path("activity/", activity.activity, name="activity"),
    *(
        path(f"activity/export.{kind}", activity.download, {"kind": kind}, name=f"activity-{kind}")
        for kind in ("csv", "jsonl")
    ),
    path("activity/recent", fleet.recent, name="recent"),
    path("brake/", brake.brake, name="brake"),
    path("brake/banner", brake.banner, name="brake-banner"),
    path("brake/release", brake.release, name="brake-release"),
    path("brake/restore", brake.restore, name="brake-restore"),
    path("models/", registry.models, name="models"),
    path("models/register", registry.register, name="register"),
    path("models/fit", registry.fit, name="fit"),
    path("models/<int:pk>/", registry.model, name="model"),
    path("models/<int:pk>/delete", registry.model_delete, name="model-delete"),
    path("deployments/new", registry.deployment_new, name="deployment-new"),
    path("deployments/<int:pk>/", deployments.deployment, name="deployment"),
    path("deployments/<int:pk>/replicas", deployments.replicas, name="replicas"),
    path("deployments/<int:pk>/edit", registry.deployment_edit, name="deployment-edit"),
    path("deployments/<int:pk>/delete", registry.deployment_delete, name="deployment-delete"),
    path("deployments/<int:pk>/owners", owners.deployment, name="deployment-owners"),
    path("playground/<path:name>", deployments.playground, name="playground"),
    path("nodes/", nodes.nodes, name="nodes"),
    path("nodes/<int:pk>/owners", owners.node, name="node-owners"),
    path("nodes/add", nodes.add, name="node-add"),
    path("nodes/tokens/<int:pk>/cancel", nodes.cancel_token, name="token-cancel"),
    path("nodes/<int:pk>/", nodes.node, name="node"),
    path("nodes/<int:pk>/partitions", nodes.parts, name="node-parts"),
    path("nodes/<int:pk>/split", nodes.split, name="split"),
    path("nodes/<int:pk>/partitions/add", nodes.partition_add, name="partition-add"),
    path("nodes/<int:pk>/plan", nodes.plan, name="node-plan"),
    path("nodes/<int:pk>/labels", nodes.labels, name="node-labels"),
    path("nodes/<int:pk>/labels/change", nodes.label, name="node-label"),
    *(
        path(f"nodes/<int:pk>/{verb}", nodes.intend, {"verb": verb}, name=f"node-{verb}")
        for verb in ("cordon", "uncordon")
    ),
    path("nodes/<int:pk>/drain", drains.drain, name="node-drain"),
    path("nodes/<int:pk>/drain/plan", drains.plan, name="node-drain-plan"),
    path("nodes/<int:pk>/drain/progress", drains.progress, name="node-drain-progress"),
    path("nodes/<int:pk>/drain/cancel", drains.cancel, name="node-cancel-drain"),
    path("nodes/<int:pk>/revoke", nodes.revoke, name="node-revoke"),
    path("nodes/<int:pk>/remove", nodes.remove, name="node-remove"),
    path("partitions/<int:pk>/", partitions.partition, name="partition"),
    path("partitions/<int:pk>/assign", partitions.assign, name="assign"),
    path("partitions/<int:pk>/preview", partitions.preview, name="preview"),
    path("partitions/<int:pk>/release", partitions.release, name="release"),
    path("partitions/<int:pk>/delete", partitions.delete, name="partition-delete"),
    path("sign-on/", sign_on.there, name="sign-on"),
    path("sign-on/back", sign_on.back, name="sign-on-back"),
    path("settings/", account.settings, name="settings"),
    path("settings/tokens/new", account.token_new, name="rest-token-new"),
    path("settings/tokens/<str:key>/revoke", account.token_revoke, name="rest-token-revoke"),
    path("settings/keys", account.keys, name="keys"),
    path("settings/keys/<int:pk>/revoke", account.key_revoke, name="key-revoke"),
    path("settings/users", people.users, name="users"),
    *(
        path(f"settings/users/<int:pk>/{verb}", people.user_change, {"verb": verb}, name=f"user-{verb}")
        for verb in ("role", "password", "second-factor", "enable", "disable")
    ),
    path("settings/services/new", people.service_new, name="service-new"),
    path("settings/services/<int:pk>/", people.service, name="service"),
    path("settings/services/<int:pk>/tokens/new", people.service_token_new, name="service-token-new"),
    path(
        "settings/services/<int:pk>/tokens/<str:key>/revoke", people.service_token_revoke, name="service-token-revoke"
    ),
]
