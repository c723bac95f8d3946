# Everything runs in .venv, which these targets make. Needs Python 3.11 or newer and make.
PYTHON ?= python3
# Pinned: a range would let an installer take a newer build with gigabytes of GPU libraries that a CPU does not use.
TORCH ?= torch==2.13.0
BIN := .venv/bin
# Test files that run at a time: as many as keep two processors busy. Each more starts a stack and imports torch once more.
JOBS ?= 5
# Bytecode is kept, whatever the caller's shell says: the tests start some hundred processes of the same sources.
unexport PYTHONDONTWRITEBYTECODE
# Pages that publish client samples; the tests run those they find there.
export DARKROOM_REFERENCE_PAGES ?= $(wildcard ../shared/reference)

.PHONY: help demo up test check format bench-overhead bench-subscribers bench-connections bench-losses bench-fleet bench-growth bench-flood bench-scaling bench-replicas bench-plans bench-gpu bench-gpu-carry bench-gpu-rehearsal test-ceph test-gpu fuzz page-pictures lock pin-images sbom wheels soak soak-failover soak-upgrade clean

help:  ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 22

demo: .venv/.embedded  ## set up, edit a photograph through the whole service, stop
	$(BIN)/python -m infra.demo

up: .venv/.embedded  ## set up, start the service on this machine, run until Ctrl-C
	$(BIN)/python -m infra.up

test: check  ## set up, check, run the tests, a few side by side
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

check: .venv/.dev  ## format, lint, types, import contracts, known faults of what is installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/python -m infra.audit

format: .venv/.dev  ## rewrite what can be rewritten
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench-overhead: .venv/.dev  ## what the service adds to the pipeline's own time
	$(BIN)/python -m bench.overhead

bench-subscribers: .venv/.dev  ## how late events reach a thousand subscribers
	$(BIN)/python -m bench.subscribers

bench-connections: .venv/.dev  ## what a client notices of ten thousand idle connections and slow senders
	$(BIN)/python -m bench.connections

bench-losses: .venv/.dev  ## what the naive service loses under the same faults
	$(BIN)/python -m bench.losses

bench-fleet: .venv/.dev  ## how work is given out over GPU types, models and tenants, and how good estimates are
	$(BIN)/python -m bench.fleet

bench-growth: .venv/.dev  ## what a million finished generations and a tenant that floods cost the others
	$(BIN)/python -m bench.growth

bench-flood: .venv/.dev  ## what one key that sends as fast as it can does to the store and to others
	$(BIN)/python -m bench.flood --seconds $(or $(SECONDS),60)

bench-scaling: .venv/.dev  ## a day in minutes, by workers that the chart's rules scale and by a fixed fleet; needs prometheus
	$(BIN)/python -m bench.scaling

bench-replicas: .venv/.dev  ## what a replica that is waited for adds to accepting an edit
	$(BIN)/python -m bench.replicas

bench-plans: .venv/.dev  ## the memory table of MODEL, counted from its architecture
	$(BIN)/python -m bench.plans $(or $(MODEL),flux-kontext-dev)

bench-gpu: .venv/.dev  ## on a CUDA GPU, in eight minutes: steps, edits, peaks, cold start, idle time, beside plain diffusers
	$(BIN)/python -m bench.gpu $(if $(OUT),--out $(OUT))

bench-gpu-carry: .venv/.dev  ## the wheels for a GPU machine without network, and the line that installs them there
	$(BIN)/python -m bench.gpu.carry

bench-gpu-rehearsal: .venv/.dev  ## all of bench-gpu with shrunk models on a CPU, before a GPU is at hand
	REHEARSE_BENCH_GPU=1 $(BIN)/python -m pytest tests/unit/test_bench_gpu.py

test-ceph: .venv/.dev  ## the tests that store pictures, with Ceph's Object Gateway as S3 server; needs Debian's ceph-mon, ceph-osd, ceph-common, radosgw
	$(BIN)/python -m tests.ceph $(BIN)/python -m pytest -n 2 --dist loadfile tests/service tests/dialects tests/stores

test-gpu: .venv/.dev  ## on a CUDA GPU: the tests that need one
	$(BIN)/python -m pytest tests/gpu

soak: .venv/.dev  ## break the service for SECONDS (default 1200) and check every promise
	$(BIN)/python -m tests.faults.oracle --seconds $(or $(SECONDS),1200) --pause 2.5

soak-failover: .venv/.dev  ## kill and freeze the primary of three Valkey servers FAULTS (default 20) times under load
	$(BIN)/python -m tests.faults.failover --faults $(or $(FAULTS),20)

soak-upgrade: .venv/.dev  ## upgrade from the commit SINCE under load, go back, and upgrade again
	$(BIN)/python -m tests.faults.upgrade --since $(SINCE)

fuzz: .venv/.dev  ## requests made up from the OpenAPI document, SECONDS (default 120) for each of two tenants
	$(INSTALL) 'schemathesis>=4.28,<5'
	$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),120)

page-pictures: .venv/.dev  ## pictures of the page for the documentation
	$(BIN)/python -m tests.page.pictures

lock: $(BIN)/python  ## the exact versions that the images install, from pyproject.toml
	$(INSTALL) uv
	for extra in api housekeeping gpu; do PIP_FIND_LINKS= $(BIN)/uv pip compile --quiet --no-config pyproject.toml --extra $$extra \
		--python-version 3.12 --python-platform x86_64-manylinux_2_28 --generate-hashes --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links --output-file infra/locks/$$extra.txt; done

pin-images: .venv/.dev  ## image bases by the digests that their tags have now; needs docker
	$(BIN)/python -m infra.pin_images

wheels: $(BIN)/python  ## the server's and the client's wheel, in dist/
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist . ./client
	rm -rf build client/build

sbom: $(BIN)/python  ## what each image is made of, as CycloneDX, in dist/
	$(INSTALL) 'cyclonedx-bom>=7,<8'
	mkdir -p dist
	for lock in infra/locks/*.txt; do $(BIN)/cyclonedx-py requirements $$lock --pyproject pyproject.toml \
		--output-reproducible --output-file dist/sbom-$$(basename $$lock .txt).json; done

clean:  ## remove what these targets made
	rm -rf .venv .data out

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# uv takes a third of pip's time for what is left after torch. It does not read pip's settings, so where it fails pip is tried.
define install
	$(INSTALL) $(TORCH)
	{ $(INSTALL) uv && $(BIN)/uv pip install --quiet --python $(BIN)/python $(TORCH) $(1); } || $(INSTALL) $(TORCH) $(1)
endef

.venv/.embedded: pyproject.toml client/pyproject.toml | $(BIN)/python
	$(call install,-e ./client -e '.[embedded]')
	touch $@

.venv/.dev: pyproject.toml client/pyproject.toml | $(BIN)/python
	$(call install,-e ./client -e '.[dev]')
	touch .venv/.embedded $@
