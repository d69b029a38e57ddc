"""Profiles: imported from tables, kept, and forgotten."""

from __future__ import annotations

import pytest

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.domain.problems import DomainError
from controlplane.fleet.errors import NotFound
from controlplane.planning import profiles
from controlplane.planning.models import EngineProfile
from controlplane.planning.profile_facts import shown
from tests.planning import profile_tables as tables

pytestmark = pytest.mark.django_db
ACTOR = Actor.system("test")


def test_a_measured_table_is_kept_once_under_the_names_of_the_fleet() -> None:
    for replaced in (0, 1):
        made = profiles.import_table(
            tables.splitwise(), actor=ACTOR, models={"llama": "llama-70b"}, gpus={"h100": "NVIDIA H100"}
        )
        assert made.replaced == replaced and not made.left_out
    row = EngineProfile.objects.get()
    assert (row.model, row.gpu, row.tp, row.created_by) == ("llama-70b", "NVIDIA H100", 4, "test")
    facts = shown(row, points=True)
    assert facts["knee"]["measured"] and facts["knee"]["tokens"] == pytest.approx(1900, rel=0.25)
    assert facts["prefill"]["b"] == pytest.approx(0.05, rel=0.01) and facts["prefill"]["worst_error"] < 0.01
    assert len(facts["decode"]["points"]) == 8 and not any(point["left_out"] for point in facts["decode"]["points"])
    assert AuditEvent.objects.filter(verb="import-profile").count() == 2


def test_both_tables_of_aiconfigurator_become_profiles() -> None:
    made = profiles.import_table(tables.pairs(), actor=ACTOR)
    [row] = made.made
    assert (row.gpu, row.tp, row.engine_version) == ("h100_sxm", 2, "vllm 0.12.0")
    assert row.notes == ["engines of several pipeline stages or data parallel ranks were left out (rows: 1)"]
    facts = shown(row, points=False)
    assert facts["prefill"]["a"] == pytest.approx(5.0, rel=0.01) and facts["decode"]["o"] == pytest.approx(10, rel=0.1)
    [whole] = profiles.import_table(tables.aggregated(), actor=ACTOR).made
    assert whole.prefill == [[isl, 1, isl, tables.step_ms(isl)] for isl in (500, 1000, 4000)]
    assert len(whole.decode) == 6 and "prompts of others" in whole.notes[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "lacks"),
        ("a,b\n1,2\n", "lacks"),
        (tables.SPLITWISE, "it has no rows"),
        (tables.SPLITWISE + "m,g,512,1,128,40,20,4\n", "two sizes"),
        (tables.SPLITWISE + "m,g,512,1,128,nan,20,4\n", "line 2"),
        (tables.SPLITWISE + "m,g,512,1,128,40,20,1e300\n", "line 2"),
        (tables.SPLITWISE + "m\x00,g,512,1,128,40,20,4\n", "the model"),
        (tables.SPLITWISE + '"' + "x" * 200_000 + '"\n', "field larger"),
        (tables.pairs().replace(",200,0,", ",200,64,"), "cached prefix"),
    ],
)
def test_a_table_that_tells_nothing_is_refused_whole(text: str, said: str) -> None:
    with pytest.raises(DomainError) as refused:
        profiles.import_table(text, actor=ACTOR)
    assert said in refused.value.problem.message and "Nothing was imported" in refused.value.problem.message
    assert not EngineProfile.objects.exists()


def test_an_engine_without_a_law_is_left_out_and_named() -> None:
    one = f"lone,h100,512,1,128,{tables.step_ms(512)},20,1\n"
    made = profiles.import_table(tables.splitwise() + one, actor=ACTOR)
    assert [row.model for row in made.made] == ["llama"]
    assert made.left_out[0].startswith("lone on 1 x h100: ")


def test_a_profile_is_forgotten_with_a_trace() -> None:
    [row] = profiles.import_table(tables.splitwise(), actor=ACTOR).made
    profiles.delete_profile(row.pk, actor=ACTOR, reason="other flags")
    assert AuditEvent.objects.filter(verb="delete-profile", reason="other flags").exists()
    with pytest.raises(NotFound):
        profiles.delete_profile(row.pk, actor=ACTOR)
