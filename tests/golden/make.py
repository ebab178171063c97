"""Writes cases.jsonl beside this file: series of our own making, and what the reference says of them.

    refenv/bin/python tests/golden/make.py

refenv: see reference.py. Every path and option has a few cases, small enough to be committed.
"""
import json
import math
import os
import random
from datetime import datetime, timedelta, timezone

import reference

STEPS = {"minutely": timedelta(minutes=1), "secondly": timedelta(seconds=1),
         "hourly": timedelta(hours=1), "daily": timedelta(days=1), "weekly": timedelta(weeks=1),
         "microsecond": timedelta(milliseconds=1)}
START = datetime(2021, 3, 1, tzinfo=timezone.utc)


def stamps(granularity, interval, slots):
    if granularity in ("monthly", "yearly"):
        months = [i * interval * (12 if granularity == "yearly" else 1) for i in slots]
        return [f"{1950 + m // 12}-{m % 12 + 1:02d}-01T00:00:00Z" for m in months]
    step = STEPS.get(granularity, timedelta(minutes=1)) * interval
    at = [START + step * i for i in slots]
    if granularity == "microsecond":
        return [t.strftime("%Y-%m-%dT%H:%M:%S.") + f"{t.microsecond // 1000:03d}Z" for t in at]
    return [t.strftime("%Y-%m-%dT%H:%M:%SZ") for t in at]


def wave(rng, n, period, noise=0.3, slope=0.02):
    shape = [5 * math.sin(2 * math.pi * k / period) + rng.gauss(0, 1) for k in range(period)]
    return [20 + shape[i % period] + slope * i + rng.gauss(0, noise) for i in range(n)]


def noise(rng, n):
    return [50 + rng.gauss(0, 2) for _ in range(n)]


def walk(rng, n):
    x, out = 100.0, []
    for _ in range(n):
        x += rng.gauss(0.1, 1)
        out.append(x)
    return out


def counts(rng, n):
    return [float(min(rng.randrange(12), rng.randrange(12))) for _ in range(n)]


def spiked(values, at, by):
    values = list(values)
    for i in at:
        values[i] += by
    return values


