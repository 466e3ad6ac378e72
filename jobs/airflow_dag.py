"""An Airflow DAG that runs a nightherd job each evening until it is done. Airflow 2.9 or newer, and 3.

Copy it with night.py into the folder of DAGs, and change the three constants. Airflow submits the job
again where it ends unfinished (a lost cluster, a machine that died), and nothing that was answered is
computed twice. Where a limit of the night ends it (`limits.stop_at`), the task `answers` is skipped, and
the next evening goes on.
"""

from __future__ import annotations

from datetime import datetime, timedelta

try:
    from airflow.sdk import dag, task
    from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task
    from airflow.exceptions import AirflowFailException, AirflowSkipException
from night import Night, WrongJob, submit

OUTPUT = "s3://bucket/labels"
COMMAND = [
    *("ray", "job", "submit", "--address", "http://ray-head:8265", "--working-dir", "/opt/jobs", "--"),
    *("nightherd", "run", "label.yaml", "--output", OUTPUT, "--set", "limits.stop_at='06:00'"),
]
EVENING = "0 20 * * *"


@dag(schedule=EVENING, start_date=datetime(2026, 1, 1), catchup=False, max_active_runs=1, tags=["nightherd"])
def nightherd_job() -> None:
    """One job, evening after evening."""

    @task(retries=20, retry_delay=timedelta(minutes=2))
    def answer_rows() -> bool:
        """True when every row has its answer. What it raises otherwise, Airflow tries again."""
        try:
            return submit(COMMAND, OUTPUT) is Night.DONE
        except WrongJob as error:
            raise AirflowFailException(str(error)) from error

    @task
    def answers(done: bool) -> str:
        """The finished answers, for the tasks that need them."""
        if not done:
            raise AirflowSkipException(Night.LIMIT.value)
        return f"{OUTPUT}/responses"

    answers(answer_rows())


nightherd_job()
