# The two commands of the README are `make run` and `make test`; both set up and build what is missing.
PRESET ?= release
JOBS ?= $(shell nproc)
build := build/$(PRESET)

# What tries the deploy files on the engines that they are for.
deploy_tests := tests/deploy/slurm/slurm_test.py tests/deploy/container/container_test.py \
  tests/deploy/kubernetes/cluster_test.sh

.PHONY: run test test-deploy build setup lint format
run: build
	$(build)/bin/pompc train --preset quickstart $(ARGS)

test: build
	ctest --preset $(PRESET) -j $(JOBS) --no-tests=error

test-deploy: build
	@for t in $(deploy_tests); do echo "$$t"; POMPC_BUILD=$(CURDIR)/$(build) tests/in_own_folder.sh $$t || exit 1; done

build: setup
	@cmake --preset $(PRESET) > $(build).log 2>&1 || { cat $(build).log; exit 1; }
	cmake --build --preset $(PRESET) -j $(JOBS)

setup:
	@mkdir -p build
	@deploy/setup/setup.sh

lint:
	@deploy/setup/setup.sh --lint
	tests/lint.sh

format:
	git ls-files '*.h' '*.cc' | xargs clang-format-15 -i