def cases():
    def case(name, mode, make, n, granularity="daily", interval=1, drop=(), **options):
        rng = random.Random(name)
        values = make(rng, n)
        slots = [i for i in range(n) if i not in drop]
        times = stamps(granularity, interval, slots)
        series = [{"timestamp": t, "value": float(f"{values[i]:.6g}")} for t, i in zip(times, slots)]
        request = {"series": series, **options}
        if granularity != "absent":
            request["granularity"] = granularity
        if interval != 1:
            request["customInterval"] = interval
        return {"name": name, "mode": mode, "request": request}

    week = lambda rng, n: wave(rng, n, 7)
    def with_spike(make, at=-1, by=25):
        return lambda rng, n: spiked(make(rng, n), [at], by)

    for mode in ("last", "entire"):
        for version in ("V1", "V2"):
            tag = f"{mode}/{version}"
            yield case(f"seasonal/{tag}", mode, with_spike(week), 90, boundaryVersion=version)
            yield case(f"residual/{tag}", mode, with_spike(noise), 80, "minutely", 5,
                       boundaryVersion=version)
            yield case(f"threshold/{tag}", mode, with_spike(noise, by=-30), 60, "hourly", period=0,
                       boundaryVersion=version)
            yield case(f"walk/{tag}", mode, with_spike(walk, by=40), 80, "daily",
                       boundaryVersion=version)
            yield case(f"walk-residual/{tag}", mode, with_spike(walk, at=-20, by=40), 80, "minutely",
                       boundaryVersion=version)
        for granularity in ("yearly", "monthly", "weekly", "daily", "hourly", "minutely", "secondly",
                            "microsecond", "none", "absent"):
            period = {"monthly": 12, "weekly": 12, "hourly": 24}.get(granularity, 7)
            make = lambda rng, n: wave(rng, n, period)
            yield case(f"granularity={granularity}/{mode}", mode, with_spike(make, at=-3), 60,
                       granularity)
        for mode_name in ("auto", "previous", "linear", "zero", "notFill"):
            gaps = {9, 10, 31, *range(50, 62)}
            yield case(f"impute={mode_name}/seasonal/{mode}", mode, with_spike(week), 90,
                       drop=gaps, imputeMode=mode_name)
            yield case(f"impute={mode_name}/flat/{mode}", mode, with_spike(noise), 60, "minutely",
                       drop=gaps, imputeMode=mode_name)
        yield case(f"fillUpMode=fixed/{mode}", mode, with_spike(week), 90, drop={30, 31, 32},
                   fillUpMode="fixed", fixedValue=20.5)
        for sensitivity in (0, 50, 85, 95, 100):
            for version in ("V1", "V3"):
                yield case(f"sensitivity={sensitivity}/{version}/{mode}", mode,
                           with_spike(week, by=6), 70, sensitivity=sensitivity,
                           boundaryVersion=version)
        for ratio in (0.01, 0.1, 0.49):
            yield case(f"ratio={ratio}/{mode}", mode, with_spike(noise), 50, maxAnomalyRatio=ratio)
        yield case(f"alpha/{mode}", mode, with_spike(noise, by=7), 50, alpha=0.001)
        yield case(f"threshold/{mode}", mode, with_spike(noise), 50, "minutely", threshold=2.5)
        yield case(f"counts/{mode}", mode, counts, 100, "minutely", 5)
        yield case(f"counts-daily/{mode}", mode, counts, 100, "daily")
        yield case(f"majority/{mode}", mode,
                   lambda rng, n: [3.0 if rng.random() < 0.8 else rng.random() * 6 for _ in range(n)],
                   60, "hourly")
        yield case(f"constant/{mode}", mode, lambda rng, n: [4.5] * (n - 1) + [9.0], 40, "hourly")
        yield case(f"twelve/{mode}", mode, with_spike(noise), 12, "hourly")
        yield case(f"multiplicative/{mode}", mode,
                   lambda rng, n: [math.exp(v / 4) for v in wave(rng, n, 7, 0.1)], 84, period=7)
        yield case(f"long-period/{mode}", mode, lambda rng, n: wave(rng, n, 30), 100, period=30)
        manual = {"seasonal_series": {"alpha": 0.05, "maxAnomalyRatio": 0.2, "period": 7},
                  "spectral_residual": {"threshold": 3.0, "maxAnomalyRatio": 0.2, "period": 0},
                  "dynamic_threshold": {"alpha": 0.05, "maxAnomalyRatio": 0.2, "period": 0}}
        for name, parameters in manual.items():
            yield case(f"detector={name}/{mode}", mode, with_spike(week), 60,
                       detector={"name": name, "parameters": parameters})
    for name, options in {
            "granularity": {"granularity": "Daily"}, "customInterval": {"customInterval": 0},
            "period": {"period": -1}, "ratio": {"maxAnomalyRatio": 1}, "alpha": {"alpha": 0},
            "sensitivity": {"sensitivity": 101}, "threshold": {"threshold": 3},
            "imputeMode": {"imputeMode": "x"}, "imputeFixedValue": {"imputeMode": "fixed"},
            "fillUpMode": {"fillUpMode": "x"}, "boundaryVersion": {"boundaryVersion": "v1"},
            "detector": {"detector": {"name": "x", "parameters": {}}}, "too-long": {"period": 20},
            "two": {"sensitivity": -1, "alpha": -1}}.items():
        broken = case(f"invalid/{name}", "last", noise, 20)
        broken["request"].update(options)
        yield broken
    for name, change in {
            "too-few": lambda s: s[:11], "duplicate": lambda s: s[:5] + s[4:],
            "descending": lambda s: s[:5] + s[6:7] + s[5:],
            "off-grid": lambda s: s[:5] + [dict(s[5], timestamp="2021-03-06T12:00:00Z")] + s[6:],
            "null": lambda s: s[:5] + [dict(s[5], value=None)] + s[6:],
            "text": lambda s: s[:5] + [dict(s[5], value="abc")] + s[6:],
            "large": lambda s: s[:5] + [dict(s[5], value=2e100)] + s[6:],
            "no-timestamp": lambda s: [{"value": p["value"]} for p in s],
            "gaps": lambda s: s[:7] + s[-6:]}.items():
        broken = case(f"invalid-series/{name}", "last", noise, 40)
        broken["request"]["series"] = change(broken["request"]["series"])
        if name == "gaps":
            broken["request"]["period"] = 7
        yield broken


def rounded(x):
    """Twelve digits are more than any comparison looks at."""
    if isinstance(x, dict):
        return {key: rounded(value) for key, value in x.items()}
    if isinstance(x, list):
        return [rounded(value) for value in x]
    return float(f"{x:.12g}") if isinstance(x, float) else x


def main():
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cases.jsonl")
    with open(path, "w") as out:
        for case in cases():
            answer, _ = reference.judge(case["mode"], case["request"])
            if answer.get("error", {}).get("code") == "InternalError":
                raise SystemExit(f"the reference crashed on {case['name']}: {answer}")
            out.write(json.dumps(case | rounded(answer), separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
