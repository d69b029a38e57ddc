"""What a report writes, and what it does not."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.fleet import reports, services
from controlplane.fleet.errors import BadReport
from controlplane.fleet.models import Gpu, Node
from tests.factories import make_deployment, make_gpus, make_node, make_partition
from tests.fleet.reporting import device_of, report_of, settle, status_of, tell
from workers.contract import Device, DeviceSample, Exit, HostSample, Role

pytestmark = pytest.mark.django_db


def verbs() -> list[str]:
    return list(AuditEvent.objects.order_by("id").values_list("verb", flat=True))


def writes(queries: CaptureQueriesContext) -> list[str]:
    return [q["sql"] for q in queries if q["sql"].lstrip().upper().startswith(("INSERT", "UPDATE", "DELETE"))]


class TestWhatIsWritten:
    def test_a_first_report_fills_the_node_and_finds_its_gpus(self) -> None:
        node = make_node(heard=False, last_seen=None, instance="")
        found = Device(uuid="GPU-a", index=0, kind="nvidia", name="H100", memory_bytes=80, peers=("GPU-b",))

        tell(
            node, devices=(found,), host=HostSample(memory_bytes=9, cpu_count=4), driver="NVML 560", simulated=True,
            period_s=2.0,
        )  # fmt: skip

        node.refresh_from_db()
        assert (node.memory_bytes, node.cpu_count, node.driver, node.simulated) == (9, 4, "NVML 560", True)
        gpu = Gpu.objects.get()
        assert (gpu.uuid, gpu.kind, gpu.name, gpu.memory_bytes, gpu.peers) == ("GPU-a", "nvidia", "H100", 80, ["GPU-b"])
        assert "gpu-found" not in verbs()

    def test_a_report_that_changes_nothing_writes_nothing(self) -> None:
        partition = make_partition(role="decode")
        node, now = partition.node, timezone.now()
        settle(node, now, replicas=(status_of(partition, "ready"),))
        same = report_of(node, replicas=(status_of(partition, "ready", phase_age_s=9.0),))

        with CaptureQueriesContext(connection) as queries:
            reports.receive(same, node=node, now=now + timedelta(seconds=1))

        assert len(queries) == 0

    def test_that_a_node_is_heard_is_written_every_few_seconds_and_in_one_statement(self) -> None:
        node, now = make_node(gpus=8), timezone.now()
        settle(node, now)
        same = report_of(node)

        with CaptureQueriesContext(connection) as queries:
            reports.receive(same, node=node, now=now + timedelta(seconds=3))

        assert len(queries) == len(writes(queries)) == 1
        node.refresh_from_db()
        assert node.last_seen == now + timedelta(seconds=3)

    def test_a_countdown_in_a_message_is_not_written_each_second(self) -> None:
        partition = make_partition(role="decode")
        node, now = partition.node, timezone.now()
        settle(node, now, replicas=(status_of(partition, "exited", message="next start in 5 s"),))
        next_one = report_of(node, replicas=(status_of(partition, "exited", message="next start in 4 s"),))

        with CaptureQueriesContext(connection) as queries:
            reports.receive(next_one, node=node, now=now + timedelta(seconds=1))
        tell(node, now=now + timedelta(seconds=3), replicas=(status_of(partition, "exited", message="in 2 s"),))

        assert len(queries) == 0
        partition.refresh_from_db()
        assert partition.message == "in 2 s"

    def test_what_another_web_process_wrote_in_between_is_seen(self) -> None:
        """Ready here, exited there, ready here again: the second ready is news."""
        partition = make_partition(role="decode")
        node = partition.node
        tell(node, replicas=(status_of(partition, "ready"),))
        mine = dict(reports._written)
        tell(node, replicas=(status_of(partition, "exited"),))
        reports._written.clear()
        reports._written.update(mine)

        tell(node, replicas=(status_of(partition, "ready"),))

        partition.refresh_from_db()
        assert partition.phase == "ready"

    def test_an_operators_columns_are_left_alone(self, actor: Actor) -> None:
        node = make_node()
        stale = Node.objects.get(pk=node.pk)
        services.cordon(node.pk, actor=actor)

        reports.receive(report_of(stale), node=stale, now=timezone.now())

        node.refresh_from_db()
        assert not node.schedulable

    def test_more_than_the_columns_hold_is_cut(self) -> None:
        """PostgreSQL refuses what is too long or too large; the rest of the report must not be lost with it."""
        partition = make_partition(role="decode")
        gpu = partition.gpus.get()
        status = status_of(
            partition, "ready", pid=2**40, restarts=2**40, message="a\x00b" + "x" * 250, engine_version="v" * 200
        )
        sample = DeviceSample(uuid=gpu.uuid, health="smoking hot!", health_detail="y" * 256)

        tell(
            partition.node, replicas=(status,), samples=(sample,), driver="d\x00" * 128, agent_version="v" * 256,
            devices=(device_of(gpu, index=2**40, memory_bytes=2**70),), host=HostSample(cpu_count=2**40),
        )  # fmt: skip

        partition.refresh_from_db()
        gpu.refresh_from_db()
        assert partition.message.startswith("abx")
        assert (gpu.health, gpu.memory_bytes) == ("degraded", 2**63 - 1)


class TestReplicas:
    def test_a_ready_engine_is_written_to_its_partition(self) -> None:
        partition = make_partition(role="decode", generation=4)
        now = timezone.now()

        tell(
            partition.node, now=now,
            replicas=(status_of(partition, "ready", phase_age_s=30.0, ready_after_s=17.5, engine_version="0.32.0"),),
        )  # fmt: skip

        partition.refresh_from_db()
        assert (partition.phase, partition.observed_generation, partition.observed_role) == ("ready", 4, "decode")
        assert (partition.endpoint, partition.pid, partition.ready_after_s) == ("http://127.0.0.1:18100", 4242, 17.5)
        assert partition.phase_since == now - timedelta(seconds=30)

    def test_the_beginning_of_a_phase_stays_while_it_lasts(self) -> None:
        partition, now = make_partition(role="decode"), timezone.now()
        tell(partition.node, now=now, replicas=(status_of(partition, "ready"),))

        later = status_of(partition, "ready", phase_age_s=2.7, message="new")
        tell(partition.node, now=now + timedelta(seconds=5), replicas=(later,))

        partition.refresh_from_db()
        assert partition.phase_since == now

    def test_an_engine_that_is_gone_leaves_an_empty_partition_at_the_generation_held(self) -> None:
        node = make_node(generation=3)
        partition = make_partition(node, generation=3, phase="stopping", endpoint="http://127.0.0.1:1", pid=7)

        tell(node, generation=2)
        partition.refresh_from_db()
        assert (partition.phase, partition.observed_generation) == ("", 0)
        tell(node, generation=3)

        partition.refresh_from_db()
        assert (partition.endpoint, partition.pid, partition.observed_generation) == ("", 0, 3)

    def test_partitions_of_other_nodes_are_out_of_reach(self) -> None:
        mine, theirs = make_node(), make_partition(role="decode")

        tell(mine, replicas=(status_of(theirs, "ready"),))

        theirs.refresh_from_db()
        assert theirs.phase == ""

    @pytest.mark.parametrize(
        "endpoint",
        [
            "http://10.9.9.9:80", "http://127.0.0.1:18100/path", "http://u:p@127.0.0.1:1", "ftp://127.0.0.1:1",
            "http://127.0.0.1", "http://127.0.0.1:99999", "http://[::1", "127.0.0.1:18100",
        ],
    )  # fmt: skip
    def test_an_endpoint_that_lies_elsewhere_is_not_believed(self, endpoint: str) -> None:
        """The gateway would send prompts and the engine's key there."""
        partition = make_partition(role="decode")

        tell(partition.node, replicas=(status_of(partition, "ready", endpoint=endpoint),))

        partition.refresh_from_db()
        assert partition.endpoint == ""
        assert "The agent reports" in partition.message


