"""Attempts: what is read from Jobs and pods, and which attempt follows which."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tunesmith.api.objects import AttemptStatus, FailureClass
from tunesmith.api.trainer_contract import ExitCode, Outcome, Reason
from tunesmith.kube.attempts import (
    AttemptState,
    GiveUp,
    GoOn,
    Next,
    Remembered,
    Start,
    WaitUntil,
    counted_failures,
    next_step,
    outdated_children,
)
from tunesmith.kube.observed_attempt import is_behind, latest_attempt

from tests.unit.operator import given

DELAY = timedelta(seconds=15)
NOTHING = Remembered(0, 0)


def step(jobs: list[given.Raw], pods: list[given.Raw], limit: int = 3) -> Next:
    return next_step(latest_attempt(jobs, pods), NOTHING, limit, DELAY, given.NOW)


def crash(number: int = 1) -> given.Raw:
    return given.pod(number, "Failed", terminated={"exitCode": 1, "reason": "Error"})


def test_what_the_cluster_took_away_is_tried_again_and_not_counted() -> None:
    lost = [given.batch_job(finished="Failed")]
    stopped = given.pod(1, "Failed", terminated={"exitCode": ExitCode.PREEMPTED})
    assert step(lost, [stopped], limit=0) == Start(2, 0)
    assert step(lost, [], limit=0) == WaitUntil(given.NOW + timedelta(seconds=10), 2)


def test_an_attempt_that_ran_too_long_counts_whatever_the_trainer_said_when_told_to_stop() -> None:
    job = given.batch_job(finished="Failed")
    job["status"]["conditions"][0]["reason"] = "DeadlineExceeded"
    word = given.failed(FailureClass.PREEMPTED, Reason.PREEMPTED, "Told to stop.")
    attempt = latest_attempt([job], [given.ended(word, ExitCode.PREEMPTED)])
    assert attempt is not None
    assert attempt.failure is not None
    assert attempt.failure.reason == "DeadlineExceeded"
    assert counted_failures(attempt) == 1


def test_the_last_line_of_the_log_is_told_when_the_trainer_said_nothing() -> None:
    """The kubelet puts it where the last word should be."""
    log = "Traceback (most recent call last):\n  File ...\nKeyError: 'q_proj'\n"
    pods = [given.pod(1, "Failed", terminated={"exitCode": 1, "message": log})]
    attempt = latest_attempt([given.batch_job(finished="Failed")], pods)
    assert attempt is not None
    assert attempt.failure is not None
    assert "exit code 1. Its last line: KeyError: 'q_proj': see its log" in attempt.failure.message


def test_without_a_job_the_first_attempt_starts() -> None:
    assert step([], []) == Start(1, 0)


def test_a_job_deleted_by_hand_is_followed_by_the_next_number() -> None:
    assert next_step(None, Remembered(2, 1), 3, DELAY, given.NOW) == Start(3, 1)


def test_deleting_the_job_of_an_attempt_that_was_the_last_sets_nothing_going_again() -> None:
    attempt = latest_attempt([given.batch_job(finished="Failed")], [crash()])
    assert attempt is not None
    last = Remembered(1, 1, attempt.failure)
    assert next_step(None, last, 0, DELAY, given.NOW) == GiveUp()
    assert next_step(None, last, 1, DELAY, given.NOW) == Start(2, 1)


def test_a_job_kept_for_its_log_is_not_taken_for_the_one_that_was_deleted_by_hand() -> None:
    kept = [given.batch_job(1, finished="Failed")]
    assert latest_attempt(kept, [crash()], AttemptStatus(attempt=2, counted_failures=1)) is None


def test_the_newest_attempt_is_the_one_that_counts() -> None:
    attempt = latest_attempt([given.batch_job(2), given.batch_job(10), given.batch_job(9)], [])
    assert attempt is not None
    assert attempt.number == 10


def test_a_job_that_is_being_deleted_is_no_attempt_any_more() -> None:
    job = given.batch_job()
    job["metadata"]["deletionTimestamp"] = given.moment(1)
    assert latest_attempt([job], []) is None


@pytest.mark.parametrize("spoilt", ["many", "", "1.5", "[]"])
def test_what_a_hand_has_spoilt_on_a_job_stops_nothing(spoilt: str) -> None:
    job = given.batch_job(2, finished="Failed")
    job["metadata"]["annotations"] = {"tunesmith.dev/counted-failures": spoilt}
    job["metadata"]["labels"] = {"tunesmith.dev/attempt": "seven"}
    attempt = latest_attempt([job], [crash(2)])
    assert attempt is not None
    assert (attempt.number, counted_failures(attempt)) == (2, 1)


def test_a_running_attempt_goes_on() -> None:
    assert step([given.batch_job()], [given.pod()]) == GoOn()


def test_a_finished_result_is_read_from_the_pods_last_word() -> None:
    jobs = [given.batch_job(finished="Complete")]
    attempt = latest_attempt(jobs, [given.ended(given.trained(), 0)])
    assert attempt is not None
    assert attempt.state is AttemptState.SUCCEEDED
    assert attempt.message == given.trained()


@pytest.mark.parametrize("word", ["", "done", "{}", '{"training": null}', '{"loss": 1.5}'])
def test_a_pod_that_ends_well_and_says_nothing_has_failed(word: str) -> None:
    """Of an image of one's own: nobody waits for it, and it is not begun anew for ever."""
    jobs = [given.batch_job(finished="Complete")]
    pod = given.pod(phase="Succeeded", terminated={"exitCode": 0, "message": word})
    attempt = latest_attempt(jobs, [pod], outcome=Outcome.TRAINING)
    assert attempt is not None
    assert attempt.failure is not None
    assert "did not say what it made" in attempt.failure.message
    assert counted_failures(attempt) == 1


