# Usage Fetcher. `make run` to see it work, `make test` to prove it; CC=clang, SAN=1 (ASan, UBSan) and BUILD=DIR vary a build.
BUILD   ?= $(if $(SAN),build/san,$(if $(CRASH),build/crash,build))
CC      ?= gcc
CSTD    := -std=c17 -D_GNU_SOURCE
WARN    := -Wall -Wextra -Werror -Wshadow -Wconversion -Wformat=2 -Wcast-qual -Wwrite-strings \
           -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wundef
,       := ,
OPT     := -O2 -g -fno-omit-frame-pointer -fstack-protector-strong \
           $(if $(SAN)$(FUZZ),-fsanitize=address$(,)undefined -fno-sanitize-recover=all,-D_FORTIFY_SOURCE=2) \
           $(if $(FUZZ),-fsanitize=fuzzer-no-link)
PKGS    := libzmq libcurl msgpack libpq openssl libxxhash libuv
PKG      = $(shell pkg-config $(1) $(PKGS))
TESTPKG  = $(shell pkg-config $(1) cmocka jansson libmicrohttpd)
CFLAGS   = $(CSTD) $(WARN) $(OPT) $(if $(CRASH),-DUF_CRASH_POINTS) -I. -I$(BUILD) -MMD -MP $(call PKG,--cflags)
LDFLAGS  = $(OPT) -Wl,--as-needed -Wl,-z,relro -Wl,-z,now
LIBS     = $(call PKG,--libs) -lm

STAGES  := scheduler fetcher normalizer writer gateway
BINS    := $(STAGES:%=$(BUILD)/bin/uf-%) $(BUILD)/bin/usagectl
COMMON  := $(wildcard common/*.c common/providers/*.c)
TESTS   := $(patsubst tests/%.c,%,$(wildcard tests/test_*.c))
SIM     := $(BUILD)/tests/uf-sim
NEXT    := $(patsubst %,$(BUILD)/next/uf-%,scheduler fetcher normalizer writer)
THIRD   := $(patsubst %,$(BUILD)/third/%,uf-scheduler uf-fetcher uf-normalizer uf-writer uf-gateway usagectl)
SOURCES  = $(shell git ls-files '*.c' '*.h')
READ_BY := $(sort $(wildcard common/*.[ch] common/providers/*.[ch] normalizer/*.[ch] writer/*.[ch]))
READING  = -DREADING_ID='"$(shell cat $(READ_BY) | sha256sum | cut -c1-32)"'
obj      = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))

all: $(BINS)
$(BUILD)/libuf.a: $(call obj,$(COMMON)); @rm -f $@; ar rcs $@ $^
$(BUILD)/obj/common/reading.o: $(READ_BY)
$(BUILD)/obj/common/reading.o: CFLAGS += $(READING)
$(BUILD)/obj/%.o: %.c | deps; @mkdir -p $(@D); $(CC) $(CFLAGS) -c $< -o $@
$(BUILD)/assets.c: gateway/web/assets $(shell deploy/embed-assets --files) deploy/embed-assets
	@mkdir -p $(@D); deploy/embed-assets $(abspath $(BUILD)) >$@.new && mv $@.new $@
$(BUILD)/obj/assets.o: $(BUILD)/assets.c; @mkdir -p $(@D); $(CC) $(CFLAGS) -c $< -o $@
.SECONDEXPANSION:
$(BUILD)/bin/uf-gateway $(BUILD)/third/uf-gateway: $(BUILD)/obj/assets.o
$(BUILD)/bin/uf-gateway $(BUILD)/third/uf-gateway: LIBS += $(shell pkg-config --libs libmicrohttpd)
$(STAGES:%=$(BUILD)/bin/uf-%): $(BUILD)/bin/uf-%: $$(call obj,$$(wildcard $$*/*.c)) $(BUILD)/libuf.a
	@mkdir -p $(@D); $(CC) $(LDFLAGS) $^ $(LIBS) -o $@
