"""Who is asked about which mask: the ledger's part of the review, on SQLite and PostgreSQL."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from a2lc_backend.label_configs import review_keys
from a2lc_backend.masks import IGNORE
from a2lc_backend.store import Answer, AnswerKind, Ledger, MaskKey, Query, ReviewProject, Suspicion
from a2lc_backend.store.records import Correction
from tests.conftest import wait_until

PROJECT, ROUND = 3, 1
ANN, BOB, EVE = 11, 12, 13


def mask(number: int) -> MaskKey:
    return MaskKey(ROUND, number // 3, f"m{number}")


def ask(ledger: Ledger, count: int, twice: Sequence[int] = ()) -> None:
    """Queue masks 0 … count − 1; of every three the last has no guess."""
    queries = [
        Query(ROUND, n + 1, mask(n).task_id, mask(n).region_id, 0, IGNORE if n % 3 == 2 else 1 + n % 3)
        for n in range(count)
    ]
    ledger.save_queries(PROJECT, ROUND, queries)
    ledger.save_review_project(PROJECT, ReviewProject(99, "secret"))
    ledger.save_questions(PROJECT, {mask(n): 100 + n for n in range(count)}, [mask(n) for n in twice])


def lease(
    ledger: Ledger, who: int, count: int, seconds: float = 60.0, pair: tuple[int, int] | None = None
) -> list[str]:
    found = ledger.lease_questions(PROJECT, ROUND, who, count, time.time() + seconds, pair)
    return [query.region_id for query in found]


def answer(number: int, who: int, label: int = 0, kind: AnswerKind = "label") -> Answer:
    return Answer(str(uuid.uuid4()), mask(number), who, kind, label, time.time())


def left(ledger: Ledger) -> int:
    return ledger.review_count(PROJECT, ROUND, ANN).left


def test_nobody_gets_what_another_holds(ledger: Ledger) -> None:
    ask(ledger, 5)
    assert lease(ledger, ANN, 2) == ["m0", "m1"]
    assert lease(ledger, BOB, 2) == ["m2", "m3"]
    assert lease(ledger, ANN, 2) == ["m0", "m1"]  # as after loading the page anew
    assert lease(ledger, ANN, 4) == ["m0", "m1", "m4"]
    ledger.release_questions(PROJECT, ANN, [mask(1)])
    assert lease(ledger, BOB, 3) == ["m1", "m2", "m3"]


def test_a_lease_runs_out(ledger: Ledger) -> None:
    ask(ledger, 1)
    assert lease(ledger, ANN, 1, seconds=0.2) == ["m0"]
    assert lease(ledger, BOB, 1) == []
    wait_until(lambda: lease(ledger, BOB, 1) == ["m0"], 5)


def test_eight_people_at_once_never_get_the_same_mask(ledger: Ledger) -> None:
    ask(ledger, 120)

    def work(who: int) -> list[str]:
        done = []
        while held := ledger.lease_questions(PROJECT, ROUND, who, 3, time.time() + 60):
            for query in held:
                key = MaskKey(ROUND, query.task_id, query.region_id)
                ledger.add_answer(PROJECT, Answer(str(uuid.uuid4()), key, who, "label", 0, time.time()))
                done.append(query.region_id)
        return done

    with ThreadPoolExecutor(8) as pool:
        counts = Counter(name for names in pool.map(work, range(1, 9)) for name in names)
    assert len(counts) == 120
    assert set(counts.values()) == {1}
    assert left(ledger) == 0


def test_an_answer_sent_twice_counts_once(ledger: Ledger) -> None:
    ask(ledger, 2)
    said = answer(0, ANN, 5)
    assert ledger.add_answer(PROJECT, said)
    assert ledger.add_answer(PROJECT, said)
    assert [item.label for item in ledger.answers(PROJECT, ROUND)] == [5]
    assert left(ledger) == 1
    assert not ledger.add_answer(PROJECT, replace(answer(0, ANN), mask=MaskKey(ROUND, 0, "made-up")))


def test_a_later_answer_of_the_same_person_replaces_the_first(ledger: Ledger) -> None:
    ask(ledger, 1)
    first, second = answer(0, ANN, 5), answer(0, ANN, 6)
    ledger.add_answer(PROJECT, first)
    ledger.mark_sent(first, 70)
    ledger.add_answer(PROJECT, second)
    assert [item.label for item in ledger.answers(PROJECT)] == [6]
    unsent = {item.id: (item.undone, item.annotation_id) for item in ledger.unsent_answers(PROJECT)}
    assert unsent == {first.id: (True, 70), second.id: (False, 0)}


def test_undo_gives_the_mask_back_and_is_told_to_label_studio(ledger: Ledger) -> None:
    ask(ledger, 1)
    said = answer(0, ANN)
    ledger.add_answer(PROJECT, said)
    ledger.mark_sent(said, 70)
    assert ledger.undo_answer(PROJECT, said.id, BOB) is None  # not his
    assert ledger.undo_answer(PROJECT, said.id, ANN) is not None
    assert [item.undone for item in ledger.unsent_answers(PROJECT)] == [True]
    assert lease(ledger, ANN, 1) == ["m0"]


def test_an_answer_taken_back_while_it_is_sent_is_not_lost_sight_of(ledger: Ledger) -> None:
    ask(ledger, 1)
    said = answer(0, ANN)
    ledger.add_answer(PROJECT, said)
    (being_sent,) = ledger.unsent_answers(PROJECT)
    ledger.undo_answer(PROJECT, said.id, ANN)
    ledger.mark_sent(being_sent, 70)
    (again,) = ledger.unsent_answers(PROJECT)
    assert (again.undone, again.annotation_id) == (True, 70)
    ledger.mark_sent(again, 0)
    assert ledger.unsent_answers(PROJECT) == []


def test_who_skips_is_not_asked_again_and_others_are(ledger: Ledger) -> None:
    ask(ledger, 1)
    ledger.add_answer(PROJECT, answer(0, ANN, IGNORE, "skip"))
    assert lease(ledger, ANN, 1) == []
    assert left(ledger) == 1
    assert lease(ledger, BOB, 1) == ["m0"]


def test_a_skip_that_is_taken_back_gives_no_mask_that_another_looks_at(ledger: Ledger) -> None:
    ask(ledger, 1)
    skip = answer(0, ANN, IGNORE, "skip")
    ledger.add_answer(PROJECT, skip)
    assert lease(ledger, BOB, 1) == ["m0"]
    ledger.undo_answer(PROJECT, skip.id, ANN)
    assert ledger.hold_questions(PROJECT, ROUND, ANN, [mask(0)], time.time() + 60) == []
    assert lease(ledger, ANN, 1) == []
    ledger.release_questions(PROJECT, BOB, [mask(0)])
    assert ledger.hold_questions(PROJECT, ROUND, ANN, [mask(0), mask(7)], time.time() + 60) == [mask(0)]
    assert ledger.hold_questions(PROJECT, ROUND + 1, ANN, [mask(0)], time.time() + 60) == []
    assert lease(ledger, BOB, 1) == []


def test_a_mask_that_is_wrong_is_asked_of_nobody_else(ledger: Ledger) -> None:
    ask(ledger, 1)
    ledger.add_answer(PROJECT, answer(0, ANN, IGNORE, "wrong"))
    assert lease(ledger, BOB, 1) == []
    assert ledger.review_count(PROJECT, ROUND, ANN).wrong == 1


def test_some_masks_are_asked_of_two(ledger: Ledger) -> None:
    ask(ledger, 2, twice=[0])
    assert lease(ledger, ANN, 2) == ["m0", "m1"]
    assert lease(ledger, BOB, 2) == ["m0"]
    assert lease(ledger, EVE, 2) == []
    ledger.add_answer(PROJECT, answer(0, ANN, 1))
    ledger.add_answer(PROJECT, answer(0, BOB, 1))
    assert lease(ledger, EVE, 2) == []
    assert ledger.review_count(PROJECT, ROUND, ANN).disagreements == 0


def test_where_two_disagree_a_third_is_asked_and_nobody_more(ledger: Ledger) -> None:
    ask(ledger, 1, twice=[0])
    ledger.add_answer(PROJECT, answer(0, ANN, 1))
    ledger.add_answer(PROJECT, answer(0, BOB, 2))
    assert ledger.review_count(PROJECT, ROUND, ANN).disagreements == 1
    assert lease(ledger, BOB, 1) == []
    assert lease(ledger, EVE, 1) == ["m0"]
    ledger.add_answer(PROJECT, answer(0, EVE, 3))
    assert lease(ledger, 14, 1) == []


def test_what_was_answered_in_place_is_not_asked(ledger: Ledger) -> None:
    from datetime import datetime, timezone

    from a2lc_backend.store import SeenAnnotation

    ask(ledger, 2)
    said = Correction(5, 0, "m0", "label", 1, 0, EVE, datetime.now(timezone.utc), ROUND + 1)
    ledger.save_annotation(PROJECT, SeenAnnotation(5, 0, "now"), [said])
    assert lease(ledger, ANN, 2) == ["m1"]
    assert left(ledger) == 1


def test_masks_of_one_confusion_come_together(ledger: Ledger) -> None:
    ask(ledger, 10)
    assert ledger.suspicions(PROJECT, ROUND, ANN) == [Suspicion(0, 1, 4), Suspicion(0, 2, 3)]
    assert lease(ledger, ANN, 12, pair=(0, 2)) == ["m1", "m4", "m7"]
    assert ledger.suspicions(PROJECT, ROUND, BOB) == [Suspicion(0, 1, 4)]
    found = ledger.lease_questions(PROJECT, ROUND, ANN, 12, time.time() + 60, (0, 2), [mask(4)])
    assert [query.region_id for query in found] == ["m1", "m7"]


def test_what_label_studio_says_is_taken_down_once(ledger: Ledger) -> None:
    ask(ledger, 2)
    heard = replace(answer(0, BOB, 4), id=str(uuid.uuid5(uuid.NAMESPACE_URL, "1")), annotation_id=70)
    for _ in range(2):
        ledger.hear_answer(PROJECT, heard)
    ledger.hear_answer(PROJECT, replace(heard, label=5))  # changed there
    assert [(item.label, item.annotator) for item in ledger.answers(PROJECT)] == [(5, BOB)]
    assert ledger.unsent_answers(PROJECT) == []
    own = answer(1, ANN, 2)
    ledger.add_answer(PROJECT, own)
    ledger.hear_answer(PROJECT, replace(own, annotation_id=71))  # heard before its reply was noted
    skipped = answer(1, BOB, IGNORE, "skip")
    ledger.add_answer(PROJECT, skipped)
    ledger.hear_answer(PROJECT, replace(skipped, id="other", annotation_id=72))
    assert len(ledger.answers(PROJECT)) == 3


def test_questions_keep_how_many_are_asked(ledger: Ledger) -> None:
    ask(ledger, 1, twice=[0])
    ledger.save_questions(PROJECT, {mask(0): 200})
    assert ledger.questions(PROJECT) == {mask(0): 200}
    lease(ledger, ANN, 1)
    assert lease(ledger, BOB, 1) == ["m0"]


@pytest.mark.parametrize("names", [("Road", "Rider", "Sky"), tuple(f"Class{n}" for n in range(40)), ("Gnu", "Ünü")])
def test_every_class_has_a_letter_of_its_own_that_means_nothing_else(names: tuple[str, ...]) -> None:
    keys = review_keys(names)
    used = [key for key in keys if key]
    assert len(keys) == len(names)
    assert len(used) == len(set(used)) == min(len(names), 23)
    assert not {"g", "n", "u"} & set(used)
    assert review_keys(("Road", "Rider", "Sky")) == ["r", "i", "s"]
