"""Who may use a model, over every role, access and key."""

from __future__ import annotations

import pytest

from gpustack.domain.access import NOBODY, AuthMethod, Principal, Role
from gpustack.domain.model import ModelAccess
from gpustack.errors import NotFound, Unauthorized
from gpustack.policy.access import may_use, unknown

PUBLIC, AUTHED, NAMED = ModelAccess


def person(user_id: int, role: Role = Role.USER, *names: str) -> Principal:
    allowed = frozenset(names) if names else None
    return Principal(role=role, means=AuthMethod.KEY, user_id=user_id, allowed_models=allowed)


ADMIN, ADA, BOB = person(1, Role.ADMIN), person(2), person(3)
KEY_OF_ADMIN, KEY_OF_ADA = person(1, Role.ADMIN, "other"), person(2, Role.USER, "m", "other")
WORKER = Principal(role=Role.WORKER, means=AuthMethod.WORKER, worker_id=2)
JOINER = Principal(role=Role.JOINER, means=AuthMethod.TOKEN)


@pytest.mark.parametrize(
    ("who", "public", "authed", "named"),
    [
        (ADMIN, True, True, True),
        (ADA, True, True, True),
        (BOB, True, True, False),
        (NOBODY, True, False, False),
        (WORKER, True, False, False),
        (JOINER, True, False, False),
        (KEY_OF_ADMIN, False, False, False),
        (KEY_OF_ADA, True, True, True),
    ],
    ids=lambda one: f"{one.role}-{one.user_id}" if isinstance(one, Principal) else str(one),
)
def test_a_model_is_for_whom_it_says(who: Principal, public: bool, authed: bool, named: bool) -> None:
    """Named is ada, of whom there is a worker with the same number too."""
    found = [may_use(who, "m", access, {2}) for access in (PUBLIC, AUTHED, NAMED)]
    assert found == [public, authed, named]


def test_nobody_learns_whether_there_is_a_model_that_is_not_for_them() -> None:
    assert isinstance(unknown(ADA, "m"), NotFound)
    assert isinstance(unknown(NOBODY, "m"), Unauthorized)