class TestNews:
    def test_an_engines_life_is_told(self) -> None:
        partition = make_partition(role="decode")
        for phase in ("starting", "ready", "draining", "stopping"):
            tell(partition.node, replicas=(status_of(partition, phase, ready_after_s=17.0),))
        tell(partition.node)

        assert verbs() == ["engine-started", "engine-ready", "engine-stopped"]
        ready = AuditEvent.objects.get(verb="engine-ready")
        assert (ready.source, ready.actor_name, ready.subject_id) == (
            "agent", f"agent {partition.node.name}", partition.pk,
        )  # fmt: skip
        assert ready.after["ready_after_s"] == 17.0

    def test_a_died_engine_is_told_with_its_last_words(self) -> None:
        partition = make_partition(role="decode")
        tell(partition.node, replicas=(status_of(partition, "ready"),))
        ended = Exit(code=-9, ago_s=0.5, log_tail="CUDA out of memory\x00")

        for restarts in (0, 1):  # the agent counts at the next start; it is one death
            phase = "starting" if restarts else "exited"
            tell(partition.node, replicas=(status_of(partition, phase, restarts=restarts, last_exit=ended),))

        event = AuditEvent.objects.get(verb="engine-exited")
        assert event.detail == "CUDA out of memory"
        assert event.after["code"] == -9

    def test_a_death_between_two_reports_is_told_too(self) -> None:
        partition = make_partition(role="decode")
        tell(partition.node, replicas=(status_of(partition, "ready", pid=1),))

        again = status_of(partition, "starting", pid=2, restarts=1, last_exit=Exit(code=1, ago_s=1.2, log_tail="boom"))
        tell(partition.node, replicas=(again,))

        assert verbs()[-2:] == ["engine-exited", "engine-started"]
        assert AuditEvent.objects.get(verb="engine-exited").detail == "boom"

    def test_crash_looping_is_told_once_and_then_no_more_of_its_restarts(self) -> None:
        """Else an engine that cannot start would fill the trail with its last words, for ever."""
        partition = make_partition(role="decode")
        ended = Exit(code=1, ago_s=0.5, log_tail="no such model")
        for restarts in range(9):
            for phase in ("starting", "exited"):
                status = status_of(partition, phase, pid=restarts, restarts=restarts, last_exit=ended)
                tell(partition.node, replicas=(status,))

        assert verbs().count("engine-crash-looping") == 1
        assert verbs().count("engine-exited") == 3
        assert verbs()[-1] == "engine-crash-looping"
        told = AuditEvent.objects.get(verb="engine-crash-looping")
        assert (told.after["restarts"], told.detail) == (3, "no such model")

    def test_a_crash_loop_of_engines_that_get_ready_first_is_as_quiet(self) -> None:
        partition = make_partition(role="decode")
        for restarts in range(9):
            for phase in ("starting", "ready", "exited"):
                tell(partition.node, replicas=(status_of(partition, phase, pid=restarts, restarts=restarts),))

        assert verbs()[-1] == "engine-crash-looping"

    def test_the_end_of_a_crash_loop_is_told_and_so_is_the_next_death(self) -> None:
        """The agent forgets restarts once the engine has stayed ready for a while."""
        partition = make_partition(role="decode", phase="starting", restarts=5, pid=4242)
        for phase, restarts in (("ready", 5), ("ready", 5), ("ready", 0), ("exited", 0), ("starting", 1)):
            status = status_of(partition, phase, restarts=restarts, ready_after_s=17.0)
            tell(partition.node, replicas=(status,))

        assert verbs() == ["engine-ready", "engine-exited", "engine-started"]
        assert AuditEvent.objects.get(verb="engine-ready").after["ready_after_s"] == 17.0

    def test_another_engine_in_the_place_of_a_crash_looping_one_is_told(self) -> None:
        partition = make_partition(role="decode", phase="exited", restarts=5)
        for phase in ("starting", "ready"):
            tell(partition.node, replicas=(status_of(partition, phase),))

        assert verbs() == ["engine-started", "engine-ready"]

    def test_that_a_crash_looping_engine_was_stopped_is_told(self) -> None:
        partition = make_partition(role="decode", phase="starting", restarts=5)
        tell(partition.node)

        assert verbs() == ["engine-stopped"]

    def test_a_flip_without_a_restart_is_told_as_such(self) -> None:
        partition = make_partition(role="prefill")
        tell(partition.node, replicas=(status_of(partition, "ready"),))

        tell(partition.node, replicas=(status_of(partition, "ready", role=Role.DECODE),))

        assert verbs()[-1] == "engine-relabelled"

    def test_a_gpus_troubles_are_told(self) -> None:
        node = make_node(gpus=1)
        gpu = node.gpus.get()
        tell(node, samples=(DeviceSample(uuid=gpu.uuid, health="lost", health_detail="Xid 79"),))
        tell(node, samples=(DeviceSample(uuid=gpu.uuid),))

        assert verbs() == ["gpu-lost", "gpu-recovered"]
        assert AuditEvent.objects.get(verb="gpu-lost").detail == "Xid 79"

    def test_a_gpu_that_is_gone_stays_as_a_row(self) -> None:
        partition = make_partition(gpus=2, role="decode")
        first, second = partition.gpus.order_by("index")

        tell(partition.node, devices=(device_of(first),), samples=())

        second.refresh_from_db()
        assert (second.present, second.partition) == (False, partition)
        assert verbs() == ["gpu-gone"]

    def test_a_gpu_that_comes_back_is_told(self) -> None:
        node = make_node(gpus=1)
        gpu = node.gpus.get()
        tell(node, devices=(), samples=())

        tell(node, devices=(device_of(gpu),))

        gpu.refresh_from_db()
        assert gpu.present
        assert verbs() == ["gpu-gone", "gpu-returned"]

    def test_a_gpu_that_was_added_is_told(self) -> None:
        node = make_node(gpus=1)
        added = Device(uuid="GPU-new", index=1, kind="nvidia", name="H100", memory_bytes=1)

        tell(node, devices=(device_of(node.gpus.get()), added))

        assert verbs() == ["gpu-found"]

    def test_a_foreign_process_is_noted_on_its_gpu(self) -> None:
        node = make_node()
        [gpu] = make_gpus(node, 1)

        tell(node, samples=(DeviceSample(uuid=gpu.uuid, foreign_pids=(77,)),))

        gpu.refresh_from_db()
        assert gpu.foreign

    def test_that_a_silent_node_is_heard_again_is_told(self) -> None:
        node, now = make_node(), timezone.now()
        tell(node, now=now)

        tell(node, now=now + timedelta(seconds=42))

        assert verbs() == ["heard-again"]
        assert AuditEvent.objects.get().after == {"silent_s": 42.0}


