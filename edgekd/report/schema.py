"""The JSON schema of report.json (draft 2020-12), generated from the report's value classes.

Run `python -m edgekd.report.schema` to regenerate report.schema.json after the classes have
changed; a test compares the two.
"""

import json
from typing import Any

from edgekd.package import package_folder
from edgekd.report.values import Report

SCHEMA_FILE = package_folder() / "report" / "report.schema.json"


def report_schema() -> dict[str, Any]:
    """The JSON schema of report.json."""
    schema = Report.model_json_schema(by_alias=True, mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def schema_text() -> str:
    """The content of report.schema.json."""
    return json.dumps(report_schema(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")
