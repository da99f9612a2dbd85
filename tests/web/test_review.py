"""Reviewing: who gets which clip, what others see of it, what it comes to."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.contracts import Label
from tests.web.queue import Queue, decide
from tests.web.served import Served, judged, serving
from web.keys import Role
from web.listing import Filter
from web.reviews import Reviews
from web.rounds import Policy, Round, is_sampled


def test_a_clip_is_one_persons_at_a_time(reviewed: Served, face: Path) -> None:
    queue = Queue(reviewed, face, 3)
    reviewers = [reviewed.client(Role.REVIEW) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        given = list(pool.map(queue.next, reviewers))
    assert sorted(filter(None, given)) == sorted(queue.ids)
    assert given.count(None) == 1
    holder, other = reviewers[given.index(queue.ids[0])], reviewers[given.index(None)]
    refused = decide(other, queue.ids[0], "real")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert other.put(f"/v1/videos/{queue.ids[0]}/lease").status_code == 409
    assert holder.put(f"/v1/videos/{queue.ids[0]}/lease").status_code == 200
    assert holder.delete(f"/v1/videos/{queue.ids[0]}/lease").status_code == 204
    assert queue.next(other) == queue.ids[0]
    assert reviewed.client(Role.SUBMIT).post("/v1/review/next").status_code == 403


def test_what_is_left_skipped_or_decided_is_not_offered_again(reviewed: Served, face: Path) -> None:
    queue = Queue(reviewed, face, 3)
    client = reviewed.client(Role.REVIEW)
    first = queue.next(client)
    assert first == queue.ids[0], "the oldest comes first"
    assert queue.next(client, leave=first) == queue.ids[1]
    assert client.post(f"/v1/videos/{queue.ids[1]}/skip", json={"reason": "I know her"}).status_code == 204
    assert client.post(f"/v1/videos/{queue.ids[1]}/skip", json={"reason": ""}).status_code == 422
    assert queue.next(client, leave=first) == queue.ids[2]
    assert decide(client, queue.ids[2], "not_applicable").status_code == 201
    assert queue.get(queue.ids[2])["answer"] == "not_applicable"
    assert queue.next(client) == first
    assert queue.next(reviewed.client(Role.REVIEW)) == queue.ids[1], "others may decide on what one person skipped"


def test_a_second_person_is_blind_and_a_senior_settles(reviewed: Served, face: Path) -> None:
    queue = Queue(reviewed, face, 1)
    (id_,) = queue.ids
    first, second, third = (reviewed.client(Role.REVIEW) for _ in range(3))
    senior = reviewed.client(Role.SENIOR)
    assert queue.next(first) == id_
    assert decide(first, id_, "unsure", comment="the light").status_code == 201
    assert (queue.get(id_)["round"], queue.get(id_)["answer"]) == ("second", None)
    assert queue.next(first) is None
    assert queue.next(second) == id_
    seen = second.get(f"/v1/videos/{id_}").json()
    assert (seen["decisions"], seen["round"], seen["answer"]) == ([], None, None)
    assert second.get("/v1/videos", params={"round": "second"}).status_code == 403
    assert decide(second, id_, "fake").status_code == 201
    assert queue.get(id_)["round"] == "senior"
    assert [each["decision"] for each in second.get(f"/v1/videos/{id_}").json()["decisions"]] == ["fake"]
    assert queue.next(third) is None
    assert decide(third, id_, "fake").status_code == 403
    assert queue.next(senior) == id_
    assert len(senior.get(f"/v1/videos/{id_}").json()["decisions"]) == 2
    assert decide(senior, id_, "fake").status_code == 201
    closed = third.get(f"/v1/videos/{id_}").json()
    assert (closed["round"], closed["answer"], len(closed["decisions"])) == ("closed", "fake", 3)
    assert [each["blind"] for each in closed["decisions"]] == [True, True, False]
    assert senior.delete(f"/v1/videos/{id_}/decisions/last").status_code == 200
    assert queue.get(id_)["round"] == "senior"


def test_known_answers_check_reviewers_who_cannot_see_them(reviewed: Served, face: Path) -> None:
    queue = Queue(reviewed, face, 2)
    golden, plain = queue.ids
    senior, client = reviewed.client(Role.SENIOR), reviewed.client(Role.REVIEW)
    assert client.put(f"/v1/videos/{golden}/golden", json={"answer": "fake"}).status_code == 403
    assert senior.put(f"/v1/videos/{golden}/golden", json={"answer": "fake"}).json()["golden"] == "fake"
    assert queue.next(senior) == plain
    senior.delete(f"/v1/videos/{plain}/lease")
    key = reviewed.service.keys.get(client.get("/v1/me").json()["id"])
    testing = Reviews(reviewed.service.database, Policy(golden_share=1))
    found = testing.next(key, Filter(name=queue.name))
    assert found is not None
    assert found.id == golden
    different = {"id", "name", "sha256", "created_at", "finished_at", "links", "verdict"}
    shown = [client.get(f"/v1/videos/{id_}").json() for id_ in queue.ids]
    assert {k: v for k, v in shown[0].items() if k not in different} == {
        k: v for k, v in shown[1].items() if k not in different
    }
    for decided, ids in (("true", set()), ("false", {golden, plain})):
        listed = client.get("/v1/videos", params={"name": queue.name, "decided": decided}).json()["videos"]
        assert {each["id"] for each in listed} == ids
    assert decide(client, golden, "real").status_code == 201
    assert (queue.get(golden)["round"], queue.get(golden)["answer"]) == ("closed", "fake")
    mine = next(each for each in senior.get("/v1/review/quality").json()["reviewers"] if each["key"] == key.id)
    assert (mine["golden"]["hits"], mine["golden"]["of"]) == (0, 1)
    assert senior.delete(f"/v1/videos/{golden}/golden").json()["golden"] is None
    assert queue.get(golden)["round"] in ("closed", "second")


def test_agreement_and_export_name_nobody(reviewed: Served, face: Path) -> None:
    queue = Queue(reviewed, face, 3)
    one, other, senior = reviewed.client(Role.REVIEW), reviewed.client(Role.REVIEW), reviewed.client(Role.SENIOR)
    for id_, second in zip(queue.ids, ("unsure", "unsure", "real"), strict=True):
        assert decide(one, id_, "unsure", comment="Ada in the yard", reason="policy 4").status_code == 201
        assert decide(other, id_, second).status_code == 201
    own = one.get("/v1/me").json()["id"]
    found = senior.get("/v1/review/quality").json()
    mine = next(each for each in found["reviewers"] if each["key"] == own)
    assert mine["decisions"] == 3
    assert mine["agreement"]["clips"] == 3
    assert mine["agreement"]["observed"] == pytest.approx(2 / 3)
    assert mine["agreement"]["kappa"] == pytest.approx(0)
    assert mine["by_class"].keys() == {"upload"}
    export = senior.get("/v1/review/export")
    lines = [json.loads(line) for line in export.text.splitlines()]
    here = [line for line in lines if line["video"] in queue.ids]
    assert [line["decision"] for line in here] == ["unsure", "unsure", "unsure", "unsure", "unsure", "real"]
    assert len({line["by"] for line in here}) == 2
    assert own not in export.text
    assert "Ada" not in export.text
    assert "Ada" in senior.get("/v1/review/export", params={"comments": "true"}).text
    for path in ("quality", "export", "log"):
        assert one.get(f"/v1/review/{path}").status_code == 403


def test_the_same_for_many_videos_is_logged(reviewed: Served, face: Path) -> None:
    queue = Queue(reviewed, face, 3)
    senior, client = reviewed.client(Role.SENIOR), reviewed.client(Role.REVIEW)
    assert queue.next(client) == queue.ids[0]
    body = {"action": "decide", "videos": [*queue.ids, "nowhere"], "decision": "not_applicable", "reason": "spam"}
    assert client.post("/v1/review/bulk", json=body).status_code == 403
    answer = senior.post("/v1/review/bulk", json=body).json()
    assert answer["done"] == 2
    assert answer["refused"] == {
        queue.ids[0]: "somebody else reviews this clip now",
        "nowhere": "no such video",
    }
    assert [queue.get(id_)["answer"] for id_ in queue.ids] == [None, "not_applicable", "not_applicable"]
    for wrong in ({"decision": None}, {"action": "delete"}, {"videos": []}, {"videos": ["x"] * 1001}):
        assert senior.post("/v1/review/bulk", json=body | wrong).status_code == 422
    gone = {"action": "delete", "videos": queue.ids[1:]}
    assert senior.post("/v1/review/bulk", json=gone).json() == {"done": 2, "refused": {}}
    assert queue.admin.get(f"/v1/videos/{queue.ids[1]}").status_code == 404
    log = senior.get("/v1/review/log").json()
    assert [each["kind"] for each in log[:2]] == ["delete", "decide"]
    assert log[0]["data"]["videos"] == queue.ids[1:]
    assert log[0]["by"] == senior.get("/v1/me").json()["id"]


def test_views_are_ones_own_unless_they_are_shared(reviewed: Served) -> None:
    senior, client, submitter = (reviewed.client(role) for role in (Role.SENIOR, Role.REVIEW, Role.SUBMIT))
    wanted = {"name": "Most suspicious", "query": "show=decided%3Ano&sort=-probability"}
    own = client.post("/v1/views", json=wanted).json()
    assert client.post("/v1/views", json=wanted | {"shared": True}).status_code == 403
    assert client.post("/v1/views", json=wanted | {"name": "a\nb"}).status_code == 422
    shared = senior.post("/v1/views", json=wanted | {"shared": True}).json()
    assert {each["id"] for each in client.get("/v1/views").json()} == {own["id"], shared["id"]}
    assert submitter.get("/v1/views").json() == []
    assert senior.delete(f"/v1/views/{own['id']}").status_code == 404
    assert client.delete(f"/v1/views/{own['id']}").status_code == 204
    assert [each["id"] for each in client.get("/v1/views").json()] == [shared["id"]]
    assert reviewed.client(Role.ADMIN).delete(f"/v1/views/{shared['id']}").status_code == 204


def test_a_label_may_decide_and_is_audited(tmp_path: Path, one_face: Path, face: Path) -> None:
    policy = Policy(frozenset({Label.REAL, Label.FAKE}), audit_share=0.5, second_share=0)
    with serving(tmp_path / "served", policy=policy) as served:
        client, reviewer = served.client(), served.client(Role.REVIEW)
        found = [judged(client, face) for _ in range(6)]
        for each in found:
            audited = is_sampled(str(each["id"]), "audit", 0.5)
            if each["label"] == "inconclusive":
                assert each["round"] == Round.FIRST
                continue
            assert each["round"] == (Round.AUDIT if audited else Round.AUTOMATIC)
            assert each["answer"] == (None if audited else each["label"])
            assert decide(reviewer, str(each["id"]), str(each["label"])).status_code == 201
        audits = client.get("/v1/review/quality").json()["audits"]
        for label, share in audits.items():
            audited_ids = [e for e in found if e["label"] == label and is_sampled(str(e["id"]), "audit", 0.5)]
            assert (share["hits"], share["of"]) == (0, len(audited_ids))
        assert all(client.get(f"/v1/videos/{each['id']}").json()["round"] == Round.CLOSED for each in found)


def test_preferences_belong_to_the_person(reviewed: Served) -> None:
    client, other = reviewed.client(Role.REVIEW), reviewed.client(Role.REVIEW)
    assert client.patch("/v1/me/preferences", json={"grey": True}).json() == {
        "blur": False,
        "grey": True,
        "boxes": True,
    }
    assert client.patch("/v1/me/preferences", json={"blur": True}).json() == {"blur": True, "grey": True, "boxes": True}
    assert client.get("/v1/me/preferences").json()["blur"]
    assert not other.get("/v1/me/preferences").json()["blur"]
    assert client.patch("/v1/me/preferences", json={"colour": "red"}).status_code == 422


def test_filters_of_the_list(reviewed: Served, face: Path) -> None:
    queue = Queue(reviewed, face, 2)
    found = queue.get(queue.ids[0])
    strength = found["verdict"]["evidence"]["strength"] if found["verdict"]["evidence"] else None

    def listed(**more: object) -> list[str]:
        answer = queue.admin.get("/v1/videos", params={"name": queue.name, "sort": "created", **more})  # type: ignore[dict-item]
        assert answer.status_code == 200, answer.text
        return [each["id"] for each in answer.json()["videos"]]

    assert listed(people=1) == queue.ids
    assert listed(people=2) == []
    assert listed(created_from=found["created_at"]) == queue.ids
    assert listed(created_to=found["created_at"]) == []
    assert listed(round="first") == queue.ids
    assert listed(round="second") == []
    if strength is not None:
        assert listed(strength=strength) == queue.ids
    assert sorted(listed(sort="-uncertainty")) == sorted(queue.ids)
    assert queue.admin.get("/v1/videos", params={"people": -1}).status_code == 422


def test_a_verdict_that_comes_again_keeps_what_people_decided(reviewed: Served, face: Path) -> None:
    queue = Queue(reviewed, face, 2)
    assert decide(reviewed.client(Role.REVIEW), queue.ids[0], "not_applicable").status_code == 201
    assert decide(reviewed.client(Role.REVIEW), queue.ids[1], "unsure").status_code == 201
    videos = reviewed.service.videos
    for id_ in queue.ids:
        report = videos.report(videos.get(id_))
        assert report is not None
        videos.finish(id_, report)
    found = [(each["round"], each["answer"]) for each in map(queue.get, queue.ids)]
    assert found == [("closed", "not_applicable"), ("second", None)]


def test_an_appeal_is_decided_by_somebody_else(reviewed: Served, face: Path) -> None:
    submitter, stranger = reviewed.client(Role.SUBMIT), reviewed.client(Role.SUBMIT)
    queue = Queue(reviewed, face, 1, submitter)
    (id_,) = queue.ids
    first, second, third = (reviewed.client(Role.SENIOR) for _ in range(3))
    body = {"reason": "that is my face, and I said it"}
    assert submitter.post(f"/v1/videos/{id_}/appeals", json=body).status_code == 409, "nothing is decided yet"
    for client in (first, second):
        assert decide(client, id_, "fake").status_code == 201
    assert (queue.get(id_)["round"], queue.get(id_)["answer"]) == ("closed", "fake")
    assert stranger.post(f"/v1/videos/{id_}/appeals", json=body).status_code == 404
    assert submitter.post(f"/v1/videos/{id_}/appeals", json={"reason": ""}).status_code == 422
    made = submitter.post(f"/v1/videos/{id_}/appeals", json=body)
    assert (made.status_code, made.json()["against"]) == (201, "fake")
    assert submitter.post(f"/v1/videos/{id_}/appeals", json=body).status_code == 409, "it is open already"
    assert (queue.get(id_)["round"], queue.get(id_)["answer"]) == ("senior", None)
    reviewer = reviewed.client(Role.REVIEW)
    assert reviewer.get(f"/v1/videos/{id_}").json()["appeals"] == [], "it would say what others decided"
    assert decide(reviewer, id_, "real").status_code == 403
    assert decide(first, id_, "real").status_code == 403, "who decided before does not decide again"
    assert first.delete(f"/v1/videos/{id_}/decisions/last").status_code == 409, "nor takes it back"
    assert queue.next(first) is None
    assert queue.next(third) == id_
    assert decide(third, id_, "real").status_code == 201
    detail = queue.get(id_)
    assert (detail["round"], detail["answer"], len(detail["appeals"])) == ("closed", "real", 1)
    counts = [each["decision"] for each in detail["decisions"] if each["undone_at"] is None]
    assert counts == ["fake", "fake", "real"], "the earlier decisions stay"
    assert third.delete(f"/v1/videos/{id_}/decisions/last").status_code == 200
    assert (queue.get(id_)["round"], queue.get(id_)["answer"]) == ("senior", None)
    admin = reviewed.client()
    assert decide(admin, id_, "fake").status_code == 201
    assert queue.get(id_)["answer"] == "fake"
    # A second appeal, and an admin who decided on the first one.
    assert submitter.post(f"/v1/videos/{id_}/appeals", json=body).status_code == 201
    assert decide(admin, id_, "real").status_code == 201
    detail = queue.get(id_)
    assert (detail["answer"], [each["against"] for each in detail["appeals"]]) == ("real", ["fake", "fake"])
    kinds = [
        each["kind"]
        for each in admin.get("/v1/audit", params={"limit": 1000}).json()["entries"]
        if each["video"] == id_
    ]
    assert kinds.count("appealed") == 2


def test_an_appeal_does_not_tell_which_clips_check_reviewers(reviewed: Served, face: Path) -> None:
    queue = Queue(reviewed, face, 2)
    senior, reviewer = reviewed.client(Role.SENIOR), reviewed.client(Role.REVIEW)
    assert senior.put(f"/v1/videos/{queue.ids[0]}/golden", json={"answer": "real"}).status_code == 200
    answers = [reviewer.post(f"/v1/videos/{id_}/appeals", json={"reason": "x"}) for id_ in queue.ids]
    assert [each.status_code for each in answers] == [409, 409]
    assert answers[0].json()["detail"] == answers[1].json()["detail"]
