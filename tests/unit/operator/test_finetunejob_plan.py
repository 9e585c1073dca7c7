"""What happens next to a FineTuneJob, from what is observed."""

from __future__ import annotations

from typing import Any

import pytest
from tunesmith.api.evalrun import EvalRun
from tunesmith.api.job_status import FineTuneJobStatus, JobState, Progress, TrainingPhase
from tunesmith.api.memory import MemoryPlan
from tunesmith.api.objects import Condition, ConditionStatus
from tunesmith.api.trainer_contract import ExitCode, ProgressReport
from tunesmith.api.verdict import Verdict
from tunesmith.finetunejob.decision import Observed, Prepared
from tunesmith.finetunejob.objects import training_plan
from tunesmith.finetunejob.plan import plan
from tunesmith.kube.conditions import find
from tunesmith.kube.observed_attempt import latest_attempt
from tunesmith.kube.plan import Plan

from tests.unit.operator import given

AT_ONCE = {"preflight": "Skip"}


def planned(observed: Observed) -> Plan:
    return plan(observed, given.SETTINGS, given.NOW)


def status_of(made: Plan) -> FineTuneJobStatus:
    assert isinstance(made.status, FineTuneJobStatus)
    return made.status


def condition(made: Plan, type_: str) -> Condition:
    found = find(made.status.conditions, type_)
    assert found is not None
    return found


def observed(
    jobs: list[given.Raw], pods: list[given.Raw], status: given.Raw | None = None, **more: Any
) -> Observed:
    job = more.pop("job", given.finetunejob(status=given.prepared(**(status or {}))))
    return Observed(job, latest_attempt(jobs, pods), jobs, **more)


def trained(**more: Any) -> Observed:
    jobs = [given.batch_job(finished="Complete")]
    return observed(jobs, [given.ended(given.trained(), 0)], **more)


def judged(verdict: Verdict, digest: str = given.DIGEST) -> EvalRun:
    outcome = given.measured().to_json()
    return given.evalrun(
        status={"verdict": verdict, "adapterDigest": digest, "results": outcome["results"]}
    )


def ready(**spec: Any) -> Observed:
    """A job whose data is ready and that trains at once."""
    return Observed(given.finetunejob(status=given.prepared(), evaluation=AT_ONCE, **spec))


def test_a_job_whose_data_is_ready_gets_its_first_batch_job() -> None:
    made = planned(ready())
    assert [(each["kind"], each["metadata"]["name"]) for each in made.create] == [
        ("Job", "triage-train-1"),
    ]
    assert status_of(made).state is JobState.PENDING


def being_ended(due: str) -> Observed:
    """A job whose pod was told to end, and says nothing more."""
    pod = given.pod()
    pod["metadata"]["deletionTimestamp"] = due
    pod["spec"]["nodeName"] = "gpu-7"
    return observed([given.batch_job()], [pod])


def test_a_pod_that_is_long_overdue_is_told_with_its_node_and_what_to_do() -> None:
    made = planned(being_ended(given.moment(60)))
    assert status_of(made).state is JobState.WAITING
    stalled = condition(made, "Stalled")
    assert (stalled.status, stalled.reason) == ("True", "PodNotEnding")
    assert "`kubectl delete node gpu-7`" in stalled.message
    assert not made.create, "two would write to the same folder"


@pytest.mark.parametrize("seconds", [-30, 0, 10])
def test_a_pod_has_its_time_to_end(seconds: int) -> None:
    made = planned(being_ended(given.moment(seconds)))
    assert condition(made, "Stalled").status == "False"
    assert made.requeue_after


def test_every_condition_is_set_at_the_first_visit() -> None:
    made = planned(Observed(given.finetunejob(evaluation=AT_ONCE)))
    types = [each.type for each in made.status.conditions]
    assert types == ["Succeeded", "Ready", "Reconciling", "Stalled", "Finished", "Prepared"]


def test_the_same_observation_gives_the_same_plan() -> None:
    for seen in (Observed(given.finetunejob(evaluation=AT_ONCE)), ready(), trained()):
        assert planned(seen) == planned(seen)


def test_a_running_pod_shows_its_progress() -> None:
    progress = Progress(phase=TrainingPhase.TRAINING, step=5, total_steps=20, percent=25)
    made = planned(
        observed([given.batch_job()], [given.pod()], progress=ProgressReport(training=progress))
    )
    assert status_of(made).state is JobState.TRAINING
    assert status_of(made).progress == progress
    assert "step 5 of 20" in condition(made, "Succeeded").message
    assert not made.create


