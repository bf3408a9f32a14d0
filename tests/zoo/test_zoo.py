"""Models that nobody here wrote are counted as the oracle counts them, and train as without a Recorder.

Ten small models run by default; all of them with `pytest -m zoo`. Processes are fresh for each group of
models and each PYTHONHASHSEED, not for each model: imports take longer than most models.
"""

from __future__ import annotations

import pytest

from tests.zoo.models import zoo
from tests.zoo.run_all import fresh, groups, judged, problems, table

VISION = ["alexnet", "shufflenet_v2_x0_5", "mobilenet_v3_small", "quantizable_mobilenet_v2", "swin_v2"]
LANGUAGE = ["opt", "t5", "albert", "switch", "encodec"]
SAMPLE = [f"tv/{name}" for name in VISION] + [f"hf/{name}" for name in LANGUAGE]


def check(names: list[str], seeds: tuple[int, ...]) -> None:
    lines = judged(line for seed in seeds for line in fresh(names, seed))
    assert [line["model"] for line in lines if problems(line)] == [], table(lines)


@pytest.mark.parametrize("names", groups(SAMPLE, 5), ids=lambda names: names[0].split("/")[0])
def test_ten_models(names: list[str]):
    check(names, (0, 1))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The whole zoo is listed only where it runs: that imports torchvision."""
    if "group" in metafunc.fixturenames:
        wanted = metafunc.config.getoption("markexpr") == "zoo"
        metafunc.parametrize("group", groups(zoo(), 6) if wanted else [], ids=lambda names: names[0])


@pytest.mark.zoo
def test_all_models(group: list[str]):
    check(group, (0, 1, 2))
