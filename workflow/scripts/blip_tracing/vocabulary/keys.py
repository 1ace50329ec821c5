"""What keys of the configuration are made of: groups, their types, and how a value is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from blip_tracing.vocabulary.analyses import HEAD_SCORES, QUANTITY_WORDS
from blip_tracing.vocabulary.corruptions import KINDS, PLACES, UNITS
from blip_tracing.vocabulary.experiment import POSITIONS, QUESTIONS
from blip_tracing.vocabulary.metrics import METRICS
from blip_tracing.vocabulary.multiverse import NULLS, QUANTITIES
from blip_tracing.vocabulary.roles import PARTS
from blip_tracing.vocabulary.sites import SITES, misnamed

# Of whole numbers: numpy and the tables have 64 bits for one.
LARGEST = 2**63 - 1
# The name of a run or an experiment: a wildcard, a file's and a table's name.
NAME = r"[a-z][a-z0-9_]*"


def unique(values: list[Any]) -> list[Any]:
    """A list without repetition; refused where it has one."""
    for number, value in enumerate(values):
        if value in values[:number]:
            raise PydanticCustomError("given_twice", "{value}", {"value": value})
    return values


def site_name(name: Any) -> Any:
    """A site's name; refused in words of its own where what it stands for elsewhere is known."""
    if isinstance(name, str) and name not in SITES and (fault := misnamed(name)):
        raise PydanticCustomError("misnamed", "{fault}", {"fault": fault})
    return name


Text = Annotated[str, Field(min_length=1)]
Positive = Annotated[int, Field(ge=1, le=LARGEST)]
Seed = Annotated[int, Field(ge=0, le=LARGEST)]
Index = Annotated[int, Field(ge=0, le=LARGEST)]
Number = Annotated[float, Field(ge=0)]
Name = Annotated[str, Field(pattern=f"^{NAME}$", max_length=40)]
Head = Annotated[str, Field(pattern=r"^L\d+\.H\d+$")]
if TYPE_CHECKING:  # which knows no Literal of what is registered
    Question = str
    SiteName = str
    Positions = str
    MetricName = str
    CorruptionKind = str
    CorruptionPlace = str
    LevelUnit = str
    QuantityName = str
    NullName = str
    Quantity = str
    Part = str
    HeadScore = str
else:
    Question = Literal[tuple(QUESTIONS)]
    SiteName = Annotated[Literal[tuple(SITES)], BeforeValidator(site_name)]
    Positions = Literal[tuple(POSITIONS)]
    MetricName = Literal[tuple(METRICS)]
    CorruptionKind = Literal[tuple(KINDS)]
    CorruptionPlace = Literal[tuple(PLACES)]
    LevelUnit = Literal[tuple(UNITS)]
    QuantityName = Literal[tuple(QUANTITIES)]
    NullName = Literal[tuple(NULLS)]
    Quantity = Literal[tuple(QUANTITY_WORDS)]
    Part = Literal[tuple(PARTS)]
    HeadScore = Literal[tuple(HEAD_SCORES)]


class Group(BaseModel):
    """A group of keys: no other than these, each of its own type."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def must_be(place: tuple[str | int, ...], name: str, names: list[str]) -> None:
    """Refuse the name of an experiment that is not there or has no site."""
    if name not in names:
        context = {"place": list(place), "experiment": name, "known": names}
        raise PydanticCustomError("unknown_experiment", "{experiment} is unknown", context)


def refuse(place: tuple[str | int, ...], reason: str) -> NoReturn:
    """Refuse a value: what is wrong with the key, and the mend."""
    raise PydanticCustomError("refused", "{reason}", {"place": list(place), "reason": reason})