def test_a_pod_that_does_not_answer_keeps_the_last_progress() -> None:
    last = {"phase": "Training", "step": 5, "totalSteps": 20}
    status = {"attempt": 1, "progress": last}
    made = planned(observed([given.batch_job()], [given.pod()], status=status))
    assert status_of(made).progress == Progress.model_validate(last)


def test_a_users_error_stalls_and_says_when_it_is_tried_again() -> None:
    jobs = [given.batch_job(5, finished="Failed")]
    made = planned(observed(jobs, [given.ended(given.failed(), ExitCode.USER_ERROR, 5)]))
    succeeded = condition(made, "Succeeded")
    assert (succeeded.status, succeeded.reason) == (ConditionStatus.FALSE, "DatasetEmpty")
    assert "The dataset is empty." in succeeded.message
    assert "attempt 6 follows by itself" in succeeded.message
    assert condition(made, "Stalled").status is ConditionStatus.TRUE
    assert status_of(made).state is JobState.WAITING


def test_after_training_exactly_one_eval_run_is_created_for_that_digest() -> None:
    made = planned(trained())
    assert [each["kind"] for each in made.create] == ["EvalRun"]
    (run,) = made.create
    assert run["metadata"]["name"] == "triage-aaaaaaaa"
    assert run["spec"]["adapter"]["digest"] == given.DIGEST
    assert condition(made, "Succeeded").status is ConditionStatus.TRUE
    assert condition(made, "Ready").reason == "Evaluating"


def test_an_eval_run_under_way_is_not_created_again() -> None:
    made = planned(trained(eval_runs=[given.evalrun()]))
    assert not made.create
    assert status_of(made).state is JobState.EVALUATING


@pytest.mark.parametrize(
    ("verdict", "ready", "reason", "state"),
    [
        (Verdict.PASSED, ConditionStatus.TRUE, "EvaluationPassed", JobState.READY),
        (Verdict.FAILED, ConditionStatus.FALSE, "EvaluationFailed", JobState.REJECTED),
        (Verdict.INCONCLUSIVE, ConditionStatus.FALSE, "EvaluationInconclusive", JobState.REJECTED),
    ],
)
def test_the_verdict_decides_whether_the_adapter_is_ready(
    verdict: Verdict, ready: ConditionStatus, reason: str, state: JobState
) -> None:
    made = planned(trained(eval_runs=[judged(verdict)]))
    assert condition(made, "Ready").status is ready
    assert condition(made, "Ready").reason == reason
    assert status_of(made).state is state


def test_a_verdict_about_another_adapter_counts_for_nothing() -> None:
    made = planned(trained(eval_runs=[judged(Verdict.PASSED, digest=given.BASE_DIGEST)]))
    assert condition(made, "Ready").status is ConditionStatus.FALSE


def test_a_verdict_outlives_its_eval_run() -> None:
    first = planned(trained(eval_runs=[judged(Verdict.PASSED)]))
    again = planned(trained(job=given.finetunejob(status=first.status.to_json())))
    assert condition(again, "Ready").status is ConditionStatus.TRUE
    assert not again.create


def test_a_result_outlives_its_batch_job() -> None:
    first = planned(trained())
    again = planned(Observed(given.finetunejob(status=first.status.to_json())))
    assert condition(again, "Succeeded").status is ConditionStatus.TRUE
    assert [each["kind"] for each in again.create] == ["EvalRun"]


def test_a_wiped_status_is_rebuilt_from_the_children() -> None:
    seen = trained(eval_runs=[judged(Verdict.PASSED)])
    before = planned(seen)
    wiped = planned(seen)
    assert wiped.status == before.status


def test_what_is_unusual_is_a_warning_and_no_refusal() -> None:
    job = given.finetunejob(lora={"rank": 100, "alpha": 7, "dropout": 0.5})
    warning = condition(planned(Observed(job)), "Warning")
    for word in ("lora.rank", "lora.alpha", "lora.dropout"):
        assert word in warning.message


def test_a_small_dataset_is_a_warning_once_its_rows_are_counted() -> None:
    status = {"dataset": given.receipt(train_rows=30, held_out_rows=4).to_json()}
    made = planned(observed([given.batch_job()], [given.pod()], status=status))
    assert "Only 30 examples" in condition(made, "Warning").message


