"""What a schema cannot say, and what schemathesis does not check by itself.

Before a call the parts of the body that hang on each other are made to fit: timestamps become a grid (their schema
takes anything, because without a granularity anything may stand there), a period or window too long for the series is
shortened. What a body violates, it still violates: nothing that the schema bounds is touched. After a call every 400
must carry a code of the contract; how each example was answered is counted.
"""
import datetime
import os

import schemathesis

CODES = {
    "InvalidJsonFormat", "RequiredSeries", "RequiredGranularity", "InvalidGranularity", "InvalidCustomInterval",
    "InvalidPeriod", "InvalidModelArgument", "InvalidSeries", "BadArgument", "InvalidImputeMode",
    "InvalidImputeFixedValue",
}
SECONDS = {"weekly": 604800, "daily": 86400, "hourly": 3600, "minutely": 60, "secondly": 1, "microsecond": 0.001}
START = datetime.datetime(1970, 1, 1)
LONGEST = datetime.timedelta(days=365 * 7000).total_seconds()


def is_integer(value):
    return isinstance(value, int) and not isinstance(value, bool)


def grid(granularity, interval, points):
    """Timestamps `interval` granules apart; None where the calendar ends too early."""
    if granularity in ("monthly", "yearly"):
        step = interval * (12 if granularity == "yearly" else 1)
        if step * points > 12 * 7000:
            return None
        months = [step * i for i in range(points)]
        return [f"{1970 + m // 12:04}-{m % 12 + 1:02}-01" for m in months]
    step = SECONDS[granularity] * interval
    if step * points > LONGEST:
        return None
    return [(START + datetime.timedelta(seconds=step * i)).isoformat() + "Z" for i in range(points)]


@schemathesis.hook
def before_call(ctx, case, kwargs):
    body = case.body
    if not isinstance(body, dict) or not isinstance(body.get("series"), list):
        return
    series = body["series"]
    granularity, interval = body.get("granularity"), body.get("customInterval")
    if granularity in list(SECONDS) + ["monthly", "yearly"]:
        if is_integer(interval) and interval > 1000:
            interval = body["customInterval"] = interval % 1000 + 1
        stamps = grid(granularity, interval if is_integer(interval) and interval > 0 else 1, len(series))
        for point, stamp in zip(series, stamps or []):
            if isinstance(point, dict):
                point["timestamp"] = stamp
    if body.get("imputeMode") == "fixed":
        body["imputeFixedValue"] = 0
    for member, shortest in (("period", 0), ("stableTrendWindow", 3)):
        if is_integer(body.get(member)) and body[member] > shortest:
            body[member] = min(body[member], max(shortest, (len(series) - 1) // 2))


@schemathesis.check
def a_400_carries_a_code_of_the_contract(ctx, response, case):
    if response.status_code == 400:
        code = response.json()["code"]
        assert code in CODES, f"unknown code {code}"
        assert response.headers["x-ms-error-code"] == [code], response.headers["x-ms-error-code"]


@schemathesis.hook
def after_call(ctx, case, response):
    if case.operation.path.endswith("/detect"):
        with open(os.environ["TALLY"], "a") as tally:
            tally.write(f"{response.status_code}\n")
