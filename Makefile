# Every target sets up the virtual environment it needs by itself.
PYTHON ?= python3
VENV ?= .venv
# The torch of the workstation side. On Linux x86-64 a plain `torch` brings CUDA packages of several gigabytes.
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
CORE_BUILD := hatch_build.py $(wildcard $(foreach core,runtime/core export/core,$(addprefix $(core)/,CMakeLists.txt cmake/* include/* src/*)))
# What a wheel holds or is made with.
WHEEL_FILES := hatch_build.py pyproject.toml README.md LICENSE $(shell find export/moedge_export export/optimum export/core \
  runtime/moedge_runtime runtime/core devices/moedge_devices devices/calibration.yaml devices/image devices/models devices/profiles \
  -type f -not -name '*.so' -not -path '*/__pycache__/*' -not -path '*/core/tests/*' | sort)
CORE_CODE = $(shell find runtime/core export/core -name '*.cpp' -o -name '*.hpp' -o -name '*.h')

# Test files that run at the same time; most of them wait most of the time. 0 for one process.
WORKERS ?= 2

.PHONY: FORCE help demo test check format screenshots bench bench-core bench-peers bench-full bench-plan bench-fleet soak fuzz quality wheels test-wheels deb test-deb test-docker test-image test-home-assistant lock-deb clean

help: ## show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

# Builds the native libraries too.
$(VENV)/.installed: pyproject.toml $(CORE_BUILD)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/pip install --quiet '$(TORCH)'
	$(BIN)/pip install --quiet --editable '.[camera,broker,update,export]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --group dev
	touch $@

$(VENV)/.installed-bench: $(VENV)/.installed
	$(BIN)/pip install --quiet --group bench
	touch $@

$(VENV)/.installed-fuzz: $(VENV)/.installed-dev
	$(BIN)/pip install --quiet --group fuzz
	touch $@

# The typefaces of the held-out questions.
$(VENV)/.installed-fonts: $(VENV)/.installed examples/panel/requirements-train.txt
	$(BIN)/pip install --quiet --requirement examples/panel/requirements-train.txt
	touch $@

$(VENV)-wheels/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)-wheels
	$(VENV)-wheels/bin/pip install --quiet --upgrade 'pip>=25.1'
	$(VENV)-wheels/bin/pip install --quiet --group wheels
	touch $@

demo: $(VENV)/.installed ## export the demo model, run the daemon on a video, check its answers
	PYTHONPATH=examples/panel $(BIN)/python -m moedge_panel.demo --out out/demo

test: $(VENV)/.installed-dev ## run all tests
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

check: $(VENV)/.installed-dev ## formatting, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/clang-format --dry-run -Werror $(CORE_CODE)
	$(BIN)/hadolint docker/*.Dockerfile
	$(BIN)/mypy
	PYTHONPATH=export:runtime:devices $(BIN)/lint-imports

format: $(VENV)/.installed-dev ## format the code and sort imports
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/clang-format -i $(CORE_CODE)

screenshots: demo $(VENV)/.installed-dev ## docs/images/web*.png anew: the local page on the demo, in Chromium
	PYTHONPATH=tests $(BIN)/python -m runtime.daemon.make_screenshots out/demo/panel-int4

bench: demo ## size of the runtime-only environment and idle memory of the daemon
	$(BIN)/python benchmarks/runtime_footprint.py

bench-core: $(VENV)/.installed ## the expert core beside QMoE, memory and flash: 18 GB of records, minutes, root
	PYTHONPATH=benchmarks $(BIN)/python -m expert_core out/bench-core

# Of bench-full: tokenizer.json of Qwen3-VL, where the peers are, and for trials ONLY=part,part LAYERS=2 ROUNDS=1 FRAMES=20.
TOKENIZER ?= out/tokenizer.json
PEERS ?= out/peers

bench-peers: ## build llama.cpp and BigMoeOnEdge for bench-full
	benchmarks/peers/install.sh $(PEERS)

bench-full: $(VENV)/.installed-bench ## moedge at full size beside its peers: 40 GB of disk, 24 GiB, an hour and more, root
	PYTHONPATH=benchmarks $(BIN)/python -m full_size out/bench-full --tokenizer $(TOKENIZER) --peers $(PEERS) \
	  $(if $(ONLY),--only $(ONLY)) $(if $(LAYERS),--layers $(LAYERS)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(FRAMES),--frames $(FRAMES))

# Of bench-plan: the bundle, and the budgets of memory.
BUDGETS ?= 4G,8G,20G

bench-plan: $(VENV)/.installed ## moedge plan beside moedge bench on this machine: BUNDLE=DIR, minutes for each of BUDGETS
	$(BIN)/python benchmarks/plan_accuracy.py $(BUNDLE) --budgets $(BUDGETS)

# Of bench-fleet, for a shorter one: MINUTES=2.
MINUTES ?= 15

bench-fleet: $(VENV)/.installed-dev ## check and render 5,000 devices; 500 simulated devices on one mosquitto, 15 minutes
	PYTHONPATH=benchmarks:tests $(BIN)/python -m fleet --minutes $(MINUTES)

# Of soak and fuzz, for shorter ones: SOAK_MINUTES=5, FUZZ_SECONDS=30.
SOAK_MINUTES ?= 60
FUZZ_SECONDS ?= 300
SOAK := PYTHONPATH=benchmarks:tests $(BIN)/python

soak: $(VENV)/.installed-dev ## an hour of four cameras on the demo model, 300 reconnects, what an idle camera costs
	[ -d out/soak/panel-int4 ] || $(BIN)/moedge export examples/panel/checkpoint out/soak/panel-int4 --precision int4
	held=0; \
	$(SOAK) benchmarks/cameras/idle.py || held=1; \
	$(SOAK) benchmarks/cameras/reconnects.py || held=1; \
	$(SOAK) benchmarks/cameras/soak.py out/soak/panel-int4 --minutes $(SOAK_MINUTES) || held=1; \
	exit $$held

fuzz: $(VENV)/.installed-fuzz ## fuzz configuration, requests, pictures and RTSP, guided by coverage, five minutes each
	for target in config request jpeg rtsp; do \
	  PYTHONPATH=tests $(BIN)/python -m fuzz $$target --seconds $(FUZZ_SECONDS) || exit 1; done

quality: $(VENV)/.installed-dev $(VENV)/.installed-fonts ## exact answers of the demo model by precision, for docs/quality.md
	PYTHONPATH=examples/panel $(BIN)/python benchmarks/panel_quality.py

wheels: dist/.wheels ## wheels for x86-64 and 64-bit ARM boards, in dist/

# Changes when a file comes or goes: one that is gone has no date that make could compare.
build/wheel-files: FORCE
	@mkdir -p build
	@echo '$(WHEEL_FILES)' | cmp --silent - $@ || echo '$(WHEEL_FILES)' >$@

dist/.wheels: build/wheel-files $(WHEEL_FILES) | $(VENV)-wheels/.installed
	rm -rf build/wheels dist/moedge-*.whl $@
	MOEDGE_WHEEL_ARCH=x86_64 $(VENV)-wheels/bin/pip wheel --quiet --no-deps --wheel-dir build/wheels .
	MOEDGE_WHEEL_ARCH=aarch64 $(VENV)-wheels/bin/pip wheel --quiet --no-deps --wheel-dir build/wheels .
	PATH="$(abspath $(VENV)-wheels/bin):$$PATH" auditwheel repair --wheel-dir dist build/wheels/*.whl
	touch $@

test-wheels: $(VENV)/.installed-dev wheels ## install both, the ARM one in an arm64 userland in qemu, and test them there
	MOEDGE_WHEELS=dist $(BIN)/python -m pytest tests/wheels

deb: wheels ## Debian packages for amd64 and arm64, in dist/; RELEASE=ubuntu22.04 for JetPack 6
	rm -f dist/moedge_*.deb
	devices/debian/build-package $(VENV)-wheels/bin/pip amd64 $(RELEASE)
	devices/debian/build-package $(VENV)-wheels/bin/pip arm64 $(RELEASE)

test-deb: $(VENV)/.installed-dev deb ## install, use, upgrade and purge the package in a Debian chroot, arm64 in qemu; root
	MOEDGE_DEB=dist $(BIN)/python -m pytest tests/debian

test-docker: $(VENV)/.installed-dev deb ## build the container images with buildah and run them, arm64 in qemu: minutes, root
	tests/docker/build-images $(VENV)-wheels/bin/pip >&2
	rm -f build/docker/figures.jsonl
	MOEDGE_DOCKER=build/docker tests/docker/in-network $(BIN)/python -m pytest tests/docker >&2; code=$$?; \
	  cat build/docker/figures.jsonl; exit $$code

lock-deb: $(VENV)-wheels/.installed ## choose anew which versions of Python libraries the packages hold
	$(VENV)-wheels/bin/pip install --quiet 'uv>=0.13,<1'
	for python in 3.10 3.11; do $(VENV)-wheels/bin/uv pip compile --quiet pyproject.toml --extra camera --extra broker --extra update --upgrade \
	  --generate-hashes --python-version $$python --python-platform aarch64-manylinux_2_28 --no-annotate --no-header \
	  --output-file devices/debian/requirements-$$python.txt || exit 1; done

# Of test-image: how often the power is cut during one update; ONLY=part,part of benchmarks/board_image/README.md.
CUTS ?= 10

test-image: $(VENV)/.installed-dev ## build an image, boot it in qemu, update it, cut its power: an hour and more, root; needs `make demo deb` before
	PYTHONPATH=benchmarks $(BIN)/python -m board_image out/image --package dist/moedge_*~deb12_arm64.deb \
	  --bundle out/demo/panel-int4 --cuts $(CUTS) $(if $(ONLY),--only $(ONLY))

# Of test-home-assistant: the newest release that this Python takes is installed; those from 2026.3 on want 3.14.
HASS_PYTHON ?= python3.13
HOME_ASSISTANT ?= homeassistant>=2025.4
HASS := $(VENV)-home-assistant/bin

# With what its integrations need, which it would else install while it starts.
$(VENV)-home-assistant/.installed: tests/home_assistant/requirements.py
	$(HASS_PYTHON) -m venv $(VENV)-home-assistant
	$(HASS)/pip install --quiet --upgrade 'pip>=25.1'
	$(HASS)/pip install --quiet '$(HOME_ASSISTANT)'
	$(HASS)/python tests/home_assistant/requirements.py mqtt sensor binary_sensor image update button switch >$(@D)/requirements.txt
	$(HASS)/pip install --quiet --requirement $(@D)/requirements.txt
	touch $@

test-home-assistant: $(VENV)/.installed-dev $(VENV)-home-assistant/.installed ## a real Home Assistant beside mosquitto and the daemon; needs Python 3.13 or newer
	$(HASS)/hass --version
	MOEDGE_HASS=$(HASS)/hass $(BIN)/python -m pytest tests/home_assistant

clean: ## remove what the other targets made
	rm -rf $(VENV) $(VENV)-wheels $(VENV)-home-assistant out build dist
