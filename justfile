# Every habit in one line. Arguments go through unharmed, quotes, spaces and `$` included: recipes
# read them as "$@" instead of having them pasted into the command.
set positional-arguments

# List the recipes.
default:
    @just --list --unsorted

# Build, push, deploy, wait until it is healthy, print the URL.
deploy *FLAGS:
    @cargo xtask deploy "$@"

# Build the packages that the image ships, and nothing else.
build-all *FLAGS:
    @cargo xtask build-all "$@"

# Return to an older release.
rollback *FLAGS:
    @cargo xtask rollback "$@"

# Let the deployment that is being watched go on to its next step.
promote *FLAGS:
    @cargo xtask promote "$@"

# Undo the deployment that is being made now.
abort *FLAGS:
    @cargo xtask abort "$@"

# List what was deployed.
history *FLAGS:
    @cargo xtask history "$@"

# Show what serves now.
status *FLAGS:
    @cargo xtask status "$@"

# Show the application's log.
logs *FLAGS:
    @cargo xtask logs "$@"

# What the application is told and nobody else: set, list, remove.
secrets *FLAGS:
    @cargo xtask secrets "$@"

# The platform on this machine: up, down, status, reset.
local *FLAGS:
    @cargo xtask local "$@"

# Pin the base images; `just lock --update` looks for newer ones.
lock *FLAGS:
    @cargo xtask lock "$@"

# Look at everything that a deployment needs.
doctor *FLAGS:
    @cargo xtask doctor "$@"

# The configuration: show, schema.
config *FLAGS:
    @cargo xtask config "$@"

# Keep a token for a Management API, read from standard input.
login *FLAGS:
    @cargo xtask login "$@"

# Run the tests; `just test --setup` installs what they need.
test *FLAGS:
    @cargo xtask test "$@"

# The inner loop: formatting, lints, unit tests. Under a minute once built.
check: fmt-check clippy
    @cargo xtask test --unit

# Format everything.
fmt:
    cargo fmt --all

# Complain about formatting.
fmt-check:
    cargo fmt --all --check

# Lint everything.
clippy *FLAGS:
    cargo clippy --workspace --all-targets "$@" -- -D warnings

# The documentation, with warnings as errors.
doc *FLAGS:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps "$@"

# What CI's first job runs: formatting, lints, documentation.
lint:
    @.ci/run lint

# Feed readers that face the outside with mutations of real input, each for FUZZ_SECONDS (default 60).
fuzz *FLAGS:
    FUZZ_SECONDS="${FUZZ_SECONDS:-60}" cargo test -p oci -p deploy-image -p engines fuzz_ "$@"

# How long it takes to make an image and push it, beside docker, buildah and skopeo; writes docs/benchmarks.md.
bench-image *FLAGS:
    @docs/tools/bench-image "$@"

# How long an aramb.toml of many services takes; writes docs/benchmarks-aramb.md.
bench-aramb *FLAGS:
    @docs/tools/bench-aramb "$@"

# The platform: its proxy beside nginx, deployments under load, a thousand tenants; writes docs/benchmarks-platform.md.
bench-platform *FLAGS:
    @docs/tools/bench-platform "$@"

# All that CI runs.
ci:
    @.ci/run

# Licences, bans and sources of the dependencies (`cargo install cargo-deny --locked`).
deny *FLAGS:
    cargo deny check bans licenses sources "$@"

# Dependencies that nothing uses (`cargo install cargo-machete --locked`).
unused *FLAGS:
    cargo machete "$@"
