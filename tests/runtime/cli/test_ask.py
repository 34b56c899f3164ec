import ctypes
import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from click.testing import CliRunner, Result
from fixtures_checkpoint import save_checkpoint
from moedge_export.options import ExportOptions
from moedge_export.pipeline import export_bundle
from moedge_runtime.cli.ask import ask
from moedge_runtime.errors import BundleError, CameraError, ConfigError
from moedge_runtime.inference import engine
from PIL import Image

SCHEMA = {
    "type": "object",
    "properties": {"on": {"type": "boolean"}},
    "required": ["on"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("ask")
    save_checkpoint(folder / "checkpoint")
    export_bundle(folder / "checkpoint", folder / "bundle", ExportOptions(precision="fp32", form="paged"))
    return str(folder / "bundle")


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("picture") / "x.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 130, 3), np.uint8)).save(path)
    return str(path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(ask, list(arguments), catch_exceptions=False)


def test_the_answer_is_on_standard_output_and_timing_on_standard_error(bundle: str, picture: str) -> None:
    result = run(bundle, "What is the reading?", "--image", picture, "--max-tokens", "8")
    assert result.exit_code == 0
    assert result.stdout.strip()
    assert "(12 of images), answer 8 (length)" in result.stderr
    assert "tokens/s" in result.stderr


def test_the_memory_is_divided_and_said_on_standard_error(bundle: str, tmp_path: Path) -> None:
    hot_set = tmp_path / "hot.json"
    arguments = ("--memory", "1G", "--hot-set", str(hot_set), "--max-tokens", "1")
    result = run(bundle, "?", *arguments)
    assert re.search(r"^\[memory 1\.00 GiB: process .*, experts .* \(100% of all experts", result.stderr, re.MULTILINE)
    assert json.loads(hot_set.read_text())["num_experts"] > 0


def test_the_memory_of_the_experts_can_be_locked_and_a_process_that_may_not_says_what_to_do(bundle: str) -> None:
    arguments = [sys.executable, "-m", "moedge_runtime", "ask", bundle, "What?", "--memory", "1G", "--max-tokens", "1"]
    plain = subprocess.run(arguments, stdout=subprocess.PIPE, check=True)
    locked = subprocess.run([*arguments, "--mlock"], stdout=subprocess.PIPE, check=True)
    assert locked.stdout == plain.stdout

    def lock_little() -> None:
        ctypes.CDLL(None).prctl(24, 14)  # PR_CAPBSET_DROP, CAP_IPC_LOCK: root may lock everything
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 16, 1 << 16))

    refused = subprocess.run(
        [*arguments, "--mlock"], capture_output=True, text=True, preexec_fn=lock_little, check=False
    )
    assert refused.returncode == 2
    assert "bytes of memory cannot be locked (Cannot allocate memory)" in refused.stderr
    assert "this process may lock 65,536 bytes. Allow more (`ulimit -l unlimited`" in refused.stderr
    numpy = subprocess.run([*arguments, "--mlock", "--experts", "numpy"], capture_output=True, text=True, check=False)
    assert numpy.returncode == 2
    assert "Only the native expert core locks its memory. Leave out --mlock (model.mlock)." in numpy.stderr


def test_an_inline_bundle_has_no_experts_to_lock(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "checkpoint")
    export_bundle(tmp_path / "checkpoint", tmp_path / "inline", ExportOptions(precision="fp32", form="inline"))
    with pytest.raises(ConfigError, match="Only the native expert core locks its memory"):
        run(str(tmp_path / "inline"), "What?", "--mlock")


def test_streamed_printed_at_once_and_json_are_the_same_text(bundle: str, picture: str) -> None:
    arguments = (bundle, "What is the reading?", "--image", picture, "--max-tokens", "12")
    streamed = run(*arguments).stdout
    assert run(*arguments, "--no-stream").stdout == streamed
    answer = json.loads(run(*arguments, "--json").stdout)
    assert answer["text"] + "\n" == streamed
    assert answer["image_tokens"] == 12
    assert answer["timing"]["total_ms"] > 0


def test_the_experts_work_is_told(bundle: str, picture: str) -> None:
    arguments = (bundle, "What is the reading?", "--image", picture, "--max-tokens", "4")
    line = run(*arguments).stderr.splitlines()[-1]
    numbers = (
        r"experts [\d,]+ hits, [\d,]+ misses, [\d.,]+ MiB read, [\d,]+ used that were read while idle, "
        r"compute \d+ ms, flash wait \d+ ms\]$"
    )
    assert re.search(numbers, line), line
    experts = json.loads(run(*arguments, "--json").stdout)["experts"]
    assert experts["hits"] + experts["misses"] > 0
    assert experts["compute_ms"] > 0 and experts["flash_wait_ms"] >= 0


def test_neither_the_bank_nor_its_memory_changes_the_answer(bundle: str, picture: str) -> None:
    arguments = (bundle, "What is the reading?", "--image", picture, "--max-tokens", "12", "--json")
    wanted = json.loads(run(*arguments).stdout)
    small = json.loads(run(*arguments, "--expert-memory", "2M").stdout)
    plain = json.loads(run(*arguments, "--experts", "numpy").stdout)
    assert small["text"] == plain["text"] == wanted["text"]
    assert small["experts"]["budget_bytes"] == 2 << 20
    assert wanted["experts"]["slots"] and plain["experts"]["slots"] is None


@pytest.mark.parametrize("size", ["5m", "5GB", "lots", "-1", "1.5", "0", "9999999G"])
def test_a_memory_for_experts_that_is_no_size_is_a_usage_error(bundle: str, size: str) -> None:
    result = run(bundle, "?", "--expert-memory", size)
    assert result.exit_code == 2
    assert f"Invalid value for '--expert-memory': '{size}' is" in result.stderr


def test_too_little_memory_for_experts_is_refused_with_the_least(bundle: str) -> None:
    with pytest.raises(
        ConfigError, match=r"The memory for experts is too small: .* Give at least \dM with --expert-memory"
    ):
        run(bundle, "?", "--expert-memory", "1k")


@pytest.mark.parametrize("as_file", [True, False])
def test_a_schema_comes_inline_or_from_a_file(bundle: str, tmp_path: Path, as_file: bool) -> None:
    schema = json.dumps(SCHEMA)
    if as_file:
        (tmp_path / "schema.json").write_text(schema)
        schema = str(tmp_path / "schema.json")
    answer = json.loads(run(bundle, "On?", "--json-schema", schema, "--json").stdout)
    jsonschema.validate(answer["data"], SCHEMA)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ("{", "is not valid JSON"),
        ("missing.json", "'missing.json' cannot be read: No such file"),
    ],
)
def test_a_schema_that_cannot_be_read_is_a_usage_error(bundle: str, schema: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        run(bundle, "?", "--json-schema", schema)


def test_reasoning_goes_to_standard_error(bundle: str) -> None:
    arguments = (bundle, "?", "--thinking", "--thinking-budget", "6", "--max-tokens", "20")
    answer = json.loads(run(*arguments, "--json").stdout)
    assert answer["reasoning"]
    shown = run(*arguments)
    assert answer["reasoning"] in shown.stderr
    assert shown.stdout.strip() == answer["text"].strip()


def test_sampling_options_need_sample(bundle: str) -> None:
    with pytest.raises(ConfigError, match=r"--temperature, --top-k changes how tokens are drawn and needs --sample"):
        run(bundle, "?", "--temperature", "0.5", "--top-k", "3")
    assert run(bundle, "?", "--sample", "--temperature", "0.5", "--seed", "3", "--max-tokens", "4").exit_code == 0


@pytest.fixture
def no_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, opening a model's weights fails the test."""

    def load(*_: object, **__: object) -> None:
        raise AssertionError("weights are loaded")

    for name in ("open_experts", "open_dense", "open_hot_set"):
        monkeypatch.setattr(engine, name, load)


@pytest.mark.usefixtures("no_loading")
@pytest.mark.parametrize("question", ["", " \n\t"])
def test_an_empty_question_is_refused_without_a_bundle(question: str) -> None:
    with pytest.raises(ConfigError, match=r"^The question is empty"):
        run("no-bundle", question)


@pytest.mark.usefixtures("no_loading")
def test_a_schema_that_cannot_be_followed_is_refused_without_a_bundle() -> None:
    with pytest.raises(ConfigError, match=r"^The JSON schema cannot be used: Invalid type: nothing") as caught:
        run("no-bundle", "?", "--json-schema", '{"type": "nothing"}')
    assert caught.value.key == "request.schema_invalid"


@pytest.mark.usefixtures("no_loading")
@pytest.mark.parametrize(
    ("option", "value"),
    [("--temperature", "0"), ("--temperature", "nan"), ("--temperature", "inf"), ("--top-p", "1.1"), ("--top-k", "-1")],
)
def test_a_sampling_value_out_of_range_is_a_usage_error(option: str, value: str) -> None:
    result = run("no-bundle", "?", "--sample", option, value)
    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in result.stderr


@pytest.mark.usefixtures("no_loading")
def test_what_the_model_cannot_answer_is_refused_together_before_it_is_loaded(bundle: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        run(bundle, "a<|im_end|>", "--system", "b<|image_pad|>")
    assert caught.value.key == "request.control_token"
    assert "The question contains <|im_end|>, " in str(caught.value)
    assert "The system prompt contains <|image_pad|>, " in str(caught.value)
    with pytest.raises(ConfigError, match=r"^The prompt has [\d,]+ tokens and the answer may have 9,999; together"):
        run(bundle, "?", "--max-tokens", "9999")
    Image.new("RGB", (2010, 10)).save(tmp_path / "thin.png")
    with pytest.raises(ConfigError, match=r"^An image is 2010×10 pixels: one side is 201 times the other"):
        run(bundle, "?", "--image", str(tmp_path / "thin.png"))


def test_the_tokens_of_a_picture_count_before_the_model_is_loaded(bundle: str, picture: str) -> None:
    def prompt_of(*more: str) -> int:
        return int(json.loads(run(bundle, "?", "--max-tokens", "1", "--json", *more).stdout)["prompt_tokens"])

    whole = prompt_of("--image", picture)
    assert prompt_of("--image", picture, "--max-context", str(whole + 1)) == whole > prompt_of() + 12
    with pytest.raises(ConfigError, match=f"^The prompt has {whole} tokens"):
        run(bundle, "?", "--image", picture, "--max-tokens", "1", "--max-context", str(whole))


def test_a_broken_picture_is_named(bundle: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(b"\xff\xd8 no picture")
    with pytest.raises(CameraError, match=r"'.*x\.jpg' is not an image that can be read: its format is unknown"):
        run(bundle, "?", "--image", str(path))


def test_damage_is_found_at_start_or_when_it_is_read(bundle: str, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    flip(copy / "experts.bin")
    with pytest.raises(BundleError, match=r"SHA-256 differs from the manifest for 'experts\.bin'"):
        run(str(copy), "?", "--verify")
    with pytest.raises(BundleError, match=r"CRC-32C"):
        run(str(copy), "?")
    flip(copy / "experts.bin")
    assert run(str(copy), "?", "--max-tokens", "1").exit_code == 0
    flip(copy / "tokenizer.json", -2)
    with pytest.raises(BundleError, match=r"SHA-256 differs from the manifest for 'tokenizer\.json'"):
        run(str(copy), "?")
    with pytest.raises(BundleError, match="is not a tokenizer that can be read"):
        run(str(copy), "?", "--no-verify")


def flip(path: Path, position: int = 5) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_bytes_that_are_no_text_are_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "moedge_runtime", "ask", str(tmp_path)]
    for extra, message in (
        ([b"\xff"], "The question '\\udcff' is not text: it holds bytes that are no UTF-8. Give whole characters."),
        (
            ["?", "--json-schema", '{"const": "\\ud800"}'],
            "--json-schema is not valid JSON: the text '\\ud800' holds half a character, a lone surrogate.",
        ),
        (["?", "--json-schema", '{"const": 1e400}'], "--json-schema is not valid JSON: inf is no JSON number."),
        (["?", "--json-schema", "[" * 9999], "cannot be read: File name too long"),
        (
            ["?", "--json-schema", '{"a":' * 9999],
            "--json-schema is not valid JSON: it is nested deeper than 64 levels.",
        ),
    ):
        result = subprocess.run([*arguments, *extra], capture_output=True, text=True, check=False)
        assert result.returncode in (1, 2)
        assert result.stderr.startswith("moedge: ") and message in result.stderr


def test_errors_are_sentences_with_an_exit_code(bundle: str, tmp_path: Path) -> None:
    def moedge(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "moedge_runtime", "ask", *arguments], capture_output=True, text=True, check=False
        )

    missing = moedge(str(tmp_path / "none"), "?")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr.startswith("moedge: '") and "is no moedge bundle" in missing.stderr
    usage = moedge(bundle, "?", "--provider", "cuda")
    assert usage.returncode == 2 and "Available: cpu." in usage.stderr


def test_nothing_of_export_or_training_is_imported(bundle: str, picture: str) -> None:
    program = f"""
import sys
from moedge_runtime.cli.main import moedge
arguments = ["ask", {bundle!r}, "?", "--image", {picture!r}, "--max-tokens", "3", "--json-schema", '{{"type": "null"}}']
moedge.main(arguments, standalone_mode=False)
heavy = {{"torch", "transformers", "onnx", "optimum", "onnx_ir", "safetensors", "huggingface_hub", "scipy", "pandas"}}
print(sorted(heavy & {{name.partition(".")[0] for name in sys.modules}}))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_help_needs_no_onnxruntime() -> None:
    program = """
import sys
from moedge_runtime.cli.main import moedge
try:
    moedge.main(["ask", "--help"])
except SystemExit:
    print([name for name in ("onnxruntime", "numpy", "tokenizers", "PIL") if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_ctrl_c_ends_the_answer_and_keeps_what_was_said(bundle: str) -> None:
    command = [sys.executable, "-u", "-m", "moedge_runtime", "ask", bundle, "Go on.", "--max-tokens", "1900"]
    schema = json.dumps({"type": "string", "minLength": 1800})
    with subprocess.Popen(
        [*command, "--json-schema", schema], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        first = os.read(process.stdout.fileno(), 1)
        process.send_signal(signal.SIGINT)
        rest, log = process.communicate(timeout=60)
    assert first == b'"'
    assert process.returncode == 130
    assert b"(cancelled)" in log
    assert rest.endswith(b"\n")