class TestReply:
    def test_a_node_that_is_behind_gets_its_spec(self, actor: Actor) -> None:
        partition = make_partition()
        services.assign(partition.pk, deployment_id=make_deployment("chat").pk, role="decode", actor=actor)

        reply = tell(partition.node, generation=0)

        assert reply.spec.generation == 1
        assert reply.spec.replicas[0].deployment == "chat"
        assert tell(partition.node, generation=1).spec is None

    def test_a_change_reaches_a_node_that_has_nothing_new_to_say(self, actor: Actor) -> None:
        """The road that is left when the broker is dead."""
        partition = make_partition()
        now = timezone.now()
        tell(partition.node, now=now, generation=0)
        services.assign(partition.pk, deployment_id=make_deployment().pk, role="decode", actor=actor)

        assert tell(partition.node, now=now + timedelta(seconds=1), generation=0).spec.generation == 2

    def test_a_generation_from_the_future_is_answered_with_a_newer_spec(self) -> None:
        """The database was restored from a backup."""
        partition = make_partition(role="decode")

        reply = tell(partition.node, generation=50)

        assert reply.spec.generation == 51
        assert reply.spec.replicas[0].generation == 51
        partition.refresh_from_db()
        assert partition.generation == 51

    def test_the_reply_asks_for_the_period_that_is_set(self, settings: object) -> None:
        settings.REPORT_PERIOD_S = 5.0
        node = make_node()

        assert tell(node, period_s=1.0).period_s == 5.0
        assert tell(node, period_s=5.0).period_s is None

    def test_a_report_of_another_node_is_refused(self) -> None:
        mine, theirs = make_node(), make_node()

        with pytest.raises(BadReport):
            reports.receive(report_of(theirs), node=mine, now=timezone.now())

    def test_counts_that_would_leave_no_room_are_refused(self) -> None:
        with pytest.raises(BadReport):
            tell(make_node(), generation=2**60)

    def test_samples_of_more_devices_than_a_node_can_have_are_refused(self) -> None:
        samples = tuple(DeviceSample(uuid=f"GPU-{number}") for number in range(257))
        with pytest.raises(BadReport):
            tell(make_node(), samples=samples)