$(BUILD)/obj/tests/wire_next.o: common/wire.c | deps; @mkdir -p $(@D); $(CC) $(CFLAGS) -DWIRE_VERSION=99 -c $< -o $@
$(BUILD)/obj/tests/reading_next.o: common/reading.c | deps; @mkdir -p $(@D); $(CC) $(CFLAGS) -DREADING_ID='"next"' -c $< -o $@
$(NEXT): $(BUILD)/next/uf-%: $(BUILD)/obj/tests/wire_next.o $(BUILD)/obj/tests/reading_next.o $$(call obj,$$(wildcard $$*/*.c)) $(BUILD)/libuf.a
	@mkdir -p $(@D); $(CC) $(LDFLAGS) $^ $(LIBS) -o $@
$(THIRD): $(BUILD)/third/%: $(call obj,tests/fakes/acme_list.c tests/fakes/acme_provider.c) $$(call obj,$$(wildcard $$(subst usagectl,cli,$$(subst uf-,,$$*))/*.c)) $(BUILD)/obj/migrations.o $(BUILD)/libuf.a
	@mkdir -p $(@D); $(CC) $(LDFLAGS) $^ $(LIBS) -o $@
$(BUILD)/bin/usagectl: $(call obj,$(wildcard cli/*.c)) $(BUILD)/obj/migrations.o $(BUILD)/libuf.a
	@mkdir -p $(@D); $(CC) $(LDFLAGS) $^ $(LIBS) -o $@
$(BUILD)/migrations.c: $(wildcard db/*.sql) deploy/embed-sql; @mkdir -p $(@D); deploy/embed-sql db/*.sql >$@
$(BUILD)/obj/migrations.o: $(BUILD)/migrations.c; @mkdir -p $(@D); $(CC) $(CFLAGS) -c $< -o $@
$(BUILD)/tests/test_%: $(BUILD)/obj/tests/test_%.o $$(call obj,$$(wildcard normalizer/*.c writer/*.c fetcher/*.c scheduler/*.c gateway/*.c cli/*.c)) $(BUILD)/obj/migrations.o $(BUILD)/obj/assets.o $(BUILD)/libuf.a
	@mkdir -p $(@D); $(CC) $(LDFLAGS) $(filter-out %/main.o,$^) $(LIBS) $(call TESTPKG,--libs) -o $@
$(BUILD)/tests/test_third_provider: $(BUILD)/obj/tests/fakes/acme_provider.o
$(BUILD)/fuzz/fuzz_pulse: $(call obj,gateway/stages.c gateway/metrics.c)
$(BUILD)/fuzz/fuzz_json: $(call obj,tests/fakes/yajl_tree.c)
$(BUILD)/fuzz/fuzz_json: LIBS += -lyajl
$(BUILD)/fuzz/fuzz_control: WRAP := -Wl,--wrap=pg_begin
$(BUILD)/fuzz/fuzz_%: $(BUILD)/obj/tests/fuzz/fuzz_%.o $$(call obj,$$(wildcard scheduler/*.c cli/*.c)) $(BUILD)/obj/migrations.o $(BUILD)/libuf.a
	@mkdir -p $(@D); $(CC) $(LDFLAGS) $(WRAP) -fsanitize=fuzzer $(filter-out %/main.o,$^) $(LIBS) -o $@
$(SIM): $(call obj,$(wildcard tests/sim/*.c)); @mkdir -p $(@D); $(CC) $(LDFLAGS) $^ $(call TESTPKG,--libs) -lz -lpthread -o $@

deps: ; @deploy/install-deps $(DEPS)
test-deps: ; @deploy/install-deps --tests
run: all $(SIM); @deploy/run
test: test-deps ; @tests/run-all            # unit under sanitizers, end to end, conformance; last line: N passed, N failed
check: test-deps ; @tests/run-unit          # seconds, no network
next: $(NEXT)   # the stages with another version of the messages, to test upgrades with
third: $(THIRD) # the programs with the provider of docs/adding-a-provider.md, which does not exist
e2e: test-deps all next third $(SIM); @/usr/bin/python3 tests/e2e/run.py
torture: test-deps ; @tests/torture/run.py   # dies at every CRASH_POINT once; --short is in `make test`
chaos: test-deps all $(SIM); @/usr/bin/python3 tests/chaos/run.py   # ten minutes in which everything goes wrong at random
stack: ; @/usr/bin/python3 tests/stack/run.py # the compose stack in a Docker engine of its own; needs root, takes minutes
conformance: test-deps all $(SIM); @tests/conformance/run
kubernetes: test-deps all ; @tests/kubernetes/run   # deploy/kubernetes, as far as can be said without a cluster
web: test-deps all $(SIM); @tests/web/run.py   # the dashboard in Debian's chromium
bench: test-deps all $(SIM); @tests/bench/run
bench-quick: test-deps all $(SIM); @tests/bench/run --quick   # under two minutes; numbers, no verdict
fuzz: test-deps ; @tests/fuzz/run $(or $(SECONDS),60)   # every decoder, that long each
model: test-deps ; @docs/model/run                     # the life of a job, model-checked
man: all ; @deploy/man-pages $(BUILD) $(BUILD)/man     # and the settings file of an installation
install: man    # below DESTDIR; deploy/systemd/ runs it
	install -D -t $(DESTDIR)/usr/sbin $(STAGES:%=$(BUILD)/bin/uf-%)
	install -D -t $(DESTDIR)/usr/libexec/usage-fetcher $(BUILD)/bin/usagectl deploy/systemd/make-secrets
	install -D -t $(DESTDIR)/usr/bin deploy/systemd/usagectl
	install -D -m 644 -t $(DESTDIR)/lib/systemd/system deploy/systemd/*.service deploy/systemd/*.target
	install -D -m 644 -t $(DESTDIR)/usr/share/doc/usage-fetcher/examples deploy/systemd/examples/*
	install -D -m 644 $(BUILD)/man/usage-fetcher.env $(DESTDIR)/etc/usage-fetcher/usage-fetcher.env
	for s in 1 7 8; do install -D -m 644 -t $(DESTDIR)/usr/share/man/man$$s $(BUILD)/man/*.$$s || exit; done
deb-test: test-deps all $(SIM); @/usr/bin/python3 tests/deb/run.py # installed in a clean system that boots; needs root
deb: all ; @deploy/install-deps --package && deploy/make-deb $(BUILD)  # the Debian package
docs/config.md: $(BUILD)/bin/usagectl; $< config-markdown >$@
format: test-deps ; @clang-format -i $(SOURCES)
tidy: test-deps ; @for f in $$(git ls-files '*.c'); do clang-tidy --quiet $$f -- $(CSTD) -I. $(call PKG,--cflags) 2>/dev/null || exit 1; done
clean: ; rm -rf build
.PHONY: all next third deps test-deps run test check e2e torture chaos stack conformance kubernetes web bench bench-quick fuzz model man install deb deb-test format tidy clean
-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)
