"""The published package as a black box: one request in, its answer out.

PyPI time-series-anomaly-detector 0.4.0 (MIT), whose detector Lapwing reproduces. Set-up:

    python3.11 -m venv refenv
    refenv/bin/pip install --no-deps time-series-anomaly-detector==0.4.0
    refenv/bin/pip install numpy==1.26.4 pandas==2.2.3 scipy==1.12.0 statsmodels==0.15.0 \
        arch==8.0.0 seasonal==0.3.1 rstl==0.1.3 pytz
"""
import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
# numpy orders equal keys by another sort on processors with AVX-512, and flags of tied points follow
# that order. Switched off, the order is the same everywhere.
os.environ.setdefault(
    "NPY_DISABLE_CPU_FEATURES",
    "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR")

import copy
import importlib.util
import math
import sys
import time
import types
import warnings

warnings.filterwarnings("ignore")


def _load():
    """Imports the univariate part alone: the package's own start loads torch and mlflow."""
    spec = importlib.util.find_spec("anomaly_detector")
    if spec is None:
        sys.exit("time-series-anomaly-detector is not installed for this python: " + __doc__)
    package = types.ModuleType("anomaly_detector")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["anomaly_detector"] = package
    mlflow = types.ModuleType("mlflow")
    mlflow.pyfunc = types.ModuleType("mlflow.pyfunc")
    mlflow.pyfunc.PythonModel = type("PythonModel", (), {})
    sys.modules.setdefault("mlflow", mlflow)
    sys.modules.setdefault("mlflow.pyfunc", mlflow.pyfunc)
    import pandas
    from anomaly_detector.univariate.univariate_anomaly_detection import UnivariateAnomalyDetector
    from anomaly_detector.univariate.util.fields import DetectType
    return pandas, UnivariateAnomalyDetector, DetectType


_PANDAS, _DETECTOR, _TYPES = _load()


def judge(mode, request):
    """The answer, {"expect", "model"} or {"error": {"code", "message"}}, and the seconds it took."""
    parameters = {k: copy.deepcopy(v) for k, v in request.items() if k != "series"}
    parameters["detect_mode"] = {"last": _TYPES.LATEST, "entire": _TYPES.ENTIRE}[mode]
    detector = _DETECTOR()
    series = request.get("series")
    started = time.perf_counter()
    try:
        table = None if series is None else _PANDAS.DataFrame(series)
        rows = detector.predict(None, table, parameters)
    except Exception as error:
        seconds = time.perf_counter() - started
        # The validators keep their verdict where nothing reads it; what surfaces is another error.
        message = getattr(detector, "error_msg", None)
        if message is not None:
            code = getattr(detector, "error_code", None) or "BadArgument"
        else:
            code, message = getattr(error, "code", "InternalError"), str(error)
        return {"error": {"code": code, "message": message}}, seconds
    seconds = time.perf_counter() - started
    results = [row["result"] for row in rows]
    names = [("isAnomaly", "is_anomaly"), ("isPositiveAnomaly", "is_positive_anomaly"),
             ("isNegativeAnomaly", "is_negative_anomaly")]
    numbers = [("expectedValue", "expected_value"), ("upperMargin", "upper_margin"),
               ("lowerMargin", "lower_margin")]
    if mode == "last":
        last = results[-1]
        expect = {name: bool(last[key]) for name, key in names}
        expect |= {name: _number(last[key]) for name, key in numbers}
        expect["suggestedWindow"] = int(last["suggested_window"])
    else:
        expect = {name: [bool(r[key]) for r in results] for name, key in names}
        expect |= {name + "s": [_number(r[key]) for r in results] for name, key in numbers}
    expect["period"] = int(results[-1]["period"])
    return {"expect": expect, "model": detector.detector.detector_name}, seconds


def _number(x):
    x = float(x)
    return x if math.isfinite(x) else str(x)
