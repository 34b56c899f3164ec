from pathlib import Path

import pytest
from moedge_runtime.errors import BundleError, ConfigError, StorageError
from moedge_runtime.inference.expert_core.failure import core_failure
from moedge_runtime.inference.expert_core.library import CoreError, Status

PATH = Path("/bundles/x/experts.bin")


def failure(status, message, call_layer=None, **values):
    return core_failure(CoreError(status=status, message=message.encode(), **values), PATH, [0, 2, 3], call_layer)


CASES = [
    (
        failure(Status.EXPERT_DAMAGED, "reading failed (Input/output error)", layer=2, expert=7, offset=12345),
        BundleError,
        "bundle.expert_damaged",
        "Expert 7 of layer 3 at byte 12,345 of '/bundles/x/experts.bin' cannot be used: reading failed (Input/output "
        "error). Copy the bundle again; if it happens again, replace the disk.",
    ),
    (
        failure(Status.READ_TIMEOUT, "no read made progress for 60,000 ms", 2, layer=1, expert=4),
        StorageError,
        "storage.read_timeout",
        "Expert 4 of layer 2 at byte 0 of '/bundles/x/experts.bin' cannot be read: no read made progress for 60,000 "
        "ms. Check the disk, its connection and the kernel's log; replace a disk that does this again.",
    ),
    (
        failure(Status.FILE_UNUSABLE, "it cannot be opened (Permission denied)"),
        BundleError,
        "bundle.experts_unusable",
        "'/bundles/x/experts.bin' cannot be used: it cannot be opened (Permission denied). Copy the bundle again.",
    ),
    (
        failure(Status.BAD_INPUT, "a router logit is not finite", 3),
        BundleError,
        "bundle.not_finite",
        "The model of '/bundles/x' fails in layer 3: a router logit is not finite. Check the bundle with `moedge "
        "verify`; if it is whole, export it again with a higher precision or `--activations fp32`.",
    ),
    (
        failure(Status.BUDGET_TOO_SMALL, "too little", value=(36 << 20) + 1),
        ConfigError,
        "core.budget_too_small",
        "The memory for experts is too small: too little. Give at least 37M with --expert-memory, or "
        "model.expert_memory in moedge.yaml; with more, fewer experts are read again.",
    ),
    (
        failure(Status.OUT_OF_MEMORY, "5 bytes of address space cannot be had (Cannot allocate memory)"),
        ConfigError,
        "core.out_of_memory",
        "The system has no memory for the experts of '/bundles/x': 5 bytes of address space cannot be had (Cannot "
        "allocate memory). Give less with --expert-memory, or model.expert_memory in moedge.yaml; or end other "
        "programs.",
    ),
    (
        failure(Status.BAD_OPTION, "isa=mmx is not possible on this processor; its best is avx2"),
        ConfigError,
        "core.bad_option",
        "The expert core refuses an option: isa=mmx is not possible on this processor; its best is avx2. Change it.",
    ),
]


@pytest.mark.parametrize(("error", "kind", "key", "text"), CASES, ids=[case[2] for case in CASES])
def test_every_status_becomes_an_error_that_can_be_acted_on(error, kind, key, text):
    assert (type(error), error.key, str(error)) == (kind, key, text)