def test_a_result_of_which_only_an_evicted_pod_is_left_is_read_again_and_not_counted() -> None:
    """The Job controller made another pod, which succeeded and is gone."""
    jobs = [given.batch_job(finished="Complete")]
    evicted = given.pod(phase="Failed", terminated={"exitCode": 137, "message": ""})
    attempt = latest_attempt(jobs, [evicted], outcome=Outcome.TRAINING)
    assert attempt is not None
    assert attempt.failure is not None
    assert attempt.failure.reason == "ResultLost"
    assert counted_failures(attempt) == 0


def test_a_last_word_about_something_else_is_no_result() -> None:
    jobs = [given.batch_job(finished="Complete")]
    pods = [given.ended(given.trained(), 0)]
    for outcome, state in (
        (Outcome.TRAINING, AttemptState.SUCCEEDED),
        (Outcome.EVALUATION, AttemptState.FAILED),
    ):
        attempt = latest_attempt(jobs, pods, outcome=outcome)
        assert attempt is not None
        assert attempt.state is state


def test_a_result_whose_pod_is_gone_is_read_again_and_not_counted() -> None:
    jobs = [given.batch_job(finished="Complete")]
    attempt = latest_attempt(jobs, [])
    assert attempt is not None
    assert attempt.failure is not None
    assert attempt.failure.reason == "ResultLost"
    assert isinstance(step(jobs, []), WaitUntil)
    assert next_step(attempt, NOTHING, 0, timedelta(0), given.NOW) == Start(2, 0)


@pytest.mark.parametrize("failure_class", [FailureClass.USER_ERROR, FailureClass.DATA_UNREACHABLE])
def test_a_fault_around_the_job_waits_without_counting_for_as_long_as_it_takes(
    failure_class: FailureClass,
) -> None:
    jobs = [given.batch_job(40, finished="Failed")]
    pods = [given.ended(given.failed(failure_class), ExitCode.USER_ERROR, 40)]
    waiting = step(jobs, pods, limit=0)
    assert isinstance(waiting, WaitUntil)
    assert waiting.number == 41
    assert waiting.moment - given.NOW <= timedelta(minutes=10)


