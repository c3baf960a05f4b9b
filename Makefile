# What one does with this repository. Each target is complete by itself: it sets up what is missing
# (scripts/setup: system libraries, .venv, the colcon workspace) and nothing twice.

SHELL := /bin/bash
.DEFAULT_GOAL := help
# What tools cache stays inside the clone, like all else.
export XDG_CACHE_HOME ?= $(CURDIR)/.cache

SEED ?= 0
STEPS ?=
OPERATOR ?= scripted
DETECTOR ?= false
ROBOT ?= $(if $(filter me,$(OPERATOR)),sim_person_vision,sim_vision)
ARGS ?=
IN_WORKSPACE = source scripts/env.bash &&
# Checked by mypy: everything that imports no generated messages, and the command line.
TYPED = $(wildcard src/rlif_*/rlif_*)

.PHONY: help setup build demo demo-vision demo-robot test test-fast test-browser lint docs clean

help:  ## this list
	@echo "make TARGET [VARIABLE=value]"
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  \1\t\2/p' Makefile | expand -t 18
	@for name in $(BENCHMARKS); do \
	    printf "  %s\t%s\n" "$$name" "$$(sed -nE '/^"""/{s/^"""//p;q}' benchmarks/bench_$${name#bench-}.py)"; \
	done | expand -t 18

setup:  ## install what is missing, build the workspace
	@scripts/setup

build:  ## build the workspace again
	@scripts/setup build

demo: setup  ## train and evaluate on the simulated arm: SEED=0 STEPS=…; OPERATOR=me: you take over
	@$(IN_WORKSPACE) exec rlif demo --operator $(OPERATOR) --seed $(SEED) $(if $(STEPS),--steps $(STEPS)) $(ARGS)

demo-vision: setup  ## from two cameras, the hole not in the state: ROBOT=sim_vision_gpu; DETECTOR=true: sees success itself
	@$(IN_WORKSPACE) exec rlif demo --images --operator $(OPERATOR) --seed $(SEED) --steps $(or $(STEPS),8000) \
	    --eval-every 1000 $(if $(filter true,$(DETECTOR)),--detector) $(ARGS) robot:=$(ROBOT)

demo-robot: setup  ## the same as a lab would: robot.launch.yaml, real time, cameras at 30 Hz, all limits
	@$(IN_WORKSPACE) exec rlif demo --real-time --seed $(SEED) --steps $(or $(STEPS),12000) $(ARGS)

test-browser: setup  ## the tests of the operator console in Chromium, which this installs
	@command -v chromium >/dev/null || apt-get install -y --no-install-recommends chromium
	@.venv/bin/python -m pip install -q --group browser
	@$(IN_WORKSPACE) exec python -m pytest -n 0 src/rlif_console $(ARGS)

lint: setup  ## ruff and mypy
	@$(IN_WORKSPACE) ruff check . && ruff format --check . && mypy $(TYPED)

test: setup lint  ## lint, then every test: ARGS="-k launch"
	@$(IN_WORKSPACE) exec python -m pytest $(ARGS)

test-fast: setup  ## the tests without DDS, processes and compilers: at each save
	@$(IN_WORKSPACE) exec python -m pytest -m "not ros and not slow" $(ARGS)

docs: setup  ## write docs/reference.md out of the code
	@$(IN_WORKSPACE) exec python docs/make_reference.py

clean:  ## remove the workspace's build output; .venv and runs/ stay
	rm -rf build install log

# One target for each script benchmarks/bench_NAME.py: bench-demo, bench-learner, …
BENCHMARKS := $(patsubst benchmarks/bench_%.py,bench-%,$(wildcard benchmarks/bench_*.py))
.PHONY: $(BENCHMARKS)
$(BENCHMARKS): bench-%: setup
	@$(IN_WORKSPACE) exec python benchmarks/bench_$*.py $(ARGS)
