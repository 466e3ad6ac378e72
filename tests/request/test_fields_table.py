"""docs/fields.md says what the code does."""

from __future__ import annotations

from pathlib import Path

from fields_table import page

from pipeline.request.schema import SERVED_FIELDS
from pipeline.request.unserved import UNSERVED, WITHOUT_MEANING

PAGE = Path(__file__).parents[2] / "docs/fields.md"


def test_the_table_of_fields_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "run: python jobs/fields_table.py > docs/fields.md"


def test_every_known_field_is_on_it_and_none_is_both_served_and_without_meaning() -> None:
    for name in (*SERVED_FIELDS, *UNSERVED, *WITHOUT_MEANING):
        assert f"`{name}`" in page()
    assert not WITHOUT_MEANING.keys() & (SERVED_FIELDS | UNSERVED.keys())