def test_a_crash_counts_and_is_retried_until_the_limit() -> None:
    assert step([given.batch_job(1, finished="Failed")], [crash()]) == Start(2, 1)
    last = [given.batch_job(2, finished="Failed", counted=1)]
    assert step(last, [crash(2)], limit=1) == GiveUp()


def test_the_pause_doubles_with_each_attempt() -> None:
    def pause(number: int) -> timedelta:
        jobs = [given.batch_job(number, finished="Failed")]
        found = next_step(
            latest_attempt(jobs, [crash(number)]), NOTHING, 99, timedelta(minutes=2), given.NOW
        )
        assert isinstance(found, WaitUntil)
        return found.moment - given.NOW

    assert pause(2) - pause(1) == timedelta(minutes=2)
    assert pause(20) < timedelta(minutes=10)


@pytest.mark.parametrize(
    ("terminated", "expected_class", "expected_reason"),
    [
        ({"exitCode": 137, "reason": "OOMKilled"}, FailureClass.OUT_OF_MEMORY, "OutOfMemory"),
        ({"exitCode": 143}, FailureClass.PREEMPTED, "Preempted"),
        ({"exitCode": 11}, FailureClass.DATA_UNREACHABLE, "InternalError"),
        ({"exitCode": 1}, FailureClass.INTERNAL, "InternalError"),
        ({"exitCode": 99, "message": "{not json"}, FailureClass.INTERNAL, "InternalError"),
        ({"exitCode": 99, "message": "[" * 4096}, FailureClass.INTERNAL, "InternalError"),
    ],
)
def test_an_end_without_a_last_word_is_still_explained(
    terminated: given.Raw, expected_class: FailureClass, expected_reason: str
) -> None:
    jobs = [given.batch_job(finished="Failed")]
    attempt = latest_attempt(jobs, [given.pod(phase="Failed", terminated=terminated)])
    assert attempt is not None
    assert attempt.failure is not None
    assert (attempt.failure.failure_class, attempt.failure.reason) == (
        expected_class,
        expected_reason,
    )


def test_a_failed_job_whose_pod_is_gone_lost_its_pod() -> None:
    attempt = latest_attempt([given.batch_job(finished="Failed")], [])
    assert attempt is not None
    assert attempt.failure is not None
    assert attempt.failure.reason == "PodLost"


def test_the_trainers_own_sentence_wins() -> None:
    message = given.failed(FailureClass.INTERNAL, Reason.LOSS_NOT_FINITE, "The loss is NaN.")
    jobs = [given.batch_job(finished="Failed")]
    attempt = latest_attempt(jobs, [given.ended(message, 1)])
    assert attempt is not None
    assert attempt.failure is not None
    assert attempt.failure.message == "The loss is NaN."


def test_only_the_last_failed_job_is_kept_for_its_log() -> None:
    jobs = [given.batch_job(1), given.batch_job(2), given.batch_job(3)]
    assert outdated_children(jobs, Start(4, 0)) == [
        ("Job", "triage-train-1"),
        ("Job", "triage-train-2"),
    ]
    # The operator may have died before it deleted what the third made superfluous.
    assert outdated_children(jobs, None) == [("Job", "triage-train-1")]
    assert outdated_children(jobs[:2], None) == []
    jobs[0]["metadata"]["deletionTimestamp"] = given.moment(0)
    assert outdated_children(jobs, None) == []


def test_a_pod_of_an_earlier_job_of_the_same_name_is_not_taken_for_this_ones() -> None:
    stale = given.ended(given.trained(), 0)
    stale["metadata"]["labels"]["batch.kubernetes.io/controller-uid"] = "uid-of-the-deleted-job"
    attempt = latest_attempt([given.batch_job(finished="Complete")], [stale])
    assert attempt is not None
    assert attempt.message is None