def test_few_held_out_examples_are_a_warning_that_says_what_they_can_show() -> None:
    status = {"dataset": given.receipt(held_out_rows=100).to_json()}
    made = planned(observed([given.batch_job()], [given.pod()], status=status))
    assert "100 held-out examples detect 12.5 points" in condition(made, "Warning").message


def test_before_the_rows_are_counted_nothing_is_said_about_them() -> None:
    made = planned(Observed(given.finetunejob()))
    assert find(made.status.conditions, "Warning") is None


def test_enough_held_out_examples_are_no_warning_unless_few_of_them_are_asked() -> None:
    status = {"dataset": given.receipt(held_out_rows=400).to_json()}
    jobs, pods = [given.batch_job()], [given.pod()]
    assert find(planned(observed(jobs, pods, status)).status.conditions, "Warning") is None
    job = given.finetunejob(status=given.prepared(**status), evaluation={"maxItems": 50})
    made = planned(observed(jobs, pods, job=job))
    assert "50 held-out examples detect 17.7 points" in condition(made, "Warning").message


def test_a_message_says_which_gates_failed_and_what_to_change() -> None:
    run = judged(Verdict.FAILED)
    gates = [{"suite": "held-out", "minimumDifference": 0, "verdict": "Failed"}]
    failed = EvalRun.model_validate(
        {**run.model_dump(), "status": {**run.status.to_json(), "gates": gates}}
    )
    made = planned(trained(eval_runs=[failed]))
    message = condition(made, "Ready").message
    assert "it failed on held-out (TokenF1: base model 40.0, adapter 60.0)" in message
    assert "Look through the data" in message


def first_job(**spec: Any) -> given.Raw:
    """The first batch Job of training."""
    made = planned(ready(**spec))
    return dict(made.create[-1])


def test_attempts_differ_in_nothing_but_where_they_meet_and_how_they_fit_into_memory() -> None:
    def planned_for(number: int, memory: MemoryPlan) -> given.Raw:
        job = given.finetunejob(resources={"nodes": 2})
        data = Prepared(given.PREPARED_URI, given.receipt(), given.memory_plan())
        name = f"triage-train-{number}"
        return training_plan(job, name, data, memory, given.SETTINGS).to_json()

    first = planned_for(1, given.memory_plan())
    second = planned_for(2, given.memory_plan(micro_batch_size=2))
    assert {key for key in first if first[key] != second[key]} == {"memory", "rendezvous"}


def test_the_training_pod_has_no_token_and_no_privileges() -> None:
    pod = first_job()["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_only_the_output_claim_is_writable() -> None:
    (container,) = first_job()["spec"]["template"]["spec"]["containers"]
    writable = {each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")}
    assert writable == {"/mnt/claims/adapters", "/tmp", "/scratch"}


def test_a_claim_that_is_source_and_output_is_mounted_once_and_writable() -> None:
    built = first_job(output={"uri": "pvc://models/out"})
    (container,) = built["spec"]["template"]["spec"]["containers"]
    mounts = [
        each for each in container["volumeMounts"] if each["mountPath"] == "/mnt/claims/models"
    ]
    assert len(mounts) == 1
    assert mounts[0]["readOnly"] is False


def test_a_secret_is_handed_to_the_pod_by_reference() -> None:
    job = first_job(baseModel={"uri": "hf://org/model", "secretRef": {"name": "hub"}})
    (container,) = job["spec"]["template"]["spec"]["containers"]
    token = next(each for each in container["env"] if each["name"] == "BASE_MODEL_HF_TOKEN")
    assert token["valueFrom"]["secretKeyRef"] == {"name": "hub", "key": "HF_TOKEN"}


def test_the_keys_of_a_report_tool_become_environment_variables() -> None:
    report = {"kind": "WandB", "uri": "https://wandb.example", "secretRef": {"name": "wandb"}}
    (container,) = first_job(reportTo=[report])["spec"]["template"]["spec"]["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": "wandb"}}]


def test_a_pod_that_is_told_to_stop_has_the_time_for_a_checkpoint() -> None:
    assert first_job()["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 120


def test_a_deadline_is_handed_to_the_batch_job() -> None:
    assert first_job(activeDeadlineSeconds=60)["spec"]["activeDeadlineSeconds"] == 60
    assert "activeDeadlineSeconds" not in first_job()["spec"]


@pytest.mark.parametrize(("method", "words"), [("DoRA", "strategy: Merged"), ("Full", "a model")])
def test_what_a_method_means_for_serving_is_said_in_advance(method: str, words: str) -> None:
    made = planned(Observed(given.finetunejob(method=method)))
    assert words in condition(made, "Warning").message
