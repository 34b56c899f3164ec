from pathlib import Path

import pytest
from moedge_runtime.bundle import Bundle
from moedge_runtime.config import ModelConfig
from moedge_runtime.daemon.engine import EngineAnswerer
from moedge_runtime.errors import ConfigError


def test_the_memory_for_experts_reaches_the_core(tiny: Path) -> None:
    with pytest.raises(ConfigError, match=r"budget of 1,000 bytes, at least [\d,]+ are needed"):
        EngineAnswerer.open(Bundle.open(tiny), ModelConfig(bundle=tiny, expert_memory=1000))
    answerer = EngineAnswerer.open(Bundle.open(tiny), ModelConfig(bundle=tiny, expert_memory=5 << 20))
    experts = answerer._engine.experts
    assert experts is not None and experts.statistics().budget_bytes == 5 << 20
    answerer._engine.close()
