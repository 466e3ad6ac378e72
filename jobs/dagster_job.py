"""A Dagster asset that a nightherd job makes, evening after evening until it is done.

    dagster dev -f jobs/dagster_job.py

Change the three constants. Dagster submits the job again where it ends unfinished (a lost cluster, a machine
that died), and nothing that was answered is computed twice. Where a limit of the night ends it
(`limits.stop_at`), the asset isn't materialized, and the next evening goes on.
"""

from collections.abc import Iterator

from dagster import (
    AssetExecutionContext,
    Definitions,
    Failure,
    Output,
    RetryPolicy,
    ScheduleDefinition,
    asset,
    define_asset_job,
)
from night import Night, WrongJob, submit

OUTPUT = "s3://bucket/labels"
COMMAND = [
    *("ray", "job", "submit", "--address", "http://ray-head:8265", "--working-dir", "/opt/jobs", "--"),
    *("nightherd", "run", "label.yaml", "--output", OUTPUT, "--set", "limits.stop_at='06:00'"),
]
EVENING = "0 20 * * *"


@asset(output_required=False, retry_policy=RetryPolicy(max_retries=20, delay=120))
def answers(context: AssetExecutionContext) -> Iterator[Output[str]]:
    """The finished answers. What it raises otherwise, Dagster tries again."""
    try:
        night = submit(COMMAND, OUTPUT)
    except WrongJob as error:
        raise Failure(str(error), allow_retries=False) from error
    context.log.info(night.value)
    if night is Night.DONE:
        yield Output(f"{OUTPUT}/responses")


evening = define_asset_job("evening", selection=[answers])
defs = Definitions(
    assets=[answers], jobs=[evening], schedules=[ScheduleDefinition(job=evening, cron_schedule=EVENING)]
)
