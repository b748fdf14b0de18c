"""An API against its OpenAPI document, by Schemathesis, which takes a second to import: requests, and the checks of answers."""

from typing import Any

import schemathesis
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
)


class DocumentedApi:
    """The API behind a document."""

    def __init__(self, url: str) -> None:
        """`url`: the address of the document."""
        self._schema = schemathesis.openapi.from_url(url)

    def cases(self, operation: str) -> st.SearchStrategy[Any]:
        """Requests of an operation: half of them are wrong on purpose."""
        found: Any = self._schema.find_operation_by_id(operation)
        return st.one_of([found.as_strategy(generation_mode=mode) for mode in GenerationMode])

    def validate(self, case: Any, answer: Any, *, refuses_wrong: bool, accepts_right: bool) -> None:
        """Raises for an answer that is not documented, and as told for a wrong request accepted or a right request refused."""
        checks = [*CHECKS]
        if refuses_wrong:
            checks.append(negative_data_rejection)
        if accepts_right:
            checks.append(positive_data_acceptance)
        case.validate_response(answer, checks=checks)