def test_a_failure_once_told_is_not_retold_when_the_pod_is_gone() -> None:
    jobs = [given.batch_job(finished="Failed")]
    told = latest_attempt(jobs, [given.ended(given.failed(), ExitCode.USER_ERROR)])
    assert told is not None
    later = latest_attempt(jobs, [], AttemptStatus(attempt=1, failure=told.failure))
    assert later is not None
    assert later.failure == told.failure


def test_a_failure_of_an_earlier_attempt_explains_nothing_about_this_one() -> None:
    first = latest_attempt([given.batch_job(finished="Failed")], [crash()])
    assert first is not None
    known = AttemptStatus(attempt=2, failure=first.failure)
    second = latest_attempt([given.batch_job(2, finished="Failed")], [], known)
    assert second is not None
    assert second.failure is not None
    assert second.failure.reason == "PodLost"


@pytest.mark.parametrize("reason", [Reason.LOSS_NOT_FINITE, Reason.STEP_WITHOUT_ANSWERS])
def test_what_only_another_spec_would_mend_is_not_tried_again(reason: Reason) -> None:
    message = given.failed(FailureClass.USER_ERROR, reason, "It cannot be trained.")
    jobs = [given.batch_job(finished="Failed")]
    assert step(jobs, [given.ended(message, ExitCode.USER_ERROR)], limit=99) == GiveUp()


# --- what the watches have not told yet ----------------------------------------------------------


def behind(jobs: list[given.Raw], pods: list[given.Raw], known: AttemptStatus) -> bool:
    return is_behind(latest_attempt(jobs, pods, known), pods, jobs, known)


def test_a_job_that_ended_before_its_pod_was_seen_to_is_asked_about() -> None:
    complete, known = [given.batch_job(finished="Complete")], AttemptStatus(attempt=1)
    assert behind(complete, [given.pod()], known)
    assert behind(complete, [], known)
    assert not behind(complete, [given.ended(given.trained(), 0)], known)
    assert not behind([given.batch_job()], [], known)


def test_a_job_that_status_tells_of_and_nobody_saw_is_asked_about() -> None:
    assert behind([], [], AttemptStatus(attempt=1))
    assert behind([given.batch_job(1)], [given.pod()], AttemptStatus(attempt=2))
    assert not behind([], [], AttemptStatus())
    assert not behind([given.batch_job(2)], [given.pod(2)], AttemptStatus(attempt=1))


def test_a_failure_that_is_known_is_not_asked_about_again() -> None:
    failed = [given.batch_job(finished="Failed")]
    told = latest_attempt(failed, [given.ended(given.failed(), ExitCode.USER_ERROR)])
    assert told is not None
    assert behind(failed, [], AttemptStatus(attempt=1))
    assert not behind(failed, [], AttemptStatus(attempt=1, failure=told.failure))


def replaced(**metadata: str) -> given.Raw:
    """The pod that a suspension took away, made in the same second as the one that followed."""
    pod = given.pod()
    pod["metadata"] |= {"name": "triage-train-1-zzzzz", **metadata}
    return pod


@pytest.mark.parametrize("pods_are_listed", [1, -1])
@pytest.mark.parametrize("gone", [{}, {"deletionTimestamp": given.moment(2)}])
def test_of_two_pods_of_one_second_the_one_that_ended_speaks(
    gone: dict[str, str], pods_are_listed: int
) -> None:
    pods = [given.ended(given.trained(), 0), replaced(**gone)][::pods_are_listed]
    found = latest_attempt([given.batch_job(finished="Complete")], pods)
    assert found is not None
    assert found.state is AttemptState.SUCCEEDED


def test_a_job_whose_newest_pod_was_not_seen_to_end_is_asked_about() -> None:
    complete, known = [given.batch_job(finished="Complete")], AttemptStatus(attempt=1)
    earlier = given.ended(given.trained(), 0)
    earlier["metadata"]["creationTimestamp"] = given.moment(900)
    assert behind(complete, [earlier, replaced(creationTimestamp=given.moment(1))], known)
